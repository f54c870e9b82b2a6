//! The JSON of `/status.json` (docs/status.md), as it is written and as `top` reads it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Rises when a field goes or changes its meaning; that there are more changes nothing.
pub(crate) const VERSION: u32 = 1;

/// All that is told. The server's part, but for `error` and `watchdog`, which its watchdog adds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    pub version: u32,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// Whether names and clients are shown; without them only their counts are.
    pub shows_names: bool,
    /// Hits that a recorded one stands for.
    pub sampling_rate: u32,
    pub minute: WindowReport,
    pub ten_minutes: WindowReport,
    pub hour: WindowReport,
    pub blocks: Vec<BlockReport>,
    /// Queries that no server block takes.
    pub unmatched_per_second: f64,
    pub upstreams: Vec<UpstreamLatency>,
    /// The newest first.
    pub failures: Vec<FailureReport>,
    /// The oldest first.
    pub timeline: Vec<Point>,
    pub configuration: ConfigurationReport,
    /// Why the server tells nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<WatchdogReport>,
}

/// What was asked in ten seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Point {
    /// When they ended.
    pub time_ms: u64,
    pub seconds: f64,
    pub queries: u64,
    pub hits: u64,
    pub failures: u64,
    /// Misses that an upstream was asked for, from a query's arrival to its reply; `None`: there was none.
    pub mean_ms: Option<f64>,
    pub longest_ms: Option<f64>,
}

/// What serves, and what is wrong with what is configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigurationReport {
    /// Of the program.
    pub program: String,
    /// The file, or the template that it is rendered from.
    pub source: String,
    /// Since when it serves.
    pub since_ms: u64,
    /// What is served where.
    pub serves: Vec<String>,
    pub has_warnings: bool,
    /// Hidden with the names, which they may hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnings: Option<String>,
    /// What is configured is not what serves.
    pub is_refused: bool,
    /// Hidden with the names; `None` also if nothing is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// What the watchdog does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct WatchdogReport {
    /// When it began.
    pub since_ms: u64,
    /// `serving`, or what it does until a server serves.
    pub state: String,
    pub seconds_without_service: f64,
    /// Whether queries are to be intercepted.
    pub is_interception_wanted: bool,
    pub addresses: Vec<InterceptedAddress>,
    /// Clients whose packets do not arrive.
    pub blocked_clients: usize,
    /// The newest first.
    pub events: Vec<WatchdogEvent>,
}

/// Whether queries for an address of the node are intercepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct InterceptedAddress {
    pub address: String,
    pub is_intercepted: bool,
    pub why: String,
}

/// Something that the watchdog has seen or done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct WatchdogEvent {
    pub time_ms: u64,
    pub event: String,
    pub detail: String,
    /// Whether a server serves from then on.
    pub serves: bool,
    /// How many addresses are intercepted from then on.
    pub intercepted: usize,
}

/// What was asked over one window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct WindowReport {
    pub seconds: f64,
    pub queries: u64,
    /// Of those, answered at once (estimated).
    pub hits: u64,
    pub misses: u64,
    /// Refused or dropped at once, or malformed.
    pub rejected: u64,
    /// Of those that were rejected.
    pub malformed: u64,
    pub failures: u64,
    pub not_recorded: u64,
    pub rcodes: BTreeMap<String, u64>,
    pub names: Vec<Row>,
    pub clients: Vec<Row>,
    pub clients_and_names: Vec<Row>,
    pub nxdomain_names: Vec<Row>,
    pub failed_names: Vec<Row>,
    pub upstreams: Vec<UpstreamReport>,
    pub slowest: Vec<SlowReport>,
}

/// Who or what came how often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    pub count: u64,
    /// So much of the count may be others'.
    pub error: u64,
}

/// Misses that one upstream was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct UpstreamReport {
    pub upstream: String,
    pub queries: u64,
    pub failures: u64,
    pub mean_ms: f64,
    pub longest_ms: f64,
}

/// How fast an upstream has answered since this process began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct UpstreamLatency {
    pub upstream: String,
    pub answers: u64,
    /// Upper bounds of the histogram's buckets; `None` if it is longer than all of them.
    pub p50_ms: Option<f64>,
    pub p90_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// How much a server block that has `prometheus` is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BlockReport {
    pub server: String,
    pub zone: String,
    pub queries_per_second: f64,
}

/// A miss that took long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SlowReport {
    pub began_ms: u64,
    pub ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// `None`: nothing was said.
    pub rcode: Option<String>,
    pub answered_by: String,
    pub upstream: Option<String>,
    pub transport: String,
    pub tries: u16,
    pub stale: bool,
}

/// A query that got an error, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FailureReport {
    pub time_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `None` of a message that cannot be read, which has no name either.
    pub r#type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// `None`: nothing was said.
    pub rcode: Option<String>,
    /// Hidden with the names, which it may hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub upstream: Option<String>,
}
