//! What served before this process began, for when what is configured is bad or cannot be had.

use super::files::{FileClient, Recorded};
use super::load::{CorefileSource, LoadError, LoadedCorefile};
use crate::directives::reload::Fingerprint;
use std::path::Path;

/// Why what served last serves, and not what is configured.
pub(super) struct StartRefusal {
    pub error: anyhow::Error,
    /// Of what is configured, if it could be read.
    pub fingerprint: Option<Fingerprint>,
}

/// What another server of the same watchdog has served last, unless it served nothing: its text, if it stood in no
/// file, else where it stood (`path`).
pub(super) fn last_served(
    files: &FileClient,
    path: &Path,
    default_port: u16,
) -> Option<(CorefileSource, LoadedCorefile)> {
    let (recorded, text) = files.last_served().ok()?;
    let path = path.to_owned();
    let source = match text {
        Some(text) => CorefileSource::Text { path, text },
        None => CorefileSource::File(path),
    };
    match load_recorded(&source, default_port, &recorded) {
        Ok(loaded) => (!loaded.config.serves_nothing()).then_some((source, loaded)),
        Err(error) => {
            tracing::error!("what served last is remembered, and cannot be served: {error}");
            None
        }
    }
}

/// [`CorefileSource::load`] from what the watchdog has read, so that it can be remembered once it serves.
pub(super) fn load_recorded(
    source: &CorefileSource,
    default_port: u16,
    recorded: &Recorded,
) -> Result<LoadedCorefile, LoadError> {
    let mut loaded = source.load(default_port, &recorded.snapshot)?;
    let text = match source {
        CorefileSource::Text { text, .. } if !recorded.snapshot.is_fixed => Some(text.as_str()),
        CorefileSource::Text { .. } | CorefileSource::File(_) => None,
    };
    loaded.record = Some(recorded.served(text));
    Ok(loaded)
}
