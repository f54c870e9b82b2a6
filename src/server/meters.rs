//! What the sockets count. Families of ours; none of them is touched on the way of a query that is answered.

use crate::metrics::{Counter, Registry};

/// Counters of the server, shared by its workers.
pub(super) struct Meters {
    /// Queries that got no answer though one was due.
    pub dropped: Dropped,
    /// TCP connections that we closed before their client did, idle ones apart.
    pub cut: Cut,
}

/// `nodelocaldns_queries_dropped_total{reason}`.
pub(super) struct Dropped {
    /// Longer than the longest query that is read.
    pub oversize: Counter,
    /// As many queries as allowed were in flight.
    pub overload: Counter,
    /// The reply could not be sent.
    pub unsendable: Counter,
}

/// `nodelocaldns_tcp_connections_cut_total{reason}`.
pub(super) struct Cut {
    /// The longest idle one made room for a new one.
    pub evicted: Counter,
    /// A new one found no room: all others had queries in flight.
    pub refused: Counter,
    /// The client did not take its answers in time.
    pub slow_reader: Counter,
    /// The rest of a message did not come in time.
    pub slow_sender: Counter,
    /// What came is no DNS message.
    pub malformed: Counter,
}

impl Meters {
    pub fn new(registry: &Registry) -> Self {
        let dropped = |reason| {
            let help = "Queries that were received and not answered, by reason.";
            registry.counter("nodelocaldns_queries_dropped_total", help, &[("reason", reason)])
        };
        let cut = |reason| {
            let help = "TCP connections of clients closed by the server before they were idle for long, by reason.";
            registry.counter("nodelocaldns_tcp_connections_cut_total", help, &[("reason", reason)])
        };
        Self {
            dropped: Dropped { oversize: dropped("oversize"), overload: dropped("overload"), unsendable: dropped("unsendable") },
            cut: Cut {
                evicted: cut("evicted"),
                refused: cut("refused"),
                slow_reader: cut("slow_reader"),
                slow_sender: cut("slow_sender"),
                malformed: cut("malformed"),
            },
        }
    }
}
