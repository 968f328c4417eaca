//! Prometheus' plain text format (0.0.4), for scrapers that do not ask for OpenMetrics. Pure.
//!
//! OpenMetrics names a counter's family without the `_total` of its samples, knows types that the older format does not, and
//! lets samples have exemplars: what an older parser would take for something else is said in its words.

/// The media type.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether a request's `Accept` is for OpenMetrics. Prometheus asks for it; people and older scrapers do not.
pub(super) fn wants_openmetrics(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| accept.contains("application/openmetrics-text"))
}

/// The same metrics in the older format.
pub(super) fn of_openmetrics(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Its name depends on the type, which comes after it.
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "stateset" => ("", "gauge"),
                "unknown" => ("", "untyped"),
                "gaugehistogram" => ("", "histogram"),
                kind => ("", kind),
            };
            if let Some((_, words)) = help.take().filter(|(of, _)| *of == name) {
                plain.extend(["# HELP ", name, suffix, " ", words, "\n"]);
            }
            plain.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            plain.extend([without_exemplar(line), "\n"]);
        }
    }
    plain
}

/// A sample without what follows ` # {`, where that is no part of a label's value.
fn without_exemplar(line: &str) -> &str {
    let labels_end = end_of_labels(line);
    let (labels, rest) = line.split_at(labels_end);
    match rest.find(" # {") {
        Some(at) => line.get(..labels.len() + at).unwrap_or(line),
        None => line,
    }
}

/// After the brace that closes a sample's labels; 0 if it has none.
fn end_of_labels(line: &str) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    if line.find('{').is_none_or(|brace| line.find(' ').is_some_and(|space| brace >= space)) {
        return 0;
    }
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return at + 1,
            _ => {}
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::exemplar::CounterWithExemplar;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::info::Info;

    use super::*;

    #[test]
    fn families_are_called_as_their_samples_are_and_nothing_is_left_that_the_format_does_not_know() {
        let mut registry = crate::metrics::registry();
        let sent: Family<Vec<(String, String)>, Counter> = Family::default();
        sent.get_or_create(&vec![("region".to_owned(), "a # {b} \"c\"".to_owned())]).inc_by(3);
        registry.register("sent", "Changes sent", sent);
        let traced: CounterWithExemplar<Vec<(String, String)>> = CounterWithExemplar::default();
        traced.inc_by(2, Some(vec![("trace_id".to_owned(), "x".to_owned())]), None);
        registry.register("traced", "With an exemplar", traced);
        let age: Gauge = Gauge::default();
        registry.register_with_unit("age", "An age", prometheus_client::registry::Unit::Seconds, age);
        registry.register("build", "The build", Info::new(vec![("version", "1")]));
        let plain = of_openmetrics(&crate::metrics::text(&registry).unwrap());
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(
            lines,
            [
                "# HELP warmcast_sent_total Changes sent.",
                "# TYPE warmcast_sent_total counter",
                "warmcast_sent_total{region=\"a # {b} \\\"c\\\"\"} 3",
                "# HELP warmcast_traced_total With an exemplar.",
                "# TYPE warmcast_traced_total counter",
                "warmcast_traced_total 2",
                "# HELP warmcast_age_seconds An age.",
                "# TYPE warmcast_age_seconds gauge",
                "warmcast_age_seconds 0",
                "# HELP warmcast_build_info The build.",
                "# TYPE warmcast_build_info gauge",
                "warmcast_build_info{version=\"1\"} 1",
            ]
        );
    }

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
        assert!(wants_openmetrics(Some(prometheus)));
        assert!(!wants_openmetrics(Some("text/plain;version=0.0.4")) && !wants_openmetrics(None));
    }
}
