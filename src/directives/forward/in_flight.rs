//! The queries in flight on one socket or connection. Responses are matched to them by ID and question. No I/O here;
//! the clock is the caller's.

use super::error::{Endpoints, UpstreamError};
use super::letter_case::LetterCase;
use super::upstream_query::{QuestionMatch, UpstreamQuery};
use crate::message::{Rcode, Response, WireError, lower_case_echoes};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

/// Queries in flight on one socket. There are 65,536 IDs, so a random one is nearly always free.
const MAX_IN_FLIGHT: usize = 8192;

/// How a query in flight ends.
pub(super) type QueryOutcome = Result<Response, UpstreamError>;

/// What an arriving message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// It ended a query.
    Accepted,
    /// Its ID is that of a query that has ended: the message is late or a duplicate.
    Late,
    /// No query has its ID: it is forged, or late on a connection that does not remember IDs.
    UnknownId,
    /// A query has its ID, but the question differs (RFC 5452 section 9.1) or it is no response. The query stays in
    /// flight, unless only the letter case differs.
    Mismatched,
}

/// How far a query in flight is.
#[derive(Debug)]
pub(super) enum QueryStatus {
    Pending,
    /// The deadline of the caller has passed. The query is still in flight.
    DeadlinePassed,
    Done(QueryOutcome),
}

/// The queries in flight on one socket, by ID, and the earliest deadline of their callers.
///
/// One timer serves all of them: a timer of the runtime and a channel for each took a twelfth of a miss's instructions
/// (benches/README.md).
#[derive(Default)]
pub(super) struct InFlightQueries {
    entries: HashMap<u16, QueryEntry, RandomState>,
    /// Never after the earliest deadline of a caller. A query that ends does not move it, so that the timer is seldom
    /// set anew.
    next_deadline: Option<Instant>,
    /// Wakes the task that keeps the timer.
    timer_waker: Option<Waker>,
    /// Set when the socket's task has ended, so that no query waits for it in vain.
    closed: Option<UpstreamError>,
    /// When the latest response was accepted.
    last_response: Option<Instant>,
    /// IDs of queries that have ended, on a socket that remembers them.
    used_ids: Option<Vec<u16>>,
}

struct QueryEntry {
    query: Arc<UpstreamQuery>,
    case: LetterCase,
    state: EntryState,
}

enum EntryState {
    /// The caller has not polled yet.
    Sent,
    Waiting {
        waker: Waker,
        deadline: Instant,
    },
    DeadlinePassed,
    /// The caller has not polled since the response came.
    Answered(Response),
    /// The caller has not polled since the failure. Boxed, because every entry would have room for a large and rare
    /// value.
    Failed(Box<UpstreamError>),
}

impl EntryState {
    fn is_open(&self) -> bool {
        !matches!(self, Self::Answered(_) | Self::Failed(_))
    }

    fn end(&mut self, outcome: QueryOutcome) {
        let ended = outcome.map_or_else(|error| Self::Failed(Box::new(error)), Self::Answered);
        if self.is_open()
            && let Self::Waiting { waker, .. } = std::mem::replace(self, ended)
        {
            waker.wake();
        }
    }
}

impl InFlightQueries {
    /// Remembers the IDs of ended queries, so that late responses are not taken for forged ones. For sockets that carry
    /// few queries.
    pub(super) fn remembering_ids() -> Self {
        Self { used_ids: Some(Vec::new()), ..Self::default() }
    }

    /// True if another query may be registered.
    pub(super) fn has_room(&self) -> bool {
        self.entries.len() + self.used_ids.as_ref().map_or(0, Vec::len) < MAX_IN_FLIGHT
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Gives `query`, to be sent in this case, an unpredictable ID that is not in use here. `None` if too many queries
    /// are in flight.
    pub(super) fn register(&mut self, query: &Arc<UpstreamQuery>, case: LetterCase) -> Option<u16> {
        if !self.has_room() {
            return None;
        }
        loop {
            let id = rand::random();
            if let Vacant(vacant) = self.entries.entry(id) {
                let state = self.closed.clone().map_or(EntryState::Sent, |error| EntryState::Failed(Box::new(error)));
                vacant.insert(QueryEntry { query: query.clone(), case, state });
                return Some(id);
            }
        }
    }

    /// Ends the query `id` without an outcome: its caller no longer waits. True if an answer may still come.
    pub(super) fn forget(&mut self, id: u16) -> bool {
        let Some(entry) = self.entries.remove(&id) else { return false };
        self.used_ids.iter_mut().for_each(|used_ids| used_ids.push(id));
        entry.state.is_open()
    }

    /// The status of query `id`. If it is pending, `waker` is woken when that changes or `deadline` passes.
    pub(super) fn poll(&mut self, id: u16, deadline: Instant, waker: &Waker) -> QueryStatus {
        let Occupied(mut entry) = self.entries.entry(id) else { return QueryStatus::DeadlinePassed };
        match &mut entry.get_mut().state {
            EntryState::Answered(_) | EntryState::Failed(_) => {
                let state = entry.remove().state;
                self.used_ids.iter_mut().for_each(|used_ids| used_ids.push(id));
                return match state {
                    EntryState::Answered(response) => QueryStatus::Done(Ok(response)),
                    EntryState::Failed(error) => QueryStatus::Done(Err(*error)),
                    _ => QueryStatus::Pending,
                };
            }
            state @ EntryState::DeadlinePassed => {
                *state = EntryState::Sent;
                return QueryStatus::DeadlinePassed;
            }
            state => *state = EntryState::Waiting { waker: waker.clone(), deadline },
        }
        if self.next_deadline.is_none_or(|next| deadline < next) {
            self.next_deadline = Some(deadline);
            self.timer_waker.iter().for_each(Waker::wake_by_ref);
        }
        QueryStatus::Pending
    }

    /// Takes a message that came from the upstream. Header and question are compared before the rest is read, so that
    /// forged, late and duplicate messages cost little, whatever their length. No message answers a query that
    /// `requires_tcp`.
    pub(super) fn deliver(
        &mut self,
        message: &[u8],
        from: Endpoints,
        now: Instant,
        requires_tcp: impl Fn(&UpstreamQuery) -> bool,
    ) -> Delivery {
        let Some((&[id_high, id_low, flags, low_flags, questions_high, questions_low], _)) =
            message.split_first_chunk()
        else {
            return Delivery::Mismatched;
        };
        let id = u16::from_be_bytes([id_high, id_low]);
        let Some(QueryEntry { query, case, state }) = self.entries.get_mut(&id) else {
            let is_used = self.used_ids.as_ref().is_some_and(|used_ids| used_ids.contains(&id));
            return if is_used { Delivery::Late } else { Delivery::UnknownId };
        };
        if !state.is_open() {
            return Delivery::Late;
        }
        if flags & 0x80 == 0 {
            return Delivery::Mismatched;
        }
        let questions = u16::from_be_bytes([questions_high, questions_low]);
        let outcome = if questions == 1 {
            match query.compare(message, *case) {
                QuestionMatch::Exact => (),
                QuestionMatch::OtherCase => {
                    state.end(Err(UpstreamError::CaseMismatch(from)));
                    return Delivery::Mismatched;
                }
                QuestionMatch::Different => return Delivery::Mismatched,
            }
            let read = if case.is_random() {
                let mut message = message.to_vec();
                lower_case_echoes(&mut message);
                query.read_response(&message, from.transport)
            } else {
                query.read_response(message, from.transport)
            };
            read.map_err(|why| UpstreamError::Malformed(from, why))
        } else if questions == 0 && low_flags & 0x0f != 0 {
            // A server that could not read the question answers with an error code alone.
            Err(UpstreamError::NoQuestion(from, Rcode(u16::from(low_flags & 0x0f))))
        } else {
            Err(UpstreamError::Malformed(from, WireError::QuestionCount(questions)))
        };
        state.end(if requires_tcp(query) { Err(UpstreamError::Spoofed(from)) } else { outcome });
        self.last_response = Some(now);
        Delivery::Accepted
    }

    /// Ends every query because somebody seems to guess the answers. Calls `each` with the queries, and returns their
    /// number.
    pub(super) fn end_as_spoofed(&mut self, from: Endpoints, mut each: impl FnMut(&UpstreamQuery)) -> usize {
        let mut ended = 0;
        for QueryEntry { query, state, .. } in self.entries.values_mut().filter(|entry| entry.state.is_open()) {
            each(query);
            state.end(Err(UpstreamError::Spoofed(from)));
            ended += 1;
        }
        ended
    }

    /// True if a response was accepted at `instant` or later.
    pub(super) fn has_response_since(&self, instant: Instant) -> bool {
        self.last_response.is_some_and(|last| last >= instant)
    }

    /// Takes so many seconds off the TTLs of the answer to query `id`, if it has one that its caller has not seen yet.
    pub(super) fn age_answer(&mut self, id: u16, seconds: u32) {
        if let Some(QueryEntry { state: EntryState::Answered(response), .. }) = self.entries.get_mut(&id) {
            response.reduce_ttls(seconds);
        }
    }

    /// Ends query `id` with `error`.
    pub(super) fn fail(&mut self, id: u16, error: UpstreamError) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.state.end(Err(error));
        }
    }

    /// Ends every query with `error`, and those that are registered later: the socket's task has ended.
    pub(super) fn close(&mut self, error: &UpstreamError) {
        self.fail_all(error);
        self.closed = Some(error.clone());
    }

    /// Ends every query with `error`.
    pub(super) fn fail_all(&mut self, error: &UpstreamError) {
        for entry in self.entries.values_mut() {
            entry.state.end(Err(error.clone()));
        }
    }

    /// When [`InFlightQueries::wake_expired`] is due. `waker` is woken whenever that changes.
    pub(super) fn next_deadline(&mut self, waker: &Waker) -> Option<Instant> {
        if !self.timer_waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.timer_waker = Some(waker.clone());
        }
        self.next_deadline
    }

    /// Wakes every caller whose deadline has passed at `now`, and finds the next deadline.
    pub(super) fn wake_expired(&mut self, now: Instant) {
        self.next_deadline = None;
        for QueryEntry { state, .. } in self.entries.values_mut() {
            match state {
                EntryState::Waiting { deadline, .. } if *deadline <= now => {
                    if let EntryState::Waiting { waker, .. } = std::mem::replace(state, EntryState::DeadlinePassed) {
                        waker.wake();
                    }
                }
                EntryState::Waiting { deadline, .. } => {
                    self.next_deadline = Some(self.next_deadline.map_or(*deadline, |next| next.min(*deadline)));
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Transport;
    use crate::message::{Query, RecordType, hostile, work};
    use std::time::Duration;

    fn endpoints() -> Endpoints {
        Endpoints { transport: Transport::Udp, local: None, remote: "127.0.0.1:53".parse().unwrap() }
    }

    #[test]
    fn a_message_with_another_id_or_question_is_read_no_further_than_its_question() {
        for hostile::Hostile { kind, wire } in hostile::answers() {
            let other = Query::compose(0, b"\x05other\0", RecordType::A, true);
            let mut queries = InFlightQueries::default();
            let id =
                queries.register(&Arc::new(UpstreamQuery::from_wire(other).unwrap()), LetterCase::default()).unwrap();
            let with_id = |id: u16| [&id.to_be_bytes()[..], &wire[2..]].concat();
            for (message, expected) in [(with_id(id), Delivery::Mismatched), (with_id(!id), Delivery::UnknownId)] {
                assert_eq!(
                    work::of(|| queries.deliver(&message, endpoints(), Instant::now(), |_| false)),
                    (expected, 0),
                    "{kind}"
                );
            }
        }
    }

    #[test]
    fn a_response_with_the_id_of_an_ended_query_is_late_and_not_forged() {
        let wire = Query::compose(0, b"\x01a\0", RecordType::A, true);
        let query = Arc::new(UpstreamQuery::from_wire(wire.clone()).unwrap());
        for (mut queries, expected) in
            [(InFlightQueries::remembering_ids(), Delivery::Late), (InFlightQueries::default(), Delivery::UnknownId)]
        {
            let (answered, forgotten, open) = (
                queries.register(&query, LetterCase::default()).unwrap(),
                queries.register(&query, LetterCase::default()).unwrap(),
                queries.register(&query, LetterCase::default()).unwrap(),
            );
            let now = Instant::now();
            let answer = |id: u16| [&id.to_be_bytes()[..], &[0x81, 0x80], &wire[4..]].concat();
            let deliver = |queries: &mut InFlightQueries, id| queries.deliver(&answer(id), endpoints(), now, |_| false);
            assert_eq!(deliver(&mut queries, answered), Delivery::Accepted);
            assert_eq!(deliver(&mut queries, answered), Delivery::Late, "its caller has not polled yet");
            assert!(matches!(queries.poll(answered, now, Waker::noop()), QueryStatus::Done(Ok(_))));
            queries.forget(answered);
            queries.forget(forgotten);
            assert_eq!([answered, forgotten].map(|id| deliver(&mut queries, id)), [expected; 2]);
            let unknown = (0..=u16::MAX).find(|id| ![answered, forgotten, open].contains(id)).unwrap();
            assert_eq!(deliver(&mut queries, unknown), Delivery::UnknownId);
            assert_eq!(deliver(&mut queries, open), Delivery::Accepted);
        }
    }

    #[test]
    fn a_matching_response_to_a_query_that_requires_tcp_ends_it_as_spoofed() {
        let wire = Query::compose(0, b"\x01a\0", RecordType::A, true);
        let mut queries = InFlightQueries::remembering_ids();
        let id = queries
            .register(&Arc::new(UpstreamQuery::from_wire(wire.clone()).unwrap()), LetterCase::default())
            .unwrap();
        let answer = [&id.to_be_bytes()[..], &[0x81, 0x80], &wire[4..]].concat();
        let now = Instant::now();
        assert_eq!(queries.deliver(&answer, endpoints(), now, |_| true), Delivery::Accepted);
        let status = queries.poll(id, now, Waker::noop());
        assert!(matches!(status, QueryStatus::Done(Err(UpstreamError::Spoofed(_)))), "{status:?}");
    }

    #[test]
    fn callers_are_woken_at_their_deadline_and_their_queries_stay_in_flight() {
        let query = Arc::new(UpstreamQuery::from_wire(Query::compose(0, b"\x01a\0", RecordType::A, true)).unwrap());
        let mut queries = InFlightQueries::default();
        let (first, second) = (
            queries.register(&query, LetterCase::default()).unwrap(),
            queries.register(&query, LetterCase::default()).unwrap(),
        );
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let endpoints = endpoints();
        let woken = Arc::new(CountingWaker::default());
        let waker = Waker::from(woken.clone());

        assert!(matches!(queries.poll(first, after(1), &waker), QueryStatus::Pending));
        assert!(matches!(queries.poll(second, after(2), &waker), QueryStatus::Pending));
        assert_eq!(queries.next_deadline, Some(after(1)));
        queries.wake_expired(after(1));
        assert_eq!((woken.wakes(), queries.next_deadline), (1, Some(after(2))));
        assert!(matches!(queries.poll(first, after(3), &waker), QueryStatus::DeadlinePassed));
        assert!(matches!(queries.poll(first, after(3), &waker), QueryStatus::Pending));

        queries.fail(second, UpstreamError::Closed(endpoints));
        queries.wake_expired(after(2));
        assert_eq!(
            (woken.wakes(), queries.next_deadline),
            (2, Some(after(3))),
            "a caller with an outcome is woken once"
        );
        assert!(matches!(queries.poll(second, after(4), &waker), QueryStatus::Done(Err(UpstreamError::Closed(_)))));
        assert_eq!(queries.len(), 1);
    }

    #[test]
    fn an_earlier_deadline_moves_the_timer_and_wakes_its_task() {
        let query = Arc::new(UpstreamQuery::from_wire(Query::compose(0, b"\x01a\0", RecordType::A, true)).unwrap());
        let timer = Arc::new(CountingWaker::default());
        let mut queries =
            InFlightQueries { timer_waker: Some(Waker::from(timer.clone())), ..InFlightQueries::default() };
        let ids = [(); 3].map(|()| queries.register(&query, LetterCase::default()).unwrap());
        let start = Instant::now();
        for (id, seconds, wakes) in [(ids[0], 2, 1), (ids[1], 3, 1), (ids[2], 1, 2)] {
            queries.poll(id, start + Duration::from_secs(seconds), Waker::noop());
            assert_eq!(timer.wakes(), wakes);
        }
        assert_eq!(queries.next_deadline, Some(start + Duration::from_secs(1)));
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct CountingWaker(std::sync::atomic::AtomicUsize);

    impl CountingWaker {
        fn wakes(&self) -> usize {
            self.0.load(std::sync::atomic::Ordering::Relaxed)
        }
    }

    impl std::task::Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}
