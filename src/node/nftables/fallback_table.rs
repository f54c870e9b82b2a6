//! The table that holds the fallback's rules. No process owns it, so it outlives this program, and anybody may change
//! or delete it.

use super::encode;
use super::lacks;
use super::socket::NetlinkSocket;
use crate::node::error::Error;
use crate::node::fallback_rules::FallbackRule;
use std::io;

/// Name of the table, always the same, so that a successor replaces what a predecessor left.
pub(crate) const FALLBACK_TABLE_NAME: &str = "nodelocaldns-fallback";
/// Where rules are put for a moment, at no hook, to see how the kernel lists them.
const TRIAL_TABLE_NAME: &str = "nodelocaldns-fallback-trial";

/// The table, and the socket that changes it.
pub(crate) struct FallbackTable {
    channel: NetlinkSocket,
    installed: Option<InstalledFallback>,
}

/// What we put there.
struct InstalledFallback {
    rules: Vec<FallbackRule>,
    contents: Contents,
}

/// Each rule's chain and expressions as the kernel lists them. Not its handle, which is another one when another agent
/// has put the same there.
type Contents = Vec<(String, Vec<u8>)>;

/// What became of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It was as wanted, or it is not ours to change.
    Nothing,
    /// It is there for the first time since we know of it.
    Installed,
    /// It was not any more what we had put there.
    Mended,
    /// It is gone.
    Removed,
}

impl FallbackTable {
    /// Opens the socket; changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::FallbackUnsupported`]: the kernel has no netfilter over netlink, or descriptors are short.
    pub(crate) fn open() -> Result<Self, Error> {
        let channel = NetlinkSocket::open().map_err(|source| Error::FallbackUnsupported { source })?;
        Ok(Self { channel, installed: None })
    }

    /// The sender of every change that is ours.
    pub(crate) fn port_id(&self) -> u32 {
        self.channel.port_id()
    }

    /// Whether it is in place, as far as we know.
    pub(crate) fn is_in_place(&self) -> bool {
        self.installed.is_some()
    }

    /// Sees to it that the table holds exactly `rules`, all at once; that it is gone if there are none.
    ///
    /// Where another agent is at work, whoever put its rules there last has its way: else two who want different ones
    /// would never come to rest.
    ///
    /// # Errors
    ///
    /// [`Error::FallbackUnsupported`] when the kernel lacks something that the rules need, [`Error::Nftables`] else;
    /// the table is as it was.
    pub(crate) fn apply(&mut self, rules: &[FallbackRule], is_alone: bool) -> Result<Applied, Error> {
        let present = self.contents(FALLBACK_TABLE_NAME)?;
        if rules.is_empty() {
            return match present {
                Some(_) if is_alone => self.remove().map(|()| Applied::Removed),
                _ => Ok(Applied::Nothing),
            };
        }
        // A predecessor's that is as wanted is taken as it stands: queries go through it, and when a table takes
        // another's place, though in one step, one query of some 2,000 is lost in one start out of eight (seen). Hooks
        // are not compared: a chain that gets another one gets another name.
        if self.installed.is_none()
            && let Some(present) = &present
            && self.trial(rules).is_ok_and(|wanted| wanted.as_ref() == Some(present))
        {
            self.installed = Some(InstalledFallback { rules: rules.to_vec(), contents: present.clone() });
            return Ok(Applied::Nothing);
        }
        let known = self.installed.as_ref().filter(|installed| installed.rules == rules);
        let is_known = known.is_some();
        if let Some(installed) = known {
            let is_anothers = !is_alone && present.as_ref().is_some_and(|present| !present.is_empty());
            if is_anothers || present.as_ref() == Some(&installed.contents) {
                return Ok(Applied::Nothing);
            }
        }
        let committed =
            self.channel.commit(|sequence| encode::replace_fallback(FALLBACK_TABLE_NAME, rules, false, sequence));
        committed.map_err(|source| refusal("put rules into", source))?;
        let contents = self.contents(FALLBACK_TABLE_NAME)?.unwrap_or_default();
        self.installed = Some(InstalledFallback { rules: rules.to_vec(), contents });
        Ok(if is_known { Applied::Mended } else { Applied::Installed })
    }

    /// Removes the table; one that is not there is none to remove.
    ///
    /// # Errors
    ///
    /// [`Error::Nftables`].
    pub(crate) fn remove(&mut self) -> Result<(), Error> {
        self.installed = None;
        match self.channel.commit(|sequence| encode::delete(FALLBACK_TABLE_NAME, sequence)) {
            Err(source) if source.raw_os_error() != Some(libc::ENOENT) => Err(refusal("remove", source)),
            _ => Ok(()),
        }
    }

    /// How the kernel lists `rules` in a table.
    fn trial(&mut self, rules: &[FallbackRule]) -> Result<Option<Contents>, Error> {
        let committed =
            self.channel.commit(|sequence| encode::replace_fallback(TRIAL_TABLE_NAME, rules, true, sequence));
        committed.map_err(|source| refusal("try rules in", source))?;
        let contents = self.contents(TRIAL_TABLE_NAME);
        let deleted = self.channel.commit(|sequence| encode::delete(TRIAL_TABLE_NAME, sequence));
        deleted.map_err(|source| refusal("remove the trial beside", source))?;
        contents
    }

    /// Of the table, or none if it is not there.
    fn contents(&mut self, table: &str) -> Result<Option<Contents>, Error> {
        let tables = self.channel.tables().map_err(|source| refusal("look for", source))?;
        if !tables.iter().any(|view| view.name == table) {
            return Ok(None);
        }
        let rules = self.channel.rules(table).map_err(|source| refusal("look at", source))?;
        Ok(Some(rules.into_iter().map(|rule| (rule.chain, rule.expressions)).collect()))
    }
}

/// The fallback that an agent left is removed.
///
/// # Errors
///
/// [`Error::Nftables`]. A kernel that can hold none has none.
pub(crate) fn remove_fallback() -> Result<bool, Error> {
    let gone = FallbackTable::open().and_then(|mut table| {
        let is_there = table.contents(FALLBACK_TABLE_NAME)?.is_some();
        table.remove().map(|()| is_there)
    });
    match gone {
        Err(Error::FallbackUnsupported { .. }) => Ok(false),
        gone => gone,
    }
}

fn refusal(action: &'static str, source: io::Error) -> Error {
    if lacks(&source) {
        return Error::FallbackUnsupported { source };
    }
    Error::Nftables { action, table: FALLBACK_TABLE_NAME.to_owned(), source }
}
