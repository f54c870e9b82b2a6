//! When a query that has no answer is sent again to the same upstream, and when it fails. No I/O here; the clock is the
//! caller's.

use crate::chain::Transport;
use std::time::{Duration, Instant};

/// The read timeout has so many equal parts. After each but the last, a query without an answer is sent again.
const INTERVALS: u32 = 3;
/// Connections that may break under one query before it fails.
const MAX_CONNECTIONS: u32 = 4;
/// Sockets that may refuse to send a query before it fails. A new socket often works where an old one does not, because
/// the old one's local address is gone.
const MAX_SOCKETS: u32 = 2;
/// How long a query waits behind others on a connection that brings nothing.
const QUEUE_PATIENCE: Duration = Duration::from_millis(100);

/// The schedule of one query to one upstream over one transport.
#[derive(Debug)]
pub(super) struct RetrySchedule {
    /// When the read timeout ends.
    end: Instant,
    interval: Duration,
    /// When the query counts as lost.
    next_resend: Instant,
    /// Until when the query waits behind others on its first connection. `None` if it does not, or if that time is
    /// over.
    queue_end: Option<Instant>,
    failed_sockets: u32,
    max_sockets: u32,
}

/// What to do when a deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    Wait,
    /// Send the query again. Its connection is slow and stays in use.
    Resend,
    /// Send the query again. Its socket is silent and takes no more queries.
    ResendAndRetire,
    /// The read timeout is over.
    Fail,
}

/// What to do when a socket has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterFailure {
    Resend,
    /// Send the query once more, on a connection of its own.
    LastResort,
    Fail,
}

impl RetrySchedule {
    /// For a query that was first sent at `start`. `is_queued`: other queries were in flight on its socket before it.
    pub(super) fn new(transport: Transport, read_timeout: Duration, is_queued: bool, start: Instant) -> Self {
        let interval = read_timeout / INTERVALS;
        let (max_sockets, waits_in_queue) = match transport {
            Transport::Udp => (MAX_SOCKETS, false),
            Transport::Tcp => (MAX_CONNECTIONS, is_queued),
        };
        Self {
            end: start + interval * INTERVALS,
            interval,
            next_resend: start + interval,
            queue_end: waits_in_queue.then(|| start + QUEUE_PATIENCE.min(interval)),
            failed_sockets: 0,
            max_sockets,
        }
    }

    /// When [`RetrySchedule::next_step`] is due.
    pub(super) fn deadline(&self) -> Instant {
        self.queue_end.unwrap_or(self.end).min(self.resend_deadline())
    }

    /// When a lost query would be sent again, or fail.
    pub(super) fn resend_deadline(&self) -> Instant {
        self.next_resend.min(self.end)
    }

    /// What to do at `now` without an answer. `has_progress`: the connection brings other answers, so it brings this
    /// one when the upstream has it.
    pub(super) fn next_step(&mut self, now: Instant, has_progress: bool) -> NextStep {
        if now >= self.end {
            return NextStep::Fail;
        }
        let has_queued_enough = self.queue_end.take_if(|end| now >= *end).is_some();
        let is_lost = now >= self.next_resend;
        if is_lost {
            self.next_resend = (self.next_resend + self.interval).max(now);
        }
        match (has_progress, is_lost, has_queued_enough) {
            (false, true, _) => NextStep::ResendAndRetire,
            (false, false, true) => NextStep::Resend,
            _ => NextStep::Wait,
        }
    }

    /// What to do when a socket has failed at `now` and no other attempt waits.
    pub(super) fn after_socket_failure(&mut self, now: Instant) -> AfterFailure {
        if now >= self.end {
            return AfterFailure::Fail;
        }
        self.failed_sockets += 1;
        match self.max_sockets.saturating_sub(self.failed_sockets) {
            0 => AfterFailure::Fail,
            1 => AfterFailure::LastResort,
            _ => AfterFailure::Resend,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn schedule(transport: Transport, is_queued: bool) -> (RetrySchedule, impl Fn(u32) -> Instant) {
        let start = Instant::now();
        (RetrySchedule::new(transport, 3000 * MILLISECOND, is_queued, start), move |millis| {
            start + millis * MILLISECOND
        })
    }

    #[test]
    fn a_lost_query_is_sent_again_after_each_third_of_the_read_timeout_and_fails_at_its_end() {
        for transport in [Transport::Udp, Transport::Tcp] {
            let (mut schedule, at) = schedule(transport, false);
            assert_eq!(schedule.next_step(at(999), false), NextStep::Wait);
            for millis in [1000, 2000] {
                assert_eq!(schedule.deadline(), at(millis));
                assert_eq!(schedule.next_step(at(millis), false), NextStep::ResendAndRetire);
            }
            assert_eq!(schedule.deadline(), at(3000));
            assert_eq!(schedule.next_step(at(3000), false), NextStep::Fail);
        }
    }

    #[test]
    fn of_several_missed_resends_one_is_made_up_for() {
        let (mut schedule, at) = schedule(Transport::Udp, false);
        assert_eq!(schedule.next_step(at(2500), false), NextStep::ResendAndRetire);
        assert_eq!(schedule.deadline(), at(2500));
        assert_eq!(schedule.next_step(at(2500), false), NextStep::ResendAndRetire);
        assert_eq!(schedule.deadline(), at(3000));
    }

    #[test]
    fn a_connection_that_brings_other_answers_is_waited_for() {
        let (mut schedule, at) = schedule(Transport::Tcp, true);
        assert_eq!([100, 1000, 2000].map(|millis| schedule.next_step(at(millis), true)), [NextStep::Wait; 3]);
        assert_eq!(schedule.next_step(at(3000), true), NextStep::Fail);
    }

    #[test]
    fn a_query_behind_others_on_a_silent_connection_is_sent_again_early_and_once() {
        let (mut queued, at) = schedule(Transport::Tcp, true);
        assert_eq!(queued.deadline(), at(100));
        assert_eq!(queued.next_step(at(100), false), NextStep::Resend);
        assert_eq!(queued.deadline(), at(1000));
        let (datagram, at) = schedule(Transport::Udp, true);
        assert_eq!(datagram.deadline(), at(1000), "datagrams do not queue behind each other");
    }

    #[test]
    fn the_last_attempt_after_failed_sockets_is_a_last_resort() {
        use AfterFailure::{Fail, LastResort, Resend};
        let (mut tcp, at) = schedule(Transport::Tcp, false);
        assert_eq!([0; 4].map(|millis| tcp.after_socket_failure(at(millis))), [Resend, Resend, LastResort, Fail]);
        let (mut udp, at) = schedule(Transport::Udp, false);
        assert_eq!([0; 2].map(|millis| udp.after_socket_failure(at(millis))), [LastResort, Fail]);
        let (mut late, at) = schedule(Transport::Tcp, false);
        assert_eq!(late.after_socket_failure(at(3000)), Fail);
    }
}
