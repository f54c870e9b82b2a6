//! What the watchdog has read, as the server gets it.

use super::host_snapshot::{HostSnapshot, SnapshotDigest};
use crate::app::served_record::ServedRecord;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What the watchdog has read.
pub struct Recorded {
    pub snapshot: HostSnapshot,
    pub digest: SnapshotDigest,
    /// The file that the snapshot was passed in.
    record: Arc<OwnedFd>,
}

impl Recorded {
    /// `record` is the file that the snapshot was passed in.
    pub(super) fn new(snapshot: HostSnapshot, digest: SnapshotDigest, record: OwnedFd) -> Self {
        Self { snapshot, digest, record: Arc::new(record) }
    }

    /// What a Corefile that was loaded from this is to be remembered by; `text` if it stands in no file of this.
    pub fn served(&self, text: Option<&str>) -> ServedRecord {
        ServedRecord::new(self.record.clone(), text)
    }
}
