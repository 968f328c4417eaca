//! The `OTEL_*` environment: which variables count, and what is wrong with them.
//!
//! OpenTelemetry Specification: "OpenTelemetry Environment Variable Specification" and "OpenTelemetry Protocol
//! Exporter". Two things differ: a value that cannot be understood is refused like any other mistake in a
//! configuration, where the specification would have it passed over; and nothing is exported unless an endpoint is
//! named. An empty value counts as none, as specified.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::config::{Secret, Violation, Violations};

/// What is exported, and where to.
#[derive(Clone, Debug)]
pub struct OtlpConfig {
    /// Spans.
    pub traces: Option<Endpoint>,
    /// Metrics.
    pub metrics: Option<Endpoint>,
    /// Which changes are traced.
    pub sampling: Sampling,
    /// Pause between two exports of metrics.
    pub metrics_interval: Duration,
    /// `OTEL_SERVICE_NAME`, over what the process calls itself.
    pub service_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    pub resource: Vec<(String, String)>,
}

/// Where one signal goes.
#[derive(Clone)]
pub struct Endpoint {
    /// The whole URL that is posted to.
    pub url: Secret,
    /// Headers of every request. They hold credentials.
    pub headers: Vec<(String, Secret)>,
    /// How long a request may take.
    pub timeout: Duration,
    /// Whether bodies are compressed with gzip.
    pub gzip: bool,
    /// Certificates (PEM, all of them sound) that the server's is checked against, beside the system's.
    pub certificates: Option<Vec<u8>>,
}

/// Which changes are traced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// At most one a second of those that begin here; of those that began elsewhere, what was decided there.
    OnePerSecond,
    /// `always_on`, `always_off`, `traceidratio`: whatever was decided elsewhere.
    Share(f64),
    /// The same, of those that begin here; of those that began elsewhere, what was decided there.
    ParentBased(f64),
}

/// Neither the URL's path nor the headers are for logs: vendors put tokens into both.
impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        formatter
            .debug_struct("Endpoint")
            .field("host", &self.host())
            .field("headers", &names)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// What may be told of it: `https://collector:4318`.
    #[must_use]
    pub fn host(&self) -> String {
        let uri: Option<hyper::Uri> = self.url.expose().parse().ok();
        let told = uri.and_then(|uri| {
            Some(format!(
                "{}://{}:{}",
                uri.scheme_str()?,
                uri.host()?,
                uri.port_u16().or_else(|| default_port(&uri))?
            ))
        });
        told.unwrap_or_default()
    }
}

fn default_port(uri: &hyper::Uri) -> Option<u16> {
    match uri.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    }
}

/// Reads the environment: nothing where nothing is to be exported.
///
/// # Errors
/// Everything that is wrong with it. No values of headers or endpoints are named: they may hold secrets.
pub fn read(
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Option<OtlpConfig>, Vec<Violation>> {
    let variables = environment
        .into_iter()
        .filter(|(name, value)| name.starts_with("OTEL_") && !value.trim().is_empty())
        .map(|(name, value)| (name, value.trim().to_owned()))
        .collect();
    let environment = Environment { variables, violations: Violations::default() };
    let off = environment.flag("OTEL_SDK_DISABLED");
    let has_endpoint = ["", "TRACES_", "METRICS_"]
        .iter()
        .any(|signal| environment.get(&format!("OTEL_EXPORTER_OTLP_{signal}ENDPOINT")).is_some());
    let config = (has_endpoint && !off).then(|| environment.config());
    environment.violations.into_result(config.filter(OtlpConfig::exports))
}

impl OtlpConfig {
    fn exports(&self) -> bool {
        self.traces.is_some() || self.metrics.is_some()
    }
}

struct Environment {
    variables: BTreeMap<String, String>,
    violations: Violations,
}

impl Environment {
    fn config(&self) -> OtlpConfig {
        OtlpConfig {
            traces: self.endpoint("TRACES"),
            metrics: self.endpoint("METRICS"),
            sampling: self.sampling(),
            metrics_interval: self.duration("OTEL_METRIC_EXPORT_INTERVAL", 100..=3_600_000, 60_000),
            service_name: self.get("OTEL_SERVICE_NAME").map(str::to_owned),
            resource: self.pairs("OTEL_RESOURCE_ATTRIBUTES"),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The variable of a signal, or the one for all signals; and its name.
    fn of_signal(&self, signal: &str, suffix: &str) -> (String, Option<&str>) {
        let own = format!("OTEL_EXPORTER_OTLP_{signal}_{suffix}");
        let common = format!("OTEL_EXPORTER_OTLP_{suffix}");
        match (self.get(&own), self.get(&common)) {
            (Some(value), _) => (own, Some(value)),
            (None, value) => (common, value),
        }
    }

    fn endpoint(&self, signal: &str) -> Option<Endpoint> {
        let exporter = format!("OTEL_{signal}_EXPORTER");
        match self.get(&exporter) {
            None | Some("otlp") => {}
            Some("none") => return None,
            Some(other) => self.note(&exporter, format!("expected otlp or none, found {other:?}")),
        }
        let (name, url) = self.of_signal(signal, "ENDPOINT");
        let url = url?;
        let parsed: Option<hyper::Uri> = url.parse().ok();
        let is_http = |uri: &hyper::Uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        };
        let has_user =
            parsed.as_ref().and_then(hyper::Uri::authority).is_some_and(|of| of.as_str().contains('@'));
        if !parsed.as_ref().is_some_and(is_http) || has_user {
            self.note(&name, "expected http://HOST[:PORT][/PATH] or https://..., without a user");
        }
        // Of the URL for all signals the signal's path is part of what is posted to; of its own URL it is not.
        let is_own = name.contains(signal);
        let path = if is_own { String::new() } else { format!("/v1/{}", signal.to_ascii_lowercase()) };
        let url = if is_own { url } else { url.trim_end_matches('/') };
        let (protocol_name, protocol) = self.of_signal(signal, "PROTOCOL");
        if let Some(other) = protocol.filter(|protocol| *protocol != "http/protobuf") {
            self.note(
                &protocol_name,
                format!("only http/protobuf is spoken (port 4318 of a collector), found {other:?}"),
            );
        }
        let (compression_name, compression) = self.of_signal(signal, "COMPRESSION");
        if let Some(other) = compression.filter(|compression| !matches!(*compression, "gzip" | "none")) {
            self.note(&compression_name, format!("expected gzip or none, found {other:?}"));
        }
        let (timeout_name, _) = self.of_signal(signal, "TIMEOUT");
        Some(Endpoint {
            url: Secret::new(format!("{url}{path}")),
            headers: self.headers(&self.of_signal(signal, "HEADERS").0),
            timeout: self.duration(&timeout_name, 100..=60_000, 10_000),
            gzip: compression == Some("gzip"),
            certificates: self.certificates(signal),
        })
    }

    fn certificates(&self, signal: &str) -> Option<Vec<u8>> {
        let (name, file) = self.of_signal(signal, "CERTIFICATE");
        let read = std::fs::read(file?).map_err(|error| error.to_string());
        match read.and_then(|pem| are_sound(&pem).map(|()| pem)) {
            Ok(pem) => Some(pem),
            Err(reason) => {
                self.note(&name, format!("expected a file with certificates (PEM): {reason}"));
                None
            }
        }
    }

    fn headers(&self, name: &str) -> Vec<(String, Secret)> {
        let header = |(name, value): (String, String)| (name.to_ascii_lowercase(), Secret::new(value));
        let headers: Vec<_> = self.pairs(name).into_iter().map(header).collect();
        let is_sound = |(name, value): &(String, Secret)| {
            hyper::header::HeaderName::try_from(name.as_str()).is_ok()
                && hyper::header::HeaderValue::try_from(value.expose()).is_ok()
        };
        if !headers.iter().all(is_sound) {
            self.note(name, "has a name or a value that no HTTP header can have");
        }
        headers
    }

    fn sampling(&self) -> Sampling {
        const SAMPLERS: [&str; 6] = [
            "always_on",
            "always_off",
            "traceidratio",
            "parentbased_always_on",
            "parentbased_always_off",
            "parentbased_traceidratio",
        ];
        let name = "OTEL_TRACES_SAMPLER";
        let Some(sampler) = self.get(name) else { return Sampling::OnePerSecond };
        if !SAMPLERS.contains(&sampler) {
            self.note(name, format!("expected one of {}, found {sampler:?}", SAMPLERS.join(", ")));
        }
        let share = match sampler {
            of if of.ends_with("always_off") => 0.0,
            of if of.ends_with("traceidratio") => self.ratio("OTEL_TRACES_SAMPLER_ARG"),
            _ => 1.0,
        };
        if sampler.starts_with("parentbased_") {
            Sampling::ParentBased(share)
        } else {
            Sampling::Share(share)
        }
    }

    fn ratio(&self, name: &str) -> f64 {
        let Some(text) = self.get(name) else { return 1.0 };
        let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.unwrap_or_else(|| {
            self.note(name, format!("expected a number from 0 to 1, found {text:?}"));
            1.0
        })
    }

    fn duration(&self, name: &str, range_ms: RangeInclusive<u64>, default_ms: u64) -> Duration {
        let given = self.get(name).map(|text| {
            text.parse().ok().filter(|ms| range_ms.contains(ms)).unwrap_or_else(|| {
                let (min, max) = (range_ms.start(), range_ms.end());
                self.note(name, format!("expected milliseconds from {min} to {max}, found {text:?}"));
                default_ms
            })
        });
        Duration::from_millis(given.unwrap_or(default_ms))
    }

    fn flag(&self, name: &str) -> bool {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                self.note(name, "expected true or false");
                false
            }
        }
    }

    /// `name=value,name=value`, the values percent-encoded (W3C Baggage).
    fn pairs(&self, name: &str) -> Vec<(String, String)> {
        let Some(text) = self.get(name) else { return Vec::new() };
        let pair = |member: &str| {
            let (name, value) = member.split_once('=')?;
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            let name = name.trim();
            (!name.is_empty()).then(|| (name.to_owned(), value.into_owned()))
        };
        let members = text.split(',').filter(|member| !member.trim().is_empty());
        members.map(pair).collect::<Option<_>>().unwrap_or_else(|| {
            self.note(name, "expected name=value,name=value, the values percent-encoded");
            Vec::new()
        })
    }

    fn note(&self, name: &str, message: impl Into<String>) {
        // Both signals read the variables that are for all of them.
        self.violations.note_once(name, message);
    }
}

/// The client takes only what it can use.
fn are_sound(pem: &[u8]) -> Result<(), String> {
    let (mut roots, mut count) = (RootCertStore::empty(), 0);
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
        count += 1;
    }
    if count > 0 { Ok(()) } else { Err("it has none".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<OtlpConfig>, Vec<Violation>> {
        read(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    const ON: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

    #[test]
    fn nothing_is_exported_without_an_endpoint_or_when_it_is_off() {
        assert!(of(&[]).unwrap().is_none());
        assert!(
            of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " "), ("OTEL_TRACES_SAMPLER", "nonsense")])
                .unwrap()
                .is_none()
        );
        assert!(of(&[ON, ("OTEL_SDK_DISABLED", "True")]).unwrap().is_none());
        assert!(
            of(&[ON, ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "none")]).unwrap().is_none()
        );
        let metrics = of(&[ON, ("OTEL_TRACES_EXPORTER", "none")]).unwrap().unwrap();
        assert!(metrics.traces.is_none() && metrics.metrics.is_some());
    }

    #[test]
    fn a_signals_own_variables_win_and_its_own_endpoint_is_taken_as_it_is() {
        let config = of(&[
            ON,
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://metrics.example/ingest"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20abc, x-scope = 1"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "5000"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "700"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "15000"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_SERVICE_NAME", "cache"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=prod,team=a%2Cb"),
        ]);
        let config = config.unwrap().unwrap();
        let (traces, metrics) = (config.traces.unwrap(), config.metrics.unwrap());
        assert_eq!(traces.url.expose(), "http://collector:4318/v1/traces");
        assert_eq!(metrics.url.expose(), "https://metrics.example/ingest");
        assert_eq!(metrics.host(), "https://metrics.example:443");
        let headers: Vec<_> = traces.headers.iter().map(|(name, value)| (&**name, value.expose())).collect();
        assert_eq!(headers, [("authorization", "Bearer abc"), ("x-scope", "1")]);
        assert_eq!((traces.timeout.as_millis(), metrics.timeout.as_millis()), (5_000, 700));
        assert_eq!((traces.gzip, metrics.gzip), (false, true));
        assert_eq!(config.sampling, Sampling::ParentBased(0.25));
        assert_eq!(config.metrics_interval, Duration::from_secs(15));
        assert_eq!(config.resource[1], ("team".to_owned(), "a,b".to_owned()));
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_and_no_secret_with_it() {
        let wrong = of(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "hunter2@collector"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1"),
            ("OTEL_METRICS_EXPORTER", "prometheus"),
            ("OTEL_SDK_DISABLED", "maybe"),
            ("OTEL_RESOURCE_ATTRIBUTES", "=x"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")),
        ]);
        let wrong: Vec<String> = wrong.unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(wrong.len(), 11, "{wrong:#?}");
        assert!(
            wrong.iter().all(|line| line.starts_with("OTEL_") && !line.contains("hunter2")),
            "{wrong:#?}"
        );
    }

    #[test]
    fn debug_shows_neither_headers_nor_the_path() {
        let config = of(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector/hunter2"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter2"),
        ]);
        let text = format!("{config:?}");
        assert!(!text.contains("hunter2") && text.contains("api-key"), "{text}");
    }
}
