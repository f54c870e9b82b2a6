//! What sockets hand queries to: in the program a listener of the plan, in tests a simpler one.

use crate::chain::{Received, Timeouts};
use crate::plan::{ClientProtocol, Dispatch, Listener, PacketCache, PacketHit, Pending};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

/// Answers the messages that come to one listen address. [`Listener`] is the one that serves.
pub trait Dispatcher: Send + Sync + Sized + 'static {
    /// A request that cannot be answered at once.
    type Pending: Send + Sync + 'static;

    fn address(&self) -> SocketAddr;
    fn timeouts(&self) -> Timeouts;
    /// How clients speak with it.
    fn protocol(&self) -> &ClientProtocol;
    /// As [`Listener::dispatch`]; must not panic.
    fn dispatch(
        self: &Arc<Self>,
        received: Received<'_>,
        packets: &mut PacketCache,
        out: &mut Vec<u8>,
    ) -> Dispatch<Self::Pending>;
    /// As [`Listener::count`]; must not panic.
    fn count(&self, hit: PacketHit, received: Received<'_>, packets: &PacketCache, reply: &[u8]);
    /// As [`Pending::run`]; must not panic.
    fn run(pending: &Self::Pending, out: &mut Vec<u8>) -> impl Future<Output = ()> + Send;
    /// As [`Pending::refuse`]; must not panic.
    fn refuse(pending: &Self::Pending, out: &mut Vec<u8>);
}

impl Dispatcher for Listener {
    type Pending = Pending;

    fn address(&self) -> SocketAddr {
        self.address
    }
    fn timeouts(&self) -> Timeouts {
        self.timeouts
    }
    fn protocol(&self) -> &ClientProtocol {
        &self.protocol
    }
    #[inline]
    fn dispatch(self: &Arc<Self>, received: Received<'_>, packets: &mut PacketCache, out: &mut Vec<u8>) -> Dispatch {
        Listener::dispatch(self, received, packets, out)
    }
    #[inline]
    fn count(&self, hit: PacketHit, received: Received<'_>, packets: &PacketCache, reply: &[u8]) {
        Listener::count(self, hit, received, packets, reply);
    }
    fn run(pending: &Pending, out: &mut Vec<u8>) -> impl Future<Output = ()> + Send {
        pending.run(out)
    }
    fn refuse(pending: &Pending, out: &mut Vec<u8>) {
        pending.refuse(out);
    }
}
