//! The queries in flight on one line, answers matched to them by ID and question. No I/O here; the clock is the caller's.

use super::asked::{Asked, Comparison};
use super::error::{Path, TryError};
use super::letter_case::LetterCase;
use crate::message::{Response, WireError, lower_case_echoes};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

/// Queries in flight on one line. Keeps random IDs far from running out.
const IN_FLIGHT_LIMIT: usize = 8192;

/// What came of a try.
pub type TryOutcome = Result<Response, TryError>;

/// What an arriving message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It ended a query's wait.
    Taken,
    /// Its ID is that of a query that is over: late or repeated.
    Late,
    /// Nobody waits for its ID: forged, or late on a line that does not remember.
    Unasked,
    /// Its ID is waited for, its question is not (RFC 5452 section 9.1), or it is no response. The query waits on, unless only the case of letters is
    /// another.
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
    /// When the last answer came that somebody waited for.
    heard: Option<Instant>,
    /// IDs of queries that are over, on a line that remembers them.
    spent: Option<Vec<u16>>,
}

struct Entry {
    asked: Arc<Asked>,
    case: LetterCase,
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
    /// Remembers which IDs are spent, so that what comes late is not taken for forged. For a line of few queries.
    pub fn remembering() -> Self {
        Self { spent: Some(Vec::new()), ..Self::default() }
    }

    /// True if another query may be registered.
    pub fn has_room(&self) -> bool {
        self.entries.len() + self.spent.as_ref().map_or(0, Vec::len) < IN_FLIGHT_LIMIT
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Gives `asked`, to be sent in this case, an unpredictable ID that is not in use here; `None` if too many are in flight.
    pub fn register(&mut self, asked: &Arc<Asked>, case: LetterCase) -> Option<u16> {
        if !self.has_room() {
            return None;
        }
        loop {
            let id = rand::random();
            if let Vacant(vacant) = self.entries.entry(id) {
                let state = self.ended.clone().map_or(State::Sent, |error| State::Failed(Box::new(error)));
                vacant.insert(Entry { asked: asked.clone(), case, state });
                return Some(id);
            }
        }
    }

    /// Nobody waits for `id` any longer.
    pub fn forget(&mut self, id: u16) {
        if self.entries.remove(&id).is_some()
            && let Some(spent) = &mut self.spent
        {
            spent.push(id);
        }
    }

    /// Looks what has become of `id`. Its asker is woken when that changes, or after `until`.
    pub fn look(&mut self, id: u16, until: Instant, waker: &Waker) -> Look {
        let Occupied(mut entry) = self.entries.entry(id) else { return Look::Due };
        match &mut entry.get_mut().state {
            State::Answered(_) | State::Failed(_) => {
                let state = entry.remove().state;
                self.spent.iter_mut().for_each(|spent| spent.push(id));
                return match state {
                    State::Answered(response) => Look::Over(Ok(response)),
                    State::Failed(error) => Look::Over(Err(*error)),
                    _ => Look::Pending,
                };
            }
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

    /// Takes a message that came from the upstream. Header and question are compared before the rest is read, so that what is forged, late or
    /// repeated costs little, whatever its length. No message answers a question that `is_suspected`.
    pub fn deliver(&mut self, message: &[u8], path: Path, now: Instant, is_suspected: impl Fn(&Asked) -> bool) -> Delivery {
        let Some((&[id_high, id_low, flags, low_flags, questions_high, questions_low], _)) = message.split_first_chunk() else {
            return Delivery::Mismatched;
        };
        let id = u16::from_be_bytes([id_high, id_low]);
        let Some(Entry { asked, case, state }) = self.entries.get_mut(&id) else {
            let is_spent = self.spent.as_ref().is_some_and(|spent| spent.contains(&id));
            return if is_spent { Delivery::Late } else { Delivery::Unasked };
        };
        if !state.is_open() {
            return Delivery::Late;
        }
        if flags & 0x80 == 0 {
            return Delivery::Mismatched;
        }
        let questions = u16::from_be_bytes([questions_high, questions_low]);
        let outcome = if questions == 1 {
            match asked.compare(message, *case) {
                Comparison::Same => (),
                Comparison::OtherCase => {
                    state.end(Err(TryError::OtherCase(path)));
                    return Delivery::Mismatched;
                }
                Comparison::Other => return Delivery::Mismatched,
            }
            let read = if case.is_drawn() {
                let mut message = message.to_vec();
                lower_case_echoes(&mut message);
                asked.read_answer(&message, path.transport)
            } else {
                asked.read_answer(message, path.transport)
            };
            read.map_err(|why| TryError::Malformed(path, why))
        } else if questions == 0 && low_flags & 0x0f != 0 {
            // A server that could not read the question answers with an error code alone.
            Err(TryError::NoQuestion(path))
        } else {
            Err(TryError::Malformed(path, WireError::QuestionCount(questions)))
        };
        state.end(if is_suspected(asked) { Err(TryError::Spoofed(path)) } else { outcome });
        self.heard = Some(now);
        Delivery::Taken
    }

    /// Ends every wait because somebody seems to guess the answers; gives what was asked to `each`, and tells how many were waited for.
    pub fn end_as_spoofed(&mut self, path: Path, mut each: impl FnMut(&Asked)) -> usize {
        let mut ended = 0;
        for Entry { asked, state, .. } in self.entries.values_mut().filter(|entry| entry.state.is_open()) {
            each(asked);
            state.end(Err(TryError::Spoofed(path)));
            ended += 1;
        }
        ended
    }

    /// True if an answer that somebody waited for came at `instant` or after it.
    pub fn is_heard_since(&self, instant: Instant) -> bool {
        self.heard.is_some_and(|heard| heard >= instant)
    }

    /// Ends the wait for `id` with `error`.
    pub fn fail(&mut self, id: u16, error: TryError) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.state.end(Err(error));
        }
    }

    /// Ends every wait with `error`, and those to come: the line's task has ended, in whatever way.
    pub fn end(&mut self, error: &TryError) {
        self.fail_all(error);
        self.ended = Some(error.clone());
    }

    /// Ends every wait with `error`.
    pub fn fail_all(&mut self, error: &TryError) {
        for entry in self.entries.values_mut() {
            entry.state.end(Err(error.clone()));
        }
    }

    /// When [`InFlight::ring`] is to be called; `bell` is woken whenever that changes.
    pub fn alarm_for(&mut self, bell: &Waker) -> Option<Instant> {
        if !self.bell.as_ref().is_some_and(|known| known.will_wake(bell)) {
            self.bell = Some(bell.clone());
        }
        self.alarm
    }

    /// Wakes every asker whose time is over at `now`, and sets the alarm for the next.
    pub fn ring(&mut self, now: Instant) {
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

#[cfg(test)]
mod tests {
    use super::super::line::FailOnDrop;
    use super::*;
    use crate::chain::Transport;
    use crate::message::{Query, RecordType, hostile, work};
    use parking_lot::Mutex;
    use std::time::Duration;

    fn path() -> Path {
        Path { transport: Transport::Udp, local: None, remote: "127.0.0.1:53".parse().unwrap() }
    }

    #[test]
    fn what_is_asked_on_a_line_whose_task_has_ended_fails_at_once() {
        let asked = Arc::new(Asked::from_wire(Query::compose(0, b"\x01a\0", RecordType::A, true)).unwrap());
        let queries = Mutex::new(InFlight::default());
        let path = path();
        let before = queries.lock().register(&asked, LetterCase::default()).unwrap();
        drop(FailOnDrop { in_flight: &queries, error: TryError::Closed(path) });
        let after = queries.lock().register(&asked, LetterCase::default()).unwrap();
        let until = Instant::now() + Duration::from_secs(1);
        for id in [before, after] {
            let look = queries.lock().look(id, until, Waker::noop());
            assert!(matches!(look, Look::Over(Err(TryError::Closed(_)))), "{look:?}");
        }
    }

    #[test]
    fn of_a_message_with_another_id_or_question_nothing_is_read_but_header_and_question() {
        for hostile::Hostile { kind, wire } in hostile::answers() {
            let other = Query::compose(0, b"\x05other\0", RecordType::A, true);
            let mut queries = InFlight::default();
            let id = queries.register(&Arc::new(Asked::from_wire(other).unwrap()), LetterCase::default()).unwrap();
            let with_id = |id: u16| [&id.to_be_bytes()[..], &wire[2..]].concat();
            for (message, expected) in [(with_id(id), Delivery::Mismatched), (with_id(!id), Delivery::Unasked)] {
                assert_eq!(work::of(|| queries.deliver(&message, path(), Instant::now(), |_| false)), (expected, 0), "{kind}");
            }
        }
    }

    #[test]
    fn what_comes_for_an_id_that_is_spent_is_late_and_not_forged() {
        let wire = Query::compose(0, b"\x01a\0", RecordType::A, true);
        let asked = Arc::new(Asked::from_wire(wire.clone()).unwrap());
        for (mut queries, expected) in [(InFlight::remembering(), Delivery::Late), (InFlight::default(), Delivery::Unasked)] {
            let (answered, forgotten, open) = (
                queries.register(&asked, LetterCase::default()).unwrap(),
                queries.register(&asked, LetterCase::default()).unwrap(),
                queries.register(&asked, LetterCase::default()).unwrap(),
            );
            let now = Instant::now();
            let answer = |id: u16| [&id.to_be_bytes()[..], &[0x81, 0x80], &wire[4..]].concat();
            let deliver = |queries: &mut InFlight, id| queries.deliver(&answer(id), path(), now, |_| false);
            assert_eq!(deliver(&mut queries, answered), Delivery::Taken);
            assert_eq!(deliver(&mut queries, answered), Delivery::Late, "its asker has not looked yet");
            assert!(matches!(queries.look(answered, now, Waker::noop()), Look::Over(Ok(_))));
            queries.forget(answered);
            queries.forget(forgotten);
            assert_eq!([answered, forgotten].map(|id| deliver(&mut queries, id)), [expected; 2]);
            let unknown = (0..=u16::MAX).find(|id| ![answered, forgotten, open].contains(id)).unwrap();
            assert_eq!(deliver(&mut queries, unknown), Delivery::Unasked);
            assert_eq!(deliver(&mut queries, open), Delivery::Taken);
        }
    }

    #[test]
    fn a_right_answer_to_a_suspected_question_is_not_believed() {
        let wire = Query::compose(0, b"\x01a\0", RecordType::A, true);
        let mut queries = InFlight::remembering();
        let id = queries.register(&Arc::new(Asked::from_wire(wire.clone()).unwrap()), LetterCase::default()).unwrap();
        let answer = [&id.to_be_bytes()[..], &[0x81, 0x80], &wire[4..]].concat();
        let now = Instant::now();
        assert_eq!(queries.deliver(&answer, path(), now, |_| true), Delivery::Taken);
        let look = queries.look(id, now, Waker::noop());
        assert!(matches!(look, Look::Over(Err(TryError::Spoofed(_)))), "{look:?}");
    }

    #[test]
    fn askers_are_woken_when_their_time_is_over_and_their_queries_stay_in_flight() {
        let query = Query::compose(0, b"\x01a\0", RecordType::A, true);
        let asked = Arc::new(Asked::from_wire(query).unwrap());
        let mut queries = InFlight::default();
        let (first, second) =
            (queries.register(&asked, LetterCase::default()).unwrap(), queries.register(&asked, LetterCase::default()).unwrap());
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let path = path();
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
        let ids = [(); 3].map(|()| queries.register(&asked, LetterCase::default()).unwrap());
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
