//! What taps are shown of a message (`query_tap`).

use super::Listener;
use crate::chain::{Peer, Received};
use crate::message::{Rcode, RecordType};
use crate::query_stats::Route;
use crate::query_tap::AnsweredQuery;
use std::time::Instant;

/// What became of a message.
#[derive(Clone, Copy, Default)]
pub(super) struct Ending<'a> {
    /// Its name in wire form; `None` of a message that cannot be read.
    pub asked: Option<(&'a [u8], RecordType)>,
    /// `None`: nothing was said.
    pub rcode: Option<Rcode>,
    /// Keyword of the handler that answered or failed; empty if none did.
    pub answered_by: &'static str,
    pub route: Route,
    pub reason: Option<&'a str>,
    pub reply: &'a [u8],
}

impl Listener {
    /// Shows a message to whom it is to be shown. To be called while there is somebody.
    #[cold]
    pub(super) fn show(&self, query: &[u8], peer: &Peer, received: Instant, ending: &Ending<'_>) {
        let Ending { asked, rcode, answered_by, route, reason, reply } = *ending;
        self.taps.show(&AnsweredQuery {
            received,
            took: received.elapsed(),
            client: peer.client,
            server: peer.local,
            protocol: self.protocol.label(peer.transport),
            asked,
            rcode,
            answered_by,
            route,
            reason,
            query,
            reply,
        });
    }

    /// The same for one that was answered at once.
    pub(super) fn show_received(&self, received: Received<'_>, ending: &Ending<'_>) {
        self.show(received.wire, received.peer, received.clock.received(), ending);
    }
}
