//! The node: the link that carries the listening addresses, and the rules that bring queries for a ClusterIP to this
//! node's cache.
//!
//! [`desired()`] says what link and rules should be; it is pure. [`Node`] makes them so, and tells when somebody has
//! changed them. [`survey()`] only reads, for the doctor. All of it needs the capability NET_ADMIN and a tokio runtime,
//! of which one thread is enough.
//!
//! - [`held_rules`] has what holds the rules: an nftables table (`nftables/`) or the iptables programs (`iptables/`).
//! - [`filter_tables`] keeps rules in the filter table that accept DNS packets, and finds out with `firewall/` which
//!   packets are dropped all the same.
//! - [`fallback_rules`] lets cluster DNS answer at the link-local address when this program is gone.
//! - [`arrival`] and [`client_watch`] find clients whose packets come in and do not reach the cache.

mod arrival;
mod changes;
mod check_schedule;
mod client_watch;
mod conntrack;
mod desired;
pub mod dumps;
mod error;
mod fallback_rules;
mod filter_tables;
mod guard;
mod held_rules;
mod iptables;
mod ipv6;
mod legacy_filter;
mod link;
mod nftables;
mod presence;
mod protocol;
mod rate_limit;
mod said;
mod survey;
mod teardown;

pub(crate) use arrival::ClientReachability;
pub use changes::Change;
pub(crate) use client_watch::describe_clients;
pub(crate) use conntrack::ConnectionTable;
pub use conntrack::dropped as dropped_connections;
pub use desired::{Hook, Interception, NodeSpec, PacketEnd, Rule, TransportProtocol, desired};
pub use error::Error;
pub use fallback_rules::{Fallback, Redirection};
pub use iptables::{
    IptablesChanges, IptablesTable, Listing, OptionalMatches, changes, preceding_rules, present, script,
};
pub(crate) use iptables::{LeaseUse, PrecedingRule, PresentRule};
pub use nftables::Chains;
pub use nftables::firewall::{DropSource, Packet, PacketVerdict, packet_verdict};
pub use nftables::hooks::NetfilterHook;
pub(crate) use nftables::hooks::TableFamily;
pub(crate) use nftables::ruleset::{Effect, ListedChain, Ruleset, RulesetTable};
pub use nftables::{ChangeScope, OwnTables};
pub(crate) use nftables::{FALLBACK_TABLE_NAME, GUARD_TABLE_NAME, TABLE_NAME};
pub use presence::others as other_agents;
pub(crate) use rate_limit::{RateLimit, times};
pub use survey::Survey;
pub(crate) use survey::survey;
pub use teardown::teardown;

#[cfg(test)]
pub(crate) use self::{
    arrival::ArrivingClient,
    link::LinkView,
    nftables::connections::TrackedConnection,
    nftables::hooks::BaseHook,
    nftables::ruleset::{AddressRewrite, ListedRule},
    nftables::{BaseChain, ChainName, ChainRule, Expression, NftVerdict},
};

use self::filter_tables::RefusedAddresses;
use self::held_rules::{HeldRules, apply_programs};
use self::link::Link;
use self::nftables::{Applied, Events, FallbackTable};
use self::presence::Presence;
use self::said::Said;
use crate::threads;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// What holds the interception rules (`--interception`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// nftables where the kernel can, else iptables.
    Auto,
    /// An nftables table that the kernel removes with us.
    Nftables,
    /// The iptables programs.
    Iptables,
    /// No rules at all (also `-setupiptables=false`).
    None,
}

impl Backend {
    /// Whether there are to be no rules.
    pub fn is_none(self) -> bool {
        self == Self::None
    }
}

/// This node's link and rules, as far as they are ours. When it is dropped without [`Node::teardown`], or the process
/// is killed, link and fallback stay, nftables rules go, iptables rules stay and match no query any more once their
/// lease is over.
pub struct Node {
    spec: NodeSpec,
    backend: Backend,
    link: Option<Link>,
    /// None until they could be installed.
    rules: Option<HeldRules>,
    /// None where the kernel can hold none.
    fallback: Option<FallbackTable>,
    events: Option<Events>,
    presence: Option<Presence>,
    sync: Interval,
    interception: Interception,
    /// Addresses for which the rules let no pods' packets in, since the node's firewall drops them.
    refused: RefusedAddresses,
    owner: Option<OwnedFd>,
    /// Rules that should be off may be on for another agent.
    is_left_to_another: bool,
    said: Said,
    /// What others did to the rules, and to the fallback.
    mended_rules: RateLimit,
    mended_fallback: RateLimit,
}

impl Node {
    /// Opens what is needed to set the node up, and changes nothing yet. Must be called on a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`].
    pub fn prepare(spec: NodeSpec, backend: Backend, sync_interval: Duration) -> Result<Self, Error> {
        let presence = Presence::announce().inspect_err(|error| {
            tracing::warn!("other agents on this node will not know of this one: {error}");
        });
        let presence = presence.ok();
        if presence.as_ref().is_some_and(|presence| !presence.is_alone()) {
            tracing::info!("another agent is at work on this node: what both need is left in place");
        }
        let link = desired(&spec, &Interception::default()).link.map(Link::open).transpose()?;
        let fallback = FallbackTable::open().inspect_err(|error| say_there_is_no_fallback(&spec.fallback, error)).ok();
        // An interval of zero would never let anything else happen.
        let sync_interval = sync_interval.max(Duration::from_secs(1));
        let mut sync = interval_at(tokio::time::Instant::now() + sync_interval, sync_interval);
        sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            spec,
            backend,
            link,
            rules: None,
            fallback,
            events: None,
            presence,
            sync,
            interception: Interception::default(),
            refused: RefusedAddresses::new(),
            owner: None,
            is_left_to_another: false,
            said: Said::default(),
            mended_rules: RateLimit::default(),
            mended_fallback: RateLimit::default(),
        })
    }

    /// As [`Node::prepare`] and, at once, [`Node::ensure`] for no interception, with everything that follows beside it.
    /// The link is not touched yet.
    ///
    /// # Errors
    ///
    /// Those of both.
    pub async fn open(spec: NodeSpec, backend: Backend, sync_interval: Duration) -> Result<Self, Error> {
        let mut node = Self::prepare(spec, backend, sync_interval)?;
        node.ensure(&Interception::default()).await?;
        if let Some(HeldRules::Nftables { filter, .. }) = &mut node.rules {
            filter.finish().await;
        }
        // What was done until now is no change by others.
        node.events = node.rules.as_ref().and_then(|rules| rules.events(node.fallback.as_ref(), node.sync.period()));
        Ok(node)
    }

    /// What holds the rules: `nftables`, `iptables` or, also while they could not be installed, `none`.
    pub fn backend(&self) -> &'static str {
        match self.rules {
            Some(HeldRules::Nftables { .. }) => "nftables",
            Some(HeldRules::Iptables { .. }) => "iptables",
            Some(HeldRules::None) | None => "none",
        }
    }

    /// Sees to it that the link exists, is up and carries the addresses, and says so in the log when something had to
    /// be done.
    ///
    /// # Errors
    ///
    /// [`Error::LinkAdd`], [`Error::LinkCheck`]; worth another try at the next [`Change`].
    pub async fn ensure_link(&mut self) -> Result<(), Error> {
        match &mut self.link {
            Some(link) => link.ensure().await,
            None => Ok(()),
        }
    }

    /// Sees to it that the rules are those of `interception`, which also withdraws it. The first time it removes or
    /// takes over what a crashed predecessor left. Under [`Backend::Auto`] a kernel that lacks nftables owners is no
    /// error.
    ///
    /// On nftables this is one step, done or not; on iptables it is one for each family and table, and dropping the
    /// future does not stop them. Rules that accept DNS traffic, which nodes need whose filter table drops by default,
    /// follow on nftables while others wait for nothing ([`Node::is_ready_for_queries`]); they are looked after at
    /// [`Change::SyncDue`] and when somebody changed them. Pods' packets for an address are not let in while the node's
    /// firewall is sure to drop them all the same ([`Error::Filtered`], beside).
    ///
    /// While another agent is at work, rules of iptables that are wanted no longer are left to it; when it is gone,
    /// that is a [`Change::Rules`].
    ///
    /// # Errors
    ///
    /// The interception could not be put in place or taken away; worth another try.
    pub async fn ensure(&mut self, interception: &Interception) -> Result<(), Error> {
        let refused = self.refused_now();
        let is_mended = *interception == self.interception && refused == self.refused;
        let mut rules = desired(&self.spec, interception).rules;
        // Programs on the node are not concerned: theirs come by `lo`, and a probe would tell.
        rules.retain(|rule| rule.hook != Hook::RawPrerouting || !refused.contains_key(&rule.address));
        let is_alone = self.is_alone();
        let Some(held) = &mut self.rules else {
            let installed = HeldRules::install(self.backend, &rules, is_alone, &mut self.said).await?;
            self.events = installed.events(self.fallback.as_ref(), self.sync.period());
            self.owner = installed.duplicate_owner();
            self.rules = Some(installed);
            self.interception = interception.clone();
            self.refused = refused;
            self.note_what_is_left(is_alone);
            return Ok(());
        };
        let has_changed = match held {
            HeldRules::None => false,
            HeldRules::Nftables { table, filter, .. } => {
                let has_changed = table.apply(&rules)?;
                if !is_mended {
                    filter.retry();
                }
                filter.begin(&rules, is_alone);
                has_changed
            }
            HeldRules::Iptables { programs, guard } => {
                // The guard is there as long as there are rules to guard: programs may hang.
                let takes_away = interception.is_within(&self.interception);
                let mut has_changed = false;
                if takes_away {
                    has_changed = apply_programs(programs, rules.clone(), is_alone).await?;
                }
                if let Some(held) = guard
                    && !held.apply(&rules, is_alone, &mut self.said)?
                {
                    *guard = None;
                }
                if !takes_away {
                    has_changed = apply_programs(programs, rules, is_alone).await?;
                }
                has_changed
            }
        };
        self.interception = interception.clone();
        self.refused = refused;
        self.note_what_is_left(is_alone);
        if has_changed && is_mended {
            self.mended_rules.add();
        }
        if let Some(count) = self.mended_rules.due(Instant::now()) {
            tracing::warn!(
                "interception rules had been changed by somebody and are mended{}; `nft monitor` shows who changes them",
                times(count)
            );
        }
        Ok(())
    }

    /// Whether more addresses may be intercepted: at a node whose filter table drops by default, queries that are
    /// untracked before the rules are there that accept them are lost. Until what the firewall does is known, which is
    /// a [`Change::Rules`], they may not; what could not be done about it holds nothing up.
    pub fn is_ready_for_queries(&self) -> bool {
        match &self.rules {
            Some(HeldRules::Nftables { filter, .. }) => !filter.is_running(),
            _ => true,
        }
    }

    /// Sees to it that the fallback is in place, or gone if none is wanted, and says so in the log when something had
    /// to be done. Without the rules of [`Node::ensure`], which shadow it, it is left as it is.
    ///
    /// A kernel that can hold none is told of once, and is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Nftables`]; worth another try.
    pub fn ensure_fallback(&mut self) -> Result<(), Error> {
        let is_alone = self.is_alone();
        let wanted = &self.spec.fallback;
        let rules = match self.rules {
            Some(HeldRules::Nftables { .. } | HeldRules::Iptables { .. }) => {
                wanted.rules(self.spec.port, &self.spec.addresses)
            }
            Some(HeldRules::None) => Vec::new(),
            None => return Ok(()),
        };
        let Some(table) = &mut self.fallback else { return Ok(()) };
        match table.apply(&rules, is_alone) {
            Ok(Applied::Nothing) => {}
            Ok(Applied::Installed) => tracing::info!(
                "fallback: nftables table inet {FALLBACK_TABLE_NAME}; whenever this program is gone cluster DNS answers: {wanted}"
            ),
            Ok(Applied::Mended) => self.mended_fallback.add(),
            Ok(Applied::Removed) => tracing::info!("a predecessor's fallback is removed: none is wanted"),
            Err(error @ Error::FallbackUnsupported { .. }) => {
                say_there_is_no_fallback(wanted, &error);
                self.fallback = None;
            }
            Err(error) => return Err(error),
        }
        if let Some(count) = self.mended_fallback.due(Instant::now()) {
            tracing::warn!(
                "the fallback had been changed by somebody and is mended{}; `nft monitor` shows who changes it",
                times(count)
            );
        }
        Ok(())
    }

    /// What went wrong beside [`Node::ensure`] since this was last asked, each failure once; it has been logged and is
    /// tried again.
    pub fn take_background_errors(&mut self) -> Vec<Error> {
        match &mut self.rules {
            Some(HeldRules::Nftables { filter, clients, .. }) => {
                filter.take_errors().into_iter().chain(clients.take_error()).collect()
            }
            Some(HeldRules::Iptables { guard: Some(guard), .. }) => guard.clients.take_error().into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether clients' packets arrive at the cache: those that the rules let in, and are any let in? Where the kernel
    /// does not tell, nobody is known to be blocked.
    pub fn reach(&self) -> ClientReachability {
        match &self.rules {
            Some(HeldRules::Nftables { clients, .. }) => {
                let reach = clients.reach();
                let are_all_refused = !self.refused.is_empty()
                    && self.spec.addresses.iter().all(|address| self.refused.contains_key(&address.to_canonical()));
                ClientReachability { is_nobody_served: reach.is_nobody_served || are_all_refused, ..reach }
            }
            Some(HeldRules::Iptables { guard: Some(guard), .. }) => guard.clients.reach(),
            _ => ClientReachability::default(),
        }
    }

    /// Addresses for which no pods' packets are let in, since the node's firewall drops them.
    pub fn refused(&self) -> Interception {
        self.refused.keys().copied().collect()
    }

    /// What the rules last as long as, once after they were made: they go when this is closed and the node is dropped,
    /// whichever comes last. None where they stay anyway.
    pub fn take_owner(&mut self) -> Option<OwnedFd> {
        self.owner.take()
    }

    fn is_alone(&self) -> bool {
        self.presence.as_ref().is_none_or(Presence::is_alone)
    }

    /// As the firewall was at the last look.
    fn refused_now(&self) -> RefusedAddresses {
        match &self.rules {
            Some(HeldRules::Nftables { filter, .. }) => filter.refused().clone(),
            _ => RefusedAddresses::new(),
        }
    }

    /// Rules of some address are off, but for those that another agent may need: should its server fail too, neither
    /// would remove them.
    fn note_what_is_left(&mut self, is_alone: bool) {
        let is_whole = Interception::of(&self.spec.addresses).is_within(&self.interception);
        let may_be_left = match &self.rules {
            Some(HeldRules::Iptables { guard, .. }) => !is_whole || guard.as_ref().is_some_and(|guard| guard.is_left),
            _ => false,
        };
        self.is_left_to_another = may_be_left && !is_alone;
    }
}

fn say_there_is_no_fallback(wanted: &Fallback, error: &Error) {
    for Redirection { local, .. } in wanted.redirections() {
        tracing::warn!("nobody will answer at {local} when this program is gone: {error}");
    }
}

/// Runs `work`, which waits for programs, where nothing else has to wait with it.
async fn on_own_thread<T: Send + 'static>(
    task: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let result = threads::run_blocking("node", work).map_err(|source| Error::Thread { task, source })?;
    result.await.map_err(|_panicked| Error::TaskEnded { task })
}
