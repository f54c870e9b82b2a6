//! The TCP connections of one worker to one upstream: few, each filled with many queries (RFC 7766 section 6.2.1).
//! README.md tells when another one is opened and when one is left.

use super::attempt::{Attempt, AttemptKind};
use super::connection_task;
use super::error::{Endpoints, UpstreamError};
use super::remote::Remote;
use super::tcp_connection::{ConnectionLoad, TcpConnection};
use super::upstream_query::UpstreamQuery;
use super::upstream_socket::UpstreamSocket;
use crate::chain::Transport;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::{Arc, Weak};
use std::time::Instant;

/// Connections that take queries, for each worker and upstream, unless `max_idle_conns` says otherwise.
const DEFAULT_CONNECTIONS: usize = 8;
/// Connections that are open, for each worker and upstream, or twice those that take queries if that is more: some
/// still wait for answers, and some are for one query alone.
const MAX_OPEN: usize = 64;

/// The TCP connections of one worker to one upstream. Each is owned by its task.
pub(super) struct TcpPool {
    remote: Arc<Remote>,
    connections: Mutex<Vec<Weak<TcpConnection>>>,
}

impl TcpPool {
    pub(super) fn new(remote: Arc<Remote>) -> Self {
        Self { remote, connections: Mutex::default() }
    }

    /// Sends `query` on the least busy connection, or on a new one if all are busy and another one may be opened.
    pub(super) fn send(
        &self,
        query: &Arc<UpstreamQuery>,
        kind: AttemptKind<'_>,
        now: Instant,
    ) -> Result<Attempt, UpstreamError> {
        let wants_own = matches!(kind, AttemptKind::LastResort);
        let (connection, is_new) = self.choose(wants_own, now)?;
        let attempt = connection.send(query, now);
        if wants_own && is_new {
            connection.retire();
        }
        attempt
    }

    /// The connection to send on, and whether it has just been opened.
    fn choose(&self, wants_own: bool, now: Instant) -> Result<(Arc<TcpConnection>, bool), UpstreamError> {
        let Remote { address, settings, metrics, sockets: budget, .. } = &*self.remote;
        let mut usable: SmallVec<[(ConnectionLoad, Arc<TcpConnection>); DEFAULT_CONNECTIONS]> = SmallVec::new();
        let mut connections = self.connections.lock();
        connections.retain(|weak| {
            let Some(connection) = weak.upgrade() else { return false };
            if let Some(load) = connection.load(now) {
                usable.push((load, connection));
            }
            true
        });
        let limit = settings.connections_per_worker.unwrap_or(DEFAULT_CONNECTIONS);
        let least_busy = usable.iter().min_by_key(|(load, _)| *load);
        let wants_new = wants_own || (usable.len() < limit && least_busy.is_none_or(|(load, _)| load.is_busy));
        let reuse = |connection: &Arc<TcpConnection>| {
            metrics.tcp_reused.increment();
            Ok((connection.clone(), false))
        };
        match least_busy {
            Some((_, connection)) if !wants_new => return reuse(connection),
            _ => (),
        }
        let may_open = connections.len() < MAX_OPEN.max(limit.saturating_mul(2));
        let permit = match may_open.then(|| budget.try_acquire()).flatten() {
            Some(permit) => permit,
            None => {
                metrics.sockets_exhausted.increment();
                match least_busy {
                    Some((_, connection)) => return reuse(connection),
                    // Each worker can always have one connection that takes queries, beside those that are about to
                    // close.
                    None if connections.len() < limit => budget.acquire_over_limit(),
                    None => {
                        let endpoints = Endpoints { transport: Transport::Tcp, local: None, remote: *address };
                        return Err(UpstreamError::NoSocket(endpoints));
                    }
                }
            }
        };
        let connection = connection_task::open(&self.remote, permit, now);
        connections.push(Arc::downgrade(&connection));
        Ok((connection, true))
    }
}
