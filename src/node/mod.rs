//! The machine: the link that carries the listening addresses, and the rules that make the ClusterIP mean this node.
//!
//! [`desired()`] says what should be (pure); [`Node`] sees to it and tells when somebody changed it; [`survey()`] only looks. It needs the capability NET_ADMIN and
//! a tokio runtime, of which one thread is enough.

mod arrival;
mod client_watch;
mod conntrack;
mod desired;
pub mod dumps;
mod error;
mod fallback;
mod filter;
mod firewall;
mod guard;
mod iptables;
mod ipv6;
mod link;
mod nftables;
mod pace;
mod presence;
mod rate_limit;
mod survey;

pub use arrival::{Client, Reach};
pub use client_watch::named as clients_named;
pub use conntrack::ConnectionTable;
pub use conntrack::dropped as dropped_connections;
pub use desired::{Desired, End, Hook, Interception, LinkWish, Protocol, Rule, Wish, desired};
pub use error::Error;
pub use fallback::{Fallback, Redirection};
pub use firewall::{Eater, Fate, Packet, fate};
pub use iptables::{
    Ahead, Changes as IptablesChanges, Listing, Present, Table as IptablesTable, ahead, changes, present, script,
};
pub use link::LinkView;
pub use nftables::connections::Connection;
pub use nftables::ruleset::{Base, Chain, Effect, Family, Place, Rewrite, Ruleset, RulesetTable, SeenRule};
pub use nftables::{BaseChain, ChainRule, Chains, Expression, FALLBACK_TABLE_NAME, GUARD_TABLE_NAME, Name, TABLE_NAME, Verdict};
pub use nftables::{Own, Subjects};
pub use presence::others as other_agents;
pub use rate_limit::{RateLimit, times};
pub use survey::{Survey, survey};

use self::client_watch::ClientWatch;
use self::filter::{Filter, Refused};
use self::guard::Guard;
use self::iptables::Iptables;
use self::link::Link;
use self::nftables::{AcceptRules, Applied, Events, FallbackTable};
use self::pace::Urgency;
use self::presence::Presence;
use crate::threads;
use std::future::pending;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// How often an agent that has left rules to another one looks whether it is alone by now.
const LOOK_FOR_OTHERS: Duration = Duration::from_secs(1);

/// What holds the interception rules (`--interception`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    /// nftables where the kernel can, else iptables.
    Auto,
    /// An nftables table that the kernel removes with us.
    Nftables,
    /// The iptables programs.
    Iptables,
    /// No rules at all (also `-setupiptables=false`).
    None,
}

/// Something that [`Node::ensure_link`] or [`Node::ensure`] should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// The link or its addresses were changed.
    Link,
    /// Rules were changed.
    Rules,
    /// [`Node::reach`] is another.
    Reach,
    /// The interval (`-syncinterval`) is over: look at everything.
    SyncDue,
}

/// This node's link and rules, as far as they are ours. When it is dropped without [`Node::teardown`], or the process is killed, link and
/// fallback stay, nftables rules go, iptables rules stay.
pub struct Node {
    wish: Wish,
    choice: Choice,
    link: Option<Link>,
    /// None until they could be installed.
    rules: Option<Rules>,
    /// None where the kernel can hold none.
    fallback: Option<FallbackTable>,
    events: Option<Events>,
    presence: Option<Presence>,
    sync: Interval,
    interception: Interception,
    /// Addresses for which the rules let no pods' packets in, since the node's firewall drops them.
    refused: Refused,
    owner: Option<OwnedFd>,
    /// Rules that should be off may be on for another agent.
    is_left_to_another: bool,
    /// What others did to the rules, and to the fallback.
    mended_rules: RateLimit,
    mended_fallback: RateLimit,
}

/// What goes on beside the rules, and has come to something.
enum Beside {
    FilterDue,
    ClientsDue,
}

/// What holds the rules.
enum Rules {
    Nftables { table: nftables::Table, filter: Box<Filter>, clients: Box<ClientWatch> },
    Iptables { programs: Arc<Iptables>, guard: Option<Guard> },
    None,
}

impl Node {
    /// Opens what is needed to set the node up, and changes nothing yet. Must be called on a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`].
    pub fn prepare(wish: Wish, choice: Choice, sync_interval: Duration) -> Result<Self, Error> {
        let presence = Presence::announce().inspect_err(|error| {
            tracing::warn!("other agents on this node will not know of this one: {error}");
        });
        let presence = presence.ok();
        if presence.as_ref().is_some_and(|presence| !presence.is_alone()) {
            tracing::info!("another agent is at work on this node: what both need is left in place");
        }
        let link = desired(&wish, &Interception::default()).link.map(Link::open).transpose()?;
        let fallback = FallbackTable::open().inspect_err(|error| say_there_is_no_fallback(&wish.fallback, error)).ok();
        // An interval of zero would never let anything else happen.
        let sync_interval = sync_interval.max(Duration::from_secs(1));
        let mut sync = interval_at(tokio::time::Instant::now() + sync_interval, sync_interval);
        sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            wish,
            choice,
            link,
            rules: None,
            fallback,
            events: None,
            presence,
            sync,
            interception: Interception::default(),
            refused: Refused::new(),
            owner: None,
            is_left_to_another: false,
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
    pub async fn open(wish: Wish, choice: Choice, sync_interval: Duration) -> Result<Self, Error> {
        let mut node = Self::prepare(wish, choice, sync_interval)?;
        node.ensure(&Interception::default()).await?;
        if let Some(Rules::Nftables { filter, .. }) = &mut node.rules {
            filter.finish().await;
        }
        // What was done until now is no news.
        node.events = node.rules.as_ref().and_then(|rules| rules.events(node.fallback.as_ref(), node.sync.period()));
        Ok(node)
    }

    /// What holds the rules: `nftables`, `iptables` or, also while they could not be installed, `none`.
    pub fn backend(&self) -> &'static str {
        match self.rules {
            Some(Rules::Nftables { .. }) => "nftables",
            Some(Rules::Iptables { .. }) => "iptables",
            Some(Rules::None) | None => "none",
        }
    }

    /// Sees to it that the link exists, is up and carries the addresses, and says so in the log when something had to be done.
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

    /// Sees to it that the rules are those of `interception`, which also withdraws it. The first time it removes or takes over what a crashed
    /// predecessor left. Under [`Choice::Auto`] a kernel that lacks nftables owners is no error.
    ///
    /// On nftables this is one step, done or not; on iptables it is one for each family and table, and dropping the future does not stop them.
    /// Rules that accept DNS traffic, which nodes need whose filter table drops by default, follow on nftables while others wait for nothing
    /// ([`Node::is_ready_for_queries`]); they are looked after at [`Change::SyncDue`] and when somebody changed them. Pods' packets for an address are not let
    /// in while the node's firewall is sure to drop them all the same ([`Error::Filtered`], beside).
    ///
    /// While another agent is at work, rules of iptables that are wanted no longer are left to it; when it is gone, that is a [`Change::Rules`].
    ///
    /// # Errors
    ///
    /// The interception could not be put in place or taken away; worth another try.
    pub async fn ensure(&mut self, interception: &Interception) -> Result<(), Error> {
        let refused = self.refused_now();
        let is_mended = *interception == self.interception && refused == self.refused;
        let mut rules = desired(&self.wish, interception).rules;
        // Programs on the node are not concerned: theirs come by `lo`, and a probe would tell.
        rules.retain(|rule| rule.hook != Hook::RawPrerouting || !refused.contains_key(&rule.address));
        let is_alone = self.is_alone();
        let Some(held) = &mut self.rules else {
            let installed = Rules::install(self.choice, &rules, is_alone).await?;
            self.events = installed.events(self.fallback.as_ref(), self.sync.period());
            self.owner = installed.duplicate_owner();
            self.rules = Some(installed);
            self.interception = interception.clone();
            self.refused = refused;
            self.note_what_is_left(is_alone);
            return Ok(());
        };
        let has_changed = match held {
            Rules::None => false,
            Rules::Nftables { table, filter, .. } => {
                let has_changed = table.apply(&rules)?;
                if !is_mended {
                    filter.retry();
                }
                filter.begin(&rules, is_alone);
                has_changed
            }
            Rules::Iptables { programs, guard } => {
                // The guard is there as long as there are rules to guard: programs may hang.
                let takes_away = interception.is_within(&self.interception);
                let mut has_changed = false;
                if takes_away {
                    has_changed = apply(programs, rules.clone(), is_alone).await?;
                }
                if let Some(held) = guard
                    && !held.apply(&rules, is_alone)?
                {
                    *guard = None;
                }
                if !takes_away {
                    has_changed = apply(programs, rules, is_alone).await?;
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

    /// Whether more addresses may be intercepted: at a node whose filter table drops by default, queries that are untracked before the rules are
    /// there that accept them are lost. Until what the firewall does is known, which is a [`Change::Rules`], they may not; what could not be done
    /// about it holds nothing up.
    pub fn is_ready_for_queries(&self) -> bool {
        match &self.rules {
            Some(Rules::Nftables { filter, .. }) => !filter.is_running(),
            _ => true,
        }
    }

    /// Sees to it that the fallback is in place, or gone if none is wanted, and says so in the log when something had to be done. Without the rules
    /// of [`Node::ensure`], which shadow it, it is left as it is.
    ///
    /// A kernel that can hold none is told of once, and is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Nftables`]; worth another try.
    pub fn ensure_fallback(&mut self) -> Result<(), Error> {
        let is_alone = self.is_alone();
        let wanted = &self.wish.fallback;
        let rules = match self.rules {
            Some(Rules::Nftables { .. } | Rules::Iptables { .. }) => wanted.rules(self.wish.port, &self.wish.addresses),
            Some(Rules::None) => Vec::new(),
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

    /// What went wrong beside [`Node::ensure`] since this was last asked, each failure once; it has been logged and is tried again.
    pub fn take_errors_beside(&mut self) -> Vec<Error> {
        match &mut self.rules {
            Some(Rules::Nftables { filter, clients, .. }) => {
                filter.take_errors().into_iter().chain(clients.take_error()).collect()
            }
            Some(Rules::Iptables { guard: Some(guard), .. }) => guard.clients.take_error().into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether clients' packets arrive at the cache: those that the rules let in, and are any let in? Where the kernel does not tell, nobody is known
    /// to be blocked.
    pub fn reach(&self) -> Reach {
        match &self.rules {
            Some(Rules::Nftables { clients, .. }) => {
                let reach = clients.reach();
                let are_all_refused = !self.refused.is_empty()
                    && self.wish.addresses.iter().all(|address| self.refused.contains_key(&address.to_canonical()));
                Reach { is_nobody_served: reach.is_nobody_served || are_all_refused, ..reach }
            }
            Some(Rules::Iptables { guard: Some(guard), .. }) => guard.clients.reach(),
            _ => Reach::default(),
        }
    }

    /// Addresses for which no pods' packets are let in, since the node's firewall drops them.
    pub fn refused(&self) -> Interception {
        self.refused.keys().copied().collect()
    }

    /// What the rules last as long as, once after they were made: they go when this is closed and the node is dropped, whichever comes last. None where
    /// they stay anyway.
    pub fn take_owner(&mut self) -> Option<OwnedFd> {
        self.owner.take()
    }

    /// Waits until something should be looked at again. May be dropped while it waits without losing anything.
    pub async fn changed(&mut self) -> Change {
        let change = loop {
            if let Some(change) = self.next_change().await {
                break change;
            }
        };
        tracing::debug!("the node may have changed: {change:?}");
        change
    }

    /// None where what has happened changes nothing.
    async fn next_change(&mut self) -> Option<Change> {
        let link = async {
            match &mut self.link {
                Some(link) => link.changed().await,
                None => pending().await,
            }
        };
        let rules = async {
            match &mut self.events {
                Some(events) => events.next().await,
                None => pending().await,
            }
        };
        let is_on = !self.interception.is_none();
        let beside = async {
            match &mut self.rules {
                Some(Rules::Nftables { filter, clients, .. }) => tokio::select! {
                    () = filter.due() => Beside::FilterDue,
                    () = clients.due(), if is_on => Beside::ClientsDue,
                },
                Some(Rules::Iptables { guard: Some(guard), .. }) if is_on => {
                    guard.clients.due().await;
                    Beside::ClientsDue
                }
                _ => pending().await,
            }
        };
        let (presence, is_left) = (&self.presence, self.is_left_to_another);
        let alone = async {
            if !is_left {
                pending::<()>().await;
            }
            while !presence.as_ref().is_none_or(Presence::is_alone) {
                tokio::time::sleep(LOOK_FOR_OTHERS).await;
            }
        };
        tokio::select! {
            () = link => {
                self.try_all_clients();
                Some(Change::Link)
            }
            beside = beside => match (beside, self.rules.as_mut().and_then(Rules::clients)) {
                (Beside::ClientsDue, Some((table, clients))) => clients.look(table).then_some(Change::Reach),
                _ => Some(Change::Rules),
            },
            () = alone => Some(Change::Rules),
            subjects = rules => {
                if let Err(error) = &subjects {
                    tracing::warn!("changes of rules will be noticed at intervals only: {error}");
                    self.events = None;
                }
                self.try_all_clients();
                self.note_change(subjects.unwrap_or(Subjects::ALL))
            }
            _ = self.sync.tick() => {
                self.look_at_filter(Urgency::Now);
                Some(Change::SyncDue)
            }
        }
    }

    /// Removes everything of ours: rules, addresses, and the link if we made it. What another agent on this node still needs stays; and where
    /// there is a fallback it stays, and with it link and addresses, from which programs on the node have connected sockets.
    /// Returns everything that went wrong; each thing is tried all the same.
    pub async fn teardown(mut self) -> Vec<Error> {
        let mut errors = Vec::new();
        if let Some(Rules::Nftables { table, filter, .. }) = &mut self.rules {
            errors.extend(table.remove().err());
            filter.finish().await;
        }
        let is_alone = self.is_alone();
        if let Some(Rules::Iptables { guard: Some(guard), .. }) = &mut self.rules
            && is_alone
        {
            errors.extend(guard.table.remove().err());
        }
        if !is_alone {
            tracing::info!("another agent is at work on this node: link and addresses are left to it");
            return errors;
        }
        if self.choice != Choice::None {
            errors.extend(AcceptRules::remove_all().err());
            errors.extend(clean(&iptables::Table::ALL).await.1);
        }
        if self.fallback.as_ref().is_some_and(FallbackTable::is_in_place) {
            tracing::info!(
                "link, addresses and nftables table inet {FALLBACK_TABLE_NAME} stay, so that cluster DNS answers ({}); nodelocaldns \
                 teardown removes them",
                self.wish.fallback
            );
        } else if let Some(link) = &mut self.link {
            errors.extend(link.remove().await.err());
        }
        errors
    }

    fn is_alone(&self) -> bool {
        self.presence.as_ref().is_none_or(Presence::is_alone)
    }

    /// What kept clients' packets away may be gone.
    fn try_all_clients(&mut self) {
        if let Some((table, clients)) = self.rules.as_mut().and_then(Rules::clients) {
            clients.try_all(table);
        }
    }

    /// Somebody has changed what `subjects` says; none if that is for the filter alone, which takes its time.
    fn note_change(&mut self, subjects: Subjects) -> Option<Change> {
        if subjects.iptables {
            self.look_at_filter(Urgency::Prompt);
        } else if subjects.firewall {
            self.look_at_filter(Urgency::Calm);
        }
        (subjects.own_table || subjects.iptables).then_some(Change::Rules)
    }

    fn look_at_filter(&mut self, urgency: Urgency) {
        if let Some(Rules::Nftables { filter, .. }) = &mut self.rules {
            filter.look(urgency);
        }
    }

    /// As the firewall was at the last look.
    fn refused_now(&self) -> Refused {
        match &self.rules {
            Some(Rules::Nftables { filter, .. }) => filter.refused().clone(),
            _ => Refused::new(),
        }
    }

    /// Rules of some address are off, but for those that another agent may need: should its server fail too, neither would remove them.
    fn note_what_is_left(&mut self, is_alone: bool) {
        let is_whole = Interception::of(&self.wish.addresses).is_within(&self.interception);
        let may_be_left = match &self.rules {
            Some(Rules::Iptables { guard, .. }) => !is_whole || guard.as_ref().is_some_and(|guard| guard.is_left),
            _ => false,
        };
        self.is_left_to_another = may_be_left && !is_alone;
    }
}

impl Rules {
    async fn install(choice: Choice, rules: &[Rule], is_alone: bool) -> Result<Self, Error> {
        let mut lack = None;
        let (table, why) = match choice {
            Choice::None => {
                tracing::info!("interception: none, as asked for");
                return Ok(Self::None);
            }
            Choice::Iptables => (None, "as asked for".to_owned()),
            Choice::Nftables => (Some(nftables::Table::create(rules)?), "as asked for".to_owned()),
            Choice::Auto => match nftables::Table::create(rules) {
                Ok(table) => (Some(table), "this kernel removes its rules the moment this program is gone".to_owned()),
                Err(error @ (Error::NftablesUnsupported { .. } | Error::NftablesMissing { .. })) => {
                    lack = Some(error.to_string());
                    (None, format!("since {error}"))
                }
                Err(error) => return Err(error),
            },
        };
        let Some(table) = table else {
            let found = off_the_runtime("looks for iptables", Iptables::find).await?;
            let programs = Arc::new(found.map_err(|error| match (error, lack) {
                (Error::IptablesMissing { program }, Some(nftables)) => Error::NoBackend { program, nftables },
                (error, _) => error,
            })?);
            tracing::info!("interception: iptables, {why}; program: {}", programs.description());
            // What a predecessor left goes first, while its guard is there.
            let lets_in = rules.iter().any(|rule| rule.hook == Hook::RawPrerouting);
            if !lets_in {
                apply(&programs, rules.to_vec(), is_alone).await?;
            }
            let guard = match Guard::open() {
                Some(mut guard) => guard.apply(rules, is_alone)?.then_some(guard),
                None => None,
            };
            if lets_in {
                apply(&programs, rules.to_vec(), is_alone).await?;
            }
            return Ok(Self::Iptables { programs, guard });
        };
        tracing::info!("interception: nftables table inet {}, {why}", table.name());
        // A predecessor's, whose rules of iptables go too.
        if is_alone && let Err(error) = nftables::remove_guard() {
            tracing::warn!("a predecessor's table stays: {error}");
        }
        let mut filter = Box::new(Filter::new());
        filter.begin(rules, is_alone);
        Ok(Self::Nftables { table, filter, clients: Box::new(ClientWatch::new()) })
    }

    /// The table in which the kernel notes whose packets arrive, and what is known of them.
    fn clients(&mut self) -> Option<(&mut nftables::Table, &mut ClientWatch)> {
        match self {
            Self::Nftables { table, clients, .. } => Some((table, clients)),
            Self::Iptables { guard, .. } => guard.as_mut().map(|guard| (&mut guard.table, &mut *guard.clients)),
            Self::None => None,
        }
    }

    fn duplicate_owner(&self) -> Option<OwnedFd> {
        let Self::Nftables { table, .. } = self else { return None };
        let warn = |error: &_| tracing::warn!("the rules go with the watchdog, a little before its server does: {error}");
        table.duplicate_owner().inspect_err(warn).ok()
    }

    /// The kernel's word on changes that others make; none where there is nothing to tell or nobody who tells.
    fn events(&self, fallback: Option<&FallbackTable>, sync_interval: Duration) -> Option<Events> {
        let mut own = Own::default();
        match self {
            Self::None => return None,
            Self::Nftables { table, filter, .. } => {
                own.tables.push(table.name().to_owned());
                own.port_ids.extend(std::iter::once(table.port_id()).chain(filter.port_id()));
            }
            Self::Iptables { guard, .. } => {
                if let Some(Guard { table, .. }) = guard {
                    own.tables.push(table.name().to_owned());
                    own.port_ids.push(table.port_id());
                }
            }
        }
        if let Some(table) = fallback {
            own.tables.push(FALLBACK_TABLE_NAME.to_owned());
            own.port_ids.push(table.port_id());
        }
        let warn =
            |error: &_| tracing::warn!("changes of rules will be noticed every {} s only: {error}", sync_interval.as_secs());
        Events::subscribe(own).inspect_err(warn).ok()
    }
}

/// Removes from this node everything that an agent may have left for `wish`, ours or the reference's, whichever way it was set up. Returns what
/// went wrong. A running agent keeps its nftables table, which nobody else may remove, and mends the rest.
pub async fn teardown(wish: &Wish) -> Vec<Error> {
    if presence::is_any() {
        tracing::warn!("an agent is running on this node and will set it up again: stop it first");
    }
    let accepting = AcceptRules::remove_all();
    let (removed, mut errors) = clean(&iptables::Table::ALL).await;
    tracing::info!("{} iptables rules removed", removed + accepting.as_ref().unwrap_or(&0));
    errors.extend(accepting.err());
    errors.extend(nftables::remove_guard().err());
    match nftables::remove_fallback() {
        Ok(true) => tracing::info!("nftables table inet {FALLBACK_TABLE_NAME} removed"),
        Ok(false) => {}
        Err(error) => errors.push(error),
    }
    if let Some(link) = desired(wish, &Interception::default()).link {
        match Link::open(link) {
            Ok(mut link) => errors.extend(link.remove().await.err()),
            Err(error) => errors.push(error),
        }
    }
    errors
}

async fn apply(programs: &Arc<Iptables>, rules: Vec<Rule>, is_alone: bool) -> Result<bool, Error> {
    let programs = Arc::clone(programs);
    off_the_runtime("runs iptables", move || programs.apply(&rules, &iptables::Table::ALL, is_alone)).await?
}

async fn clean(tables: &'static [iptables::Table]) -> (usize, Vec<Error>) {
    let cleaned = off_the_runtime("cleans iptables", move || iptables::clean(tables)).await;
    cleaned.unwrap_or_else(|error| (0, vec![error]))
}

fn say_there_is_no_fallback(wanted: &Fallback, error: &Error) {
    for Redirection { local, .. } in wanted.redirections() {
        tracing::warn!("nobody will answer at {local} when this program is gone: {error}");
    }
}

/// Runs `work`, which waits for programs, where nothing else has to wait with it.
async fn off_the_runtime<T: Send + 'static>(task: &'static str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let result = threads::run_blocking("node", work).map_err(|source| Error::Thread { task, source })?;
    result.await.map_err(|_panicked| Error::TaskEnded { task })
}
