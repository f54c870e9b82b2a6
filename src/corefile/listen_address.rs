//! Where HTTP is to be served, as a Corefile writes it (facts: Go's net.SplitHostPort and net.Listen, which the
//! reference uses).

use super::diagnostic::{Diagnostics, quote};
use super::value::is_digits;
use super::{Loader, Token};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// Names of hosts that are known without asking anybody.
const HOSTS: &str = "/etc/hosts";
/// Ports by name that Go knows without a file and that HTTP may be served on.
const SERVICES: [(&str, u16); 3] = [("http", 80), ("https", 443), ("domain", 53)];
const EXAMPLES: &str = "write an address and a port: `127.0.0.1:9153`, `[::1]:9153`, or `:9153` for all addresses";
/// All addresses of both families, as with Go's listeners.
const ALL: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// A listen address as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    At(SocketAddr),
    /// It has a form that the reference takes, and nothing can be served there. A warning has told so.
    Nowhere,
}

impl ListenAddress {
    /// The address, if there is one.
    pub(crate) fn address(self) -> Option<SocketAddr> {
        match self {
            Self::At(address) => Some(address),
            Self::Nowhere => None,
        }
    }
}

/// Reads `host:port`, `:port`, `[v6]:port`. The host is an IP address, `localhost` (127.0.0.1), or a name of
/// `/etc/hosts`; an empty one, and one that is not known, stands for all addresses. `None` after an error.
pub(crate) fn listen_address(
    token: &Token,
    files: &dyn Loader,
    diagnostics: &mut Diagnostics,
) -> Option<ListenAddress> {
    let text = token.text.as_str();
    let (host, port) = match split(text) {
        Ok(parts) => parts,
        Err(why) => {
            diagnostics.error(token.span, format!("{} is not a listen address: {why}", quote(text))).help(EXAMPLES);
            return None;
        }
    };
    let number = port.parse::<u16>().ok().filter(|_| is_digits(port));
    let Some(port) = number.or_else(|| SERVICES.iter().find(|(name, _)| *name == port).map(|(_, port)| *port)) else {
        let why =
            if port.is_empty() { "the port is missing".to_owned() } else { format!("{} is no port", quote(port)) };
        diagnostics.warning(token.span, format!("{why}: nothing is served at {}", quote(text))).help(EXAMPLES);
        return Some(ListenAddress::Nowhere);
    };
    let address = match host {
        "" => ALL,
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        _ => match host.parse() {
            Ok(address) => address,
            Err(_) => look_up(host, files).unwrap_or_else(|| {
                diagnostics
                    .warning(
                        token.span,
                        format!("the host {} is not in {HOSTS}: all addresses are served instead", quote(host)),
                    )
                    .help(format!("write its IP address: `127.0.0.1:{port}`; DNS is not asked for it"));
                ALL
            }),
        },
    };
    Some(ListenAddress::At(SocketAddr::new(address, port)))
}

/// As net.SplitHostPort does.
fn split(text: &str) -> Result<(&str, &str), String> {
    let missing = || "the port is missing".to_owned();
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("a `]` is missing")?;
        let port = rest.strip_prefix(':').filter(|port| !port.contains(':')).ok_or_else(missing)?;
        return Ok((host, port));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(missing)?;
    match host.contains(':') {
        true => Err("an IPv6 address needs brackets".to_owned()),
        false if text.contains(['[', ']']) => Err("a bracket stands where none belongs".to_owned()),
        false => Ok((host, port)),
    }
}

/// The first IPv4 address of a name, else its first address.
fn look_up(host: &str, files: &dyn Loader) -> Option<IpAddr> {
    let text = files.read(Path::new(HOSTS)).ok()?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let found: Vec<IpAddr> = lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
        })
        .collect();
    found.iter().find(|address| address.is_ipv4()).or_else(|| found.first()).copied()
}
