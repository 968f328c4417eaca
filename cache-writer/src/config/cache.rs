//! `[redis]`: the region's cache.

use warmcast_cache::config::{Address, CacheConfig, ClientCertificate, Secret, Servers};
use warmcast_cache::policy::Tables;
use warmcast_common::config::Section;

use super::CacheSection;

/// Reads the section.
pub(super) fn read(mut section: Section, tables: Tables) -> CacheSection {
    let url = section.required_text("url");
    let mut cache = CacheConfig::from_url(&url).unwrap_or_else(|error| {
        if !url.is_empty() {
            section.note("url", error.to_string());
        }
        CacheConfig::new(Servers::Standalone(Address::Tcp { host: String::new(), port: 0 }))
    });
    // Beside the URL, so that they can come from the environment alone.
    let secret =
        |section: &mut Section, name| section.secret(name).map(|secret| Secret::new(secret.expose()));
    cache.username = section.text("username").or(cache.username);
    cache.password = secret(&mut section, "password").or(cache.password);
    let sentinel = (section.text("sentinel_username"), secret(&mut section, "sentinel_password"));
    match &mut cache.servers {
        Servers::Sentinel { username, password, .. } => {
            *username = sentinel.0.or_else(|| username.take());
            *password = sentinel.1.or_else(|| password.take());
        }
        _ if sentinel != (None, None) => section.note("sentinel_username", "the url names no sentinels"),
        _ => {}
    }
    read_tls(&mut section, &mut cache);
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
