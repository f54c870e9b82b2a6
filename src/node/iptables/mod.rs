//! Rules through the iptables programs: the interception where nftables has no owners, and in either case the ACCEPT
//! rules of a legacy filter table. Everything here waits for programs to end, so it belongs on a thread that may wait.

mod narrowing;
mod preceding;
mod program;
mod select;
mod text;

use super::desired::Rule;
use super::error::Error;
use super::nftables::hooks::TableFamily;
use super::nftables::ruleset;
pub(crate) use narrowing::LeaseUse;
pub use narrowing::OptionalMatches;
use narrowing::{MatchAvailability, MatchNews, lease_file};
pub(crate) use preceding::PrecedingRule;
pub use preceding::preceding_rules;
use select::{IptablesVariant, VariantEvidence, has_kubernetes_chains, lacks_nf_tables, select};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
pub(crate) use text::PresentRule;
pub use text::{IptablesChanges, IptablesTable, changes, present, script};

/// How long a program waits for the xtables lock.
const LOCK_WAIT_SECONDS: u32 = 5;

/// The programs of one kind.
pub(super) struct Iptables {
    variant: IptablesVariant,
    reason: &'static str,
    /// What may be had for IPv4 and IPv6.
    available: [Mutex<MatchAvailability>; 2],
}

impl Iptables {
    /// Finds the kind of iptables that kube-proxy uses here.
    ///
    /// # Errors
    ///
    /// [`Error::IptablesMissing`], [`Error::IptablesHangs`].
    pub(super) fn find() -> Result<Self, Error> {
        let has_default = match version(IptablesVariant::Default) {
            // The others are most likely the same program.
            Err(error @ Error::IptablesHangs { .. }) => return Err(error),
            version => is_there(&version),
        };
        let chosen = select(evidence(IptablesVariant::Nft), evidence(IptablesVariant::Legacy), has_default);
        let (variant, reason) =
            chosen.ok_or(Error::IptablesMissing { program: IptablesVariant::Default.program(false) })?;
        Ok(Self::of(variant, reason))
    }

    /// The programs for legacy tables, if there are any.
    pub(super) fn legacy() -> Option<Self> {
        let variant = if has_program(IptablesVariant::Legacy) {
            IptablesVariant::Legacy
        } else {
            // The others name themselves `nf_tables`.
            let version = execute(IptablesVariant::Default, false, IptablesTable::Filter.name(), "--version").ok()?;
            (!version.contains("nf_tables")).then_some(IptablesVariant::Default)?
        };
        Some(Self::of(variant, "there is a legacy table"))
    }

    fn of(variant: IptablesVariant, reason: &'static str) -> Self {
        Self { variant, reason, available: [(); 2].map(|()| Mutex::new(MatchAvailability::new())) }
    }

    /// The program and why it is the one to use, for the log.
    pub(super) fn description(&self) -> String {
        format!("{} ({})", self.variant.program(false), self.reason)
    }

    /// Sees to it that those of `rules` that belong into `tables` are there, and, if `is_alone`, no other rules with
    /// our comments; true when something had to be changed. Each table of each family changes at once or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::IptablesLock`], [`Error::Iptables`], [`Error::IptablesMissing`].
    pub(super) fn apply(&self, rules: &[Rule], tables: &[IptablesTable], is_alone: bool) -> Result<bool, Error> {
        let mut has_changed = false;
        for is_ipv6 in [false, true] {
            let is_wanted = |rule: &&Rule| rule.address.is_ipv6() == is_ipv6;
            if !rules.iter().any(|rule| is_wanted(&rule)) {
                continue;
            }
            for table in tables {
                let desired: Vec<Rule> = rules
                    .iter()
                    .filter(is_wanted)
                    .filter(|rule| IptablesTable::of(rule.hook) == *table)
                    .copied()
                    .collect();
                has_changed |= self.apply_to(*table, is_ipv6, &desired, is_alone)?;
            }
        }
        Ok(has_changed)
    }

    fn apply_to(&self, table: IptablesTable, is_ipv6: bool, desired: &[Rule], is_alone: bool) -> Result<bool, Error> {
        let found = list(self.variant, is_ipv6, table)?;
        let attempt = |available| {
            let todo = changes(desired, available, &found, is_alone);
            restore(self.variant, is_ipv6, table, &todo, available).map(|()| todo != IptablesChanges::default())
        };
        let available = &self.available[usize::from(is_ipv6)];
        let attempts = available.lock().unwrap_or_else(PoisonError::into_inner).attempts(desired, Instant::now());
        let mut refusals = Vec::new();
        for taken in &attempts {
            match attempt(*taken) {
                Ok(has_changed) => {
                    let mut available = available.lock().unwrap_or_else(PoisonError::into_inner);
                    let MatchNews { lacking, regained } = available.learn(&attempts, *taken, Instant::now());
                    if let Some(refusal) = refusals.first() {
                        say_what_is_lacking(is_ipv6, lacking, refusal);
                    }
                    if has_changed && taken.recent {
                        begin_leases(desired);
                    }
                    // What was regained is no change by others.
                    return Ok(has_changed && !say_what_is_regained(is_ipv6, regained));
                }
                // Either a match is lacking, or the last attempt fails for the same reason and tells it.
                Err(error @ Error::Iptables { .. }) => refusals.push(error),
                Err(error) => return Err(error),
            }
        }
        refusals.pop().map_or(Ok(false), Err)
    }
}

/// Rules that have just been put in match at once, as they are wanted: until two probes have come again, queries would
/// go to cluster DNS and back. Only probes keep the lease.
fn begin_leases(rules: &[Rule]) {
    let needing = rules.iter().filter(|rule| matches!(LeaseUse::of(rule), LeaseUse::Needs { .. }));
    let addresses: BTreeSet<IpAddr> = needing.map(|rule| rule.address).collect();
    for address in addresses {
        let note = || {
            let mut file = OpenOptions::new().write(true).open(lease_file(address))?;
            file.write_all(format!("+{address}\n").as_bytes())
        };
        // The rules are leased by two notes, as by two probes.
        if let Err(error) = note().and_then(|()| note()) {
            tracing::debug!("the lease of {address} begins with the next probes: {error}");
        }
    }
}

fn family(is_ipv6: bool) -> &'static str {
    if is_ipv6 { "IPv6" } else { "IPv4" }
}

fn say_what_is_lacking(is_ipv6: bool, lacking: OptionalMatches, refusal: &Error) {
    let family = family(is_ipv6);
    if lacking.recent {
        tracing::warn!(
            "iptables for {family} has no `-m recent` (kernel module xt_recent): should this program be killed, programs on the host network \
             wait for its next start, or 2 s where nftables can guard the rules: {refusal}"
        );
    }
    if lacking.socket {
        tracing::info!(
            "iptables for {family} has no `-m socket` (kernel module xt_socket): should this program be killed, pods wait for as long as \
             programs on the host network: {refusal}"
        );
    }
}

/// True if anything is.
fn say_what_is_regained(is_ipv6: bool, regained: OptionalMatches) -> bool {
    let matches = [(regained.recent, "recent"), (regained.socket, "socket")];
    for (_, name) in matches.iter().filter(|(is_regained, _)| *is_regained) {
        tracing::info!("iptables for {} takes `-m {name}` after all, which it had refused", family(is_ipv6));
    }
    regained != OptionalMatches::NONE
}

/// Removes rules with our comments from `tables`, in whichever kind of iptables they are; returns how many there were,
/// and what went wrong.
pub(super) fn clean(tables: &[IptablesTable]) -> (usize, Vec<Error>) {
    let (mut removed, mut errors) = (0, Vec::new());
    for is_ipv6 in [false, true] {
        for table in tables {
            for variant in variants_in_use(is_ipv6, table.name()) {
                let cleaned = list(variant, is_ipv6, *table).and_then(|found| {
                    let todo = changes(&[], OptionalMatches::NONE, &found, true);
                    restore(variant, is_ipv6, *table, &todo, OptionalMatches::NONE).map(|()| todo.surplus.len())
                });
                match cleaned {
                    Ok(count) => removed += count,
                    Err(error @ Error::IptablesMissing { .. }) => tracing::debug!("nothing to clean: {error}"),
                    Err(error) if is_useless(&error) || is_native(&error) && !holds_ours(is_ipv6, *table) => {
                        tracing::debug!("nothing to clean: {error}");
                    }
                    // So would the others.
                    Err(error @ Error::IptablesHangs { .. }) => {
                        errors.push(error);
                        return (removed, errors);
                    }
                    Err(error) => errors.push(error),
                }
            }
        }
    }
    (removed, errors)
}

/// Whether a program needs nf_tables on a kernel that has none.
fn is_useless(error: &Error) -> bool {
    matches!(error, Error::Iptables { message, .. } if lacks_nf_tables(message))
}

/// Whether a table is one that iptables-nft would not have made, and does not read.
fn is_native(error: &Error) -> bool {
    matches!(error, Error::Iptables { message, .. } if message.contains("is incompatible, use 'nft' tool"))
}

/// Whether rules of ours are in a table that the programs do not read, since somebody has added his to it.
fn holds_ours(is_ipv6: bool, table: IptablesTable) -> bool {
    let family = if is_ipv6 { TableFamily::Ip6 } else { TableFamily::Ip };
    // What cannot be told is told as an error of the programs.
    ruleset::holds(family, table.name(), table.comment()).unwrap_or(true)
}

/// What one program says of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The program that listed them, such as `iptables-nft`.
    pub program: &'static str,
    /// Rules for IPv6.
    pub is_ipv6: bool,
    /// The table they stand in.
    pub table: IptablesTable,
    /// The output of `-S`.
    pub text: String,
}

impl Listing {
    /// The rules in it with our comments.
    pub fn ours(&self) -> Vec<PresentRule> {
        present(self.table, &self.text)
    }
}

/// The tables `raw` and `filter` in whichever kind of iptables they are, IPv6 only if `with_ipv6`. Changes nothing.
///
/// # Errors
///
/// As of [`Iptables::apply`]. [`Error::IptablesMissing`] only where a table is known to be there that no program is
/// there for, or none at all.
pub(super) fn listings(with_ipv6: bool) -> Result<Vec<Listing>, Error> {
    let mut listings = Vec::new();
    for is_ipv6 in [false, true].into_iter().filter(|is_ipv6| with_ipv6 || !is_ipv6) {
        for table in IptablesTable::ALL {
            for variant in variants_in_use(is_ipv6, table.name()) {
                let text = match execute(variant, is_ipv6, table.name(), "-S") {
                    Err(error) if is_useless(&error) => continue,
                    text => text?,
                };
                listings.push(Listing { program: variant.program(is_ipv6), is_ipv6, table, text });
            }
        }
    }
    Ok(listings)
}

/// The legacy tables of one family that the kernel has; they are seen by legacy programs only.
pub(super) fn legacy_tables(is_ipv6: bool) -> Vec<String> {
    let file = if is_ipv6 { "/proc/self/net/ip6_tables_names" } else { "/proc/self/net/ip_tables_names" };
    std::fs::read_to_string(file).map(|names| names.lines().map(str::to_owned).collect()).unwrap_or_default()
}

/// Whether kube-proxy or the kubelet has chains in legacy tables; none where no program can tell.
pub(super) fn has_legacy_kubernetes_chains() -> Option<bool> {
    match evidence(IptablesVariant::Legacy)? {
        VariantEvidence::Chains => Some(true),
        VariantEvidence::NoChains => Some(false),
        VariantEvidence::Unlisted { .. } => None,
    }
}

/// The kinds that may hold rules in `table`. Legacy programs are run only where the table exists, since they would make
/// it.
fn variants_in_use(is_ipv6: bool, table: &str) -> impl Iterator<Item = IptablesVariant> {
    let newer = if has_program(IptablesVariant::Nft) { IptablesVariant::Nft } else { IptablesVariant::Default };
    std::iter::once(newer).chain(has_legacy_table(is_ipv6, table).then_some(IptablesVariant::Legacy))
}

fn has_legacy_table(is_ipv6: bool, table: &str) -> bool {
    legacy_tables(is_ipv6).iter().any(|name| name == table)
}

/// What there is of `variant`: none without its program.
fn evidence(variant: IptablesVariant) -> Option<VariantEvidence> {
    if !has_program(variant) {
        return None;
    }
    // The kubelet's canary is in mangle; kube-proxy's chains are in nat.
    let tables = [false, true].into_iter().flat_map(|is_ipv6| ["mangle", "nat"].map(|table| (is_ipv6, table)));
    let in_use =
        tables.filter(|(is_ipv6, table)| variant != IptablesVariant::Legacy || has_legacy_table(*is_ipv6, table));
    let mut listings = Vec::new();
    for (is_ipv6, table) in in_use {
        let listing = execute(variant, is_ipv6, table, "-S");
        // One that hangs does so for the other tables too.
        let hangs = matches!(listing, Err(Error::IptablesHangs { .. }));
        listings.push(listing);
        if hangs {
            break;
        }
    }
    // A program for nf_tables on a kernel without it is none.
    if !listings.is_empty() && listings.iter().all(|listing| listing.as_ref().is_err_and(is_useless)) {
        return None;
    }
    Some(VariantEvidence::among(listings.into_iter().map(|listing| match listing {
        Ok(listing) if has_kubernetes_chains(&listing) => VariantEvidence::Chains,
        Ok(_) => VariantEvidence::NoChains,
        // Only legacy programs take the lock, so somebody is at work there: kube-proxy, most likely.
        Err(Error::IptablesLock { .. }) => VariantEvidence::Chains,
        Err(error) => VariantEvidence::Unlisted {
            is_denied: matches!(&error, Error::Iptables { message, .. } if is_denial(message)),
        },
    })))
}

fn has_program(variant: IptablesVariant) -> bool {
    is_there(&version(variant))
}

fn version(variant: IptablesVariant) -> Result<String, Error> {
    execute(variant, false, "raw", "--version")
}

fn is_there(version: &Result<String, Error>) -> bool {
    !matches!(version, Err(Error::IptablesMissing { .. }))
}

fn list(variant: IptablesVariant, is_ipv6: bool, table: IptablesTable) -> Result<Vec<PresentRule>, Error> {
    execute(variant, is_ipv6, table.name(), "-S").map(|listing| present(table, &listing))
}

/// Makes `todo` so, all of it or nothing. A program for each rule would take a tenth of a second for what this does in
/// 4 ms, wait for the lock each time, and leave the rules half done on an error.
fn restore(
    variant: IptablesVariant,
    is_ipv6: bool,
    table: IptablesTable,
    todo: &IptablesChanges,
    available: OptionalMatches,
) -> Result<(), Error> {
    if *todo == IptablesChanges::default() {
        return Ok(());
    }
    let program = variant.restore_program(is_ipv6);
    let mut command = Command::new(program);
    command.args(["--noflush", "--wait", &LOCK_WAIT_SECONDS.to_string()]);
    let shown = || format!("{program}, table {}", table.name());
    let output = program::run(command, script(table, todo, available).into(), program::LIMIT);
    check(&output.map_err(|error| failure_to_run(&error, program, shown()))?, shown)
}

/// Runs a program and returns what it printed.
fn execute(variant: IptablesVariant, is_ipv6: bool, table: &str, order: &str) -> Result<String, Error> {
    let program = variant.program(is_ipv6);
    let mut command = Command::new(program);
    command.args(["-t", table, order, "-w", &LOCK_WAIT_SECONDS.to_string()]);
    let shown = || format!("{program} -t {table} {order}");
    let output = program::run(command, Vec::new(), program::LIMIT);
    let output = output.map_err(|error| failure_to_run(&error, program, shown()))?;
    check(&output, shown)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program says that rights are lacking.
fn is_denial(message: &str) -> bool {
    message.contains("Permission denied") || message.contains("Operation not permitted")
}

fn failure_to_run(error: &io::Error, program: &'static str, command: String) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::IptablesMissing { program },
        io::ErrorKind::TimedOut => Error::IptablesHangs { command, waited: program::LIMIT },
        _ => Error::Iptables { command, message: error.to_string() },
    }
}

fn check(output: &Output, command: impl FnOnce() -> String) -> Result<(), Error> {
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if message.contains("holding the xtables lock") {
        return Err(Error::IptablesLock { command: command(), waited_seconds: LOCK_WAIT_SECONDS });
    }
    let message = match message.as_str() {
        "" => output.status.to_string(),
        denied if is_denial(denied) => {
            format!("{denied}; it needs the capability NET_ADMIN, and iptables-legacy NET_RAW too")
        }
        _ => message,
    };
    Err(Error::Iptables { command: command(), message })
}
