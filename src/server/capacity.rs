//! What clients take of a server and may take, for whoever looks after its memory.

use super::Limits;
use super::connections::Connections;
use super::worker::Share;
use std::sync::Arc;

/// A handle of a server's bounds.
pub struct Capacity {
    shares: Vec<Arc<Share>>,
    connections: Arc<Connections>,
}

/// What clients have now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Queries in flight.
    pub queries: usize,
    /// TCP connections.
    pub connections: usize,
}

impl Capacity {
    pub(super) fn new(shares: Vec<Arc<Share>>, connections: Arc<Connections>) -> Self {
        Self { shares, connections }
    }

    /// Sets other limits but that of queries on a connection. Whoever has most gives up what is beyond them.
    pub fn set(&self, limits: Limits) {
        self.shares.iter().for_each(|share| share.set_queries(limits.queries_per_worker));
        let closed = self.connections.set_limits(limits.tcp_connections, limits.buffer_octets);
        if let Some(share) = self.shares.first() {
            closed.iter().for_each(|closed| share.count_closed(closed));
        }
    }

    pub fn load(&self) -> Load {
        let queries = self.shares.iter().map(|share| share.in_flight()).sum();
        Load { queries, connections: self.connections.count() }
    }
}
