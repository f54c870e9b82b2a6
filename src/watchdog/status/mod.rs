//! What the watchdog tells of itself in `/status.json` (docs/status.md): whether queries are intercepted and why, and
//! what has happened lately. Pure but for the lock; [`page`] is what a browser shows of it.

mod page;

pub(super) use page::PAGE;

use super::state::{Obstacle, StateMachine};
use crate::chain::NoStatus;
use crate::node::{ClientReachability, Interception};
use crate::query_stats::{InterceptedAddress, Report, VERSION, WatchdogEvent, WatchdogReport};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Events that are remembered.
const EVENTS: usize = 64;
/// Characters of what is told of one.
const MOST_DETAIL: usize = 512;

/// What the node's thread last made of the interception.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeStatus {
    /// Where queries come here by rule.
    pub in_place: Interception,
    /// Left out, since the server sends queries there.
    pub spared: Interception,
    /// Left out for pods, whom it would cost their answers.
    pub refused: Interception,
    pub reach: ClientReachability,
    /// Why not all is as wanted.
    pub errors: Vec<String>,
}

/// Shared by the loop, which writes it, and by who serves it.
#[derive(Clone)]
pub(super) struct WatchdogStatus(Arc<Mutex<Inner>>);

struct Inner {
    since: Duration,
    /// Of the node (`-localip`).
    addresses: Vec<IpAddr>,
    /// There may be rules.
    has_rules: bool,
    state: &'static str,
    without_service: Duration,
    wanted: Interception,
    obstacles: BTreeMap<IpAddr, Obstacle>,
    node: NodeStatus,
    /// The newest first.
    events: VecDeque<WatchdogEvent>,
}

impl WatchdogStatus {
    /// Of a watchdog of these addresses that begins now.
    pub(super) fn new(addresses: &[IpAddr], has_rules: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner::new(addresses, has_rules, since_1970()))))
    }

    /// Takes what the machine has come to.
    pub(super) fn observe(&self, machine: &StateMachine, now: Instant) {
        let mut inner = self.0.lock();
        inner.without_service = machine.without_service(now);
        inner.obstacles.clone_from(machine.obstacles());
        inner.wanted.clone_from(machine.wanted());
        inner.set_state(machine.state(), since_1970());
    }

    /// Takes what the node's thread has made of it.
    pub(super) fn settle(&self, node: NodeStatus) {
        self.0.lock().settle(node, since_1970());
    }

    /// Notes what has happened.
    pub(super) fn note(&self, event: &str, detail: impl Into<String>) {
        self.0.lock().note(event, detail.into(), since_1970());
    }

    /// The whole status with what the server tells of its own. The error is what there is without it.
    pub(super) fn complete(&self, told: Result<String, NoStatus>) -> Result<String, String> {
        let report = self.0.lock().report();
        // Fails only where a type cannot be written.
        let watchdog = serde_json::to_string(&report).unwrap_or_else(|_| "null".to_owned());
        match told.and_then(|server| with_watchdog(&server, &watchdog).ok_or(NoStatus::Unreadable)) {
            Ok(whole) => Ok(whole),
            Err(why) => {
                let time_ms = since_1970().as_millis() as u64;
                let error = Some(format!("no status: {why}."));
                let report = Report { version: VERSION, time_ms, error, watchdog: Some(report), ..Report::default() };
                Err(serde_json::to_string(&report).unwrap_or_default())
            }
        }
    }
}

/// The server's object with one more field, the last: of two of one name a reader takes this one.
fn with_watchdog(server: &str, watchdog: &str) -> Option<String> {
    let fields = server.strip_prefix('{')?.strip_suffix('}').filter(|fields| !fields.is_empty())?;
    Some(format!("{{{fields},\"watchdog\":{watchdog}}}"))
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl Inner {
    fn new(addresses: &[IpAddr], has_rules: bool, since: Duration) -> Self {
        Self {
            since,
            addresses: addresses.iter().map(IpAddr::to_canonical).collect(),
            has_rules,
            state: "",
            without_service: Duration::ZERO,
            wanted: Interception::default(),
            obstacles: BTreeMap::new(),
            node: NodeStatus::default(),
            events: VecDeque::new(),
        }
    }

    fn set_state(&mut self, state: &'static str, time: Duration) {
        if self.state != state {
            self.state = state;
            self.note("state", state.replace('_', " "), time);
        }
    }

    fn settle(&mut self, node: NodeStatus, time: Duration) {
        let intercepted = self.intercepted();
        let before = std::mem::replace(&mut self.node, node);
        if intercepted != self.intercepted() {
            self.note("interception", self.intercepted().to_string(), time);
        }
        for error in self.node.errors.clone().into_iter().filter(|error| !before.errors.contains(error)) {
            self.note("error", error, time);
        }
    }

    fn note(&mut self, event: &str, detail: String, time: Duration) {
        self.events.truncate(EVENTS - 1);
        self.events.push_front(WatchdogEvent {
            time_ms: time.as_millis() as u64,
            event: event.to_owned(),
            detail: detail.chars().take(MOST_DETAIL).collect(),
            serves: self.serves(),
            intercepted: self.intercepted().addresses().count(),
        });
    }

    fn serves(&self) -> bool {
        self.state == "serving"
    }

    fn report(&self) -> WatchdogReport {
        WatchdogReport {
            since_ms: self.since.as_millis() as u64,
            state: self.state.to_owned(),
            seconds_without_service: self.without_service.as_secs_f64(),
            is_interception_wanted: self.has_rules && !self.addresses.is_empty(),
            addresses: self.addresses.iter().map(|address| self.address(*address)).collect(),
            blocked_clients: self.node.reach.blocked,
            events: self.events.iter().cloned().collect(),
        }
    }

    fn address(&self, address: IpAddr) -> InterceptedAddress {
        let node = &self.node;
        let why = if !self.has_rules {
            "no rules are wanted (--interception none, or -setupiptables=false)".to_owned()
        } else if node.spared.contains(address) {
            "the server sends its own queries there, and they would come back".to_owned()
        } else if let Some(obstacle) = self.obstacles.get(&address).filter(|_| !node.in_place.contains(address)) {
            obstacle.to_string()
        } else if !self.serves() {
            let rules = if node.in_place.contains(address) { "; the rules are still in place" } else { "" };
            format!("no server serves: {}{rules}", self.state.replace('_', " "))
        } else if node.refused.contains(address) {
            "pods' queries are left to cluster DNS, since it would cost them their answers".to_owned()
        } else if node.in_place.contains(address) && node.reach.is_nobody_served {
            "the rules are in place, but no client's packets arrive".to_owned()
        } else if node.in_place.contains(address) {
            "the server has proven that it answers there".to_owned()
        } else if self.wanted.contains(address) {
            let error = node.errors.first().map(|error| format!("the rules cannot be made: {error}"));
            error.unwrap_or_else(|| "the rules are being made".to_owned())
        } else {
            "the server has not proven yet that it answers there".to_owned()
        };
        InterceptedAddress { address: address.to_string(), is_intercepted: self.is_intercepted(address), why }
    }

    fn intercepted(&self) -> Interception {
        let addresses: Vec<IpAddr> =
            self.addresses.iter().copied().filter(|address| self.is_intercepted(*address)).collect();
        Interception::of(&addresses)
    }

    fn is_intercepted(&self, address: IpAddr) -> bool {
        // Where no rules are wanted all is in place.
        self.has_rules
            && self.node.in_place.contains(address)
            && !self.node.refused.contains(address)
            && !self.node.reach.is_nobody_served
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn inner(addresses: &[&str], has_rules: bool) -> Inner {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Inner::new(&addresses, has_rules, Duration::from_secs(1))
    }

    fn of(address: &str) -> Interception {
        Interception::of(&[address.parse().unwrap()])
    }

    #[test]
    fn each_address_is_intercepted_or_has_a_reason_why_not() {
        let at = "10.96.0.10";
        let address: IpAddr = at.parse().unwrap();
        let told = |change: fn(&mut Inner), has_rules| {
            let mut inner = inner(&[at], has_rules);
            inner.state = "serving";
            change(&mut inner);
            let told = inner.address(address);
            (told.is_intercepted, told.why)
        };
        type Case = (fn(&mut Inner), bool, bool, &'static str);
        let cases: [Case; 11] = [
            (|inner| inner.node.in_place = of("10.96.0.10"), false, false, "no rules are wanted"),
            (|_| {}, true, false, "not proven yet"),
            (|inner| inner.state = "starting", true, false, "no server serves: starting"),
            (|inner| inner.wanted = of("10.96.0.10"), true, false, "are being made"),
            (
                |inner| {
                    inner.wanted = of("10.96.0.10");
                    inner.node.errors = vec!["no nft".into()];
                },
                true,
                false,
                "cannot be made: no nft",
            ),
            (|inner| inner.node.in_place = of("10.96.0.10"), true, true, "has proven"),
            (
                |inner| {
                    inner.node.in_place = of("10.96.0.10");
                    inner.node.reach.is_nobody_served = true;
                },
                true,
                false,
                "no client's packets arrive",
            ),
            (
                |inner| {
                    inner.node.in_place = of("10.96.0.10");
                    inner.node.refused = of("10.96.0.10");
                },
                true,
                false,
                "left to cluster DNS",
            ),
            (|inner| inner.node.spared = of("10.96.0.10"), true, false, "its own queries"),
            (
                |inner| {
                    inner.state = "waiting";
                    inner.node.in_place = of("10.96.0.10");
                },
                true,
                true,
                "no server serves: waiting; the rules are still in place",
            ),
            (
                |inner| _ = inner.obstacles.insert("10.96.0.10".parse().unwrap(), Obstacle::Foreign),
                true,
                false,
                "somebody else answers",
            ),
        ];
        for (change, has_rules, is_intercepted, why) in cases {
            let (is, said) = told(change, has_rules);
            assert!(is == is_intercepted && said.contains(why), "{is} {said}: {why}");
        }
    }

    #[test]
    fn what_changes_is_an_event_and_what_stays_is_none() {
        let mut inner = inner(&["10.96.0.10", "169.254.20.10"], true);
        let node = |address: &str, error: &str| NodeStatus {
            in_place: of(address),
            errors: vec![error.to_owned()],
            ..NodeStatus::default()
        };
        for time in 1..=2 {
            let time = Duration::from_secs(time);
            inner.set_state("serving", time);
            inner.settle(node("10.96.0.10", "no link"), time);
        }
        let events: Vec<_> = inner.report().events.into_iter().map(|event| (event.time_ms, event.event)).collect();
        assert_eq!(events, [(1000, "error".into()), (1000, "interception".into()), (1000, "state".into())]);
        let newest = &inner.report().events[0];
        assert_eq!((newest.detail.as_str(), newest.serves, newest.intercepted), ("no link", true, 1));
        let refused = NodeStatus { refused: of("10.96.0.10"), ..node("10.96.0.10", "no link") };
        for (node, detail) in [(refused, "no address"), (node("10.96.0.10", "no link"), "10.96.0.10")] {
            inner.settle(node, Duration::from_secs(3));
            let newest = &inner.report().events[0];
            assert_eq!((newest.event.as_str(), newest.detail.as_str()), ("interception", detail));
        }
        for number in 0..200 {
            inner.note("error", format!("{number}{}", "ü".repeat(9999)), Duration::from_secs(3));
        }
        let events = inner.report().events;
        assert_eq!((events.len(), events[0].detail.chars().count()), (EVENTS, MOST_DETAIL));
        assert!(events[0].detail.starts_with("199"), "{}", events[0].detail);
    }

    #[test]
    fn the_watchdogs_part_is_added_to_the_servers_and_is_told_without_it_too() {
        let status = WatchdogStatus::new(&[], false);
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let whole = read(&status.complete(Ok("{\"version\":1,\"watchdog\":7}".into())).unwrap());
        assert_eq!((&whole["version"], &whole["watchdog"]["blocked_clients"]), (&1.into(), &0.into()));
        let late = NoStatus::Late(Duration::from_secs(2));
        for (told, expected) in [
            (Err(NoStatus::NotRunning), "is not running"),
            (Err(late), "has not told it within 2s. It may be starting, busy or stopped"),
            (Err(NoStatus::Unreadable), "cannot pass it on"),
            (Ok(String::new()), "cannot pass it on"),
            (Ok("{}".to_owned()), "cannot pass it on"),
            (Ok("[1]".to_owned()), "cannot pass it on"),
        ] {
            let part = read(&status.complete(told).unwrap_err());
            let error = part["error"].as_str().unwrap();
            assert!(error.starts_with("no status: the server that answers") && error.contains(expected), "{error}");
            assert_eq!((&part["version"], &part["watchdog"]["is_interception_wanted"]), (&1.into(), &false.into()));
        }
    }
}
