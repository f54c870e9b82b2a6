//! What a UDP socket and a TCP connection to an upstream have in common.

use super::error::UpstreamError;
use super::in_flight::{InFlightQueries, QueryStatus};
use super::remote::Remote;
use crate::chain::Transport;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::task::Waker;
use std::time::Instant;

/// A UDP socket or a TCP connection to one upstream.
pub(super) trait UpstreamSocket: Send + Sync {
    /// The status of the query with this ID; see [`InFlightQueries::poll`].
    fn poll(&self, id: u16, deadline: Instant, waker: &Waker) -> QueryStatus;
    /// The caller of this query no longer waits for its answer.
    fn forget(&self, id: u16);
    /// Takes no new queries from now on, and closes when none is in flight.
    fn retire(&self);
    /// True if what came after `sent` shows that a query which was sent then still gets its answer.
    fn has_progress_since(&self, sent: Instant) -> bool;
    /// Retires the socket if no answer has come since `sent`: behind a ClusterIP it may lead to a pod that is gone.
    fn retire_if_silent_since(&self, sent: Instant);
    /// What its queries are sent over.
    fn transport(&self) -> Transport;
    /// The upstream that it leads to.
    fn remote(&self) -> &Remote;
    /// The local address, once there is one.
    fn local_address(&self) -> Option<SocketAddr>;
}

/// Fails the queries in flight when the task that serves a socket ends, however it ends.
pub(super) struct FailOnDrop<'a> {
    pub in_flight: &'a Mutex<InFlightQueries>,
    pub error: UpstreamError,
}

impl Drop for FailOnDrop<'_> {
    fn drop(&mut self) {
        self.in_flight.lock().close(&self.error);
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::Endpoints;
    use super::super::letter_case::LetterCase;
    use super::super::upstream_query::UpstreamQuery;
    use super::*;
    use crate::message::{Query, RecordType};
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn queries_on_a_socket_whose_task_has_ended_fail_at_once() {
        let query = Arc::new(UpstreamQuery::from_wire(Query::compose(0, b"\x01a\0", RecordType::A, true)).unwrap());
        let queries = Mutex::new(InFlightQueries::default());
        let endpoints = Endpoints { transport: Transport::Udp, local: None, remote: "127.0.0.1:53".parse().unwrap() };
        let before = queries.lock().register(&query, LetterCase::default()).unwrap();
        drop(FailOnDrop { in_flight: &queries, error: UpstreamError::Closed(endpoints) });
        let after = queries.lock().register(&query, LetterCase::default()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(1);
        for id in [before, after] {
            let status = queries.lock().poll(id, deadline, Waker::noop());
            assert!(matches!(status, QueryStatus::Done(Err(UpstreamError::Closed(_)))), "{status:?}");
        }
    }
}
