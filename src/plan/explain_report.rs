//! What is told of a question, as it is printed and goes over the admin socket. docs/explain.md has the fields.

use crate::chain::Effect;
use serde::{Deserialize, Serialize};

/// What becomes of a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutcomeKind {
    /// The client is given an answer that is at hand, whatever its code.
    #[default]
    Answered,
    /// Upstreams are asked.
    Forwarded,
    /// It is answered with an error, as there is no answer.
    Failed,
    /// Nothing is said to the client.
    Dropped,
    /// No server block takes it.
    Refused,
}

/// What would be done with a question.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ExplainReport {
    /// In a few words.
    pub verdict: String,
    /// Where the Corefile says so: `FILE:LINE`; `None`: nowhere.
    pub at: Option<String>,
    pub outcome: OutcomeKind,
    /// Of the answer, if it is known.
    pub rcode: Option<String>,
    /// The directive that answers, if one does.
    pub answered_by: Option<String>,
    /// An upstream is asked for it: before the client is answered, or, where it is given a stale answer, for a newer
    /// one.
    pub asks_upstream: bool,
    pub question: QuestionReport,
    /// The server block that takes it.
    pub block: Option<BlockReport>,
    /// What to know of the choice of block.
    pub hints: Vec<String>,
    pub steps: Vec<StepReport>,
    /// Of the answer, if it is known, as in a zone file.
    pub records: Vec<String>,
    /// Where the configuration is one that does not serve: what is not known therefore.
    pub note: Option<String>,
    /// What came of asking for real.
    pub asked: Option<AskReport>,
}

/// Who asks for what, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct QuestionReport {
    pub name: String,
    pub r#type: String,
    pub client: String,
    /// The address that is asked.
    pub server: String,
    /// What is spoken there: `udp`, `tls` or `https`.
    pub transport: String,
}

/// A server block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BlockReport {
    /// The longest of its zones that the name is in.
    pub zone: String,
    /// Empty without one.
    pub view: String,
    pub at: Option<String>,
}

/// What a directive, or one of its rules, does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StepReport {
    pub directive: String,
    pub at: Option<String>,
    pub does: Effect,
    pub says: Vec<String>,
}

/// What came of a question that was asked for real.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AskReport {
    /// `None`: nothing is said to the client.
    pub rcode: Option<String>,
    /// It was answered without waiting for anything.
    pub is_at_hand: bool,
    /// Milliseconds, as are all times.
    pub ms: f64,
    /// The directive that answered; empty: none, or, where the answer was at hand, one that did not say so.
    pub answered_by: String,
    /// Why it has no answer.
    pub failure: Option<String>,
    /// The upstream that answered, or was asked last.
    pub upstream: Option<String>,
    /// `udp`, `tcp`, `tls` or `https`; empty if another query's exchange was shared, or no upstream was asked.
    pub transport: String,
    /// Messages that were sent to upstreams.
    pub tries: u16,
    /// The answer had expired.
    pub is_stale: bool,
    /// What it waited for, as it began.
    pub steps: Vec<TimedStep>,
    pub records: Vec<String>,
}

/// A part of the time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TimedStep {
    /// A directive, or `connect`: an exchange with an upstream.
    pub what: String,
    /// How many steps it is within.
    pub depth: usize,
    /// When it began.
    pub start_ms: f64,
    /// `None`: it did not end.
    pub ms: Option<f64>,
    /// The upstream.
    pub peer: Option<String>,
}
