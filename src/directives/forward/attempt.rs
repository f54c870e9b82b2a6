//! The attempts at one query: each is one sending of it on one socket, and the first answer ends all of them.

use super::error::{Endpoints, UpstreamError};
use super::in_flight::QueryStatus;
use super::upstream_socket::UpstreamSocket;
use crate::chain::{Encryption, Transport};
use crate::message::Response;
use smallvec::{SmallVec, smallvec};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// Which attempt at a query is to be made. It decides the socket or connection that the query is sent on.
#[derive(Clone, Copy)]
pub(super) enum AttemptKind<'a> {
    /// The first one. Any socket will do.
    First,
    /// Another one beside these, which have got no answer yet. Their sockets are avoided.
    Again(&'a [Attempt]),
    /// The last one, after sockets have failed. A connection is opened for it alone, because some servers close each
    /// connection after one answer.
    LastResort,
}

impl<'a> AttemptKind<'a> {
    /// The attempts whose sockets are to be avoided; `None` for the first attempt.
    pub(super) fn earlier(self) -> Option<&'a [Attempt]> {
        match self {
            Self::First => None,
            Self::Again(earlier) => Some(earlier),
            Self::LastResort => Some(&[]),
        }
    }
}

/// One sending of a query. When it is dropped, its socket forgets the query.
pub(super) struct Attempt {
    pub socket: Arc<dyn UpstreamSocket>,
    pub id: u16,
    pub sent: Instant,
    /// When the query was first sent to this upstream, in another attempt perhaps.
    pub since: Instant,
    /// Queries that were in flight on the socket before this one.
    pub queued_behind: usize,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.socket.forget(self.id);
    }
}

/// All attempts at one query that wait for an answer.
pub(super) struct Attempts {
    waiting: SmallVec<[Attempt; 1]>,
    /// When the first of them was sent.
    start: Instant,
    transport: Transport,
    upstream: SocketAddr,
    /// The socket of the attempt that was answered, and [`Attempt::since`] of it.
    answered: Option<(Arc<dyn UpstreamSocket>, Instant)>,
}

/// An attempt that was answered.
pub(super) struct AnsweredAttempt {
    pub endpoints: Endpoints,
    /// What hid it on the way.
    pub encryption: Option<Encryption>,
    /// See [`Attempt::since`].
    pub since: Instant,
}

/// An upstream's failure, and the attempts that may still be answered: those of a query that has waited for the whole
/// read timeout.
pub(super) struct NoAnswer {
    pub error: UpstreamError,
    pub unanswered: Option<Box<Attempts>>,
}

impl From<UpstreamError> for NoAnswer {
    fn from(error: UpstreamError) -> Self {
        Self { error, unanswered: None }
    }
}

/// What [`Attempts::next_event`] waited for.
pub(super) enum AttemptEvent {
    /// An answer, and who gave it.
    Answered(Response, SocketAddr),
    /// No attempt is left, or an error came that ends them all ([`UpstreamError::may_be_forged`]). This is the error of
    /// the last one.
    Failed(UpstreamError),
    /// The deadline has passed and at least one attempt still waits.
    DeadlinePassed,
}

impl Attempts {
    pub(super) fn new(first: Attempt, transport: Transport, upstream: SocketAddr) -> Self {
        Self { start: first.sent, waiting: smallvec![first], transport, upstream, answered: None }
    }

    /// Waits for those too, which were made at another upstream before.
    pub(super) fn join(&mut self, earlier: Self) {
        self.waiting.extend(earlier.waiting);
    }

    pub(super) fn add(&mut self, mut attempt: Attempt) {
        attempt.since = self.start;
        self.waiting.push(attempt);
    }

    /// The attempts that still wait for an answer.
    pub(super) fn waiting(&self) -> &[Attempt] {
        &self.waiting
    }

    /// Waits for an answer, which is counted, for the failure of the last attempt, or until `deadline`.
    pub(super) async fn next_event(&mut self, deadline: Instant) -> AttemptEvent {
        poll_fn(|context| self.poll(deadline, context)).await
    }

    fn poll(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<AttemptEvent> {
        let (mut answer, mut failure, mut is_expired) = (None, None, false);
        let answered = &mut self.answered;
        self.waiting.retain(|attempt| match attempt.socket.poll(attempt.id, deadline, context.waker()) {
            QueryStatus::Pending => true,
            QueryStatus::DeadlinePassed => {
                is_expired = true;
                true
            }
            QueryStatus::Done(outcome) => {
                match outcome {
                    Ok(response) => {
                        attempt.socket.remote().metrics.count_response(response.rcode(), attempt.since.elapsed());
                        answer = Some((response, attempt.socket.remote().address));
                        *answered = Some((attempt.socket.clone(), attempt.since));
                    }
                    Err(error) => failure = Some(error),
                }
                false
            }
        });
        match (answer, failure) {
            (Some((response, from)), _) => Poll::Ready(AttemptEvent::Answered(response, from)),
            (None, Some(error)) if self.waiting.is_empty() || error.may_be_forged() => {
                Poll::Ready(AttemptEvent::Failed(error))
            }
            _ if is_expired => Poll::Ready(AttemptEvent::DeadlinePassed),
            _ => Poll::Pending,
        }
    }

    /// True if one of the sockets shows that its answer is still on the way.
    pub(super) fn have_progress(&self) -> bool {
        self.waiting.iter().any(|attempt| attempt.socket.has_progress_since(attempt.sent))
    }

    /// Retires the sockets that have brought no answer since their attempt was sent.
    pub(super) fn retire_silent_sockets(&self) {
        for attempt in &self.waiting {
            attempt.socket.retire_if_silent_since(attempt.sent);
        }
    }

    /// The attempt that was answered; `None` as long as there is none.
    pub(super) fn answered(&self) -> Option<AnsweredAttempt> {
        let (socket, since) = self.answered.as_ref()?;
        let (local, remote) = (socket.local_address(), socket.remote());
        let endpoints = Endpoints { transport: socket.transport(), local, remote: remote.address };
        Some(AnsweredAttempt { endpoints, encryption: remote.protocol.encryption(), since: *since })
    }

    /// The endpoints of the latest attempt, for messages.
    pub(super) fn latest_endpoints(&self) -> Endpoints {
        let local = self.waiting.last().and_then(|attempt| attempt.socket.local_address());
        Endpoints { transport: self.transport, local, remote: self.upstream }
    }
}
