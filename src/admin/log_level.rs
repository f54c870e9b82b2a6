//! What is said of how much is logged. Pure.

use crate::chain::Level;
use serde::{Deserialize, Serialize};

/// From who asks how much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogLevelRequest {
    Show,
    /// Log this level and those above; `None`: as it is configured.
    Set(Option<Level>),
}

/// How much is logged, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogLevels {
    /// By the Corefile (`debug`).
    pub configured: Level,
    /// By a user.
    pub set: Option<Level>,
}

impl LogLevels {
    /// Lines of this level are logged, and those above.
    pub(crate) fn level(&self) -> Level {
        self.set.unwrap_or(self.configured)
    }
}
