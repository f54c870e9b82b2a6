//! What is served over HTTP, such as metrics and health.

use crate::metrics::{CONTENT_TYPE, Registry, union};
use crate::net::tls::ServerTls;
use futures_util::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Why there is no status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoStatus {
    #[error("the server that answers queries is not running. Its watchdog starts it again; ask again in some seconds")]
    NotRunning,
    #[error(
        "the server that answers queries has not told it within {0:?}. It may be starting, busy or stopped; the \
         watchdog replaces one that answers no queries. Ask again"
    )]
    Late(Duration),
    #[error(
        "the server that answers queries cannot pass it on. Ask again; its open files or its memory may be at their \
         limit"
    )]
    Unreadable,
}

/// An HTTP path served on an address. The same address and path asked by several blocks is one endpoint.
#[derive(Clone)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// The path of the URL, such as `/health`.
    pub path: &'static str,
    /// Who makes the answers.
    pub answers: HttpAnswers,
    /// With it the address is served over TLS, whatever else stands there.
    pub tls: Option<ServerTls>,
}

impl Endpoint {
    /// One whose answers are [`HttpAnswers::Shared`] and made at once.
    pub fn shared(
        address: SocketAddr,
        path: &'static str,
        answer: impl Fn() -> HttpAnswer + Send + Sync + 'static,
    ) -> Self {
        let at_once = move || -> BoxFuture<'static, HttpAnswer> { Box::pin(std::future::ready(answer())) };
        Self { address, path, answers: HttpAnswers::Shared(Arc::new(at_once)), tls: None }
    }
    /// `/metrics`: what `registry` has, and what the other process of this program counts if it says so.
    pub fn metrics(address: SocketAddr, registry: Registry, other: Option<AskMetrics>) -> Self {
        let answer = move || -> BoxFuture<'static, HttpAnswer> {
            let (registry, asked) = (registry.clone(), other.as_ref().map(|ask| ask()));
            Box::pin(async move {
                let theirs = match asked {
                    Some(asked) => asked.await,
                    None => None,
                };
                let own = registry.encode();
                let body = theirs.and_then(|theirs| union(&own, &theirs)).unwrap_or(own).into_bytes();
                HttpAnswer { status: 200, content_type: CONTENT_TYPE, body }
            })
        };
        Self { address, path: "/metrics", answers: HttpAnswers::Shared(Arc::new(answer)), tls: None }
    }
    /// `/status.json`: what `ask` is told, 503 where that is not all. Names and clients are for whoever asks from this
    /// machine, and for others if `shows_all`.
    pub(crate) fn status(address: SocketAddr, ask: AskStatus, shows_all: bool) -> Self {
        let answer = |shows_names: bool| -> AnswerAll {
            let ask = ask.clone();
            Arc::new(move || {
                let asked = ask(shows_names);
                Box::pin(async move {
                    let (status, body) = match asked.await {
                        Ok(body) => (200, body),
                        Err(body) => (503, body),
                    };
                    HttpAnswer { status, content_type: "application/json", body: body.into() }
                })
            })
        };
        let answers = HttpAnswers::ByPlace { here: answer(true), elsewhere: answer(shows_all) };
        Self { address, path: "/status.json", answers, tls: None }
    }
    /// One whose answer is always the same.
    pub(crate) fn document(address: SocketAddr, path: &'static str, document: &'static Document) -> Self {
        Self { address, path, answers: HttpAnswers::Document(document), tls: None }
    }
    /// One whose answers are [`HttpAnswers::ForEach`].
    pub fn for_each(
        address: SocketAddr,
        path: &'static str,
        answer: impl Fn(&str) -> BoxFuture<'static, HttpAnswer> + Send + Sync + 'static,
    ) -> Self {
        Self { address, path, answers: HttpAnswers::ForEach(Arc::new(answer)), tls: None }
    }
    /// The same over TLS, if that is given.
    pub fn over(self, tls: Option<ServerTls>) -> Self {
        Self { tls, ..self }
    }
}

/// How an endpoint's answers are made.
#[derive(Clone)]
pub enum HttpAnswers {
    /// One for all who ask while it may not be made yet. It is compressed for those who take that. It may wait for
    /// somebody for a bounded time, in which none is made for others.
    Shared(AnswerAll),
    /// The same for two kinds of clients, who are to ask by an address and not by a name, which may be anybody's.
    ByPlace {
        /// For those on this machine, by a loopback address.
        here: AnswerAll,
        /// For all others.
        elsewhere: AnswerAll,
    },
    /// Always the same, for who asks by an address as in [`HttpAnswers::ByPlace`].
    Document(&'static Document),
    /// One for each request, from the query of its URI (RFC 3986 section 3.4; empty if there is none). It may take
    /// time, and is dropped when its client goes. Whoever gives it bounds how much is made for all who ask.
    ForEach(AnswerEach),
}

/// An answer of which all is known beforehand.
#[derive(Debug)]
pub struct Document {
    /// Names and values, Content-Type among them.
    pub headers: &'static [(&'static str, &'static str)],
    /// What follows them.
    pub body: &'static str,
}

/// Makes an answer for all who ask.
pub(crate) type AnswerAll = Arc<dyn Fn() -> BoxFuture<'static, HttpAnswer> + Send + Sync>;

/// Makes an answer from a request's query.
pub(crate) type AnswerEach = Arc<dyn Fn(&str) -> BoxFuture<'static, HttpAnswer> + Send + Sync>;

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The HTTP status code.
    pub status: u16,
    /// The value of Content-Type.
    pub content_type: &'static str,
    /// What follows the headers.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// Plain text.
    pub fn text(status: u16, text: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: text.into() }
    }
}

/// Asks the other process of this program for its metrics in text format; `None` if it does not say, or not in time.
pub(crate) type AskMetrics = Arc<dyn Fn() -> BoxFuture<'static, Option<String>> + Send + Sync>;

/// Asks for the status, in JSON, with names and clients or without. The error is JSON too: what is known when the
/// server does not tell its own.
pub(crate) type AskStatus = Arc<dyn Fn(bool) -> BoxFuture<'static, Result<String, String>> + Send + Sync>;
