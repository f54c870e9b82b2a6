//! The upstreams of one chain: each `forward` lists those it uses and leaves out the ones marked, `loop` probes and
//! marks them.

use super::BuildContext;
use crate::message::Name;
use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// Sends a query over the upstream's own transport and waits for its answer: true once one came, whatever its rcode;
/// false if none came in the time the upstream is given. Also while the upstream is marked. The query's ID may be
/// changed.
pub(crate) type ExchangeFn = Box<dyn Fn(Vec<u8>) -> BoxFuture<'static, bool> + Send + Sync>;

/// The upstreams of the chain of one server block. Lives as long as one of its listings or its `loop`, so also over a
/// reload.
#[derive(Default)]
pub(crate) struct ChainUpstreams {
    list: Mutex<Vec<Weak<ListedUpstream>>>,
    listed: Notify,
    doubted: Notify,
    watches: AtomicUsize,
}

/// Says that somebody probes the upstreams of a chain. When the last of them is dropped, no upstream is marked any
/// longer: nobody is left to find out that it may be used again.
pub(crate) struct ProberGuard(Arc<ChainUpstreams>);

/// The upstreams of one `forward`.
pub(crate) struct ForwardUpstreams {
    upstreams: Arc<ChainUpstreams>,
    from: Name,
    current: ArcSwap<Vec<Arc<ListedUpstream>>>,
}

/// One upstream of one `forward`.
pub(crate) struct ListedUpstream {
    from: Name,
    address: SocketAddr,
    ask: ExchangeFn,
    looping: AtomicBool,
}

impl ChainUpstreams {
    /// Those of the chain that is being built.
    pub(crate) fn of(context: &BuildContext<'_>) -> Arc<Self> {
        let key = format!("upstreams {} {}", context.zone(), context.servers.join(" "));
        context.process.reload_state.adopt_or(&key, Self::default)
    }

    /// From now until it is dropped, marks are looked after.
    pub(crate) fn watch(self: Arc<Self>) -> ProberGuard {
        self.watches.fetch_add(1, Ordering::Relaxed);
        ProberGuard(self)
    }

    /// Those in use now.
    pub(crate) fn current(&self) -> Vec<Arc<ListedUpstream>> {
        self.list.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Told whenever an upstream is listed from the call on.
    pub(crate) fn listed(&self) -> &Notify {
        &self.listed
    }

    /// Something has changed on the way to them: whoever probes them is to do so again.
    pub(crate) fn doubt(&self) {
        self.doubted.notify_waiters();
    }

    /// Told of each [`ChainUpstreams::doubt`] from the call on.
    pub(crate) fn doubted(&self) -> &Notify {
        &self.doubted
    }

    /// An upstream that is listed anew, as in a reload, keeps its mark.
    fn add(&self, from: &Name, address: SocketAddr, ask: ExchangeFn) -> Arc<ListedUpstream> {
        let mut list = self.list.lock();
        list.retain(|upstream| upstream.strong_count() > 0);
        let known = |upstream: &Arc<ListedUpstream>| upstream.address == address && upstream.from == *from;
        let looping = list.iter().filter_map(Weak::upgrade).any(|upstream| known(&upstream) && upstream.is_looping());
        let upstream = Arc::new(ListedUpstream { from: from.clone(), address, ask, looping: AtomicBool::new(looping) });
        list.push(Arc::downgrade(&upstream));
        self.listed.notify_waiters();
        upstream
    }
}

impl ForwardUpstreams {
    /// The empty list of a `forward` that asks for names in `from`. What it lists is listed until it is dropped.
    pub(crate) fn new(upstreams: Arc<ChainUpstreams>, from: Name) -> Self {
        Self { upstreams, from, current: ArcSwap::default() }
    }

    /// From now on these are in use, and no others. What an [`ExchangeFn`] captures must not hold this listing, or
    /// neither is ever dropped.
    pub(crate) fn set(&self, addresses: impl IntoIterator<Item = (SocketAddr, ExchangeFn)>) {
        let former = self.current.load();
        let find = |address| former.iter().find(|upstream| upstream.address == address);
        let entry = |(address, ask)| match find(address) {
            Some(upstream) => upstream.clone(),
            None => self.upstreams.add(&self.from, address, ask),
        };
        self.current.store(Arc::new(addresses.into_iter().map(entry).collect()));
    }

    /// Addresses from which what is sent comes back to us: not to be asked for a client until that has ended. Does not
    /// wait.
    pub(crate) fn looping(&self) -> Vec<SocketAddr> {
        self.current.load().iter().filter(|upstream| upstream.is_looping()).map(|upstream| upstream.address).collect()
    }
}

impl Deref for ProberGuard {
    type Target = ChainUpstreams;

    fn deref(&self) -> &ChainUpstreams {
        &self.0
    }
}

impl Drop for ProberGuard {
    fn drop(&mut self) {
        if self.0.watches.fetch_sub(1, Ordering::AcqRel) == 1 {
            for upstream in self.0.current() {
                upstream.set_looping(false);
            }
        }
    }
}

impl ListedUpstream {
    /// The zone whose names it is asked for: FROM of its `forward`.
    pub(crate) fn from(&self) -> &Name {
        &self.from
    }
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
    /// See [`ExchangeFn`].
    pub(crate) fn ask(&self, query: Vec<u8>) -> BoxFuture<'static, bool> {
        (self.ask)(query)
    }
    pub(crate) fn is_looping(&self) -> bool {
        self.looping.load(Ordering::Relaxed)
    }
    /// True if that is new.
    pub(crate) fn set_looping(&self, looping: bool) -> bool {
        self.looping.swap(looping, Ordering::Relaxed) != looping
    }
}

#[cfg(test)]
mod tests {
    use super::{ChainUpstreams, ExchangeFn, ForwardUpstreams};
    use crate::message::Name;
    use std::net::SocketAddr;
    use std::sync::Arc;

    fn entry(address: &str) -> (SocketAddr, ExchangeFn) {
        (address.parse().unwrap(), Box::new(|_| Box::pin(async { false })))
    }

    fn listing(upstreams: &Arc<ChainUpstreams>, from: &str, addresses: &[&str]) -> ForwardUpstreams {
        let listing = ForwardUpstreams::new(upstreams.clone(), Name::parse(from).unwrap());
        listing.set(addresses.iter().map(|address| entry(address)));
        listing
    }

    fn addresses(upstreams: &ChainUpstreams) -> Vec<String> {
        upstreams.current().iter().map(|upstream| upstream.address().to_string()).collect()
    }

    #[test]
    fn upstreams_are_listed_until_they_are_replaced_or_their_listing_is_dropped() {
        let upstreams = Arc::new(ChainUpstreams::default());
        let first = listing(&upstreams, ".", &["127.0.0.1:53", "127.0.0.2:53"]);
        let second = listing(&upstreams, "example.", &["127.0.0.3:53"]);
        first.set([entry("127.0.0.2:53"), entry("127.0.0.4:53")]);
        assert_eq!(addresses(&upstreams), ["127.0.0.2:53", "127.0.0.3:53", "127.0.0.4:53"]);
        drop(first);
        assert_eq!(addresses(&upstreams), ["127.0.0.3:53"]);
        drop(second);
        assert_eq!(addresses(&upstreams), [""; 0]);
    }

    #[test]
    fn a_mark_is_for_one_address_and_zone_and_outlives_a_reload() {
        let upstreams = Arc::new(ChainUpstreams::default());
        let (marked, other) = ("127.0.0.1:53", "127.0.0.2:53");
        let old = listing(&upstreams, ".", &[marked, other]);
        assert!(upstreams.current()[0].set_looping(true));
        assert!(!upstreams.current()[0].set_looping(true));
        old.set([entry(marked), entry(other)]);
        let new = listing(&upstreams, ".", &[marked, other]);
        let narrower = listing(&upstreams, "example.", &[marked]);
        drop(old);
        assert_eq!(new.looping(), [marked.parse().unwrap()]);
        assert_eq!(narrower.looping(), []);
    }

    #[test]
    fn a_mark_ends_with_the_last_watch() {
        let upstreams = Arc::new(ChainUpstreams::default());
        let listing = listing(&upstreams, ".", &["127.0.0.1:53"]);
        let before = upstreams.clone().watch();
        before.current()[0].set_looping(true);
        let after = upstreams.watch();
        drop(before);
        assert_eq!(listing.looping().len(), 1);
        drop(after);
        assert_eq!(listing.looping(), []);
    }
}
