//! Tells `app/memory` how many queries and connections clients have, and takes from it how many they may have.

use super::Limits;
use super::connections::Connections;
use super::streams::Streams;
use super::worker::WorkerState;
use std::sync::Arc;

/// A handle of a server's bounds.
pub struct Capacity {
    states: Vec<Arc<WorkerState>>,
    connections: Arc<Connections>,
    streams: Arc<Streams>,
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
    pub(super) fn new(states: Vec<Arc<WorkerState>>, connections: Arc<Connections>, streams: Arc<Streams>) -> Self {
        Self { states, connections, streams }
    }

    /// Sets other limits but that of queries on a connection. Whoever has most gives up what is beyond them.
    pub fn set(&self, limits: Limits) {
        self.states.iter().for_each(|state| state.set_queries(limits.queries_per_worker));
        let closed = self.connections.set_limits(limits.tcp_connections, limits.buffer_octets);
        if let Some(state) = self.states.first() {
            closed.iter().for_each(|closed| state.count_closed(closed));
        }
        self.streams.set_limits(limits);
    }

    pub fn load(&self) -> Load {
        let streams = self.streams.state();
        let queries = self.states.iter().chain(streams).map(|state| state.in_flight()).sum();
        let connections = self.connections.count() + streams.map_or(0, |state| state.connections.count());
        Load { queries, connections }
    }
}
