//! Sends a probe to each upstream of a chain and marks those from which it comes back.

use super::probes::{Probes, probe_name, probed_zone};
use crate::chain::{ChainUpstreams, ListedUpstream, ProberGuard};
use crate::message::{LowerName, Name, Query, RecordType};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// An upstream that does not answer is asked for so long before it is believed to be no loop, as in the reference.
const STARTING: Duration = Duration::from_secs(30);
/// Between two probes of an upstream that does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// A probe may come back by a slower way than its answer; the reference waits as long.
const GRACE: Duration = Duration::from_secs(2);
/// Between two probes of an upstream that is left out.
const RECHECK: Duration = Duration::from_secs(30);

/// The upstreams of one chain and the probes sent to them.
pub(super) struct Watch {
    zone: Name,
    upstreams: ProberGuard,
    probes: Mutex<Probes>,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoopProbeOutcome {
    /// It came back to us.
    Returned,
    /// It was answered and did not come back.
    Answered,
    /// Neither.
    Lost,
}

impl Watch {
    pub(super) fn new(zone: Name, upstreams: Arc<ChainUpstreams>) -> Self {
        Self { zone, upstreams: upstreams.watch(), probes: Mutex::default() }
    }

    pub(super) fn zone(&self) -> &Name {
        &self.zone
    }

    /// Addresses of the upstreams in use, and whether they are left out.
    pub(super) fn marks(&self) -> BTreeMap<SocketAddr, bool> {
        let mut marks = BTreeMap::new();
        for upstream in self.upstreams.current() {
            *marks.entry(upstream.address()).or_default() |= upstream.is_looping();
        }
        marks
    }

    /// Whether a probe for `name` is under way.
    pub(super) fn awaits(&self, name: &LowerName) -> bool {
        self.probes.lock().has(name)
    }

    /// A HINFO query for `name` has come from `client`. If it is a probe of ours, its upstream is left out from now on.
    pub(super) fn sight(&self, name: &LowerName, client: SocketAddr) -> bool {
        let Some(upstream) = self.probes.lock().sight(name) else { return false };
        if upstream.set_looping(true) {
            tracing::error!(
                "loop: queries of zone {:?} sent to the upstream {} come back to us from {client}; it is left out until they no \
                 longer do. Is it one of our own addresses, or a server that forwards to us? Look at the forward lines of the \
                 Corefile and at the resolv.conf they name",
                self.zone.to_string(),
                upstream.address(),
            );
        }
        true
    }

    /// Probes every upstream when it is listed, and again when the way to it may have changed, and those left out now
    /// and then, until it is dropped.
    pub(super) async fn run(self: Arc<Self>) {
        let mut watched = FuturesUnordered::new();
        let mut known: Vec<Weak<ListedUpstream>> = Vec::new();
        loop {
            let (listed, doubted) = (self.upstreams.listed().notified(), self.upstreams.doubted().notified());
            tokio::pin!(listed, doubted);
            // Before the list is read, so that none listed meanwhile is missed.
            listed.as_mut().enable();
            doubted.as_mut().enable();
            known.retain(|upstream| upstream.strong_count() > 0);
            for upstream in self.upstreams.current() {
                let upstream = Arc::downgrade(&upstream);
                if !known.iter().any(|other| other.ptr_eq(&upstream)) {
                    known.push(upstream.clone());
                    watched.push(self.watch(upstream));
                }
            }
            loop {
                tokio::select! {
                    () = &mut listed => break,
                    () = &mut doubted => {
                        watched.clear();
                        known.clear();
                        break;
                    }
                    Some(()) = watched.next() => {}
                }
            }
        }
    }

    /// Probes one upstream until it is known to be no loop, or is gone.
    async fn watch(&self, upstream: Weak<ListedUpstream>) {
        let started = Instant::now();
        loop {
            let Some(upstream) = upstream.upgrade() else { return };
            let Some(verdict) = self.probe(&upstream).await else { return };
            if verdict == LoopProbeOutcome::Answered && upstream.set_looping(false) {
                tracing::info!(
                    "loop: the upstream {} of zone {:?} is no loop any longer",
                    upstream.address(),
                    self.zone.to_string()
                );
            }
            let pause = if upstream.is_looping() {
                RECHECK
            } else if verdict == LoopProbeOutcome::Lost && started.elapsed() < STARTING {
                RETRY
            } else {
                return;
            };
            drop(upstream);
            sleep(pause).await;
        }
    }

    /// Sends one probe and waits for what becomes of it; `None` if there is no name to ask the upstream for.
    async fn probe(&self, upstream: &Arc<ListedUpstream>) -> Option<LoopProbeOutcome> {
        let zone = probed_zone(&self.zone, upstream.from())?;
        // From the kernel: a name that can be guessed would let any client take the upstream out.
        let name =
            probe_name(zone, [u64::from_ne_bytes(random_octets()?), u64::from_ne_bytes(random_octets()?)]).ok()?;
        let id: [u8; 2] = random_octets()?;
        self.probes.lock().begin(&name, upstream.clone());
        let _ended = Ended { probes: &self.probes, name: &name };
        let query = Query::compose(u16::from_be_bytes(id), name.as_wire(), RecordType::HINFO, true);
        let answered = upstream.ask(query).await;
        if answered && !self.probes.lock().has_returned(&name) {
            sleep(GRACE).await;
        }
        let returned = self.probes.lock().has_returned(&name);
        Some(match (returned, answered) {
            (true, _) => LoopProbeOutcome::Returned,
            (false, true) => LoopProbeOutcome::Answered,
            (false, false) => LoopProbeOutcome::Lost,
        })
    }
}

/// Ends a probe, also when its task is dropped.
struct Ended<'a> {
    probes: &'a Mutex<Probes>,
    name: &'a Name,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.probes.lock().end(self.name);
    }
}
/// Octets that nobody can guess; `None` where the kernel has none to give.
fn random_octets<const N: usize>() -> Option<[u8; N]> {
    let mut octets = [0; N];
    let count =
        rustix::io::retry_on_intr(|| rustix::rand::getrandom(&mut octets, rustix::rand::GetRandomFlags::empty()))
            .ok()?;
    (count == N).then_some(octets)
}
