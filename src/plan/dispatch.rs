//! The way of one message: read, find its zone, try the quick gear, else hand over for the slow one.

use super::Listener;
use crate::chain::Peer;
use std::sync::Arc;
use std::time::Instant;

/// What became of a message.
pub enum Dispatch {
    /// `out` holds the reply.
    Reply,
    /// `out` holds the reply; the refresh runs in the background and answers nobody.
    ReplyAndRefresh(Pending),
    /// The slow gear must run; it writes the reply.
    Pending(Pending),
    /// Say nothing.
    Silence,
}

/// A request for the slow gear.
pub struct Pending {}

impl Listener {
    /// Takes one message from a client. Synchronous; neither blocks nor, on a cache hit, allocates. `out` is empty and gets the
    /// reply (without TCP's length octets).
    pub fn dispatch(self: &Arc<Self>, wire: &[u8], peer: &Peer, now: Instant, out: &mut Vec<u8>) -> Dispatch {
        let _ = (wire, peer, now, out);
        todo!()
    }
}

impl Pending {
    /// Runs the slow gear and appends the reply to `out`; for a refresh nothing is appended. The future is Send; spawn it on the worker.
    pub async fn run(self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }
}
