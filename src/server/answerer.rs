//! What the sockets need of a plan, and no more: the seam at which tests put something simpler.

use crate::chain::{Peer, Timeouts};
use crate::plan::{Dispatch, Listener, Pending};
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// Answers the messages that come to one listen address. [`Listener`] is the one that serves.
pub trait Answerer: Send + Sync + Sized + 'static {
    /// A request that cannot be answered at once.
    type Pending: Send + 'static;

    fn address(&self) -> SocketAddr;
    fn timeouts(&self) -> Timeouts;
    /// As [`Listener::dispatch`].
    fn dispatch(self: &Arc<Self>, wire: &[u8], peer: &Peer, now: Instant, out: &mut Vec<u8>) -> Verdict<Self::Pending>;
    /// As [`Pending::run`].
    fn run(pending: Self::Pending, out: &mut Vec<u8>) -> impl Future<Output = ()> + Send;
}

/// What became of a message; see [`Dispatch`].
pub enum Verdict<P> {
    Reply,
    ReplyAndRefresh(P),
    Pending(P),
    Silence,
}

impl Answerer for Listener {
    type Pending = Pending;

    fn address(&self) -> SocketAddr {
        self.address
    }
    fn timeouts(&self) -> Timeouts {
        self.timeouts
    }
    #[inline]
    fn dispatch(self: &Arc<Self>, wire: &[u8], peer: &Peer, now: Instant, out: &mut Vec<u8>) -> Verdict<Pending> {
        match Listener::dispatch(self, wire, peer, now, out) {
            Dispatch::Reply => Verdict::Reply,
            Dispatch::ReplyAndRefresh(pending) => Verdict::ReplyAndRefresh(pending),
            Dispatch::Pending(pending) => Verdict::Pending(pending),
            Dispatch::Silence => Verdict::Silence,
        }
    }
    fn run(pending: Pending, out: &mut Vec<u8>) -> impl Future<Output = ()> + Send {
        pending.run(out)
    }
}

/// [`Answerer::dispatch`], `None` if it panicked. One query that meets a bug must not end the loop that serves all others.
#[inline]
pub(super) fn dispatch<A: Answerer>(
    answerer: &Arc<A>,
    wire: &[u8],
    peer: &Peer,
    now: Instant,
    out: &mut Vec<u8>,
) -> Option<Verdict<A::Pending>> {
    // What a panic could leave half done is `out`, which is cleared.
    let verdict = catch_unwind(AssertUnwindSafe(|| answerer.dispatch(wire, peer, now, out)));
    verdict.inspect_err(|_| out.clear()).ok()
}
