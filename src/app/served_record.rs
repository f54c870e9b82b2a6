//! What a Corefile was loaded from, for a server that begins when what is configured then is bad.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The file in memory that the watchdog has passed what it read in, and the text of a Corefile that stood in no file.
#[derive(Clone, Debug)]
pub struct ServedRecord {
    record: Arc<OwnedFd>,
    text: Option<Arc<str>>,
}

impl ServedRecord {
    pub(super) fn new(record: Arc<OwnedFd>, text: Option<&str>) -> Self {
        Self { record, text: text.map(Arc::from) }
    }
    pub(super) fn record(&self) -> BorrowedFd<'_> {
        self.record.as_fd()
    }
    pub(super) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }
}
