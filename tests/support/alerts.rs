//! The shipped rules (monitoring/rules.yaml) on what a running program's metrics did: snapshots of them, one after the
//! other, stand for minutes, and promtool says which alerts fire.

use super::client::http;
use super::server::scratch;
use super::tools::{checkout, everything, tool, write};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::LazyLock;

/// So many minutes nothing is wrong. More than any rule looks back.
pub const HEALTHY: usize = 20;
/// So many minutes something is wrong: longer than any rule waits, with what it looks back.
pub const FAULTY: usize = 26;

const RULES: &str = "monitoring/rules.yaml";
/// As where pods are scraped by their annotations: the rules go by no name of a job.
const JOB: &str = "kubernetes-pods";

/// What was scraped, minute by minute.
pub struct Recording {
    port: u16,
    minutes: Vec<Minute>,
}

/// What Prometheus has of a minute.
#[derive(Clone)]
enum Minute {
    /// The metrics.
    Page(String),
    /// A target that does not answer.
    Down,
    /// No target: service discovery no longer finds one.
    NoTarget,
}

impl Minute {
    fn page(&self) -> Option<&str> {
        match self {
            Self::Page(page) => Some(page),
            Self::Down | Self::NoTarget => None,
        }
    }

    /// What the series `up` has.
    fn up(&self) -> &'static str {
        match self {
            Self::Page(_) => "1",
            Self::Down => "0",
            Self::NoTarget => "_",
        }
    }
}

impl Recording {
    /// Scrapes a port of the program on loopback.
    pub fn of(port: u16) -> Self {
        Self { port, minutes: Vec::new() }
    }

    /// The next minute is as the metrics are at present; a port that does not answer is down.
    pub fn scrape(&mut self) {
        let page = http(&format!("{}/metrics", self.port)).filter(|(status, _)| *status == 200);
        self.minutes.push(page.map_or(Minute::Down, |(_, text)| Minute::Page(text)));
    }

    /// [`HEALTHY`] minutes with what `load` does before each, then `fault`, then [`FAULTY`] with `load_then`.
    pub fn record(&mut self, mut load: impl FnMut(), fault: impl FnOnce(), mut load_then: impl FnMut()) {
        (0..HEALTHY).for_each(|_| {
            load();
            self.scrape();
        });
        fault();
        (0..FAULTY).for_each(|_| {
            load_then();
            self.scrape();
        });
    }

    /// Adds `amount` to a counter more with each minute of the fault, for what no input brings about.
    pub fn grow(&mut self, series: &str, amount: u64) {
        for (minute, page) in self.minutes.iter_mut().enumerate().skip(HEALTHY) {
            let grown = |line: &str| match line.strip_prefix(series).map(str::trim) {
                Some(value) => {
                    format!("{series} {}", value.parse::<u64>().expect("a counter") + amount * minute as u64)
                }
                None => line.to_owned(),
            };
            if let Minute::Page(text) = page {
                *text = text.lines().map(grown).collect::<Vec<_>>().join("\n");
            }
        }
    }

    /// The fault is that there is no pod any more, which Prometheus could scrape.
    pub fn lose_target(&mut self) {
        self.minutes[HEALTHY..].fill(Minute::NoTarget);
    }

    /// The last minute is repeated so often.
    pub fn last(&mut self, minutes: usize) {
        let last = self.minutes.last().expect("something was recorded").clone();
        self.minutes.resize(self.minutes.len() + minutes, last);
    }

    /// Exactly `expected` fire at the end, and none while nothing is wrong. Panics with what promtool says.
    pub fn assert_fires(&self, expected: &[&str]) {
        self.assert_fires_beside(expected, &[]);
    }

    /// The same where those of `possible` may fire as well at the end.
    pub fn assert_fires_beside(&self, expected: &[&str], possible: &[&str]) {
        assert!(self.minutes.len() >= HEALTHY + FAULTY);
        let folder = scratch();
        let rules = checkout(RULES);
        let mut test = format!("rule_files: ['{}']\nevaluation_interval: 1m\ntests:\n", rules.display());
        test += "- interval: 1m\n  input_series:\n";
        for (series, values) in self.series() {
            writeln!(test, "  - series: '{series}'\n    values: '{}'", values.join(" ")).expect("a string takes all");
        }
        test += "  promql_expr_test:\n";
        let firing = |but: &[&str]| {
            let but = but.join("|");
            format!("count by (alertname) (ALERTS{{alertstate=\"firing\", alertname!~\"{but}\"}})")
        };
        for (minute, names, but) in [(HEALTHY - 1, &[][..], &[][..]), (self.minutes.len() - 1, expected, possible)] {
            writeln!(test, "  - expr: '{}'\n    eval_time: {minute}m\n    exp_samples:", firing(but))
                .expect("a string");
            for name in names {
                writeln!(test, "    - labels: '{{alertname=\"{name}\"}}'\n      value: 1").expect("a string takes all");
            }
        }
        let path = write(folder.path(), "test.yaml", &test);
        let output = tool("promtool").args(["test", "rules"]).arg(&path).output().expect("promtool runs");
        assert!(output.status.success(), "expected {expected:?}: {}", everything(&output));
    }

    /// Each series that the rules read, with its value of each minute, `_` where it was not there.
    fn series(&self) -> BTreeMap<String, Vec<String>> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (minute, page) in self.minutes.iter().enumerate() {
            let samples = page.page().into_iter().flat_map(str::lines).filter(|line| !line.starts_with('#'));
            for (series, value) in samples.filter_map(|line| line.rsplit_once(' ')) {
                let (name, labels) = series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest));
                if NAMES.contains(name) {
                    let labels = labels.trim_end_matches('}').replace('\'', "''");
                    let comma = if labels.is_empty() { "" } else { "," };
                    let key = format!("{name}{{job=\"{JOB}\",instance=\"node\"{comma}{labels}}}");
                    let values = all.entry(key).or_default();
                    values.resize(minute, "_".to_owned());
                    values.push(value.to_owned());
                }
            }
        }
        all.values_mut().for_each(|values| values.resize(self.minutes.len(), "_".to_owned()));
        let up = self.minutes.iter().map(|minute| minute.up().to_owned()).collect();
        all.insert(format!("up{{job=\"{JOB}\",instance=\"node\"}}"), up);
        all
    }
}

/// Names of metrics in the rules.
static NAMES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let path = checkout(RULES);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let name = regex::Regex::new(r"\b(?:coredns|nodelocaldns|process)_\w+").expect("a valid pattern");
    name.find_iter(&text).map(|found| found.as_str().to_owned()).collect()
});
