//! The upstreams of one chain: `forward` registers those it uses and leaves out the ones marked, `loop` probes and marks them.

use super::BuildContext;
use crate::message::Name;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// Sends a query over the upstream's own transport and waits for its answer: true once one came, whatever its rcode; false if
/// none came in the time the upstream is given. Also while the upstream is marked. The query's ID may be changed.
pub type Ask = Box<dyn Fn(Vec<u8>) -> BoxFuture<'static, bool> + Send + Sync>;

/// The upstreams of the chain of one key. Lives as long as one of its upstreams or its `loop`, so also over a reload.
#[derive(Default)]
pub struct Upstreams {
    list: Mutex<Vec<Weak<Upstream>>>,
    registered: Notify,
}

/// One upstream of one `forward`.
pub struct Upstream {
    from: Name,
    address: SocketAddr,
    ask: Ask,
    looping: AtomicBool,
    // Keeps the list alive for a `loop` of the same chain that is built later.
    _list: Arc<Upstreams>,
}

impl Upstreams {
    /// Those of the chain that is being built.
    pub fn of(context: &BuildContext<'_>) -> Arc<Self> {
        let key = format!("upstreams {} {}", context.zone, context.servers.join(" "));
        context.services.carry.adopt_or(&key, Self::default)
    }

    /// Adds an upstream that is asked for names in `from`. It is listed until the returned value is dropped. What `ask` captures
    /// must not hold that value, or neither is ever dropped. An upstream that is registered anew, as in a reload, keeps its mark.
    pub fn register(self: &Arc<Self>, from: &Name, address: SocketAddr, ask: Ask) -> Arc<Upstream> {
        let mut list = self.list.lock();
        list.retain(|upstream| upstream.strong_count() > 0);
        let known = |upstream: &Arc<Upstream>| upstream.address == address && upstream.from == *from;
        let looping = list.iter().filter_map(Weak::upgrade).any(|upstream| known(&upstream) && upstream.is_looping());
        let upstream =
            Arc::new(Upstream { from: from.clone(), address, ask, looping: AtomicBool::new(looping), _list: self.clone() });
        list.push(Arc::downgrade(&upstream));
        self.registered.notify_waiters();
        upstream
    }

    /// Those in use now.
    pub fn current(&self) -> Vec<Arc<Upstream>> {
        self.list.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Told whenever an upstream is registered from the call on.
    pub fn registrations(&self) -> &Notify {
        &self.registered
    }
}

impl Upstream {
    /// The zone whose names it is asked for: FROM of its `forward`.
    pub fn from(&self) -> &Name {
        &self.from
    }
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// See [`Ask`].
    pub fn ask(&self, query: Vec<u8>) -> BoxFuture<'static, bool> {
        (self.ask)(query)
    }
    /// What is sent to it comes back to us: not to be used until that has ended.
    pub fn is_looping(&self) -> bool {
        self.looping.load(Ordering::Relaxed)
    }
    /// True if that is new.
    pub fn set_looping(&self, looping: bool) -> bool {
        self.looping.swap(looping, Ordering::Relaxed) != looping
    }
}

#[cfg(test)]
mod tests {
    use super::Upstreams;
    use crate::message::Name;
    use std::sync::Arc;

    fn silent() -> super::Ask {
        Box::new(|_| Box::pin(async { false }))
    }

    #[test]
    fn an_upstream_is_listed_until_it_is_dropped() {
        let upstreams = Arc::new(Upstreams::default());
        let first = upstreams.register(&Name::root(), "127.0.0.1:53".parse().unwrap(), silent());
        let second = upstreams.register(&Name::root(), "127.0.0.2:53".parse().unwrap(), silent());
        assert_eq!(upstreams.current().len(), 2);
        drop(first);
        assert_eq!(upstreams.current().iter().map(|upstream| upstream.address()).collect::<Vec<_>>(), [second.address()]);
    }

    #[test]
    fn an_upstream_that_is_registered_anew_keeps_its_mark() {
        let upstreams = Arc::new(Upstreams::default());
        let address = "127.0.0.1:53".parse().unwrap();
        let old = upstreams.register(&Name::root(), address, silent());
        assert!(old.set_looping(true));
        assert!(!old.set_looping(true));
        assert!(upstreams.register(&Name::root(), address, silent()).is_looping());
        assert!(!upstreams.register(&Name::parse("example.").unwrap(), address, silent()).is_looping());
        assert!(!upstreams.register(&Name::root(), "127.0.0.2:53".parse().unwrap(), silent()).is_looping());
    }
}
