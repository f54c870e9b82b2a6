//! Keeps rules in the node's filter table that accept DNS packets, and finds out which packets a firewall drops all the
//! same. A node whose filter table drops by default would otherwise lose them. The rules go into the chains of
//! iptables-nft over netlink, and into legacy iptables through its programs. A predecessor's NOTRACK rules of iptables
//! are removed.
//!
//! This runs in the background, one run at a time: programs may wait for the xtables lock for seconds, and a big
//! firewall takes a while to read. Withdrawing the interception concerns our table only, and must not wait for either.

use super::Rule;
use super::check_schedule::{CheckSchedule, Urgency};
use super::error::Error;
use super::iptables::{self, Iptables, IptablesTable};
use super::legacy_filter;
use super::nftables::firewall::{DropSource, Packet, PacketVerdict, packet_verdict};
use super::nftables::{AcceptRules, Chains};
use crate::threads;
use std::collections::BTreeMap;
use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Addresses for which pods' packets are sure to be dropped, and what drops them.
pub(super) type RefusedAddresses = BTreeMap<IpAddr, DropSource>;

/// The firewall, and the present run.
pub(super) struct FilterReconciler {
    tools: FirewallTools,
    /// The sender of changes that are ours.
    port_id: Option<u32>,
    schedule: CheckSchedule,
    /// A predecessor's rules for NOTRACK, which would outlive us, and with them an interception that nobody answers,
    /// may be there.
    is_raw_due: bool,
    /// The last run was in vain. Another one is not begun for that alone, or there would be no end of them.
    has_failed: bool,
    /// Of runs that have ended, until somebody asks.
    errors: Vec<Error>,
    /// What the last run made of the firewall.
    refused: RefusedAddresses,
    run: Option<oneshot::Receiver<RunOutcome>>,
}

/// What the work is done with; a run has it while it goes on.
#[derive(Default)]
struct FirewallTools {
    accept: Option<AcceptRules>,
    /// For iptables-nft, should the kernel not take rules over netlink.
    programs: Option<Arc<Iptables>>,
    legacy_programs: Option<Arc<Iptables>>,
}

/// What became of a run.
struct RunOutcome {
    tools: FirewallTools,
    /// That was tried, with success.
    is_raw_clean: bool,
    /// Rules were put in.
    has_put: bool,
    refused: RefusedAddresses,
    errors: Vec<Error>,
}

/// The longest pause between repairs. Calico looks whether its rules are the first every 90 s.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What a run does, for messages.
const TASK: &str = "looks after the firewall";

impl FilterReconciler {
    /// Everything is due, nothing is run.
    pub(super) fn new() -> Self {
        let mut errors = Vec::new();
        let opened = AcceptRules::open();
        let accept = opened.map_err(|error| tell(error, &mut errors)).ok();
        Self {
            port_id: accept.as_ref().map(AcceptRules::port_id),
            tools: FirewallTools { accept, ..FirewallTools::default() },
            schedule: CheckSchedule::new(Instant::now(), LONGEST_PAUSE),
            is_raw_due: true,
            has_failed: false,
            errors,
            refused: RefusedAddresses::new(),
            run: None,
        }
    }

    /// The sender of changes that are ours.
    pub(super) fn port_id(&self) -> Option<u32> {
        self.port_id
    }

    /// The rules may have been changed: a [`FilterReconciler::begin`] looks, when it is time.
    pub(super) fn look(&mut self, urgency: Urgency) {
        self.schedule.want(urgency, Instant::now());
    }

    /// What failed may succeed by now: the next [`FilterReconciler::begin`] tries again.
    pub(super) fn retry(&mut self) {
        if self.has_failed {
            self.look(Urgency::Now);
        }
    }

    /// Addresses for which the firewall drops pods' packets.
    pub(super) fn refused(&self) -> &RefusedAddresses {
        &self.refused
    }

    /// Sees to it that those of `rules` that accept are there, and how the firewall takes them, and does not wait for
    /// it. Nothing if nothing is due, or a run goes on: then what is due is so at its end. What goes wrong is logged.
    pub(super) fn begin(&mut self, rules: &[Rule], is_alone: bool) {
        let now = Instant::now();
        let is_due = self.schedule.is_due(now);
        let cleans_raw = self.is_raw_due && is_alone && (is_due || !self.has_failed);
        if self.run.is_some() || !is_due && !cleans_raw {
            return;
        }
        self.schedule.begin(now);
        let mut tools = std::mem::take(&mut self.tools);
        let rules: Vec<Rule> = rules.iter().filter(|rule| !rule.hook.is_raw()).copied().collect();
        let begun = threads::run_blocking("firewall", move || {
            let mut errors = if cleans_raw { clean_raw() } else { Vec::new() };
            let is_raw_clean = cleans_raw && errors.is_empty();
            let has_put = tools.accept(&rules, is_alone, &mut errors);
            let refused = tools.refused(&rules, &mut errors);
            RunOutcome { tools, is_raw_clean, has_put, refused, errors }
        });
        match begun {
            Ok(run) => self.run = Some(run),
            Err(source) => self.give_up(Error::Thread { task: TASK, source }),
        }
    }

    /// A run did not come to its end, and its tools are gone with it. It is tried again.
    fn give_up(&mut self, error: Error) {
        if !self.has_failed {
            tracing::error!("{error}");
        }
        self.has_failed = true;
        self.errors.push(error);
        self.tools.accept = AcceptRules::open().ok();
        self.schedule.want(Urgency::Calm, Instant::now());
    }

    /// Whether a run goes on.
    pub(super) fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// What went wrong since this was last asked; it has been logged.
    pub(super) fn take_errors(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.errors)
    }

    /// Waits for the end of the present run, or, if there is none, until it is time for the next. May be dropped and
    /// called again at any time.
    pub(super) async fn due(&mut self) {
        if self.run.is_some() {
            return self.ended().await;
        }
        match self.schedule.due_at() {
            Some(at) => {
                tokio::time::sleep_until(at.into()).await;
                self.schedule.announce();
            }
            None => pending().await,
        }
    }

    /// Waits until nothing runs.
    pub(super) async fn finish(&mut self) {
        if self.run.is_some() {
            self.ended().await;
        }
    }

    async fn ended(&mut self) {
        let Some(run) = &mut self.run else { return };
        let ended = run.await;
        self.run = None;
        match ended {
            Ok(RunOutcome { tools, is_raw_clean, has_put, refused, errors }) => {
                self.tools = tools;
                self.is_raw_due &= !is_raw_clean;
                self.has_failed = !errors.is_empty();
                self.errors.extend(errors);
                if self.schedule.end(has_put, Instant::now()) {
                    tracing::warn!(
                        "rules that accept DNS packets have been taken away or put behind others again and again; they are put back ever more seldom"
                    );
                }
                self.take_refused(refused);
            }
            Err(_panicked) => self.give_up(Error::TaskEnded { task: TASK }),
        }
    }

    /// Says what is new.
    fn take_refused(&mut self, refused: RefusedAddresses) {
        let before = std::mem::replace(&mut self.refused, refused);
        for (address, by) in self.refused.iter().filter(|(address, by)| before.get(address) != Some(by)) {
            let error = Error::Filtered { address: *address, by: by.to_string() };
            tracing::error!("{error}");
            self.errors.push(error);
        }
        for address in before.keys().filter(|address| !self.refused.contains_key(address)) {
            tracing::info!("the node's firewall lets pods' packets for {address} in again: they are intercepted");
        }
    }
}

impl FirewallTools {
    /// Sees to it that `rules` are in each kind of iptables that has a filter table; whether any had to be put there.
    fn accept(&mut self, rules: &[Rule], is_alone: bool, errors: &mut Vec<Error>) -> bool {
        let mut has_put = false;
        let done = self
            .accept
            .as_mut()
            .map(|accept| accept.chains().and_then(|chains| accept.apply(rules, &chains, is_alone)));
        match done {
            Some(Ok(done)) => {
                if done != super::nftables::AcceptCounts::default() {
                    tracing::debug!(
                        "{} rules that accept DNS packets put into iptables-nft's chains, {} removed",
                        done.put,
                        done.removed
                    );
                }
                has_put |= done.put > 0;
            }
            Some(Err(error)) => match self.accept_by_programs(rules, is_alone) {
                Some(Ok(has_changed)) => {
                    tracing::debug!("{error}; its programs have done it");
                    has_put |= has_changed;
                }
                Some(Err(by_programs)) => tell(by_programs, errors),
                None => tell(error, errors),
            },
            None => {}
        }
        let has_table = [false, true]
            .map(|is_ipv6| iptables::legacy_tables(is_ipv6).iter().any(|name| name == IptablesTable::Filter.name()));
        let rules: Vec<Rule> =
            rules.iter().filter(|rule| has_table[usize::from(rule.address.is_ipv6())]).copied().collect();
        if !rules.is_empty() {
            self.legacy_programs = self.legacy_programs.take().or_else(|| Iptables::legacy().map(Arc::new));
            let applied = match &self.legacy_programs {
                Some(programs) => programs.apply(&rules, &[IptablesTable::Filter], is_alone),
                None => legacy_filter::check(&rules).map(|()| false),
            };
            applied.map_or_else(|error| tell(error, errors), |has_changed| has_put |= has_changed);
        }
        has_put
    }

    /// None where there are no programs for iptables-nft.
    fn accept_by_programs(&mut self, rules: &[Rule], is_alone: bool) -> Option<Result<bool, Error>> {
        self.programs = self.programs.take().or_else(|| Iptables::find().ok().map(Arc::new));
        Some(self.programs.as_ref()?.apply(rules, &[IptablesTable::Filter], is_alone))
    }

    /// What the firewall does now to the packets for which `rules` are.
    fn refused(&mut self, rules: &[Rule], errors: &mut Vec<Error>) -> RefusedAddresses {
        let Some(accept) = &mut self.accept else { return RefusedAddresses::new() };
        match accept.chains() {
            Ok(chains) => refused(rules, &chains),
            Err(error) => {
                tell(error, errors);
                RefusedAddresses::new()
            }
        }
    }
}

/// The addresses of `rules` for which pods' packets, or the answers, are sure to be dropped. What is not sure the
/// kernel notes (`arrival`).
pub(super) fn refused(rules: &[Rule], chains: &Chains) -> RefusedAddresses {
    let mut refused = RefusedAddresses::new();
    for packet in rules.iter().filter_map(Packet::of).filter(|packet| !packet.is_loopback) {
        if let PacketVerdict::Dropped { by } = packet_verdict(chains, &packet) {
            refused.entry(packet.address).or_insert(by);
        }
    }
    refused
}

/// Logs an error, and keeps it to be counted.
fn tell(error: Error, errors: &mut Vec<Error>) {
    tracing::warn!("{error} (it is tried again)");
    errors.push(error);
}

/// Returns what went wrong.
fn clean_raw() -> Vec<Error> {
    let (removed, errors) = iptables::clean(&[IptablesTable::Raw]);
    if removed > 0 {
        tracing::info!("{removed} iptables rules of a predecessor are removed from table raw");
    }
    for error in &errors {
        tracing::warn!("a predecessor's rule stays: {error}");
    }
    errors
}
