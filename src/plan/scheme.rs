//! How clients speak with a listener: what the schemes of a server block's keys stand for.

use super::configure::BlockPlan;
use crate::corefile::{Diagnostics, ServerBlock, Span};
use crate::metrics::{Counter, Registry};
use crate::net::tls::ServerTls;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Connections to a listener for `https://` at a time where `https` does not say (CoreDNS,
/// DefaultHTTPSMaxConnections).
const HTTPS_CONNECTIONS: usize = 200;

/// A scheme of a key that is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Scheme {
    #[default]
    Dns,
    Tls,
    Https,
}

impl Scheme {
    /// As a key is written; an error says what to do in place of one that is not served.
    pub fn parse(scheme: &str) -> Result<Self, &'static str> {
        match scheme {
            "dns" => Ok(Self::Dns),
            "tls" => Ok(Self::Tls),
            "https" => Ok(Self::Https),
            "quic" => Err("DNS over QUIC would make the program larger by a protocol stack of its own: serve the zone \
                           over TLS, with `tls://`, which the same clients speak"),
            "https3" => Err("HTTP/3 is spoken over QUIC, which is not here: serve the zone over HTTP/2, with `https://`"),
            "grpc" => Err("no client of a node speaks DNS over gRPC, CoreDNS aside: serve the zone over TLS, with \
                           `tls://`, and write `forward . tls://ADDRESS` in that CoreDNS"),
            _ => Err("write the zone without a scheme, or with `dns://`, `tls://` or `https://`"),
        }
    }

    /// The port of a key that names none. `dns` is that of plain DNS.
    pub fn default_port(self, dns: u16) -> u16 {
        match self {
            Self::Dns => dns,
            Self::Tls => 853,
            Self::Https => 443,
        }
    }

    /// The label `server` of metrics, as the reference writes it, up to the address.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Dns => "dns://",
            Self::Tls => "tls://",
            Self::Https => "https://",
        }
    }
}

/// How clients speak with a listener.
pub enum ClientProtocol {
    /// Over UDP and TCP (RFC 1035, RFC 7766).
    Plain,
    /// Over TLS (RFC 7858). Without a certificate over TCP alone, as in the reference.
    Tls(Option<ServerTls>),
    /// Over HTTP/2 or HTTP/1.1 (RFC 8484).
    Https(Https),
}

/// How DNS is served over HTTP.
pub struct Https {
    /// `None`: over HTTP/1.1 without TLS, as in the reference.
    pub tls: Option<ServerTls>,
    /// Connections at a time; `None`: no bound but that of all.
    pub connections: Option<usize>,
    pub responses: HttpsResponses,
}

/// `coredns_dns_https_responses_total{server, status}`.
pub struct HttpsResponses {
    /// 200
    pub ok: Counter,
    /// 400: no DNS message could be read of the request.
    pub bad_request: Counter,
    /// 404: another path.
    pub not_found: Counter,
    /// 500: nothing was to be said.
    pub no_response: Counter,
}

impl HttpsResponses {
    fn new(registry: &Registry, server: &str) -> Self {
        let responses = |status| {
            let help = "Responses over HTTPS, by status.";
            registry.counter("coredns_dns_https_responses_total", help, &[("server", server), ("status", status)])
        };
        Self {
            ok: responses("200"),
            bad_request: responses("400"),
            not_found: responses("404"),
            no_response: responses("500"),
        }
    }
}

impl ClientProtocol {
    /// `tls` and `connections` are what the blocks of the listener say, `server` is its label.
    pub(super) fn new(
        scheme: Scheme,
        tls: Option<ServerTls>,
        connections: Option<usize>,
        registry: &Registry,
        server: &str,
    ) -> Self {
        match scheme {
            Scheme::Dns => Self::Plain,
            Scheme::Tls => Self::Tls(tls),
            Scheme::Https => Self::Https(Https {
                tls: tls.map(|tls| tls.speaking(&[b"h2", b"http/1.1"])),
                connections: Some(connections.unwrap_or(HTTPS_CONNECTIONS)).filter(|connections| *connections > 0),
                responses: HttpsResponses::new(registry, server),
            }),
        }
    }

    /// True if it takes UDP sockets too.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// What a person calls it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Plain => "UDP and TCP",
            Self::Tls(Some(_)) => "TLS",
            Self::Tls(None) => "TCP",
            Self::Https(Https { tls: Some(_), .. }) => "HTTPS",
            Self::Https(Https { tls: None, .. }) => "HTTP",
        }
    }
}

/// What the blocks say of each address and port, to find where they differ.
#[derive(Default)]
pub(super) struct Schemes(BTreeMap<SocketAddr, Said>);

struct Said {
    scheme: Scheme,
    /// Of the first key.
    at: Span,
    tls: Option<(ServerTls, Span)>,
    /// A block has `tls`, be it one that could not be read.
    names_tls: bool,
}

impl Schemes {
    /// Takes a block, and tells where it differs from those before.
    pub fn add(&mut self, block: &ServerBlock, plan: &BlockPlan, diagnostics: &mut Diagnostics) {
        let has = |keyword: &str| plan.keywords.iter().any(|there| there.name == keyword);
        let (names_tls, own) = (has("tls"), &plan.config.tls);
        for (key, zone) in block.keys.iter().zip(&plan.zones) {
            for socket in plan.sockets_on(zone.port) {
                let first = Said { scheme: zone.scheme, at: key.span, tls: None, names_tls };
                let said = self.0.entry(socket).or_insert(first);
                if said.scheme != zone.scheme {
                    let (scheme, other) = (zone.scheme.prefix(), said.scheme.prefix());
                    let message = format!("{socket} is served with `{other}` already, so it cannot be with `{scheme}`");
                    let help = format!("line {} has the other; serve one of them on another port", said.at.line);
                    diagnostics.error(key.span, message).help(help);
                    continue;
                }
                said.names_tls |= names_tls;
                match (&said.tls, own) {
                    (Some((first, at)), Some((tls, span))) if first != tls => {
                        let message = format!("{socket} has TLS of line {} already, which counts there", at.line);
                        diagnostics.warning(*span, message).help("write the same `tls` in both blocks");
                    }
                    (None, Some(_)) => said.tls.clone_from(own),
                    _ => {}
                }
            }
        }
        let is_any = |schemes: &[Scheme]| plan.zones.iter().any(|zone| schemes.contains(&zone.scheme));
        if let Some((_, span)) = own
            && !is_any(&[Scheme::Tls, Scheme::Https])
        {
            diagnostics
                .warning(*span, "tls is not heeded: no zone of this block is served over TLS")
                .help("write `tls://` or `https://` before those that are, such as `tls://.`");
        }
        if let Some((_, span)) = plan.config.https_connections
            && !is_any(&[Scheme::Https])
        {
            diagnostics
                .warning(span, "https is not heeded: no zone of this block is served over HTTPS")
                .help("write `https://` before those that are, such as `https://.`");
        }
    }

    /// Tells what all blocks leave out.
    pub fn finish(self, diagnostics: &mut Diagnostics) {
        for said in self.0.into_values().filter(|said| said.scheme != Scheme::Dns && !said.names_tls) {
            let without = if said.scheme == Scheme::Tls { "DNS over TCP" } else { "DNS over HTTP" };
            let message = format!("there is no `tls` in this block: as in CoreDNS, {without} is served, which anybody on the way can read");
            diagnostics
                .warning(said.at, message)
                .help("name a certificate: `tls CERTIFICATE KEY`; without TLS clients of the scheme get no session");
        }
    }
}
