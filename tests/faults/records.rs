//! What became of the queries.

use crate::cluster::Transport;
use crate::wire::Answer;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Lost queries that a message names each.
const SHOWN: usize = 20;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Pod,
    HostNetwork,
}

/// Who asks what address how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub who: Who,
    pub address: &'static str,
    pub transport: Transport,
}

/// One query. Times are since the clients' start.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub kind: Kind,
    /// Nobody had asked for the name before.
    pub is_fresh: bool,
    pub sent: Duration,
    /// None: lost.
    pub fate: Option<Fate>,
}

/// The answer, and when it came.
#[derive(Clone, Copy, Debug)]
pub struct Fate {
    pub at: Duration,
    pub answer: Answer,
}

impl Record {
    /// True for an answer that a client can use.
    pub fn is_answered(&self) -> bool {
        self.is_from(Answer::Node) || self.is_from(Answer::KubeDns)
    }
    pub fn is_from(&self, answer: Answer) -> bool {
        self.fate.is_some_and(|fate| fate.answer == answer)
    }
}

/// Of all clients.
pub struct Records {
    records: Vec<Record>,
    /// Datagrams of this load that were lost to the machine.
    pub overruns: usize,
}

impl Records {
    pub fn new(records: Vec<Record>) -> Self {
        Self { records, overruns: 0 }
    }
    pub fn of(&self, is_of: impl Fn(&Record) -> bool) -> Self {
        let records = self.records.iter().filter(|record| is_of(record)).copied().collect();
        Self { records, overruns: self.overruns }
    }
    pub fn after(&self, since: Duration) -> Self {
        self.of(|record| record.sent >= since)
    }
    pub fn asked(&self) -> usize {
        self.records.len()
    }
    /// Those without an answer, or with one of no use.
    pub fn lost(&self) -> usize {
        self.count(|record| !record.is_answered())
    }
    /// Those that were lost though the machine had room for every datagram.
    pub fn lost_by_us(&self) -> usize {
        self.lost().saturating_sub(self.overruns)
    }
    pub fn from(&self, answer: Answer) -> usize {
        self.count(|record| record.is_from(answer))
    }
    fn count(&self, is_of: impl Fn(&Record) -> bool) -> usize {
        self.records.iter().filter(|record| is_of(record)).count()
    }

    /// The longest that any client went without a UDP answer from any address while it asked.
    pub fn longest_gap(&self) -> Duration {
        let mut streams: BTreeMap<(Who, &str), Vec<&Record>> = BTreeMap::new();
        for record in self.records.iter().filter(|record| record.kind.transport == Transport::Udp) {
            streams.entry((record.kind.who, record.kind.address)).or_default().push(record);
        }
        let of_stream = |records: Vec<&Record>| {
            let first = records.first().map(|record| record.sent).unwrap_or_default();
            let last = records.last().map(|record| record.sent).unwrap_or_default();
            let mut times: Vec<Duration> = records
                .iter()
                .filter(|record| record.is_answered())
                .filter_map(|record| Some(record.fate?.at))
                .collect();
            times.extend([first, last.max(first)]);
            times.sort_unstable();
            times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
        };
        streams.into_values().map(of_stream).max().unwrap_or_default()
    }

    /// How many got which answer, by kind, and when the first of those were sent that got none; for messages.
    pub fn detail(&self) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for record in &self.records {
            let fresh = if record.is_fresh { ", fresh" } else { "" };
            let fate = record.fate.map(|fate| fate.answer);
            let Kind { who, address, transport } = record.kind;
            *counts.entry(format!("{who:?} {address} {transport:?}{fresh}: {fate:?}")).or_default() += 1;
        }
        let lost: Vec<String> = self.of(|record| !record.is_answered()).records.iter().take(SHOWN).map(shown).collect();
        let overruns = format!("datagrams lost to the machine: {}\n", self.overruns);
        counts.into_iter().map(|(what, count)| format!("{what}: {count}\n")).chain([overruns]).chain(lost).collect()
    }
}

fn shown(lost: &Record) -> String {
    let Kind { who, address, transport } = lost.kind;
    format!("lost: {who:?} {address} {transport:?} sent at {:?}: {:?}\n", lost.sent, lost.fate)
}

/// As it stands in the table.
impl fmt::Display for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}, {} ms", self.lost(), self.asked(), self.longest_gap().as_millis())
    }
}
