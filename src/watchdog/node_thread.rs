//! The thread that keeps link and rules as the watchdog wants them. It is a thread of its own because the tools it uses
//! may block (the xtables lock), and a probe must not wait for that. What changes the node is an [`Interceptor`].

use crate::node::{ClientReachability, Interception, RateLimit, times};
use crate::threads::{self, ThreadError};
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// How long after a failure the same is tried again; after each further one that is the same, twice as long.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// But no longer than this: what is missing may be there by now, and nobody tells.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Failures of which is remembered when they were told.
const REMEMBERED: usize = 64;

/// Something on the node could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct SetupError {
    /// The label of `coredns_nodecache_setup_errors_total`, such as `iptables_lock`.
    pub errortype: &'static str,
    /// What failed, on what, and what to do.
    pub message: String,
}

/// What came of [`Interceptor::ensure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnsureOutcome {
    /// The interception is as wanted. Something else may have failed all the same: the link, the fallback.
    pub is_in_place: bool,
    /// Everything that went wrong.
    pub errors: Vec<SetupError>,
}

/// Makes the node intercept queries, or not. Futures stay on one thread.
pub(crate) trait Interceptor {
    /// Makes the node intercept these addresses and no others. It is called again after something has changed, and is
    /// cheap when nothing has.
    fn ensure(&mut self, interception: &Interception) -> impl Future<Output = EnsureOutcome>;
    /// The server sends queries to these addresses: those of the node among them are not intercepted whatever
    /// [`Interceptor::ensure`] is told, since its own queries would come back to it. Returns them.
    fn spare(&mut self, _upstreams: &[SocketAddr]) -> Interception {
        Interception::default()
    }
    /// Whether queries for more addresses may be made to come here. Until then the wish for that waits, and
    /// [`Interceptor::changed`] resolves when it is so.
    fn is_ready_for_queries(&self) -> bool {
        true
    }
    /// How many clients the interception does not reach. [`Interceptor::changed`] resolves when that is another number.
    fn reach(&self) -> ClientReachability {
        ClientReachability::default()
    }
    /// Addresses that are not intercepted for pods although that is wanted, since it would cost them their answers.
    fn refused(&self) -> Interception {
        Interception::default()
    }
    /// Takes down everything that was set up. Returns what could not be.
    fn teardown(&mut self) -> impl Future<Output = Vec<SetupError>>;
    /// What went wrong in the background since this was last asked: told and tried again by whoever works there, and
    /// only to be counted here.
    fn take_background_errors(&mut self) -> Vec<SetupError> {
        Vec::new()
    }
    /// The nftables owner socket, once after each time that the table was made. The kernel removes the table when the
    /// last process that holds the socket has closed it. `None` with rules that no socket owns.
    fn take_owner(&mut self) -> Option<OwnedFd> {
        None
    }
    /// Resolves when something may have changed underneath us (netlink notifications, a periodic look). Dropped and
    /// called again at any time.
    fn changed(&mut self) -> impl Future<Output = ()>;
}

/// Nothing to set up: every start without the node's flags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoopInterceptor;

impl Interceptor for NoopInterceptor {
    async fn ensure(&mut self, _: &Interception) -> EnsureOutcome {
        EnsureOutcome { is_in_place: true, errors: Vec::new() }
    }
    async fn teardown(&mut self) -> Vec<SetupError> {
        Vec::new()
    }
    async fn changed(&mut self) {
        pending().await
    }
}

/// What is wanted of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NodeCommand {
    Intercept(Interception),
    TearDown,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct NodeOutcome {
    pub command: NodeCommand,
    /// It is so, whatever went wrong beside it.
    pub is_done: bool,
    /// [`Interceptor::reach`].
    pub reach: ClientReachability,
    /// [`Interceptor::refused`].
    pub refused: Interception,
    pub errors: Vec<SetupError>,
    /// [`Interceptor::spare`]: not intercepted all the same.
    pub spared: Interception,
    /// [`Interceptor::take_owner`].
    pub owner: Option<OwnedFd>,
}

/// The thread's handle. Wishes overtake each other: the last one counts.
pub(super) struct NodeThread {
    command: watch::Sender<Option<NodeCommand>>,
    upstreams: watch::Sender<Vec<SocketAddr>>,
    outcomes: mpsc::UnboundedReceiver<NodeOutcome>,
}

impl NodeThread {
    /// Starts the thread, on which `interceptor` works, in a runtime of its own.
    pub(super) fn start(interceptor: impl Interceptor + Send + 'static) -> Result<Self, ThreadError> {
        let (command, commands) = watch::channel(None);
        let (upstreams, spared) = watch::channel(Vec::new());
        let (report, outcomes) = mpsc::unbounded_channel();
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
        threads::spawn_with_runtime("interception", Some(512 << 10), runtime, move |runtime| {
            runtime.block_on(async move { serve(interceptor, commands, spared, &report).await });
        })?;
        Ok(Self { command, upstreams, outcomes })
    }

    pub(super) fn command(&self, command: NodeCommand) {
        self.command.send_replace(Some(command));
    }

    /// [`Interceptor::spare`]
    pub(super) fn spare(&self, upstreams: Vec<SocketAddr>) {
        self.upstreams.send_replace(upstreams);
    }

    /// The next outcome; none if the thread is gone: then nothing can be withdrawn any longer.
    pub(super) async fn outcome(&mut self) -> Option<NodeOutcome> {
        self.outcomes.recv().await
    }
}

/// What failed in vain, and when it is tried again.
#[derive(Debug, Default)]
struct SetupRetries {
    /// Tries that ended with the same errors.
    same_failures: u32,
    errors: Vec<SetupError>,
    /// What comes and goes is told now and then only.
    reported: Vec<(SetupError, RateLimit)>,
    recovered: RateLimit,
    /// Addresses whose queries may come here.
    possibly_intercepted: Interception,
    /// Some may although they should not.
    is_urgent: bool,
}

impl SetupRetries {
    /// Takes what became of a try. Returns the errors to tell, each with how often it has come up since it was last
    /// told: those that the try before did not have, unless they were told a moment ago.
    fn take(
        &mut self,
        command: &NodeCommand,
        is_done: bool,
        errors: &[SetupError],
        now: Instant,
    ) -> Vec<(SetupError, u64)> {
        if let NodeCommand::Intercept(interception) = command {
            // A failure may have left some of the rules in place, and may have made some.
            self.possibly_intercepted =
                if is_done { interception.clone() } else { self.possibly_intercepted.in_either(interception) };
            self.is_urgent = !self.possibly_intercepted.is_within(interception);
        }
        let before = std::mem::replace(&mut self.errors, errors.to_vec());
        self.same_failures = if before == errors { self.same_failures.saturating_add(1) } else { 1 };
        if errors.is_empty() && !before.is_empty() {
            self.recovered.add();
        }
        if self.reported.len() >= REMEMBERED {
            self.reported.retain(|(_, limit)| limit.is_recent(now));
        }
        let unsaid = errors.iter().filter(|error| !before.contains(error));
        unsaid
            .filter_map(|error| Some((error.clone(), self.limit(error).map_or(Some(1), |limit| limit.count(now))?)))
            .collect()
    }

    /// None where there are too many of them.
    fn limit(&mut self, error: &SetupError) -> Option<&mut RateLimit> {
        let position = self.reported.iter().position(|(known, _)| known == error);
        if position.is_none() && self.reported.len() < REMEMBERED {
            self.reported.push((error.clone(), RateLimit::default()));
        }
        let last = self.reported.len().checked_sub(1)?;
        let (known, limit) = self.reported.get_mut(position.unwrap_or(last))?;
        (known == error).then_some(limit)
    }

    /// How often a failure has come to its end since that was last told, if it is to be told now.
    fn recovered(&mut self, now: Instant) -> Option<u64> {
        if self.errors.is_empty() { self.recovered.due(now) } else { None }
    }

    /// How long to wait; `None` when nothing failed.
    fn delay(&self) -> Option<Duration> {
        let doublings = if self.is_urgent { 0 } else { self.same_failures.saturating_sub(1) };
        let delay = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_RETRY);
        (!self.errors.is_empty()).then_some(delay)
    }
}

/// How long queries wait for all to be ready for them. Cluster DNS answers meanwhile, so there is no haste; but a
/// program that hangs must not keep the node from its cache for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether queries may come here.
#[derive(Default)]
struct ReadinessGate {
    /// Since when they wait.
    waiting_since: Option<Instant>,
}

impl ReadinessGate {
    /// True if they may come: all `is_ready`, or has not been for too long.
    fn allows(&mut self, is_ready: bool, now: Instant) -> bool {
        if is_ready {
            self.waiting_since = None;
            return true;
        }
        now >= *self.waiting_since.get_or_insert(now) + PATIENCE
    }

    /// When to ask again whatever happens.
    fn deadline(&self) -> Option<Instant> {
        self.waiting_since.map(|since| since + PATIENCE)
    }
}

async fn serve(
    mut interceptor: impl Interceptor,
    mut commands: watch::Receiver<Option<NodeCommand>>,
    mut upstreams: watch::Receiver<Vec<SocketAddr>>,
    report: &mpsc::UnboundedSender<NodeOutcome>,
) {
    let mut retries = SetupRetries::default();
    let mut readiness = ReadinessGate::default();
    let mut standing = Interception::default();
    loop {
        let delay = retries.delay();
        let retry = async {
            match delay {
                Some(delay) => tokio::time::sleep(delay).await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = commands.changed() => if changed.is_err() { return },
            changed = upstreams.changed() => if changed.is_err() { return },
            () = interceptor.changed() => {}
            () = retry => {}
            () = until(readiness.deadline()) => {}
        }
        let spared = interceptor.spare(&upstreams.borrow_and_update());
        let Some(mut command) = commands.borrow_and_update().clone() else { continue };
        let adds = matches!(&command, NodeCommand::Intercept(interception) if !interception.is_within(&standing));
        let is_ready = !adds || interceptor.is_ready_for_queries();
        if !readiness.allows(is_ready, Instant::now()) {
            // What is to be withdrawn waits for nothing.
            let NodeCommand::Intercept(interception) = &command else { continue };
            let rest = interception.in_both(&standing);
            if rest == standing {
                continue;
            }
            command = NodeCommand::Intercept(rest);
        } else if !is_ready {
            readiness = ReadinessGate::default();
            tracing::warn!(
                "watchdog: iptables has not accepted our traffic in {PATIENCE:?}; the interception goes on, a firewall may drop queries"
            );
        }
        let EnsureOutcome { is_in_place: is_done, mut errors } = match &command {
            NodeCommand::Intercept(interception) => interceptor.ensure(interception).await,
            NodeCommand::TearDown => {
                let errors = interceptor.teardown().await;
                EnsureOutcome { is_in_place: errors.is_empty(), errors }
            }
        };
        if let (NodeCommand::Intercept(interception), true) = (&command, is_done) {
            standing.clone_from(interception);
        }
        let now = Instant::now();
        for (error, count) in retries.take(&command, is_done, &errors, now) {
            tracing::error!(
                "watchdog: {error} (told once; tried again at least every {LONGEST_RETRY:?}){}",
                times(count)
            );
        }
        if let Some(count) = retries.recovered(now).filter(|_| command != NodeCommand::TearDown) {
            tracing::info!("watchdog: the node is as it should be after all{}", times(count));
        }
        errors.extend(interceptor.take_background_errors());
        let owner = interceptor.take_owner();
        let is_over = command == NodeCommand::TearDown;
        let (reach, refused) = (interceptor.reach(), interceptor.refused());
        if report.send(NodeOutcome { command, is_done, reach, refused, errors, spared, owner }).is_err() || is_over {
            return;
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        EnsureOutcome, Interceptor, LONGEST_RETRY, NodeCommand, NodeOutcome, NodeThread, PATIENCE, REMEMBERED,
        ReadinessGate, SetupError, SetupRetries,
    };
    use crate::node::Interception;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};
    use tokio::sync::Notify;

    const ADDRESSES: [&str; 2] = ["169.254.20.10", "10.96.0.10"];

    /// The wish for these of the addresses.
    fn command_for(addresses: &[&str]) -> NodeCommand {
        NodeCommand::Intercept(addresses.iter().map(|text| text.parse::<std::net::IpAddr>().unwrap()).collect())
    }

    fn on() -> NodeCommand {
        command_for(&ADDRESSES)
    }

    fn off() -> NodeCommand {
        command_for(&[])
    }

    fn error(message: &str) -> SetupError {
        SetupError { errortype: "iptables", message: message.to_owned() }
    }

    #[test]
    fn what_fails_again_and_again_is_told_once_and_tried_ever_more_seldom() {
        let mut retries = SetupRetries::default();
        assert_eq!(retries.delay(), None);
        let missing = [error("no program iptables")];
        let mut now = Instant::now();
        let mut tell = |errors: &[SetupError]| {
            now += LONGEST_RETRY;
            (retries.take(&on(), false, errors, now).len(), retries.delay().map(|delay| delay.as_secs()))
        };
        let reported: Vec<(usize, Option<u64>)> = (0..9).map(|_| tell(&missing)).collect();
        assert_eq!(reported.iter().map(|(reported, _)| reported).sum::<usize>(), 1, "{reported:?}");
        let delays: Vec<u64> = reported.iter().filter_map(|(_, delay)| *delay).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let more = [error("no program iptables"), error("no link")];
        assert_eq!(tell(&more), (1, Some(1)), "only the new one is told, and something has changed");
        assert_eq!(tell(&more), (0, Some(2)));
        assert_eq!(tell(&[]), (0, None));
        assert_eq!(tell(&missing), (1, Some(1)), "it had been mended, so it is told again");
        for _ in 0..100 {
            tell(&missing);
        }
        assert_eq!(retries.delay(), Some(LONGEST_RETRY));
    }

    #[test]
    fn what_comes_and_goes_many_times_a_second_is_told_once_a_minute_with_its_number() {
        let (start, mut retries) = (Instant::now(), SetupRetries::default());
        let (held, missing) = ([error("held")], [error("no link")]);
        let (mut reported, mut recovered) = (Vec::new(), Vec::new());
        for turn in 0..60 * 90 {
            let now = start + Duration::from_millis(turn * 1_000 / 60);
            for errors in [&held[..], &missing, &[]] {
                reported.extend(retries.take(&on(), false, errors, now));
                recovered.extend(retries.recovered(now));
            }
        }
        let counts: Vec<u64> = reported.iter().map(|(_, count)| *count).collect();
        assert_eq!((counts, recovered), (vec![1, 1, 3_600, 3_600], vec![1, 3_600]), "{reported:?}");
    }

    #[test]
    fn failures_that_are_all_different_are_remembered_up_to_a_bound() {
        let (now, mut retries) = (Instant::now(), SetupRetries::default());
        for number in 0..1_000 {
            assert_eq!(retries.take(&on(), false, &[error(&number.to_string())], now).len(), 1);
        }
        assert_eq!(retries.reported.len(), REMEMBERED);
    }

    #[test]
    fn an_interception_that_should_be_off_and_may_be_on_is_tried_each_second() {
        let held = [error("another program holds the lock")];
        let mut retries = SetupRetries::default();
        retries.take(&off(), false, &held, Instant::now());
        retries.take(&off(), false, &held, Instant::now());
        assert_eq!(retries.delay(), Some(Duration::from_secs(2)), "it never was on");
        for (is_done, less) in [(true, off()), (false, off()), (true, command_for(&ADDRESSES[..1]))] {
            retries.take(&on(), is_done, &[], Instant::now());
            for _ in 0..5 {
                retries.take(&less, false, &held, Instant::now());
                assert_eq!(retries.delay(), Some(Duration::from_secs(1)));
            }
        }
        retries.take(&off(), true, &held, Instant::now());
        retries.take(&off(), true, &held, Instant::now());
        assert!(retries.delay() > Some(Duration::from_secs(1)), "off it is, the rest is not urgent");
    }

    #[derive(Clone, Default)]
    struct Fake {
        failures: Arc<AtomicUsize>,
        /// What fails does not keep the interception from being as wanted.
        is_beside: bool,
        /// Queries may not come here yet.
        is_unready: Arc<AtomicBool>,
        /// Failures in the background.
        beside: Arc<AtomicUsize>,
        change: Arc<Notify>,
    }

    impl Interceptor for Fake {
        async fn ensure(&mut self, _: &Interception) -> EnsureOutcome {
            let fails =
                self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            let error = || SetupError { errortype: "iptables_lock", message: "held".to_owned() };
            let errors = if fails { vec![error()] } else { Vec::new() };
            EnsureOutcome { is_in_place: !fails || self.is_beside, errors }
        }
        fn is_ready_for_queries(&self) -> bool {
            !self.is_unready.load(Ordering::Relaxed)
        }
        async fn teardown(&mut self) -> Vec<SetupError> {
            Vec::new()
        }
        fn take_background_errors(&mut self) -> Vec<SetupError> {
            (0..self.beside.swap(0, Ordering::Relaxed)).map(|_| error("held in the background")).collect()
        }
        async fn changed(&mut self) {
            self.change.notified().await;
        }
    }

    fn shown(outcome: &NodeOutcome) -> (NodeCommand, bool, usize) {
        (outcome.command.clone(), outcome.is_done, outcome.errors.len())
    }

    #[tokio::test]
    async fn wishes_failures_and_changes_lead_to_outcomes_until_the_teardown() {
        let fake = Fake::default();
        fake.failures.store(1, Ordering::Relaxed);
        let own = fake.clone();
        let mut node = NodeThread::start(own).unwrap();
        node.command(on());
        assert_eq!(shown(&node.outcome().await.unwrap()), (on(), false, 1));
        assert_eq!(shown(&node.outcome().await.unwrap()), (on(), true, 0), "it is tried again by itself");
        fake.change.notify_one();
        assert_eq!(shown(&node.outcome().await.unwrap()), (on(), true, 0), "what changed is mended");
        node.command(NodeCommand::TearDown);
        assert_eq!(node.outcome().await.unwrap().command, NodeCommand::TearDown);
    }

    #[tokio::test]
    async fn what_fails_beside_the_interception_is_told_and_tried_again_and_the_interception_is_as_wanted() {
        let fake = Fake { is_beside: true, ..Fake::default() };
        fake.failures.store(1, Ordering::Relaxed);
        let mut node = NodeThread::start(fake).unwrap();
        node.command(off());
        assert_eq!(shown(&node.outcome().await.unwrap()), (off(), true, 1));
        assert_eq!(shown(&node.outcome().await.unwrap()), (off(), true, 0));
    }

    #[test]
    fn queries_wait_for_what_hangs_no_longer_than_their_patience() {
        let (mut readiness, start) = (ReadinessGate::default(), Instant::now());
        assert!(!readiness.allows(false, start));
        assert!(!readiness.allows(false, start + PATIENCE / 2));
        assert_eq!(readiness.deadline(), Some(start + PATIENCE));
        assert!(readiness.allows(false, start + PATIENCE));
        assert!(readiness.allows(true, start + PATIENCE));
        assert_eq!(readiness.deadline(), None);
        assert!(!readiness.allows(false, start + PATIENCE), "it is another wait");
    }

    #[tokio::test]
    async fn queries_come_here_once_all_is_ready_for_them_and_a_withdrawal_waits_for_nothing() {
        let fake = Fake::default();
        fake.is_unready.store(true, Ordering::Relaxed);
        let own = fake.clone();
        let mut node = NodeThread::start(own).unwrap();
        node.command(on());
        let early = tokio::time::timeout(Duration::from_millis(200), node.outcome()).await;
        assert!(early.is_err(), "{early:?}");
        node.command(off());
        assert_eq!(shown(&node.outcome().await.unwrap()), (off(), true, 0));
        node.command(on());
        fake.is_unready.store(false, Ordering::Relaxed);
        fake.change.notify_one();
        assert_eq!(shown(&node.outcome().await.unwrap()), (on(), true, 0));
    }

    #[tokio::test]
    async fn an_address_is_withdrawn_while_another_one_waits_to_be_intercepted() {
        let fake = Fake::default();
        let own = fake.clone();
        let mut node = NodeThread::start(own).unwrap();
        node.command(command_for(&ADDRESSES[..1]));
        assert_eq!(shown(&node.outcome().await.unwrap()), (command_for(&ADDRESSES[..1]), true, 0));
        fake.is_unready.store(true, Ordering::Relaxed);
        node.command(command_for(&ADDRESSES[1..]));
        assert_eq!(shown(&node.outcome().await.unwrap()), (off(), true, 0));
        fake.is_unready.store(false, Ordering::Relaxed);
        fake.change.notify_one();
        assert_eq!(shown(&node.outcome().await.unwrap()), (command_for(&ADDRESSES[1..]), true, 0));
    }

    #[tokio::test]
    async fn what_fails_in_the_background_is_counted_once_and_not_tried_again_for_that() {
        let fake = Fake::default();
        let own = fake.clone();
        let mut node = NodeThread::start(own).unwrap();
        node.command(on());
        assert_eq!(shown(&node.outcome().await.unwrap()), (on(), true, 0));
        fake.beside.store(2, Ordering::Relaxed);
        fake.change.notify_one();
        assert_eq!(shown(&node.outcome().await.unwrap()), (on(), true, 2));
        let again = tokio::time::timeout(Duration::from_millis(1500), node.outcome()).await;
        assert!(again.is_err(), "whoever works there tries again: {again:?}");
    }
}
