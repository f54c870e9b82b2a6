//! How many sockets to upstreams the process may open: UDP and TCP, all upstreams, all workers, and both plans of a
//! reload.

use super::metrics::SocketMetrics;
use crate::chain::ReloadState;
use crate::metrics::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The sockets take at most this part of the node's ephemeral ports, because pods and other programs share them.
const SHARE_OF_PORTS: usize = 8;
/// The sockets take at most this part of the process' file descriptors, because clients need the others.
const SHARE_OF_DESCRIPTORS: u64 = 4;
/// Linux's default, where the setting cannot be read (ip(7), `ip_local_port_range`).
const DEFAULT_PORTS: usize = 60999 - 32768 + 1;
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Counts open sockets and limits their number.
pub(super) struct SocketBudget {
    limit: usize,
    open: AtomicUsize,
    metrics: Option<SocketMetrics>,
}

/// Permission to have one socket open. Dropped with the socket.
pub(super) struct SocketPermit(Arc<SocketBudget>);

impl SocketBudget {
    /// The budget of the process, which all plans share.
    pub(super) fn shared(reload_state: &ReloadState, registry: &Registry) -> Arc<Self> {
        reload_state.adopt_or("forward sockets", || {
            // Read once: programs that run already keep to the old range when it is changed.
            let ports = std::fs::read_to_string(PORT_RANGE).ok();
            let limit = limit(ports.as_deref(), rustix::process::getrlimit(rustix::process::Resource::Nofile).current);
            let metrics = SocketMetrics::new(registry);
            metrics.limit.set(limit as f64);
            Self { metrics: Some(metrics), ..Self::new(limit) }
        })
    }

    /// A budget of `limit` sockets.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, open: AtomicUsize::new(0), metrics: None }
    }

    /// A permit, unless the limit is reached.
    pub(super) fn try_acquire(self: &Arc<Self>) -> Option<SocketPermit> {
        let may_open = |open: usize| (open < self.limit).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, may_open).ok()?;
        Some(self.permit())
    }

    /// A permit that ignores the limit, for a worker that would have no socket otherwise.
    pub(super) fn acquire_over_limit(self: &Arc<Self>) -> SocketPermit {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.permit()
    }

    fn permit(self: &Arc<Self>) -> SocketPermit {
        self.metrics.iter().for_each(|metrics| metrics.open.add(1.0));
        SocketPermit(self.clone())
    }

    /// Sockets that are open.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.iter().for_each(|metrics| metrics.open.add(-1.0));
    }
}

/// The limit, from the text of `ip_local_port_range` and the number of descriptors that may be open (RLIMIT_NOFILE).
fn limit(port_range: Option<&str>, descriptors: Option<u64>) -> usize {
    let ports = port_range.and_then(|text| {
        let mut bounds = text.split_whitespace().map(str::parse::<u16>);
        let (first, last) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
        Some(usize::from(last.checked_sub(first)?) + 1)
    });
    let by_ports = ports.unwrap_or(DEFAULT_PORTS) / SHARE_OF_PORTS;
    let by_descriptors =
        descriptors.map_or(usize::MAX, |most| usize::try_from(most / SHARE_OF_DESCRIPTORS).unwrap_or(usize::MAX));
    by_ports.min(by_descriptors).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_take_an_eighth_of_the_ports_and_a_quarter_of_the_descriptors() {
        assert_eq!(limit(Some("32768\t60999\n"), Some(1 << 20)), 3529);
        assert_eq!(limit(Some("32768\t60999\n"), Some(1024)), 256);
        assert_eq!(limit(Some("1024 65535"), None), 8064);
        for unreadable in [None, Some(""), Some("1"), Some("9 8"), Some("a b"), Some("1 99999")] {
            assert_eq!(limit(unreadable, None), 3529, "{unreadable:?}");
        }
        assert_eq!(limit(Some("5 5"), Some(0)), 1);
    }

    #[test]
    fn permits_are_given_up_to_the_limit_and_again_after_one_is_dropped() {
        let budget = Arc::new(SocketBudget::new(2));
        let first = budget.try_acquire().unwrap();
        let _second = budget.try_acquire().unwrap();
        assert!(budget.try_acquire().is_none());
        let over_limit = budget.acquire_over_limit();
        assert_eq!(budget.open(), 3);
        drop((first, over_limit));
        assert!(budget.try_acquire().is_some());
    }
}
