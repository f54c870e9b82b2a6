//! What a UDP socket and a TCP connection to an upstream have in common: queries in flight on it, answers matched to them by ID
//! and question, and several tries of one query raced against each other.

use super::error::{Path, TryError};
use crate::chain::Request;
use crate::message::{Class, LowerName, Query, RecordType, Response};
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

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
    /// With an OPT record if the client sent one.
    pub fn new(request: &Request<'_>) -> Self {
        let udp_size = request.query.edns.map(|_| request.udp_size());
        Self::with(request.query, udp_size)
    }

    /// The same question without an OPT record, for an upstream that does not understand one.
    pub fn without_edns(request: &Request<'_>) -> Self {
        Self::with(request.query, None)
    }

    fn with(query: &Query, udp_size: Option<u16>) -> Self {
        Self { wire: query.key().to_upstream(udp_size), name: query.name.clone(), qtype: query.qtype, qclass: query.qclass }
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

/// What a look at a query in flight tells.
#[derive(Debug)]
pub enum Look {
    Pending,
    /// The time that the asker gave himself is over; the query is still in flight.
    Due,
    Over(TryOutcome),
}

/// The queries in flight on one line, by ID, and when the next of their askers is to be woken without an answer. One alarm for all of them: a timer
/// of the runtime and a channel for each took a twelfth of a miss's instructions (benches/README.md).
#[derive(Default)]
pub struct InFlight {
    entries: HashMap<u16, Entry, RandomState>,
    /// Not after the earliest time that an asker waits until. Those that have got their answers leave it where it is, so that it seldom moves.
    alarm: Option<Instant>,
    /// Whoever sees to it.
    bell: Option<Waker>,
    /// Set once nobody does: the line's task has ended.
    ended: Option<TryError>,
}

struct Entry {
    asked: Arc<Asked>,
    state: State,
}

/// How far a query in flight is.
enum State {
    /// Its asker has not looked yet.
    Sent,
    Waiting {
        waker: Waker,
        until: Instant,
    },
    /// The time of the last wait is over.
    Due,
    /// Its asker does not know yet.
    Answered(Response),
    /// Nor of a failure. Boxed: it is large and rare, and every entry would have room for it.
    Failed(Box<TryError>),
}

impl State {
    fn is_open(&self) -> bool {
        !matches!(self, Self::Answered(_) | Self::Failed(_))
    }

    fn end(&mut self, outcome: TryOutcome) {
        let end = outcome.map_or_else(|error| Self::Failed(Box::new(error)), Self::Answered);
        if self.is_open()
            && let Self::Waiting { waker, .. } = std::mem::replace(self, end)
        {
            waker.wake();
        }
    }
}

impl InFlight {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Gives `asked` an unpredictable ID that is not in use here; `None` if too many are in flight.
    pub fn register(&mut self, asked: &Arc<Asked>) -> Option<u16> {
        if self.entries.len() >= IN_FLIGHT_LIMIT {
            return None;
        }
        loop {
            let id = rand::random();
            if let Vacant(vacant) = self.entries.entry(id) {
                let state = self.ended.clone().map_or(State::Sent, |error| State::Failed(Box::new(error)));
                vacant.insert(Entry { asked: asked.clone(), state });
                return Some(id);
            }
        }
    }

    /// Nobody waits for `id` any longer.
    pub fn forget(&mut self, id: u16) {
        self.entries.remove(&id);
    }

    /// Looks what has become of `id`. Its asker is woken when that changes, or after `until`.
    pub fn look(&mut self, id: u16, until: Instant, waker: &Waker) -> Look {
        let Occupied(mut entry) = self.entries.entry(id) else { return Look::Due };
        match &mut entry.get_mut().state {
            State::Answered(_) | State::Failed(_) => match entry.remove().state {
                State::Answered(response) => return Look::Over(Ok(response)),
                State::Failed(error) => return Look::Over(Err(*error)),
                _ => return Look::Pending,
            },
            state @ State::Due => {
                *state = State::Sent;
                return Look::Due;
            }
            state => *state = State::Waiting { waker: waker.clone(), until },
        }
        if self.alarm.is_none_or(|alarm| until < alarm) {
            self.alarm = Some(until);
            self.bell.iter().for_each(Waker::wake_by_ref);
        }
        Look::Pending
    }

    /// Takes a message that came from the upstream.
    pub fn deliver(&mut self, message: &[u8], path: Path) -> Delivery {
        let Some((&[id_high, id_low, flags, low_flags, questions_high, questions_low], _)) = message.split_first_chunk() else {
            return Delivery::Mismatched;
        };
        let id = u16::from_be_bytes([id_high, id_low]);
        let Some(Entry { asked, state }) = self.entries.get_mut(&id).filter(|entry| entry.state.is_open()) else {
            return Delivery::Unasked;
        };
        if flags & 0x80 == 0 {
            return Delivery::Mismatched;
        }
        state.end(match Response::read(message) {
            Ok(response) if asked.is_answered_by(&response) => Ok(response),
            Ok(_) => return Delivery::Mismatched,
            // A server that could not read the question answers with an error code alone.
            Err(_) if [questions_high, questions_low] == [0, 0] && low_flags & 0x0f != 0 => Err(TryError::NoQuestion(path)),
            Err(why) => Err(TryError::Malformed(path, why)),
        });
        Delivery::Taken
    }

    /// Ends the wait for `id` with `error`.
    pub fn fail(&mut self, id: u16, error: TryError) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.state.end(Err(error));
        }
    }

    /// Ends every wait with `error`, and those to come: the line's task has ended, in whatever way.
    fn end(&mut self, error: &TryError) {
        self.fail_all(error);
        self.ended = Some(error.clone());
    }

    /// Ends every wait with `error`.
    pub fn fail_all(&mut self, error: &TryError) {
        for entry in self.entries.values_mut() {
            entry.state.end(Err(error.clone()));
        }
    }

    /// Wakes every asker whose time is over at `now`, and sets the alarm for the next.
    fn ring(&mut self, now: Instant) {
        self.alarm = None;
        for Entry { state, .. } in self.entries.values_mut() {
            match state {
                State::Waiting { until, .. } if *until <= now => {
                    if let State::Waiting { waker, .. } = std::mem::replace(state, State::Due) {
                        waker.wake();
                    }
                }
                State::Waiting { until, .. } => self.alarm = Some(self.alarm.map_or(*until, |alarm| alarm.min(*until))),
                _ => {}
            }
        }
    }
}

/// Rings a line's alarm: the one timer of the runtime that a line has.
pub struct Bell {
    sleep: Pin<Box<Sleep>>,
    /// What `sleep` is set to.
    set: Option<Instant>,
}

impl Bell {
    pub fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), set: None }
    }

    /// Wakes the askers whose time is over, whenever that is; never ends.
    pub async fn ring(&mut self, in_flight: &Mutex<InFlight>) -> Infallible {
        poll_fn(|context| {
            loop {
                let mut queries = in_flight.lock();
                if !queries.bell.as_ref().is_some_and(|bell| bell.will_wake(context.waker())) {
                    queries.bell = Some(context.waker().clone());
                }
                let Some(alarm) = queries.alarm else { return Poll::Pending };
                drop(queries);
                if self.set.is_none_or(|set| alarm < set) {
                    self.sleep.as_mut().reset(alarm.into());
                    self.set = Some(alarm);
                }
                ready!(self.sleep.as_mut().poll(context));
                self.set = None;
                in_flight.lock().ring(Instant::now());
            }
        })
        .await
    }
}

/// A UDP socket or a TCP connection to one upstream.
pub trait Line: Send + Sync {
    /// Looks what has become of `id`; see [`InFlight::look`].
    fn look(&self, id: u16, until: Instant, waker: &Waker) -> Look;
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
    pub tries: SmallVec<[Try; 1]>,
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
        poll_fn(|context| self.poll(until, context)).await
    }

    fn poll(&mut self, until: Instant, context: &mut Context<'_>) -> Poll<Step> {
        let (mut answer, mut failure, mut is_due) = (None, None, false);
        self.tries.retain(|attempt| match attempt.line.look(attempt.id, until, context.waker()) {
            Look::Pending => true,
            Look::Due => {
                is_due = true;
                true
            }
            Look::Over(outcome) => {
                match outcome {
                    Ok(response) => answer = Some(response),
                    Err(error) => failure = Some(error),
                }
                false
            }
        });
        match (answer, failure) {
            (Some(response), _) => Poll::Ready(Step::Answered(response)),
            (None, Some(error)) if self.tries.is_empty() => Poll::Ready(Step::Failed(error)),
            _ if is_due => Poll::Ready(Step::Due),
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
        self.in_flight.lock().end(&self.error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Transport;

    #[test]
    fn what_is_asked_on_a_line_whose_task_has_ended_fails_at_once() {
        let asked = Arc::new(Asked::from_wire(Query::compose(0, b"\x01a\0", RecordType::A, true)).unwrap());
        let queries = Mutex::new(InFlight::default());
        let path = Path { transport: Transport::Udp, local: None, remote: "127.0.0.1:53".parse().unwrap() };
        let before = queries.lock().register(&asked).unwrap();
        drop(FailOnDrop { in_flight: &queries, error: TryError::Closed(path) });
        let after = queries.lock().register(&asked).unwrap();
        let until = Instant::now() + Duration::from_secs(1);
        for id in [before, after] {
            let look = queries.lock().look(id, until, Waker::noop());
            assert!(matches!(look, Look::Over(Err(TryError::Closed(_)))), "{look:?}");
        }
    }

    #[test]
    fn askers_are_woken_when_their_time_is_over_and_their_queries_stay_in_flight() {
        let query = Query::compose(0, b"\x01a\0", RecordType::A, true);
        let asked = Arc::new(Asked::from_wire(query).unwrap());
        let mut queries = InFlight::default();
        let (first, second) = (queries.register(&asked).unwrap(), queries.register(&asked).unwrap());
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let path = Path { transport: Transport::Udp, local: None, remote: "127.0.0.1:53".parse().unwrap() };
        let woken = Arc::new(Count::default());
        let waker = Waker::from(woken.clone());

        assert!(matches!(queries.look(first, after(1), &waker), Look::Pending));
        assert!(matches!(queries.look(second, after(2), &waker), Look::Pending));
        assert_eq!(queries.alarm, Some(after(1)));
        queries.ring(after(1));
        assert_eq!((woken.wakes(), queries.alarm), (1, Some(after(2))));
        assert!(matches!(queries.look(first, after(3), &waker), Look::Due));
        assert!(matches!(queries.look(first, after(3), &waker), Look::Pending));

        queries.fail(second, TryError::Closed(path));
        queries.ring(after(2));
        assert_eq!((woken.wakes(), queries.alarm), (2, Some(after(3))), "who has an outcome is woken once");
        assert!(matches!(queries.look(second, after(4), &waker), Look::Over(Err(TryError::Closed(_)))));
        assert_eq!(queries.len(), 1);
    }

    #[test]
    fn an_earlier_wait_moves_the_alarm_and_tells_whoever_sees_to_it() {
        let asked = Arc::new(Asked::from_wire(Query::compose(0, b"\x01a\0", RecordType::A, true)).unwrap());
        let bell = Arc::new(Count::default());
        let mut queries = InFlight { bell: Some(Waker::from(bell.clone())), ..InFlight::default() };
        let ids = [(); 3].map(|()| queries.register(&asked).unwrap());
        let start = Instant::now();
        for (id, seconds, told) in [(ids[0], 2, 1), (ids[1], 3, 1), (ids[2], 1, 2)] {
            queries.look(id, start + Duration::from_secs(seconds), Waker::noop());
            assert_eq!(bell.wakes(), told);
        }
        assert_eq!(queries.alarm, Some(start + Duration::from_secs(1)));
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Count(std::sync::atomic::AtomicUsize);

    impl Count {
        fn wakes(&self) -> usize {
            self.0.load(std::sync::atomic::Ordering::Relaxed)
        }
    }

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}
