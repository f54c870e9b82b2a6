//! How many sockets to upstreams this process may have open: UDP and TCP, all upstreams, all workers, and both plans of a reload.

use super::metrics::SocketMetrics;
use crate::chain::Carry;
use crate::metrics::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// They take one of so many of the node's ephemeral ports. The others are for the programs and pods that share them.
const SHARE_OF_PORTS: usize = 8;
/// And one of so many of the descriptors that this process may have. The others are for clients.
const SHARE_OF_DESCRIPTORS: u64 = 4;
/// Linux's own, where the setting cannot be read (ip(7), `ip_local_port_range`).
const DEFAULT_PORTS: usize = 60999 - 32768 + 1;
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Sockets that may be open, and those that are.
pub struct SocketBudget {
    limit: usize,
    open: AtomicUsize,
    metrics: Option<SocketMetrics>,
}

/// Room for one socket. Dropped with it.
pub struct Room(Arc<SocketBudget>);

impl SocketBudget {
    /// The one of this process, which all plans share.
    pub fn shared(carry: &Carry, registry: &Registry) -> Arc<Self> {
        carry.adopt_or("forward sockets", || {
            // Read once: who changes the range has programs on the node that keep to the old one, too.
            let ports = std::fs::read_to_string(PORT_RANGE).ok();
            let limit = limit(ports.as_deref(), rlimit::Resource::NOFILE.get_soft().ok());
            let metrics = SocketMetrics::new(registry);
            metrics.limit.set(limit as f64);
            Self { metrics: Some(metrics), ..Self::new(limit) }
        })
    }

    /// For at most `limit` sockets.
    pub fn new(limit: usize) -> Self {
        Self { limit, open: AtomicUsize::new(0), metrics: None }
    }

    /// Room for one more, if there is.
    pub fn take(self: &Arc<Self>) -> Option<Room> {
        let may_open = |open: usize| (open < self.limit).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, may_open).ok()?;
        Some(self.counted())
    }

    /// Room beyond the limit: for the only socket that somebody has.
    pub fn take_beyond(self: &Arc<Self>) -> Room {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.counted()
    }

    fn counted(self: &Arc<Self>) -> Room {
        self.metrics.iter().for_each(|metrics| metrics.open.add(1.0));
        Room(self.clone())
    }

    /// Sockets that are open.
    #[cfg(test)]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.iter().for_each(|metrics| metrics.open.add(-1.0));
    }
}

/// From the text of `ip_local_port_range` and the limit of open files (RLIMIT_NOFILE).
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
    fn room_is_given_up_to_the_limit_and_again_when_some_is_given_back() {
        let budget = Arc::new(SocketBudget::new(2));
        let first = budget.take().unwrap();
        let _second = budget.take().unwrap();
        assert!(budget.take().is_none());
        let beyond = budget.take_beyond();
        assert_eq!(budget.open(), 3);
        drop((first, beyond));
        assert!(budget.take().is_some());
    }
}
