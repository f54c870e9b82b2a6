//! How clients speak with a listener: what the schemes of a server block's keys stand for.

use crate::chain::Transport;
use crate::corefile::{Diagnostics, Span};
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
    pub(super) fn parse(scheme: &str) -> Result<Self, &'static str> {
        match scheme {
            "dns" => Ok(Self::Dns),
            "tls" => Ok(Self::Tls),
            "https" => Ok(Self::Https),
            "quic" => {
                Err("DNS over QUIC would make the program larger by a protocol stack of its own: serve the zone \
                           over TLS, with `tls://`, which the same clients speak")
            }
            "https3" => {
                Err("HTTP/3 is spoken over QUIC, which is not here: serve the zone over HTTP/2, with `https://`")
            }
            "grpc" => Err("no client of a node speaks DNS over gRPC, CoreDNS aside: serve the zone over TLS, with \
                           `tls://`, and write `forward . tls://ADDRESS` in that CoreDNS"),
            _ => Err("write the zone without a scheme, or with `dns://`, `tls://` or `https://`"),
        }
    }

    /// The port of a key that names none. `dns` is that of plain DNS.
    pub(super) fn default_port(self, dns: u16) -> u16 {
        match self {
            Self::Dns => dns,
            Self::Tls => 853,
            Self::Https => 443,
        }
    }

    /// The label `server` of metrics, as the reference writes it, up to the address.
    pub(super) fn prefix(self) -> &'static str {
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

    /// What a query came over, in a word.
    pub(super) fn label(&self, transport: Transport) -> &'static str {
        match self {
            Self::Plain | Self::Tls(None) => transport.label(),
            Self::Tls(Some(_)) => "tls",
            Self::Https(Https { tls: Some(_), .. }) => "https",
            Self::Https(Https { tls: None, .. }) => "http",
        }
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

/// What a block says of its listeners.
pub(super) struct BlockSchemes<'a> {
    /// Its keys, each with its scheme and where it is served.
    pub keys: Vec<(Span, Scheme, Vec<SocketAddr>)>,
    /// It has `tls`, be it one that could not be read.
    pub names_tls: bool,
    pub tls: &'a Option<(ServerTls, Span)>,
    /// Where `https` stands, if it says anything.
    pub https: Option<Span>,
}

/// What the blocks say of each address and port, to find where they differ.
#[derive(Default)]
pub(super) struct Schemes(BTreeMap<SocketAddr, Said>);

struct Said {
    scheme: Scheme,
    /// Of the first key.
    at: Span,
    tls: Option<(ServerTls, Span)>,
    /// A block has `tls`.
    names_tls: bool,
}

impl Schemes {
    /// Takes a block, and tells where it differs from those before.
    pub(super) fn add(&mut self, block: &BlockSchemes<'_>, diagnostics: &mut Diagnostics) {
        for (at, scheme, sockets) in &block.keys {
            for socket in sockets {
                self.add_listener(*socket, *scheme, *at, block, diagnostics);
            }
        }
        let is_any = |schemes: &[Scheme]| block.keys.iter().any(|(_, scheme, _)| schemes.contains(scheme));
        if let Some((_, span)) = block.tls
            && !is_any(&[Scheme::Tls, Scheme::Https])
        {
            diagnostics
                .warning(*span, "tls is not heeded: no zone of this block is served over TLS")
                .help("write `tls://` or `https://` before those that are, such as `tls://.`");
        }
        if let Some(span) = block.https
            && !is_any(&[Scheme::Https])
        {
            diagnostics
                .warning(span, "https is not heeded: no zone of this block is served over HTTPS")
                .help("write `https://` before those that are, such as `https://.`");
        }
    }

    fn add_listener(
        &mut self,
        socket: SocketAddr,
        scheme: Scheme,
        at: Span,
        block: &BlockSchemes<'_>,
        diagnostics: &mut Diagnostics,
    ) {
        let said = self.0.entry(socket).or_insert(Said { scheme, at, tls: None, names_tls: false });
        if said.scheme != scheme {
            let (scheme, other) = (scheme.prefix(), said.scheme.prefix());
            diagnostics
                .error(at, format!("{socket} is served with `{other}` already, so it cannot be with `{scheme}`"))
                .help(format!("line {} has the other; serve one of them on another port", said.at.line));
            return;
        }
        said.names_tls |= block.names_tls;
        match (&said.tls, block.tls) {
            (Some((first, at)), Some((tls, span))) if first != tls => {
                diagnostics
                    .warning(*span, format!("{socket} has TLS of line {} already, which counts there", at.line))
                    .help("write the same `tls` in both blocks");
            }
            (None, Some(_)) => said.tls.clone_from(block.tls),
            _ => {}
        }
    }

    /// Tells what all blocks leave out.
    pub(super) fn finish(self, diagnostics: &mut Diagnostics) {
        for said in self.0.into_values().filter(|said| said.scheme != Scheme::Dns && !said.names_tls) {
            let without = if said.scheme == Scheme::Tls { "DNS over TCP" } else { "DNS over HTTP" };
            let message = "there is no `tls` in this block: as in CoreDNS,";
            diagnostics
                .warning(said.at, format!("{message} {without} is served, which anybody on the way can read"))
                .help("name a certificate: `tls CERTIFICATE KEY`; without TLS clients of the scheme get no session");
        }
    }
}
