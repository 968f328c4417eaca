//! `[redis]`: the region's cache.

use aws_credential_types::provider::SharedCredentialsProvider;
use warmcast_cache::config::{Address, CacheConfig, ClientCertificate, Iam, Password, Secret, Servers};
use warmcast_cache::policy::Tables;
use warmcast_common::aws::ServiceCredentials;
use warmcast_common::config::{Section, ServiceConfig};

use super::CacheSection;

/// Reads the section. The identity for IAM authentication is that of the service beside it.
pub(super) fn read(mut section: Section, tables: Tables, service: &ServiceConfig) -> CacheSection {
    let url = section.required_text("url");
    let mut cache = CacheConfig::from_url(&url).unwrap_or_else(|error| {
        if !url.is_empty() {
            section.note("url", error.to_string());
        }
        CacheConfig::new(Servers::Standalone(Address::Tcp { host: String::new(), port: 0 }))
    });
    // Beside the URL, so that they can come from the environment alone.
    cache.username = section.text("username").or(cache.username);
    cache.password = read_password(&mut section, "password", "password_file").or(cache.password);
    let sentinel = (
        section.text("sentinel_username"),
        read_password(&mut section, "sentinel_password", "sentinel_password_file"),
    );
    match &mut cache.servers {
        Servers::Sentinel { username, password, .. } => {
            *username = sentinel.0.or_else(|| username.take());
            *password = sentinel.1.or_else(|| password.take());
        }
        _ if sentinel != (None, None) => section.note("sentinel_username", "the url names no sentinels"),
        _ => {}
    }
    read_tls(&mut section, &mut cache);
    cache.iam = read_iam(&mut section, &cache, service);
    cache.key_prefix = section.text_even_empty("key_prefix").unwrap_or_default();
    section.default_is("key_prefix", "");
    cache.connections = section.size("connections", 1..=64, cache.connections);
    cache.connect_timeout = section.duration_ms("connect_timeout_ms", 10..=60_000, 1_000);
    cache.response_timeout = section.duration_ms("response_timeout_ms", 10..=60_000, 2_000);
    cache.pipeline_entries_max = section.size("pipeline_entries_max", 1..=10_000, cache.pipeline_entries_max);
    cache.tables = tables;
    // Twice the lateness that a record's changes may create entries with, at least: see docs/cache-protocol.md.
    let rewind = section.duration_ms("rewind_ms", 120_000..=3_600_000, 120_000);
    section.finish();
    CacheSection { cache, rewind }
}

fn read_tls(section: &mut Section, cache: &mut CacheConfig) {
    let ca_file = section.path("ca_file");
    let server_name = section.text("server_name");
    let client = match (section.path("client_certificate_file"), section.path("client_key_file")) {
        (Some(certificate_file), Some(key_file)) => Some(ClientCertificate { certificate_file, key_file }),
        (None, None) => None,
        (Some(_), None) => {
            section.note("client_key_file", "is required with client_certificate_file");
            None
        }
        (None, Some(_)) => {
            section.note("client_certificate_file", "is required with client_key_file");
            None
        }
    };
    match &mut cache.tls {
        Some(tls) => (tls.ca_file, tls.client, tls.server_name) = (ca_file, client, server_name),
        None if ca_file.is_some() || client.is_some() || server_name.is_some() => {
            section.note(
                "ca_file",
                "the url asks for no TLS: use rediss://, rediss+sentinel:// or rediss+cluster://",
            );
        }
        None => {}
    }
}

/// A password, or the file that it is read from for each connection.
fn read_password(section: &mut Section, name: &'static str, file_name: &'static str) -> Option<Password> {
    let given = section.secret(name).map(|secret| Password::Fixed(Secret::new(secret.expose())));
    let file = section.path(file_name).map(Password::File);
    if given.is_some() && file.is_some() {
        section.note(file_name, format!("{name} is given, too: one of the two is enough"));
    }
    file.or(given)
}

fn read_iam(section: &mut Section, cache: &CacheConfig, service: &ServiceConfig) -> Option<Iam> {
    let cache_name = section.text("iam_cache_name");
    let region = section.text("iam_region");
    let serverless = section.boolean("iam_serverless", false);
    let Some(cache_name) = cache_name else {
        if region.is_some() || serverless {
            section.note("iam_cache_name", "is required for IAM authentication");
        }
        return None;
    };
    if let Some(region) = &service.region {
        section.default_is("iam_region", region.clone());
    }
    let Some(region) = region.or_else(|| service.region.clone()) else {
        section.note("iam_region", "is required: neither it nor the region of [kinesis] is given");
        return None;
    };
    if cache.tls.is_none() {
        section.note("iam_cache_name", "IAM authentication needs TLS: a url with rediss in place of redis");
    }
    if cache.username.is_none() {
        section.note("username", "is required for IAM authentication");
    }
    if cache.password.is_some() {
        section.note("iam_cache_name", "takes the place of a password: give one of the two");
    }
    let credentials = SharedCredentialsProvider::new(ServiceCredentials::new(service.clone()));
    Some(Iam { serverless, ..Iam::new(cache_name, region, credentials) })
}
