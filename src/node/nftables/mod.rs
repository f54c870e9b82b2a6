//! Interception rules in an nftables table that the kernel takes away when we are gone, and the fallback in one that
//! stays.
//!
//! The table carries the flag `owner` (Linux 5.12): only the netlink socket that made it may change it, and when that
//! socket closes, for whatever reason, the kernel removes the table. Seen on Linux 6.18: `nft flush ruleset` of
//! somebody else passes it over, and `nft delete table` and `nft add rule` are refused with EPERM; so nobody but us can
//! take the rules away. [`InterceptionTable::apply`] compares all the same before it trusts that they stand.
//!
//! `netlink-bindings` encodes and decodes everything here; sockets are those of `netlink-sys`, which `rtnetlink` brings
//! anyway.

mod accept;
mod accept_chain;
pub(super) mod arrival;
mod chains;
pub(super) mod connections;
mod encode;
mod events;
mod expression;
mod fallback_table;
pub(super) mod firewall;
mod header;
pub(super) mod hooks;
mod message;
pub(super) mod ruleset;
mod socket;

pub(in crate::node) use accept::due;
pub(super) use accept::{AcceptCounts, AcceptRules};
#[cfg(test)]
pub(crate) use chains::ChainRule;
pub use chains::Chains;
pub(super) use chains::SetElement;
pub(crate) use chains::{BaseChain, ChainName};
pub(in crate::node) use chains::{NEW_CHAIN, NEW_RULE, NEW_TABLE};
pub use events::{ChangeScope, OwnTables};
pub(super) use events::{Events, change_scope};
pub(crate) use expression::{Expression, NftVerdict};
pub(crate) use fallback_table::FALLBACK_TABLE_NAME;
pub(super) use fallback_table::{Applied, FallbackTable, remove_fallback};
pub(super) use hooks::NetfilterHook;
pub(in crate::node) use message::{messages, take_answers};

use super::desired::Rule;
use super::error::{Error, NFTABLES};
use encode::TablePurpose;
use socket::NetlinkSocket;
pub(in crate::node) use socket::{RuleView, TableView};
use std::io;
use std::os::fd::OwnedFd;

/// Name of the table, unless another agent has one of this name (a rolling update with a surge runs two for a while).
pub(crate) const TABLE_NAME: &str = "nodelocaldns";

/// Name of the table that guards rules of iptables.
pub(crate) const GUARD_TABLE_NAME: &str = "nodelocaldns-guard";

/// A table and the socket that makes it, which owns the one that leaves packets untracked itself.
pub(super) struct InterceptionTable {
    channel: NetlinkSocket,
    name: String,
    purpose: TablePurpose,
    installed: Option<InstalledRules>,
}

/// What became of a table that several agents share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SharedTableOutcome {
    /// It is as wanted.
    Applied,
    /// Another agent may need what is there.
    Left,
}

struct InstalledRules {
    rules: Vec<Rule>,
    /// Chain and handle of each, which nobody else has: another handle is another rule.
    views: Vec<(String, u64)>,
}

impl InterceptionTable {
    /// Opens the socket, makes the table and fills it with `rules` (those at raw priority; others are passed over).
    ///
    /// # Errors
    ///
    /// [`Error::NftablesMissing`], [`Error::NftablesUnsupported`] when the kernel lacks owners or the NOTRACK
    /// expression; [`Error::Nftables`] else.
    pub(super) fn create(rules: &[Rule]) -> Result<Self, Error> {
        let (channel, tables) = open(TABLE_NAME)?;
        let is_taken = tables.iter().any(|table| table.name == TABLE_NAME);
        // Port IDs are unique among the sockets that are open, and so are names made of them among tables with an
        // owner.
        let name = if is_taken { format!("{TABLE_NAME}-{}", channel.port_id()) } else { TABLE_NAME.to_owned() };
        if let Some(other) = tables.iter().find(|table| table.name == TABLE_NAME) {
            let owner = if other.owner.is_some() { "another running agent" } else { "something that is no agent" };
            tracing::info!("nftables table {TABLE_NAME} exists and belongs to {owner}: the rules go into table {name}");
        }
        let mut table = Self { channel, name, purpose: TablePurpose::Untrack, installed: None };
        table.replace(rules).map_err(|error| match error {
            Error::Nftables { action, table, source } => {
                unsupported(source, |source| Error::Nftables { action, table, source })
            }
            other => other,
        })?;
        let port_id = table.channel.port_id();
        let is_owned = |table: &socket::TableView| table.owner == Some(port_id);
        let tables = table.channel.tables().map_err(|source| table.refusal("look at", source))?;
        if !tables.iter().any(|view| view.name == table.name && is_owned(view)) {
            table.remove()?;
            let source = io::Error::new(io::ErrorKind::Unsupported, "tables have no owners here");
            return Err(Error::NftablesUnsupported { source });
        }
        Ok(table)
    }

    /// Opens the socket for the table that guards rules of iptables, and leaves it as it is;
    /// [`InterceptionTable::apply`] makes it.
    ///
    /// # Errors
    ///
    /// [`Error::NftablesMissing`] when the kernel has no nf_tables; [`Error::Socket`], [`Error::Nftables`] else.
    pub(super) fn guard() -> Result<Self, Error> {
        let (channel, _) = open(GUARD_TABLE_NAME)?;
        Ok(Self { channel, name: GUARD_TABLE_NAME.to_owned(), purpose: TablePurpose::GuardIptables, installed: None })
    }

    /// Name of the table, in family inet.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Port ID of the owner, the sender of every change that is ours.
    pub(super) fn port_id(&self) -> u32 {
        self.channel.port_id()
    }

    /// What the table lasts as long as: it is gone when this is closed and `self` is dropped, whichever comes last. Who
    /// has it without the capability NET_ADMIN cannot change the table, since netlink looks at the sender as well as at
    /// who opened the socket; it could only read answers that are meant for us, which then take a change for failed.
    ///
    /// # Errors
    ///
    /// Descriptors are short.
    pub(super) fn duplicate_owner(&self) -> io::Result<OwnedFd> {
        self.channel.duplicate()
    }

    /// Sees to it that the table holds exactly `rules`, all at once; true when something had to be changed.
    ///
    /// # Errors
    ///
    /// [`Error::Nftables`]; the table is as it was.
    pub(super) fn apply(&mut self, rules: &[Rule]) -> Result<bool, Error> {
        let views = if self.installed.is_some() { self.views()? } else { Vec::new() };
        if self.installed.as_ref().is_some_and(|installed| installed.rules == rules && installed.views == views) {
            return Ok(false);
        }
        self.replace(rules)?;
        Ok(true)
    }

    /// [`InterceptionTable::apply`] for a table that several agents share: while there are others, what another one has
    /// put there stays, and so does what it may still need of ours.
    ///
    /// # Errors
    ///
    /// [`Error::NftablesUnsupported`] when the kernel lacks something that the rules need, [`Error::Nftables`] else.
    pub(super) fn apply_shared(&mut self, rules: &[Rule], is_alone: bool) -> Result<SharedTableOutcome, Error> {
        let views = self.views()?;
        let ours = self.installed.as_ref().filter(|installed| installed.views == views);
        let only_takes_away =
            ours.is_some_and(|ours| ours.rules != rules && rules.iter().all(|rule| ours.rules.contains(rule)));
        if !is_alone && !views.is_empty() && (ours.is_none() || only_takes_away) {
            return Ok(SharedTableOutcome::Left);
        }
        match self.apply(rules) {
            Ok(_has_changed) => Ok(SharedTableOutcome::Applied),
            Err(Error::Nftables { action, table, source }) => {
                Err(unsupported(source, |source| Error::Nftables { action, table, source }))
            }
            Err(other) => Err(other),
        }
    }

    /// Removes the table.
    ///
    /// # Errors
    ///
    /// [`Error::Nftables`]; closing the socket removes it all the same.
    pub(super) fn remove(&mut self) -> Result<(), Error> {
        self.installed = None;
        match self.channel.commit(|sequence| encode::delete(&self.name, sequence)) {
            Err(source) if source.raw_os_error() != Some(libc::ENOENT) => Err(self.refusal("remove", source)),
            _ => Ok(()),
        }
    }

    fn replace(&mut self, rules: &[Rule]) -> Result<(), Error> {
        self.installed = None;
        let committed = self.channel.commit(|sequence| encode::replace(&self.name, self.purpose, rules, sequence));
        committed.map_err(|source| self.refusal("put rules into", source))?;
        self.installed = Some(InstalledRules { rules: rules.to_vec(), views: self.views()? });
        Ok(())
    }

    fn views(&mut self) -> Result<Vec<(String, u64)>, Error> {
        let rules = self.channel.rules(&self.name).map_err(|source| self.refusal("look at", source))?;
        Ok(rules.into_iter().map(|rule| (rule.chain, rule.handle)).collect())
    }

    fn refusal(&self, action: &'static str, source: io::Error) -> Error {
        Error::Nftables { action, table: self.name.clone(), source }
    }
}

/// Removes the table that guards rules of iptables; one that is not there is none to remove.
///
/// # Errors
///
/// [`Error::Nftables`].
pub(super) fn remove_guard() -> Result<(), Error> {
    match InterceptionTable::guard() {
        Ok(mut table) => table.remove(),
        // Such a kernel holds no table.
        Err(Error::NftablesMissing { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A socket that is to make `table`, and the tables that are there.
fn open(table: &'static str) -> Result<(NetlinkSocket, Vec<TableView>), Error> {
    let mut channel = NetlinkSocket::open()
        .map_err(|source| missing_or(source, |source| Error::Socket { purpose: NFTABLES, source }))?;
    let refusal =
        |source| Error::Nftables { action: "list what is there before creating", table: table.to_owned(), source };
    // Whatever has nf_tables can list its tables.
    let tables = channel.tables().map_err(|source| missing_or(source, refusal))?;
    Ok((channel, tables))
}

/// `source`, which came of the first question to the kernel: if it means that the kernel lacks something, that is
/// nf_tables.
fn missing_or(source: io::Error, else_error: impl FnOnce(io::Error) -> Error) -> Error {
    if lacks(&source) { Error::NftablesMissing { source } } else { else_error(source) }
}

/// `source`, if it means that the kernel lacks something; `else_error` says what to make of it otherwise.
fn unsupported(source: io::Error, else_error: impl FnOnce(io::Error) -> Error) -> Error {
    if lacks(&source) { Error::NftablesUnsupported { source } } else { else_error(source) }
}

/// Whether `source` means that the kernel lacks something.
fn lacks(source: &io::Error) -> bool {
    // nfnetlink without nf_tables: EINVAL or EOPNOTSUPP; without family inet: EAFNOSUPPORT; an expression or chain type
    // that is missing: ENOENT; the flag `owner` before 5.12: EINVAL.
    let lacks = [libc::EINVAL, libc::EOPNOTSUPP, libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT, libc::ENOENT];
    source.raw_os_error().is_some_and(|code| lacks.contains(&code))
}
