//! How an answer was had that was not at hand: left by whoever asks upstreams, for who records slow queries.

use crate::query_stats::Route;
use parking_lot::Mutex;
use std::net::SocketAddr;

/// Of one request, on the slow path.
#[derive(Default)]
pub struct Trail(Mutex<Route>);

impl Trail {
    /// An upstream was asked with so many messages over `udp`, `tcp`, `tls` or `https`, whether or not it has answered.
    pub(crate) fn note_asked(&self, upstream: SocketAddr, transport: &'static str, messages: u16) {
        let mut route = self.0.lock();
        route.upstream = Some(upstream);
        route.transport = transport;
        route.tries = route.tries.saturating_add(messages);
    }

    /// This one answered, or else was asked last, be it for another request.
    pub(crate) fn note_upstream(&self, upstream: SocketAddr) {
        self.0.lock().upstream = Some(upstream);
    }

    /// The answer is an old one, because no new one came.
    pub(crate) fn note_stale(&self) {
        self.0.lock().is_stale = true;
    }

    pub(crate) fn route(&self) -> Route {
        *self.0.lock()
    }
}
