//! The cases as they stand in the JSON files; `run.py`'s head, where they come from, documents the format.

use crate::support::upstream::{Reply, Rule};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// A scripted conversation.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// `family/what-it-shows`.
    pub name: String,
    pub corefile: String,
    /// Text by path below the scratch folder.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    #[serde(default)]
    pub upstreams: BTreeMap<String, Script>,
    pub steps: Vec<Step>,
    /// The server must end with a status other than 0 before it serves.
    #[serde(default)]
    pub refuses: bool,
    /// What the refusal must say, in any case.
    #[serde(default)]
    pub says: Vec<String>,
    /// Seconds between being ready and the first step.
    #[serde(default = "default_settle")]
    pub settle: f64,
    #[serde(rename = "note")]
    _note: Option<String>,
}

fn default_settle() -> f64 {
    0.1
}

/// What an upstream answers.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    #[serde(default)]
    pub rules: Rules,
    pub default: Option<Reply>,
}

/// Rules as they are, or the name of a list in rules.json.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub enum Rules {
    Named(String),
    Listed(Vec<Rule>),
}

impl Default for Rules {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

/// One step; which it is shows in its keys.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub enum Step {
    Query(Box<QueryStep>),
    Saw(SawStep),
    Upstream(UpstreamStep),
    Sleep(SleepStep),
    Metric(MetricStep),
    Http(HttpStep),
    Write(WriteStep),
    Log(LogStep),
}

/// Ask the server under test, compare the answer.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryStep {
    pub query: Question,
    pub expect: Expectation,
    #[serde(rename = "fixed")]
    _fixed: Option<bool>,
}

/// Queries that reached an upstream since the last such step, by `udp a.example. A`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SawStep {
    pub upstream_saw: String,
    /// Each key goes on with the query's EDNS options: `udp a.example. A 65518=61626364`.
    #[serde(default)]
    pub options: bool,
    pub expect: BTreeMap<String, u32>,
    #[serde(rename = "fixed")]
    _fixed: Option<bool>,
}

/// Stop or start answering, or new rules from here on.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamStep {
    pub upstream: String,
    pub down: Option<bool>,
    pub rules: Option<Vec<Rule>>,
}

/// Wait, in seconds.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SleepStep {
    pub sleep: f64,
}

/// The sum of matching series at 127.0.0.1:{metrics}/metrics.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricStep {
    pub metric: String,
    pub expect: Option<f64>,
    #[serde(rename = "fixed")]
    _fixed: Option<bool>,
}

/// `PORT/PATH` and the HTTP status it gives.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpStep {
    pub http: String,
    pub expect: HttpExpectation,
    #[serde(rename = "fixed")]
    _fixed: Option<bool>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpExpectation {
    pub status: Option<u16>,
}

/// Write a file of the scratch folder, or remove it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteStep {
    pub write: String,
    /// `None`, a null: the file goes.
    #[serde(deserialize_with = "nullable")]
    pub text: Option<String>,
}

/// Lines printed so far that contain the text.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogStep {
    pub log: String,
    pub expect: usize,
    #[serde(rename = "fixed")]
    _fixed: Option<bool>,
}

/// A query to the server under test.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Question {
    pub name: String,
    #[serde(rename = "type")]
    pub rtype: Option<String>,
    pub class: Option<String>,
    /// Absent: RD alone.
    pub flags: Option<Vec<String>>,
    pub opcode: Option<String>,
    /// UDP payload size; absent: no OPT record, unless another field asks for one.
    pub edns: Option<u16>,
    pub edns_version: u8,
    #[serde(rename = "do")]
    pub dnssec_ok: bool,
    /// Hexadecimal data by option code.
    pub options: BTreeMap<String, String>,
    /// `udp` (the default) or `tcp`.
    pub via: Option<String>,
    /// Seconds; 3 unless told.
    pub timeout: Option<f64>,
    /// The whole message in hexadecimal, instead of the fields above.
    pub raw: Option<String>,
    /// Name of the port to ask; `port` unless told.
    pub port: Option<String>,
    pub repeat: Option<usize>,
    /// All repetitions at once instead of one after another.
    pub parallel: bool,
    /// The address to ask; 127.0.0.1 unless told.
    pub at: Option<IpAddr>,
}

/// What an answer must be. Keys left out are not compared.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expectation {
    pub timeout: bool,
    pub rcode: Option<String>,
    pub flags: Option<Vec<String>>,
    pub question: Option<Vec<String>>,
    pub answer: Option<Vec<String>>,
    /// Records that come first, in this order. Their TTLs are not compared.
    pub answer_starts: Option<Vec<String>>,
    pub authority: Option<Vec<String>>,
    pub additional: Option<Vec<String>>,
    /// `Some(None)`: there must be no OPT record.
    #[serde(deserialize_with = "present")]
    pub edns: Option<Option<EdnsExpectation>>,
    /// All EDNS options, `65518=61626364` each.
    pub options: Option<Vec<String>>,
    /// Octets.
    pub size_at_most: Option<usize>,
}

/// What the OPT record must say.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdnsExpectation {
    #[serde(rename = "do")]
    pub dnssec_ok: bool,
}

/// Tells a null from an absent key.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<EdnsExpectation>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A key that may be null but not absent.
fn nullable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
}

impl Case {
    /// All texts that may be a Corefile.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.corefile).chain(self.files.values()).map(String::as_str)
    }

    /// An address that the case asks and this machine does not have.
    pub fn address_out_of_reach(&self) -> Option<IpAddr> {
        let asked = self.steps.iter().filter_map(|step| match step {
            Step::Query(step) => Some(step.query.address()),
            _ => None,
        });
        asked.into_iter().find(|address| std::net::UdpSocket::bind((*address, 0)).is_err())
    }
}

impl Question {
    pub fn address(&self) -> IpAddr {
        self.at.unwrap_or(Ipv4Addr::LOCALHOST.into())
    }
}
