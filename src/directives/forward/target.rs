//! What a TO argument means: an address, a file of nameservers, or a host name.

use super::tls_options::warn_unless_name;
use crate::chain::ParseContext;
use crate::corefile::{Loader, Token};
use crate::message::Name;
use crate::net::doh::{DEFAULT_PATH, HTTPS_PORT};
use hyper::http::uri::PathAndQuery;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;

const DNS_PORT: u16 = 53;
/// No socket can send there.
const UNREACHABLE_PORT: u16 = 0;
/// RFC 7858 section 3.1.
const TLS_PORT: u16 = 853;
const SYSTEM_RESOLV_CONF: &str = "/etc/resolv.conf";
/// Schemes of CoreDNS and its plugins that upstreams are not asked by.
const OTHER_SCHEMES: [&str; 4] = ["https3", "quic", "grpc", "unix"];

/// How an upstream is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// By UDP and TCP.
    Dns,
    /// Over TLS (RFC 7858), and whom its certificate must be for; `None`: its address.
    Tls { server_name: Option<String> },
    /// Over HTTPS (RFC 8484), and where on that server.
    Https { server_name: Option<String>, path: PathAndQuery },
}

impl Protocol {
    /// The port that an upstream has unless the Corefile says otherwise.
    fn default_port(&self) -> u16 {
        match self {
            Self::Dns => DNS_PORT,
            Self::Tls { .. } => TLS_PORT,
            Self::Https { .. } => HTTPS_PORT,
        }
    }

    fn is_tls(&self) -> bool {
        *self != Self::Dns
    }
}

/// What a TO argument names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UpstreamTarget {
    Address {
        address: SocketAddr,
        protocol: Protocol,
    },
    /// The nameservers of a resolv.conf-like file, as it was when the Corefile was read.
    File {
        path: String,
        addresses: Vec<SocketAddr>,
    },
    /// Resolved while serving, and again as its TTL runs out.
    Host {
        name: Name,
        port: u16,
        protocol: Protocol,
    },
}

impl UpstreamTarget {
    /// True if it is asked over TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.protocol().is_tls()
    }

    /// True if it is asked over HTTPS.
    pub(super) fn is_https(&self) -> bool {
        matches!(self.protocol(), Protocol::Https { .. })
    }

    fn protocol(&self) -> &Protocol {
        match self {
            Self::Address { protocol, .. } | Self::Host { protocol, .. } => protocol,
            Self::File { .. } => &Protocol::Dns,
        }
    }
}

/// Reads one TO; `None` after a diagnostic. `servername` is that of the option `tls_servername`.
pub(super) fn read_target(
    token: &Token,
    servername: Option<&str>,
    context: &mut ParseContext<'_>,
) -> Option<UpstreamTarget> {
    let (scheme, text) = token.text.split_once("://").unwrap_or(("dns", &token.text));
    let (text, path) = match scheme {
        "dns" | "tls" => (text, None),
        "https" => {
            let (text, path) = read_path(token, text, context)?;
            (text, Some(path))
        }
        _ => {
            refuse_scheme(token, scheme, context);
            return None;
        }
    };
    let (own_text, own_name) = if scheme == "dns" { (text.to_owned(), None) } else { split_server_name(text) };
    let text = own_text.as_str();
    if let Some(name) = &own_name {
        warn_unless_name(token, name, context.diagnostics);
        if text.contains('%') {
            let message = format!("CoreDNS takes no interface before a server name: {}", token.text);
            context.diagnostics.beyond_reference(token.span, message).help("an address that needs no interface");
        }
        if path.is_some() {
            let message = format!("CoreDNS does not heed the server name in {}", token.text);
            context.diagnostics.beyond_reference(token.span, message).help("give it in tls_servername");
        }
    }
    if let (Some(own), Some(of_all)) = (&own_name, servername) {
        let message = format!("{} has the server name `{own}`, and tls_servername is `{of_all}`", token.text);
        context.diagnostics.error(token.span, message).help("give the name in one of the two places");
        return None;
    }
    let server_name = own_name.as_deref().or(servername).map(str::to_owned);
    let protocol = match path {
        Some(path) => Protocol::Https { server_name, path },
        None if scheme == "tls" => Protocol::Tls { server_name },
        None => Protocol::Dns,
    };
    let default_port = protocol.default_port();
    match read_address(text, default_port, context.loaders.files) {
        Ok(Some(address)) => {
            if address.port() == UNREACHABLE_PORT {
                context
                    .diagnostics
                    .warning(
                        token.span,
                        format!("{} has no port from 1 to 65535: this upstream is never reached", token.text),
                    )
                    .help("IP, IP:PORT or [IPv6%INTERFACE]:PORT");
            }
            return Some(UpstreamTarget::Address { address, protocol });
        }
        Ok(None) => {}
        Err(why) => {
            context
                .diagnostics
                .error(token.span, format!("{}: {why}", token.text))
                .help("IP, IP:PORT or [IPv6%INTERFACE]:PORT");
            return None;
        }
    }
    match context.loaders.files.read(Path::new(text)) {
        Ok(content) => {
            if protocol.is_tls() {
                let message =
                    format!("{scheme}:// before a file is ignored: the nameservers of {text} are asked by plain DNS");
                let help = format!("name the upstreams' addresses after {scheme}://");
                context.diagnostics.warning(token.span, message).help(help);
            }
            Some(read_nameservers(token, text, &content, context))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && text == SYSTEM_RESOLV_CONF => {
            let message = format!("{text} does not exist: there is no upstream in it, and queries for it will fail");
            context.diagnostics.warning(token.span, message).help("create it, or name the upstreams' addresses");
            Some(UpstreamTarget::File { path: text.to_owned(), addresses: Vec::new() })
        }
        Err(error) if text.contains('/') => {
            let message = format!("the file {text} cannot be read: {error}");
            context.diagnostics.error(token.span, message).help("check its path, or name the upstreams' addresses");
            None
        }
        Err(_) => read_host(token, text, protocol, default_port, context),
    }
}

fn refuse_scheme(token: &Token, scheme: &str, context: &mut ParseContext<'_>) {
    let (message, help) = match OTHER_SCHEMES.contains(&scheme) {
        true => (
            format!("{}: upstreams by {scheme}:// are not supported", token.text),
            "plain DNS by UDP and TCP is, tls:// and https://: write the address alone, such as 10.96.0.10",
        ),
        false => (
            format!("{}: `{scheme}` is not a protocol of upstreams", token.text),
            "write the address alone, or dns://, tls:// or https:// before it",
        ),
    };
    context.diagnostics.error(token.span, message).help(help);
}

/// What comes before the path of a TO of HTTPS, and the path; `None` after a diagnostic.
fn read_path<'a>(token: &Token, text: &'a str, context: &mut ParseContext<'_>) -> Option<(&'a str, PathAndQuery)> {
    let Some(start) = text.find('/') else { return Some((text, PathAndQuery::from_static(DEFAULT_PATH))) };
    let (host, path) = text.split_at(start);
    // A template (RFC 8484 section 3) would be asked literally, and what follows `#` would not be asked at all.
    let is_plain = !path.contains(['{', '}', '#']);
    match PathAndQuery::try_from(path) {
        Ok(read) if is_plain => {
            let message = format!("CoreDNS takes no path in {}: it asks at {DEFAULT_PATH}", token.text);
            let help = "take it out, if the upstream answers at that path";
            context.diagnostics.beyond_reference(token.span, message).help(help);
            Some((host, read))
        }
        _ => {
            let message = format!("{}: `{path}` is not the path of a URL", token.text);
            context
                .diagnostics
                .error(token.span, message)
                .help("such as https://dns.example.org/dns-query, without what stands in braces");
            None
        }
    }
}

/// What comes before and after the last `%` of a TO of TLS: the address, with the port that may follow the name, and
/// the name.
fn split_server_name(text: &str) -> (String, Option<String>) {
    let Some((address, name)) = text.rsplit_once('%') else { return (text.to_owned(), None) };
    let (name, port) = name.rsplit_once(':').map_or((name, None), |(name, port)| (name, Some(port)));
    let name = name.strip_suffix(']').unwrap_or(name);
    // The brackets of an IPv6 address end behind the name.
    let bare = address.strip_prefix('[').unwrap_or(address);
    let is_ipv6 = bare.contains(':');
    let address = match (is_ipv6, port) {
        (true, Some(port)) => format!("[{bare}]:{port}"),
        (false, Some(port)) => format!("{bare}:{port}"),
        (_, None) => bare.to_owned(),
    };
    (address, (!name.is_empty()).then(|| name.to_owned()))
}

fn read_host(
    token: &Token,
    text: &str,
    protocol: Protocol,
    default_port: u16,
    context: &mut ParseContext<'_>,
) -> Option<UpstreamTarget> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)),
        None => (text, Some(default_port)),
    };
    // A mistyped address must not become a host name that never resolves.
    let looks_like_an_address =
        host.split('.').all(|label| !label.is_empty() && label.bytes().all(|octet| octet.is_ascii_digit()));
    let is_plain = host.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.'));
    match (Name::parse(host), port) {
        (Ok(name), Some(port)) if !host.is_empty() && is_plain && !looks_like_an_address && !name.is_root() => {
            Some(UpstreamTarget::Host { name, port, protocol })
        }
        _ => {
            let message = format!("{} is neither an IP address, a file nor a host name", token.text);
            context
                .diagnostics
                .error(token.span, message)
                .help("such as 10.96.0.10, [2001:db8::1]:53, /etc/resolv.conf or dns.example.org");
            None
        }
    }
}

fn read_nameservers(token: &Token, path: &str, content: &str, context: &mut ParseContext<'_>) -> UpstreamTarget {
    let mut addresses = Vec::new();
    let (config, _) = resolv_conf::Config::parse_with_errors(content.as_bytes());
    for nameserver in &config.nameservers {
        // Printed and read again, so that an IPv6 zone is treated as in a TO argument.
        match read_address(&nameserver.to_string(), DNS_PORT, context.loaders.files) {
            Ok(Some(address)) if !addresses.contains(&address) => addresses.push(address),
            Ok(_) => {}
            Err(why) => {
                context
                    .diagnostics
                    .warning(token.span, format!("{path}: nameserver {nameserver} is passed over: {why}"));
            }
        }
    }
    if addresses.is_empty() {
        let message =
            format!("{path} has no usable nameserver: there is no upstream in it, and queries for it will fail");
        context
            .diagnostics
            .warning(token.span, message)
            .help("add a line such as `nameserver 192.0.2.53`, or name the upstreams' addresses");
    }
    UpstreamTarget::File { path: path.to_owned(), addresses }
}

/// Reads `IP`, `IP:PORT`, `[IPv6]` or `[IPv6]:PORT`, where each IPv6 address may have a `%ZONE`. `Ok(None)` if `text`
/// is none of these, an error if it is one that cannot be used. What is no port becomes one that nobody can be reached
/// at: the reference takes such upstreams, and every query to them fails.
fn read_address(text: &str, default_port: u16, files: &dyn Loader) -> Result<Option<SocketAddr>, String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => return Ok(None),
        },
        // One colon separates an IPv4 address from its port; more colons are an IPv6 address.
        None => match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (text, None),
        },
    };
    let (ip, zone) = match host.split_once('%') {
        Some((ip, zone)) => (ip, Some(zone)),
        None => (host, None),
    };
    let Ok(ip) = ip.parse::<IpAddr>() else { return Ok(None) };
    let port = match port {
        // The one name of a service that Go, and so the reference, knows for DNS.
        Some("domain") => DNS_PORT,
        Some(port) => port.parse().unwrap_or(UNREACHABLE_PORT),
        None => default_port,
    };
    match (ip, zone) {
        (IpAddr::V6(ip), Some(zone)) => Ok(Some(SocketAddrV6::new(ip, port, 0, read_zone(ip, zone, files)?).into())),
        (IpAddr::V4(_), Some(_)) => Err("only an IPv6 address has a zone".to_owned()),
        (ip, None) => Ok(Some(SocketAddr::new(ip, port))),
    }
}

/// The interface index that a zone names, by number or by name (RFC 4007 section 11).
fn read_zone(ip: Ipv6Addr, zone: &str, files: &dyn Loader) -> Result<u32, String> {
    if let Ok(index) = zone.parse() {
        return Ok(index);
    }
    if zone.is_empty() || zone.contains('/') || zone.starts_with('.') {
        return Err(format!("`{zone}` is not an interface"));
    }
    let path = format!("/sys/class/net/{zone}/ifindex");
    files
        .read(Path::new(&path))
        .ok()
        .and_then(|index| index.trim().parse().ok())
        .ok_or_else(|| format!("this machine has no interface `{zone}`, which {ip} needs"))
}
