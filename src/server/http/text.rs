//! The body of an HTTP answer, sent to one or several clients. They are copied in pieces, so that those which wait for
//! a client are few; the whole can be withdrawn, whoever still reads it.

use hyper::body::{Body, Bytes, Frame, SizeHint};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Octets that are passed on at once.
const PIECE: usize = 16 << 10;

/// What several clients may be sent.
pub(super) struct SharedText {
    octets: usize,
    /// None once it is withdrawn.
    text: Mutex<Option<Vec<u8>>>,
}

/// Why an answer ends before its time.
#[derive(Debug, thiserror::Error)]
#[error("the client reads so slowly that newer answers have taken the memory of this one")]
pub(super) struct Withdrawn;

/// What one client is still to be sent.
pub(super) struct Text {
    source: Arc<SharedText>,
    sent: usize,
}

impl SharedText {
    pub(super) fn new(text: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { octets: text.len(), text: Mutex::new(Some(text)) })
    }
    pub(super) fn octets(&self) -> usize {
        self.octets
    }
    pub(super) fn text(self: &Arc<Self>) -> Text {
        Text { source: self.clone(), sent: 0 }
    }
    /// What `read` makes of the octets; None if they are withdrawn.
    pub(super) fn map<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.text.lock().as_deref().map(read)
    }
    /// Gives its memory back. Who has not read all of it has the connection closed.
    pub(super) fn withdraw(&self) {
        *self.text.lock() = None;
    }
}

impl From<Vec<u8>> for Text {
    fn from(text: Vec<u8>) -> Self {
        SharedText::new(text).text()
    }
}

impl Body for Text {
    type Data = Bytes;
    type Error = Withdrawn;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        let piece = match &*self.source.text.lock() {
            None => return Poll::Ready(Some(Err(Withdrawn))),
            Some(text) => {
                let rest = text.get(self.sent..).unwrap_or_default();
                Bytes::copy_from_slice(rest.get(..PIECE).unwrap_or(rest))
            }
        };
        self.sent += piece.len();
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }
    fn is_end_stream(&self) -> bool {
        self.sent >= self.source.octets
    }
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.source.octets.saturating_sub(self.sent) as u64)
    }
}
