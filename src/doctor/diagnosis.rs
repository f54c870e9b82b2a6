//! The diagnosis, as text and as JSON. Pure.

use crate::corefile::printable;
use serde::Serialize;
use std::fmt;

/// How a check came out; a later one outweighs an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// Nothing is wrong.
    Ok,
    /// Queries are intercepted all the same.
    Warning,
    /// It could not be looked at.
    Unknown,
    /// Something is wrong.
    Problem,
}

/// One thing looked at. Its field names are those of the JSON output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The same in every version, such as `rule_order`.
    pub name: &'static str,
    /// How it came out.
    pub verdict: CheckStatus,
    /// Sentences.
    pub seen: Vec<String>,
    /// What to do, in the order to do it; empty if nothing.
    pub advice: Vec<String>,
}

/// Everything together. Its field names are those of the JSON output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// The heaviest of all checks, and no lighter than what `intercepted` says.
    pub verdict: CheckStatus,
    /// Whether queries for every address are answered by this node's cache; none where that could not be told.
    pub intercepted: Option<bool>,
    /// In the order in which they are shown.
    pub checks: Vec<Check>,
}

impl CheckStatus {
    /// The exit status: 0 for nothing wrong (warnings too), 1 for a problem, 3 if nothing wrong was seen but not
    /// everything could be looked at. 2 is for wrong usage.
    pub(crate) fn exit_status(self) -> u8 {
        match self {
            Self::Ok | Self::Warning => 0,
            Self::Problem => 1,
            Self::Unknown => 3,
        }
    }
}

impl Check {
    /// One in which nothing has been seen yet.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, verdict: CheckStatus::Ok, seen: Vec::new(), advice: Vec::new() }
    }

    pub(super) fn ok(&mut self, seen: impl Into<String>) {
        self.add(CheckStatus::Ok, seen, None);
    }

    pub(super) fn warning(&mut self, seen: impl Into<String>, advice: impl Into<String>) {
        self.add(CheckStatus::Warning, seen, Some(advice.into()));
    }

    pub(super) fn unknown(&mut self, seen: impl Into<String>, advice: impl Into<String>) {
        self.add(CheckStatus::Unknown, seen, Some(advice.into()));
    }

    pub(super) fn problem(&mut self, seen: impl Into<String>, advice: impl Into<String>) {
        self.add(CheckStatus::Problem, seen, Some(advice.into()));
    }

    /// The check becomes as bad as its worst part. Advice is given once.
    fn add(&mut self, verdict: CheckStatus, seen: impl Into<String>, advice: Option<String>) {
        self.verdict = self.verdict.max(verdict);
        self.seen.push(seen.into());
        if let Some(advice) = advice.filter(|advice| !advice.is_empty() && !self.advice.contains(advice)) {
            self.advice.push(advice);
        }
    }
}

impl Diagnosis {
    pub(super) fn new(intercepted: Option<bool>, checks: Vec<Check>) -> Self {
        let upshot = match intercepted {
            Some(true) => CheckStatus::Ok,
            Some(false) => CheckStatus::Problem,
            None => CheckStatus::Unknown,
        };
        let verdict = checks.iter().map(|check| check.verdict).fold(upshot, CheckStatus::max);
        Self { verdict, intercepted, checks }
    }

    /// The check of this name.
    #[cfg(test)]
    pub(crate) fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }
}

impl fmt::Display for CheckStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Problem => "PROBLEM",
        })
    }
}

/// For people: a line for each thing seen, what to do indented below it, and the upshot last. Names and pages that
/// others have written steer no terminal.
impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let mut head = (check.verdict.to_string(), check.name);
            for seen in &check.seen {
                writeln!(f, "{:<8} {:<12} {}", head.0, head.1, printable(seen, false))?;
                head = (String::new(), "");
            }
            for advice in &check.advice {
                writeln!(f, "{:<8} {:<12}   → {}", "", "", printable(advice, false))?;
            }
        }
        let upshot = match self.intercepted {
            Some(true) => "Queries are intercepted: this node's cache answers.",
            Some(false) => "Queries are NOT intercepted on every address.",
            None => "Whether queries are intercepted cannot be told.",
        };
        let rest = match self.verdict {
            CheckStatus::Ok => "Nothing is wrong.",
            CheckStatus::Warning => "Nothing is wrong; see the warnings.",
            CheckStatus::Unknown => "Nothing wrong was seen, but not everything could be looked at.",
            CheckStatus::Problem => "Something is wrong; what to do stands after each →.",
        };
        writeln!(f, "\n{upshot} {rest}")
    }
}
