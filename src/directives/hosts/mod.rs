//! The `hosts` directive answers from a hosts file (hosts(5)) and from entries in the Corefile; see README.md beside
//! this file.

mod handler;
mod lines;
mod parse;
mod table;
#[cfg(test)]
mod tests;

pub use parse::parse;

use crate::chain::{BuildContext, BuildError, Built, Configured, DataFilePoll};
use crate::corefile::FileStamp;
use crate::message::LowerName;
use arc_swap::ArcSwap;
use handler::Hosts;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use table::{EntryRules, Table};

const KEYWORD: &str = "hosts";

/// A `hosts` as configured, with what its file held then.
struct HostsConfig {
    path: PathBuf,
    /// `None` if the file could not be read.
    stamp: Option<FileStamp>,
    table: Arc<Table>,
    rules: EntryRules,
    /// Seconds.
    ttl: u32,
    /// Zero: the file is not read again.
    reload: Duration,
    falls_through: Box<[LowerName]>,
    other_types_fall_through: bool,
}

impl Configured for HostsConfig {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let registry = &context.process.registry;
        let hostsfile = self.path.display().to_string();
        let entries = registry.gauge(
            "coredns_hosts_entries",
            "The combined number of entries in hosts and Corefile.",
            &[("hostsfile", &hostsfile)],
        );
        let reloaded = registry.gauge(
            "coredns_hosts_reload_timestamp_seconds",
            "The timestamp of the last reload of hosts file.",
            &[],
        );
        entries.set(self.table.entries() as f64);
        if let Some(stamp) = self.stamp {
            reloaded.set(stamp.modified_seconds());
        }
        let table = Arc::new(ArcSwap::new(self.table.clone()));
        let handler = Hosts {
            table: table.clone(),
            origins: self.rules.origins.clone(),
            ttl: self.ttl,
            falls_through: self.falls_through.clone(),
            other_types_fall_through: self.other_types_fall_through,
        };
        let mut built = Built { handler: Some(Arc::new(handler)), ..Built::default() };
        if !self.reload.is_zero() {
            let rules = self.rules.clone();
            let poll = DataFilePoll {
                directive: KEYWORD,
                path: self.path.clone(),
                interval: self.reload,
                known: self.stamp,
                files: context.process.data_files.clone(),
                changed: Arc::new(move |file| {
                    let (read, bad) = Table::new(&file.text, &rules);
                    if let Some(bad) = bad.summary() {
                        tracing::warn!(
                            "hosts: {hostsfile} has lines that are no entries: {bad}; the others are served"
                        );
                    }
                    entries.set(read.entries() as f64);
                    reloaded.set(file.stamp.modified_seconds());
                    table.store(Arc::new(read));
                }),
            };
            built.background.push(Box::pin(poll.run()));
        }
        Ok(built)
    }
}

/// For fuzzing: reads a hosts file, and looks a name up in it; its addresses, its names if it is an address's, and
/// whether it is there at all.
#[doc(hidden)]
pub fn read_and_look_up(text: &str, name: &LowerName) -> (usize, usize, bool) {
    let rules =
        EntryRules { origins: [crate::message::Name::root().to_lower()].into(), has_reverse: true, inline: [].into() };
    let (table, _) = Table::new(text, &rules);
    (table.v4(name).len() + table.v6(name).len(), table.reverse(name).len(), table.has(name))
}
