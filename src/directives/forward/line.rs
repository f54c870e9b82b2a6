//! What a UDP socket and a TCP connection to an upstream have in common: queries in flight on it, answers matched to them by ID
//! and question, and several tries of one query raced against each other.

use super::error::{Path, TryError};
use crate::chain::Request;
use crate::message::{Class, LowerName, Query, RecordType, Response};
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::oneshot;

/// Queries in flight on one line. Keeps random IDs far from running out.
const IN_FLIGHT_LIMIT: usize = 8192;

/// A query as it goes upstream; its ID is set for each try.
pub struct Asked {
    wire: SmallVec<[u8; 128]>,
    name: LowerName,
    qtype: RecordType,
    qclass: Class,
}

impl Asked {
    pub fn new(request: &Request<'_>) -> Self {
        Self {
            wire: request.query.to_upstream(request.wire, request.udp_size()),
            name: request.query.name.clone(),
            qtype: request.query.qtype,
            qclass: request.query.qclass,
        }
    }

    /// A query of our own; `None` if `wire` is none.
    pub fn from_wire(wire: Vec<u8>) -> Option<Self> {
        let Query { name, qtype, qclass, .. } = Query::read(&wire).ok()?;
        Some(Self { wire: wire.into(), name, qtype, qclass })
    }

    /// Octets of the message.
    pub fn len(&self) -> usize {
        self.wire.len()
    }

    /// Appends the message with `id` in its place.
    pub fn write(&self, id: u16, out: &mut Vec<u8>) {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(self.wire.get(2..).unwrap_or_default());
    }

    fn is_answered_by(&self, response: &Response) -> bool {
        response.question_matches(self.name.as_wire(), self.qtype, self.qclass)
    }
}

/// What came of a try.
pub type TryOutcome = Result<Response, TryError>;

/// What an arriving message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It ended a query's wait.
    Taken,
    /// Nobody waits for its ID: late, repeated, or forged.
    Unasked,
    /// Its ID is waited for, its question is not (RFC 5452 section 9.1), or it is no response. The query waits on.
    Mismatched,
}

/// The queries in flight on one line, by ID.
#[derive(Default)]
pub struct InFlight {
    entries: HashMap<u16, (Arc<Asked>, oneshot::Sender<TryOutcome>), RandomState>,
}

impl InFlight {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Gives `asked` an unpredictable ID that is not in use here; `None` if too many are in flight.
    pub fn register(&mut self, asked: &Arc<Asked>) -> Option<(u16, oneshot::Receiver<TryOutcome>)> {
        if self.entries.len() >= IN_FLIGHT_LIMIT {
            return None;
        }
        loop {
            let id = rand::random();
            if let std::collections::hash_map::Entry::Vacant(vacant) = self.entries.entry(id) {
                let (sender, receiver) = oneshot::channel();
                vacant.insert((asked.clone(), sender));
                return Some((id, receiver));
            }
        }
    }

    /// Nobody waits for `id` any longer.
    pub fn forget(&mut self, id: u16) {
        self.entries.remove(&id);
    }

    /// Takes a message that came from the upstream.
    pub fn deliver(&mut self, message: &[u8], path: Path) -> Delivery {
        let Some((&[id_high, id_low, flags, low_flags, questions_high, questions_low], _)) = message.split_first_chunk() else {
            return Delivery::Mismatched;
        };
        let id = u16::from_be_bytes([id_high, id_low]);
        let Some((asked, _)) = self.entries.get(&id) else { return Delivery::Unasked };
        if flags & 0x80 == 0 {
            return Delivery::Mismatched;
        }
        let outcome = match Response::read(message) {
            Ok(response) if asked.is_answered_by(&response) => Ok(response),
            Ok(_) => return Delivery::Mismatched,
            // A server that could not read the question answers with an error code alone.
            Err(_) if [questions_high, questions_low] == [0, 0] && low_flags & 0x0f != 0 => Err(TryError::NoQuestion(path)),
            Err(why) => Err(TryError::Malformed(path, why)),
        };
        if let Some((_, waiter)) = self.entries.remove(&id) {
            // The asker may have gone meanwhile.
            let _ = waiter.send(outcome);
        }
        Delivery::Taken
    }

    /// Ends the wait for `id` with `error`.
    pub fn fail(&mut self, id: u16, error: TryError) {
        if let Some((_, waiter)) = self.entries.remove(&id) {
            let _ = waiter.send(Err(error));
        }
    }

    /// Ends every wait with `error`.
    pub fn fail_all(&mut self, error: &TryError) {
        for (_, (_, waiter)) in self.entries.drain() {
            let _ = waiter.send(Err(error.clone()));
        }
    }
}

/// A UDP socket or a TCP connection to one upstream.
pub trait Line: Send + Sync {
    /// Nobody waits for the answer to `id` any longer.
    fn forget(&self, id: u16);
    /// Takes no new queries; closes when none is in flight.
    fn retire(&self);
    /// True if anything came from the upstream after `instant`.
    fn is_heard_since(&self, instant: Instant) -> bool;
    /// The local end, once there is one.
    fn local(&self) -> Option<SocketAddr>;
}

/// One sending of a query. Dropped, it is forgotten by its line.
pub struct Try {
    pub line: Arc<dyn Line>,
    pub id: u16,
    pub receiver: oneshot::Receiver<TryOutcome>,
    pub sent: Instant,
    /// Queries that were in flight on the line before this one.
    pub ahead: usize,
}

impl Drop for Try {
    fn drop(&mut self) {
        self.line.forget(self.id);
    }
}

/// Several tries of one query; the first answer wins.
pub struct Race {
    pub tries: SmallVec<[Try; 3]>,
    pub path: Path,
}

/// How a wait of a [`Race`] ended.
pub enum Step {
    Answered(Response),
    /// No try is left; the last one's error.
    Failed(TryError),
    /// The time is over and at least one try still waits.
    Due,
}

impl Race {
    /// Waits for an answer, for the last try's failure, or until `until`.
    pub async fn wait(&mut self, until: Instant) -> Step {
        tokio::time::timeout_at(until.into(), poll_fn(|context| self.poll(context))).await.unwrap_or(Step::Due)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        let (mut answer, mut failure) = (None, None);
        self.tries.retain(|attempt| match Pin::new(&mut attempt.receiver).poll(context) {
            Poll::Pending => true,
            Poll::Ready(outcome) => {
                // The sender is dropped only with its line's task, when the runtime goes.
                match outcome.unwrap_or(Err(TryError::Closed(self.path))) {
                    Ok(response) => answer = Some(response),
                    Err(error) => failure = Some(error),
                }
                false
            }
        });
        match (answer, failure) {
            (Some(response), _) => Poll::Ready(Step::Answered(response)),
            (None, Some(error)) if self.tries.is_empty() => Poll::Ready(Step::Failed(error)),
            _ => Poll::Pending,
        }
    }

    /// No line of this race is to be used for new queries.
    pub fn retire_lines(&self) {
        for attempt in &self.tries {
            attempt.line.retire();
        }
    }

    /// The path of the newest try, for messages.
    pub fn newest_path(&self) -> Path {
        Path { local: self.tries.last().and_then(|attempt| attempt.line.local()), ..self.path }
    }
}

/// Ends every wait when the task that reads a line ends, however it ends.
pub struct FailOnDrop<'a> {
    pub in_flight: &'a Mutex<InFlight>,
    pub error: TryError,
}

impl Drop for FailOnDrop<'_> {
    fn drop(&mut self) {
        self.in_flight.lock().fail_all(&self.error);
    }
}
