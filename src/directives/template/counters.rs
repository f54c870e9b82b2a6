//! The counters of the reference. Series are made when there is first something to count, as there; from then on a
//! hit finds its own without a lock.

use super::rule::{MakeError, RecordTemplate};
use crate::chain::BuildContext;
use crate::metrics::{Counter, Registry};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::Arc;

/// What a match counts under: listen address, zone, class, type. Names, not numbers, so that there are no more than
/// there are names.
type CounterKey = (usize, Arc<str>, &'static str, &'static str);

pub(super) struct Counters {
    registry: Registry,
    servers: Vec<String>,
    /// Name of the block's view; empty without one.
    view: String,
    matches: ArcSwap<HashMap<CounterKey, Arc<Counter>, foldhash::fast::RandomState>>,
}

impl Counters {
    pub(super) fn new(context: &BuildContext<'_>) -> Self {
        Self {
            registry: context.process.registry.clone(),
            servers: context.servers.to_vec(),
            view: context.view_name().to_owned(),
            matches: ArcSwap::default(),
        }
    }

    /// The counter of these labels, if something has been counted there.
    pub(super) fn known(&self, key: &CounterKey) -> Option<Arc<Counter>> {
        self.matches.load().get(key).cloned()
    }

    /// Counts a match.
    pub(super) fn count(&self, key: &CounterKey) {
        if let Some(counter) = self.known(key) {
            return counter.increment();
        }
        let labels = self.labels(key);
        let labels: Vec<(&str, &str)> = labels.to_vec();
        let counter =
            self.registry.counter("coredns_template_matches_total", "Counter of template regex matches.", &labels);
        let counter = Arc::new(counter);
        counter.increment();
        self.matches.rcu(|matches| {
            let mut matches = HashMap::clone(matches);
            matches.insert(key.clone(), counter.clone());
            matches
        });
    }

    /// Counts a record that could not be made.
    pub(super) fn count_failure(&self, key: &CounterKey, record: &RecordTemplate, error: &MakeError) {
        let (name, help) = match error {
            MakeError::Template(_) => ("coredns_template_template_failures_total", "Counter of go template failures."),
            MakeError::Record { .. } => ("coredns_template_rr_failures_total", "Counter of mis-templated RRs."),
        };
        let mut labels = self.labels(key).to_vec();
        labels.extend([("section", record.section_name()), ("template", record.source.as_str())]);
        self.registry.counter(name, help, &labels).increment();
    }

    fn labels<'a>(&'a self, (server, zone, class, rtype): &'a CounterKey) -> [(&'static str, &'a str); 5] {
        let server = self.servers.get(*server).map_or("", String::as_str);
        [("server", server), ("zone", zone), ("view", &self.view), ("class", class), ("type", rtype)]
    }
}
