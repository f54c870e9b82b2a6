//! The `dnstap` directive writes what clients ask and are answered, and what `forward` asks upstreams and is answered,
//! to readers of `dnstap`; see README.md beside this file.
//!
//! A [`Tap`] writes two frames ([`message`]) for each exchange into the [`queue`] of its [`endpoint`]; the endpoint's
//! thread connects and writes ([`writer`]), or listens for readers ([`listener`]), in Frame Streams ([`frames`]).

mod endpoint;
mod frames;
mod listener;
mod message;
mod parse;
mod queue;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

pub use parse::parse;

use crate::chain::{
    BlockMetadata, BuildContext, BuildError, Built, Configured, Encryption, Exchange, Format, Observer, Request,
    Transport, UpstreamExchange, UpstreamObserver,
};
use endpoint::Endpoint;
use message::{Kind, Protocol, TapMessage, Wire};
use shared::EndpointConfig;
use std::cell::RefCell;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const KEYWORD: &str = "dnstap";
/// The label that says whom a query was forwarded to.
const UPSTREAM: &str = "/forward/upstream";

/// One `dnstap` of a server block.
struct TapConfig {
    endpoint: EndpointConfig,
    is_full: bool,
    identity: String,
    version: String,
    extra: Option<Format>,
}

impl Configured for TapConfig {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let tap = Arc::new(Tap {
            endpoint: Endpoint::adopt_or_new(&self.endpoint, context.process)?,
            envelope: message::envelope(self.identity.as_bytes(), self.version.as_bytes()),
            is_full: self.is_full,
            extra: self.extra.clone(),
            metadata: context.metadata.clone(),
            encrypted: context.servers.iter().map(|server| encrypted(server)).collect(),
        });
        Ok(Built { observer: Some(tap.clone()), upstream_observer: Some(tap), ..Built::default() })
    }
}

/// Writes what clients ask and are answered, and what upstreams are asked and answer.
struct Tap {
    endpoint: Arc<Endpoint>,
    envelope: Box<[u8]>,
    /// DNS messages are in it.
    is_full: bool,
    extra: Option<Format>,
    metadata: BlockMetadata,
    /// What clients speak at each listen address instead of plain DNS.
    encrypted: Box<[Option<Protocol>]>,
}

/// What is spoken within TLS at a listen address with this label.
fn encrypted(server: &str) -> Option<Protocol> {
    match server.split_once("://")?.0 {
        "tls" => Some(Protocol::Tls),
        "https" => Some(Protocol::Https),
        _ => None,
    }
}

thread_local! {
    static FRAMES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static EXTRA: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Tap {
    /// Writes these messages, about this request.
    fn write<'m>(
        &self,
        request: &Request<'_>,
        upstream: Option<&UpstreamExchange<'_>>,
        messages: impl IntoIterator<Item = TapMessage<'m>>,
    ) {
        FRAMES.with_borrow_mut(|frames| {
            EXTRA.with_borrow_mut(|extra| {
                frames.clear();
                extra.clear();
                if let Some(format) = &self.extra {
                    let label = |label: &str, line: &mut String| match (
                        upstream,
                        self.metadata.get(label.trim_start_matches('/'), &request.query.name),
                    ) {
                        (Some(exchange), _) if label == UPSTREAM => write!(line, "{}", exchange.upstream).is_ok(),
                        (_, Some(value)) => write!(line, "{value}").is_ok(),
                        _ => false,
                    };
                    format.append(request, None, &label, extra);
                }
                let extra = self.extra.as_ref().map(|_| extra.as_str());
                let mut count = 0;
                for message in messages {
                    let wire = message.wire.filter(|_| self.is_full);
                    message::append(&self.envelope, extra, &TapMessage { wire, ..message }, frames);
                    count += 1;
                }
                self.endpoint.write(frames, count);
            });
        });
    }
}

impl Observer for Tap {
    fn explain(&self, _request: &Request<'_>) -> String {
        let reader = if self.endpoint.is_wanted() { "" } else { ", where nobody reads it" };
        format!("writes it to {}{reader}", self.endpoint.text())
    }

    fn observe(&self, exchange: &Exchange<'_>) {
        if !self.endpoint.is_wanted() {
            return;
        }
        let (request, now) = (&exchange.request, now());
        let query = TapMessage {
            kind: Kind::ClientQuery,
            protocol: match (self.encrypted.get(request.server_index), request.peer.transport) {
                (Some(Some(protocol)), _) => *protocol,
                (_, Transport::Udp) => Protocol::Udp,
                (_, Transport::Tcp) => Protocol::Tcp,
            },
            query: Some(request.peer.client),
            response: Some(request.peer.local),
            query_time: Some(now.saturating_sub(exchange.elapsed)),
            response_time: None,
            wire: Some(Wire::of(request.wire)),
        };
        let wire = Some(Wire::of(exchange.reply));
        let response = TapMessage { kind: Kind::ClientResponse, response_time: Some(now), wire, ..query };
        self.write(request, None, [query, response]);
    }
}

impl UpstreamObserver for Tap {
    fn observe_upstream(&self, exchange: &UpstreamExchange<'_>) {
        if !self.endpoint.is_wanted() {
            return;
        }
        let (request, now) = (exchange.request, now());
        let query = TapMessage {
            kind: Kind::ForwarderQuery,
            protocol: match (exchange.encryption, exchange.transport) {
                (Some(Encryption::Tls), _) => Protocol::Tls,
                (Some(Encryption::Https), _) => Protocol::Https,
                (None, Transport::Udp) => Protocol::Udp,
                (None, Transport::Tcp) => Protocol::Tcp,
            },
            query: exchange.local,
            response: Some(exchange.upstream),
            query_time: Some(now.saturating_sub(exchange.started.elapsed())),
            response_time: None,
            wire: Some(Wire::with_id(exchange.query, request.wire)),
        };
        let query_message = Some(query).filter(|_| !exchange.is_late);
        let response = exchange.reply.map(|reply| TapMessage {
            kind: Kind::ForwarderResponse,
            response_time: Some(now),
            wire: Some(Wire::with_id(reply, request.wire)),
            ..query
        });
        self.write(request, Some(exchange), [query_message, response].into_iter().flatten());
    }
}

/// Since the Unix epoch.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// For fuzzing: whether a reader that says this at the beginning takes dnstap, and how many octets were read for that.
#[doc(hidden)]
pub fn takes_dnstap(said: &[u8]) -> (bool, u64) {
    let mut said = std::io::Cursor::new(said.to_vec());
    let outcome = futures_util::FutureExt::now_or_never(writer::read_control(&mut said, frames::Control::Accept));
    (matches!(outcome, Some(Ok(()))), said.position())
}
