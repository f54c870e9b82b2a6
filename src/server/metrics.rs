//! The metrics of the sockets: what is received, refused, evicted and cut. A query that finds room touches none of
//! them.

use crate::metrics::{Counter, Registry};

/// Counters of the server, shared by its workers.
pub(super) struct ServerMetrics {
    /// Queries that got no answer though one was due.
    pub dropped: QueriesDropped,
    /// TCP connections that we closed before their client did, idle ones apart.
    pub cut: ConnectionsCut,
}

/// `nodelocaldns_queries_dropped_total{reason}`.
pub(super) struct QueriesDropped {
    /// Longer than the longest query that is read.
    pub oversize: Counter,
    /// As many queries as allowed were in flight, and no other client had more of them. Answered SERVFAIL.
    pub overload: Counter,
    /// A place in flight was taken from a client that had most, for another client. Answered SERVFAIL.
    pub evicted: Counter,
    /// The reply could not be sent.
    pub unsendable: Counter,
}

/// `nodelocaldns_tcp_connections_cut_total{reason}`.
pub(super) struct ConnectionsCut {
    /// The longest idle one of the client that has most made room for a new one.
    pub evicted: Counter,
    /// One of the client that has most made room for a new one, and had queries in flight.
    pub evicted_busy: Counter,
    /// A new one found no room: its client has most, and none of its own is idle.
    pub refused: Counter,
    /// The client did not take its answers in time.
    pub slow_reader: Counter,
    /// The rest of a message did not come in time.
    pub slow_sender: Counter,
    /// A query was begun that is longer than most, and too much was kept for clients to wait for the rest.
    pub crowded: Counter,
    /// What came is no DNS message.
    pub malformed: Counter,
    /// TLS was not agreed on in time or at all, or the handshake made room for another client's.
    pub handshake: Counter,
}

impl ServerMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let dropped = |reason| {
            let help =
                "Queries that were received and got no answer but SERVFAIL for want of a place, or none, by reason.";
            registry.counter("nodelocaldns_queries_dropped_total", help, &[("reason", reason)])
        };
        let cut = |reason| {
            let help = "TCP connections of clients closed by the server before they were idle for long, by reason.";
            registry.counter("nodelocaldns_tcp_connections_cut_total", help, &[("reason", reason)])
        };
        Self {
            dropped: QueriesDropped {
                oversize: dropped("oversize"),
                overload: dropped("overload"),
                evicted: dropped("evicted"),
                unsendable: dropped("unsendable"),
            },
            cut: ConnectionsCut {
                evicted: cut("evicted"),
                evicted_busy: cut("evicted_busy"),
                refused: cut("refused"),
                slow_reader: cut("slow_reader"),
                slow_sender: cut("slow_sender"),
                crowded: cut("crowded"),
                malformed: cut("malformed"),
                handshake: cut("handshake"),
            },
        }
    }
}
