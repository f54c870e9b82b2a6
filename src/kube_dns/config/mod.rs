//! The kube-dns ConfigMap as mounted: one file for each key. Everything wrong with it is told at once.

use crate::corefile::Loader;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The key whose value is a JSON object: stub domain → list of its nameservers.
pub const STUB_DOMAINS: &str = "stubDomains";
/// The key whose value is a JSON list of nameservers.
pub const UPSTREAM_NAMESERVERS: &str = "upstreamNameservers";

/// As in the reference, and as in a resolv.conf.
const MOST_UPSTREAM_NAMESERVERS: usize = 3;
/// RFC 1123 section 2.1 and RFC 1035 section 2.3.4.
const MOST_NAME_OCTETS: usize = 253;
const MOST_LABEL_OCTETS: usize = 63;
/// The port of a nameserver that names none.
const DNS_PORT: u16 = 53;

/// What the ConfigMap asks for. Without the ConfigMap, or without its keys: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeDnsConfig {
    /// By domain, so that their order is always the same. No list is empty.
    pub stub_domains: BTreeMap<StubDomain, Vec<Nameserver>>,
    /// Who is asked for all other names (`upstreamNameservers`).
    pub upstream_nameservers: Vec<Nameserver>,
}

/// A domain name as Kubernetes writes them (RFC 1123 subdomain): lower-case, without the final dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StubDomain(String);

/// Address and port of a nameserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nameserver(SocketAddr);

impl fmt::Display for StubDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Nameserver {
    /// As `forward` reads it: the port only if it is not 53.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.port() == DNS_PORT { write!(f, "{}", self.0.ip()) } else { write!(f, "{}", self.0) }
    }
}

/// One thing wrong with the ConfigMap.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says it")]
pub enum ConfigError {
    #[error(
        "cannot read the kube-dns ConfigMap folder {folder}: {cause}; mount the ConfigMap there, or name its folder with -kubednscm"
    )]
    Folder { folder: PathBuf, cause: io::Error },
    #[error("cannot read {file} of the kube-dns ConfigMap: {cause}")]
    File { file: PathBuf, cause: io::Error },
    #[error("{file} of the kube-dns ConfigMap is not {expected}: {cause}; write it like {example}")]
    Json { file: PathBuf, expected: &'static str, example: &'static str, cause: serde_json::Error },
    #[error("{file}: `{domain}` is no domain name: {why}")]
    Domain { file: PathBuf, domain: String, why: &'static str },
    #[error("{file}: the stub domain `{domain}` has no nameserver; list at least one, such as \"10.0.0.53\"")]
    NoNameserver { file: PathBuf, domain: String },
    #[error(
        "{file}: `{text}`{} is no nameserver: {why}; write an IP address, or one with a port, such as {}",
        of(domain),
        example(text)
    )]
    Nameserver { file: PathBuf, domain: Option<String>, text: String, why: &'static str },
    #[error("{file}: {count} upstream nameservers are more than {MOST_UPSTREAM_NAMESERVERS}; take some away")]
    TooMany { file: PathBuf, count: usize },
}

fn of(domain: &Option<String>) -> String {
    domain.as_ref().map(|domain| format!(" of the stub domain `{domain}`")).unwrap_or_default()
}

/// What would be right, as near to what was written as can be.
fn example(text: &str) -> String {
    match text.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address @ IpAddr::V6(_)) => format!("`{address}` or `[{address}]:5353`"),
        Ok(address @ IpAddr::V4(_)) => format!("`{address}` or `{address}:5353`"),
        Err(_) => "`10.0.0.53`, `10.0.0.53:5353` or `[2001:db8::53]:5353`".to_owned(),
    }
}

/// All that is wrong with the ConfigMap; at least one thing.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct ConfigErrors(pub Vec<ConfigError>);

fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads the folder the ConfigMap is mounted on. Its other files concern somebody else; a file that is not there asks
/// for nothing.
pub fn read(folder: &Path, files: &dyn Loader) -> Result<KubeDnsConfig, ConfigErrors> {
    if let Err(cause) = files.list(folder) {
        return Err(ConfigErrors(vec![ConfigError::Folder { folder: folder.to_owned(), cause }]));
    }
    let mut errors = Vec::new();
    let mut text = |key: &str| match files.read(&folder.join(key)) {
        Ok(text) => Some(text),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
        Err(cause) => {
            errors.push(ConfigError::File { file: folder.join(key), cause });
            None
        }
    };
    let (stub_domains, upstream_nameservers) = (text(STUB_DOMAINS), text(UPSTREAM_NAMESERVERS));
    let config = parse(folder, stub_domains.as_deref(), upstream_nameservers.as_deref(), &mut errors);
    if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
}

/// The values of both keys, as far as they are there; what is wrong with them goes to `errors`. `folder` is named
/// there. Pure.
pub fn parse(
    folder: &Path,
    stub_domains: Option<&str>,
    upstream_nameservers: Option<&str>,
    errors: &mut Vec<ConfigError>,
) -> KubeDnsConfig {
    let mut config = KubeDnsConfig::default();
    if let Some(text) = stub_domains {
        config.stub_domains = parse_stub_domains(&folder.join(STUB_DOMAINS), text, errors);
    }
    if let Some(text) = upstream_nameservers {
        config.upstream_nameservers = parse_upstream_nameservers(&folder.join(UPSTREAM_NAMESERVERS), text, errors);
    }
    config
}

fn parse_stub_domains(file: &Path, text: &str, errors: &mut Vec<ConfigError>) -> BTreeMap<StubDomain, Vec<Nameserver>> {
    let file = file.to_owned();
    // `null` is what Go writes for an empty map or list.
    let written: Option<BTreeMap<String, Option<Vec<String>>>> = match serde_json::from_str(text) {
        Ok(written) => written,
        Err(cause) => {
            let expected = "a JSON object from domain names to lists of nameservers";
            errors.push(ConfigError::Json { file, expected, example: r#"{"example.org": ["10.0.0.53"]}"#, cause });
            return BTreeMap::new();
        }
    };
    let mut stub_domains = BTreeMap::new();
    for (domain, servers) in written.unwrap_or_default() {
        let servers = servers.unwrap_or_default();
        if let Some(why) = objection(&domain) {
            errors.push(ConfigError::Domain { file: file.clone(), domain: domain.clone(), why });
        }
        if servers.is_empty() {
            errors.push(ConfigError::NoNameserver { file: file.clone(), domain: domain.clone() });
        }
        let nameservers = parse_nameservers(&file, Some(&domain), &servers, errors);
        stub_domains.insert(StubDomain(domain), nameservers);
    }
    stub_domains
}

fn parse_upstream_nameservers(file: &Path, text: &str, errors: &mut Vec<ConfigError>) -> Vec<Nameserver> {
    let written: Option<Vec<String>> = match serde_json::from_str(text) {
        Ok(written) => written,
        Err(cause) => {
            let (expected, example) = ("a JSON list of nameservers", r#"["10.0.0.53", "10.0.1.53:5353"]"#);
            errors.push(ConfigError::Json { file: file.to_owned(), expected, example, cause });
            return Vec::new();
        }
    };
    let servers = written.unwrap_or_default();
    if servers.len() > MOST_UPSTREAM_NAMESERVERS {
        errors.push(ConfigError::TooMany { file: file.to_owned(), count: servers.len() });
    }
    parse_nameservers(file, None, &servers, errors)
}

fn parse_nameservers(
    file: &Path,
    domain: Option<&str>,
    servers: &[String],
    errors: &mut Vec<ConfigError>,
) -> Vec<Nameserver> {
    let mut nameservers = Vec::new();
    for text in servers {
        match parse_nameserver(text) {
            Ok(nameserver) => nameservers.push(nameserver),
            Err(why) => errors.push(ConfigError::Nameserver {
                file: file.to_owned(),
                domain: domain.map(str::to_owned),
                text: text.clone(),
                why,
            }),
        }
    }
    nameservers
}

/// `ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT`. Host names are refused, as in the reference: who would resolve them?
fn parse_nameserver(text: &str) -> Result<Nameserver, &'static str> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Nameserver(SocketAddr::new(address, DNS_PORT)));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        let has_port = address.port() != 0;
        return if has_port { Ok(Nameserver(address)) } else { Err("its port is 0") };
    }
    let host_and_port = text.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
    Err(match host_and_port {
        Some((host, _)) if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() => {
            "its port is not a number between 1 and 65535"
        }
        _ if text.contains("://") => "other transports than plain DNS belong into the Corefile",
        _ if text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .is_some_and(|text| text.parse::<Ipv6Addr>().is_ok()) =>
        {
            "brackets are for an address with a port"
        }
        _ => "it has no IP address",
    })
}

/// Why this is no RFC 1123 subdomain; `None` if it is one.
fn objection(domain: &str) -> Option<&'static str> {
    let is_alphanumeric = |octet: Option<&u8>| octet.is_some_and(u8::is_ascii_alphanumeric);
    let known = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || matches!(octet, b'-' | b'.');
    let labels = || domain.split('.').map(str::as_bytes);
    Some(match domain {
        "" => "it is empty; write a name such as example.org",
        _ if domain.bytes().any(|octet| octet.is_ascii_uppercase()) => "write it in lower case",
        _ if domain.ends_with('.') => "take the final dot away",
        _ if !domain.bytes().all(known) => "only letters, digits, `-` and `.` may stand in it",
        _ if labels().any(<[u8]>::is_empty) => "something is missing between two dots",
        _ if labels().any(|label| !is_alphanumeric(label.first()) || !is_alphanumeric(label.last())) => {
            "each of its parts must begin and end with a letter or a digit"
        }
        _ if labels().any(|label| label.len() > MOST_LABEL_OCTETS) => {
            "none of its parts may be longer than 63 characters"
        }
        _ if domain.len() > MOST_NAME_OCTETS => "it may not be longer than 253 characters",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
