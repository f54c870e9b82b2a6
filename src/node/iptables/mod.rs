//! Rules through the iptables programs: the interception where nftables has no owners, and in either case the ACCEPT rules of the filter
//! table. Everything here waits for programs to end, so it belongs on a thread that may wait.

mod select;
mod text;

use super::desired::Rule;
use super::error::Error;
use iptables::IPTables;
use select::{Finding, Kind, has_kubernetes_chains, select};
use std::io;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
pub use text::Table;
use text::{Present, chain, changes, present, specification, takes_socket_match};

/// How long a program waits for the xtables lock.
const LOCK_WAIT_SECONDS: u32 = 5;

/// The programs of one kind.
pub struct Iptables {
    kind: Kind,
    reason: &'static str,
    /// Whether `-m socket` may be had, for IPv4 and IPv6; so until a program says no.
    socket_match: [AtomicBool; 2],
}

impl Iptables {
    /// Finds the kind of iptables that kube-proxy uses here.
    ///
    /// # Errors
    ///
    /// [`Error::IptablesMissing`].
    pub fn find() -> Result<Self, Error> {
        let has_default = has_program(Kind::Default);
        let chosen = select(finding(Kind::Nft), finding(Kind::Legacy), has_default);
        let (kind, reason) = chosen.ok_or(Error::IptablesMissing { program: Kind::Default.program(false) })?;
        Ok(Self { kind, reason, socket_match: [AtomicBool::new(true), AtomicBool::new(true)] })
    }

    /// The program and why it is the one to use, for the log.
    pub fn description(&self) -> String {
        format!("{} ({})", self.kind.program(false), self.reason)
    }

    /// Sees to it that those of `rules` that belong into `tables` are there, and, if `is_alone`, no other rules with our comments; true when
    /// something had to be changed. New rules come first, in order; on an error what was done stays.
    ///
    /// # Errors
    ///
    /// [`Error::IptablesLock`], [`Error::Iptables`], [`Error::IptablesMissing`].
    pub fn apply(&self, rules: &[Rule], tables: &[Table], is_alone: bool) -> Result<bool, Error> {
        let mut has_changed = false;
        for is_ipv6 in [false, true] {
            let is_wanted = |rule: &&Rule| rule.address.is_ipv6() == is_ipv6;
            if !rules.iter().any(|rule| is_wanted(&rule)) {
                continue;
            }
            for table in tables {
                let desired: Vec<Rule> =
                    rules.iter().filter(is_wanted).filter(|rule| Table::of(rule.hook) == *table).copied().collect();
                has_changed |= self.apply_to(*table, is_ipv6, &desired, is_alone)?;
            }
        }
        Ok(has_changed)
    }

    fn apply_to(&self, table: Table, is_ipv6: bool, desired: &[Rule], is_alone: bool) -> Result<bool, Error> {
        let found = list(self.kind, is_ipv6, table)?;
        let socket_match = &self.socket_match[usize::from(is_ipv6)];
        let mut todo = changes(desired, socket_match.load(Ordering::Relaxed), &found, is_alone);
        for rule in &todo.missing {
            self.insert(rule, is_ipv6)?;
        }
        if !todo.missing.is_empty() {
            // The socket match may have been refused just now, and then what is there without it is right.
            todo.surplus = changes(desired, socket_match.load(Ordering::Relaxed), &found, is_alone).surplus;
        }
        for surplus in &todo.surplus {
            remove(self.kind, is_ipv6, surplus)?;
        }
        Ok(!todo.missing.is_empty() || !todo.surplus.is_empty())
    }

    fn insert(&self, rule: &Rule, is_ipv6: bool) -> Result<(), Error> {
        let table = Table::of(rule.hook);
        let insertion = |needs_socket| format!("-I {} 1 {}", chain(rule.hook), specification(rule, needs_socket));
        let socket_match = &self.socket_match[usize::from(is_ipv6)];
        if takes_socket_match(rule) && socket_match.load(Ordering::Relaxed) {
            match run(self.kind, is_ipv6, table, &insertion(true)) {
                Err(error @ Error::Iptables { .. }) => {
                    // Either the match is lacking, or the next attempt fails for the same reason and tells it.
                    run(self.kind, is_ipv6, table, &insertion(false))?;
                    socket_match.store(false, Ordering::Relaxed);
                    tracing::info!("no `-m socket` here, so a rule stays in force should this program be killed: {error}");
                    return Ok(());
                }
                other => return other.map(drop),
            }
        }
        run(self.kind, is_ipv6, table, &insertion(false)).map(drop)
    }
}

/// Removes rules with our comments from `tables`, in whichever kind of iptables they are; returns how many there were, and what went wrong.
pub fn clean(tables: &[Table]) -> (usize, Vec<Error>) {
    let (mut removed, mut errors) = (0, Vec::new());
    for (kind, is_ipv6) in kinds_in_use() {
        for table in tables {
            // A kernel without this table or family has no rules of ours in it.
            let found = list(kind, is_ipv6, *table).unwrap_or_else(|error| {
                tracing::debug!("nothing to clean: {error}");
                Vec::new()
            });
            for surplus in changes(&[], false, &found, true).surplus {
                match remove(kind, is_ipv6, &surplus) {
                    Ok(()) => removed += 1,
                    Err(error) => errors.push(error),
                }
            }
        }
    }
    (removed, errors)
}

/// The kinds that may hold rules. Legacy programs are run only where their tables exist, since they would make them.
fn kinds_in_use() -> Vec<(Kind, bool)> {
    let newer = if has_program(Kind::Nft) { Kind::Nft } else { Kind::Default };
    let has_legacy = |is_ipv6: bool| has_legacy_tables(is_ipv6).then_some((Kind::Legacy, is_ipv6));
    [Some((newer, false)), Some((newer, true)), has_legacy(false), has_legacy(true)].into_iter().flatten().collect()
}

fn has_legacy_tables(is_ipv6: bool) -> bool {
    let file = if is_ipv6 { "/proc/self/net/ip6_tables_names" } else { "/proc/self/net/ip_tables_names" };
    std::fs::read_to_string(file).is_ok_and(|names| !names.trim().is_empty())
}

/// What there is of `kind`: none without its program.
fn finding(kind: Kind) -> Option<Finding> {
    if !has_program(kind) {
        return None;
    }
    let is_in_use = |is_ipv6| kind != Kind::Legacy || has_legacy_tables(is_ipv6);
    let has_chains = |is_ipv6| {
        // The kubelet's canary is in mangle; kube-proxy's chains are in nat.
        is_in_use(is_ipv6)
            && ["mangle", "nat"].iter().any(|table| {
                let listing = execute(kind, is_ipv6, table, "-S");
                listing.is_ok_and(|listing| has_kubernetes_chains(&listing))
            })
    };
    Some(Finding { has_kubernetes_chains: [false, true].into_iter().any(has_chains) })
}

fn has_program(kind: Kind) -> bool {
    !matches!(execute(kind, false, "raw", "--version"), Err(Error::IptablesMissing { .. }))
}

fn list(kind: Kind, is_ipv6: bool, table: Table) -> Result<Vec<Present>, Error> {
    run(kind, is_ipv6, table, "-S").map(|listing| present(table, &listing))
}

fn remove(kind: Kind, is_ipv6: bool, surplus: &Present) -> Result<(), Error> {
    let table = Table::of(surplus.rule.hook);
    run(kind, is_ipv6, table, &format!("-D {} {}", chain(surplus.rule.hook), surplus.text)).map(drop)
}

fn run(kind: Kind, is_ipv6: bool, table: Table, command: &str) -> Result<String, Error> {
    execute(kind, is_ipv6, table.name(), command)
}

/// Runs a program and returns what it printed.
fn execute(kind: Kind, is_ipv6: bool, table: &str, command: &str) -> Result<String, Error> {
    let program = kind.program(is_ipv6);
    // The crate would wait for the lock without end.
    let tables = IPTables { cmd: program, has_check: true, has_wait: false, is_numeric: true };
    let shown = || format!("{program} -t {table} {command}");
    let output: Output = tables.execute(table, &format!("{command} -w {LOCK_WAIT_SECONDS}")).map_err(|error| match error
        .downcast::<io::Error>()
    {
        Ok(error) if error.kind() == io::ErrorKind::NotFound => Error::IptablesMissing { program },
        Ok(error) => Error::Iptables { command: shown(), message: error.to_string() },
        Err(error) => Error::Iptables { command: shown(), message: error.to_string() },
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if message.contains("holding the xtables lock") {
        return Err(Error::IptablesLock { command: shown(), waited_seconds: LOCK_WAIT_SECONDS });
    }
    let message = if message.is_empty() { output.status.to_string() } else { message };
    Err(Error::Iptables { command: shown(), message })
}
