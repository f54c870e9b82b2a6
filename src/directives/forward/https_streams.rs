//! DNS over HTTPS on a connection to an upstream (RFC 8484): each query has an HTTP/2 stream of its own.

use super::error::UpstreamError;
use super::idle_timer::IdleTimer;
use super::in_flight::Delivery;
use super::remote::MAX_STREAMS;
use super::tcp_connection::{ConnectionEnd, TcpConnection};
use super::upstream_socket::UpstreamSocket;
use crate::message::framing::{self, Frame};
use crate::net::bounded_reads::ReadAllowance;
use crate::net::doh::{self, DohConnection, DohError, DohResource, DohResponse, DohSender, ExchangeError};
use foldhash::fast::RandomState;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use h2::client::ResponseFuture;
use h2::{Reason, SendStream};
use hyper::body::Bytes;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// How long the upstream has to take our goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Sends queries and takes answers. Ends well when the upstream closes the connection, or when it is retired and done.
pub(super) async fn serve(
    connection: &TcpConnection,
    session: TlsStream<TcpStream>,
    resource: &DohResource,
) -> Result<(), ConnectionEnd> {
    let at_first = connection.remote.streams.load(Ordering::Relaxed);
    let (sender, mut http, allowance) = doh::handshake(session, at_first).await?;
    let (waiting, open) = (VecDeque::new(), HashMap::default());
    let mut streams = Streams { connection, resource, sender, allowance, waiting, open };
    let mut exchanges = FuturesUnordered::new();
    let mut idle = IdleTimer::new(connection.remote.settings.expire);
    loop {
        streams.take_over();
        while let Some((id, response)) = streams.open_next() {
            exchanges.push(exchange(id, response));
            idle.restart();
        }
        if connection.is_done() {
            drop(exchanges);
            streams.say_goodbye(http).await;
            return Ok(());
        }
        tokio::select! {
            biased;
            // Before what the upstream sends, so that it cannot put them off.
            () = idle.tick(connection) => {}
            () = connection.changed.notified() => {}
            ended = &mut http => {
                // What came before the end is an answer as any other.
                while let Some(Some((id, outcome))) = exchanges.next().now_or_never() {
                    streams.finish(id, outcome);
                }
                return Ok(ended?);
            }
            Some((id, outcome)) = exchanges.next(), if !exchanges.is_empty() => {
                let is_flooded = matches!(outcome, Err(ExchangeError::Response(DohError::Interim)));
                streams.finish(id, outcome);
                if is_flooded {
                    return Err(ConnectionEnd::Session("http2: an endless response on another stream".into()));
                }
                idle.restart();
            }
            _ = poll_fn(|context| streams.sender.poll_ready(context)), if !streams.waiting.is_empty() => {}
        }
    }
}

/// What comes of the query `id`.
async fn exchange(id: u16, response: ResponseFuture) -> (u16, Result<DohResponse, ExchangeError>) {
    (id, doh::receive(response).await)
}

/// The streams of one connection.
struct Streams<'a> {
    connection: &'a TcpConnection,
    resource: &'a DohResource,
    sender: DohSender,
    /// What may be read of the connection.
    allowance: ReadAllowance,
    /// Queries that wait until the upstream takes another stream.
    waiting: VecDeque<(u16, Vec<u8>)>,
    /// By the IDs of their queries, so that they can be ended.
    open: HashMap<u16, SendStream<Bytes>, RandomState>,
}

impl Streams<'_> {
    /// Takes over the queries that have been put on the connection, and ends the streams of those that nobody waits for
    /// any more.
    fn take_over(&mut self) {
        let streams = self.sender.current_max_send_streams().clamp(1, MAX_STREAMS);
        self.connection.remote.streams.store(streams, Ordering::Relaxed);
        let (outbox, forgotten) = {
            let mut state = self.connection.state.lock();
            state.busy_from = streams;
            (std::mem::take(&mut state.outbox), std::mem::take(&mut state.forgotten))
        };
        let mut rest = outbox.as_slice();
        while let Frame::Message { octets: query, rest: after } = framing::first(rest, 0..=usize::from(u16::MAX)) {
            if let Some(id) = query.first_chunk() {
                self.waiting.push_back((u16::from_be_bytes(*id), query.to_vec()));
            }
            rest = after;
        }
        // After the others, for among them may be some that were given up before there was a session.
        for id in forgotten {
            match self.open.remove(&id) {
                Some(mut stream) => stream.send_reset(Reason::CANCEL),
                None => self.waiting.retain(|(waiting, _)| *waiting != id),
            }
        }
    }

    /// Opens a stream for the next query that waits. `None` if none waits, or the upstream takes no more streams now.
    fn open_next(&mut self) -> Option<(u16, ResponseFuture)> {
        while !self.waiting.is_empty() {
            let ready = poll_fn(|context| self.sender.poll_ready(context)).now_or_never()?;
            let (id, query) = self.waiting.pop_front()?;
            match ready.and_then(|()| doh::send(&mut self.sender, self.resource, query)) {
                Ok((response, stream)) => {
                    self.open.insert(id, stream);
                    doh::allow_request(&self.allowance, self.open.len());
                    return Some((id, response));
                }
                Err(error) => self.fail(id, error),
            }
        }
        None
    }

    /// Ends the query `id` with what has come of it.
    fn finish(&mut self, id: u16, outcome: Result<DohResponse, ExchangeError>) {
        self.open.remove(&id);
        let endpoints = self.connection.endpoints();
        let failure = match outcome {
            Err(ExchangeError::Http2(error)) => return self.fail(id, error),
            Err(ExchangeError::Response(error)) => Some(error),
            Ok(DohResponse { mut message, age }) => {
                message.iter_mut().zip(id.to_be_bytes()).for_each(|(octet, of_id)| *octet = of_id);
                let mut in_flight = self.connection.in_flight.lock();
                match in_flight.deliver(&message, endpoints, Instant::now(), |_| false) {
                    Delivery::Accepted => {
                        in_flight.age_answer(id, age);
                        None
                    }
                    // Nobody waits for it any more.
                    Delivery::Late | Delivery::UnknownId => None,
                    Delivery::Mismatched => {
                        self.connection.remote.metrics.mismatched.increment();
                        Some(DohError::OtherQuestion)
                    }
                }
            }
        };
        if let Some(error) = failure {
            self.connection.in_flight.lock().fail(id, UpstreamError::Https(endpoints, error.into()));
        }
        self.connection.state.lock().last_answer = Some(Instant::now());
    }

    /// Fails the query `id` because its stream, or the connection, has failed.
    fn fail(&mut self, id: u16, error: h2::Error) {
        // We have ended it ourselves, and the ID may be that of another query by now.
        if error.is_reset() && !error.is_remote() && !error.is_library() {
            return;
        }
        // What takes no more streams gets no more queries, so that those that have failed are asked on another one.
        if !error.is_reset() {
            self.connection.retire();
        }
        let endpoints = self.connection.endpoints();
        self.connection.in_flight.lock().fail(id, ConnectionEnd::from(error).error(endpoints));
    }

    /// Tells the upstream that nothing more comes (GOAWAY, and the end of the session).
    async fn say_goodbye(self, http: DohConnection) {
        drop(self);
        // It is no failure of anybody's if the upstream does not want to know.
        let _ = tokio::time::timeout(GOODBYE, http).await;
    }
}
