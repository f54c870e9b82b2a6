//! What keeps a rule of iptables from matching once nobody is there to answer. Pure.
//!
//! Rules of iptables outlive the process that made them, so those that bring queries here have conditions that the
//! kernel itself looks after:
//!
//! - **`-m socket`**: a socket is bound that would take the packet. It ends with the last process that holds the
//!   sockets, but looks at packets that come in only, so it does nothing for programs on the host network.
//! - **The lease, `-m recent`**: the watchdog lives. Each of its probes over UDP passes a rule that notes the time
//!   beside the address it goes to (`--set --rdest`); a query for this address matches where [`LEASE_PROBES`] probes
//!   were noted within [`LEASE_SECONDS`]. With a probe each 100 ms it lapses 0.9 s after the last one.
//!
//! The list of times goes with the last rule that names it. `xt_recent` is what kube-proxy needs for Services with
//! session affinity, so a node that runs kube-proxy on iptables has it.

use crate::backoff::Backoff;
use crate::node::desired::{Hook, PacketEnd, Rule, TransportProtocol};
use std::iter::Peekable;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Where the kernel takes what is to be noted of `address` (`+ADDRESS`, net/netfilter/xt_recent.c).
pub(super) fn lease_file(address: IpAddr) -> String {
    format!("/proc/net/xt_recent/{}", LeaseList::of(address).name)
}

/// The list of times for IPv4 (`/proc/net/xt_recent/nodelocaldns`) and that for IPv6, each with the mask of a whole
/// address, which a list has of its first rule: a rule that is written without it is not the one that a listing shows,
/// and cannot be deleted by that.
const LEASE_LISTS: [LeaseList; 2] = [
    LeaseList { name: "nodelocaldns", mask: "255.255.255.255" },
    LeaseList { name: "nodelocaldns-ip6", mask: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" },
];
/// The least that `--seconds` takes.
const LEASE_SECONDS: u32 = 1;
/// With one the lease would last a whole second after the last probe, and a tick of the kernel's clock. With more it
/// ends sooner, and a watchdog that is held up again and again (at idle priority beside more work than the processors
/// can do, for 0.3 s at a time and seldom for 0.8 s) loses it while it lives.
const LEASE_PROBES: u32 = 2;

/// After a match was refused, how long until it is wanted again; each further time twice as long,
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// but no longer than this. To try costs what a change of rules costs, and changes none.
const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// What the kernel keeps the times of probes in.
struct LeaseList {
    name: &'static str,
    mask: &'static str,
}

impl LeaseList {
    /// That of the family of `address`.
    fn of(address: IpAddr) -> &'static Self {
        let [ipv4, ipv6] = &LEASE_LISTS;
        if address.is_ipv4() { ipv4 } else { ipv6 }
    }
}

/// Matches that not every kernel and not every program has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionalMatches {
    /// `-m socket`, the kernel's module xt_socket.
    pub socket: bool,
    /// `-m recent`, the kernel's module xt_recent.
    pub recent: bool,
}

impl OptionalMatches {
    /// Both.
    pub const ALL: Self = Self { socket: true, recent: true };
    /// Neither.
    pub const NONE: Self = Self { socket: false, recent: false };

    /// These without those of `other`.
    fn without(self, other: Self) -> Self {
        Self { socket: self.socket && !other.socket, recent: self.recent && !other.recent }
    }

    /// These and those of `other`.
    fn with(self, other: Self) -> Self {
        Self { socket: self.socket || other.socket, recent: self.recent || other.recent }
    }

    /// What to try for `rules`, one after the other: those of `self` that any of `rules` takes, one of them, neither.
    fn attempts(self, rules: &[Rule]) -> Vec<Self> {
        let wanted = Self {
            socket: self.socket && rules.iter().any(takes_socket_match),
            recent: self.recent && rules.iter().any(|rule| LeaseUse::of(rule) != LeaseUse::None),
        };
        let mut attempts = vec![wanted];
        if wanted == Self::ALL {
            attempts.extend([Self { socket: false, ..wanted }, Self { recent: false, ..wanted }]);
        }
        if wanted != Self::NONE {
            attempts.push(Self::NONE);
        }
        attempts
    }
}

/// What may be had of the optional matches, as far as is known: everything, until a program says no. That may have been
/// for want of memory, so what was refused is wanted again, ever more seldom.
#[derive(Debug)]
pub(super) struct MatchAvailability {
    available: OptionalMatches,
    pauses: Backoff,
    /// When what was refused is wanted again.
    retry_at: Option<Instant>,
}

impl MatchAvailability {
    pub(super) fn new() -> Self {
        Self { available: OptionalMatches::ALL, pauses: Backoff::new(FIRST_RETRY, LONGEST_RETRY), retry_at: None }
    }

    /// What to try for `rules` ([`OptionalMatches::attempts`]).
    pub(super) fn attempts(&self, rules: &[Rule], now: Instant) -> Vec<OptionalMatches> {
        let is_retry = self.retry_at.is_some_and(|at| at <= now);
        let wanted = if is_retry { OptionalMatches::ALL } else { self.available };
        wanted.attempts(rules)
    }

    /// The first of `attempts` that succeeded was `taken`; what it has and what is lacking is known from now on.
    /// Returns what it was not known to lack, or to have.
    pub(super) fn learn(&mut self, attempts: &[OptionalMatches], taken: OptionalMatches, now: Instant) -> MatchNews {
        let Some(wanted) = attempts.first() else { return MatchNews::default() };
        let lacking = wanted.without(taken);
        let before = self.available;
        self.available = before.with(taken).without(lacking);
        if lacking != OptionalMatches::NONE {
            self.retry_at = Some(now + self.pauses.next_pause());
        } else if self.available == OptionalMatches::ALL {
            self.retry_at = None;
            self.pauses.reset();
        }
        MatchNews { lacking: before.without(self.available), regained: self.available.without(before) }
    }
}

/// What [`MatchAvailability`] has learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MatchNews {
    pub lacking: OptionalMatches,
    pub regained: OptionalMatches,
}

impl Default for MatchNews {
    fn default() -> Self {
        Self { lacking: OptionalMatches::NONE, regained: OptionalMatches::NONE }
    }
}

/// On what a rule depends beside the packet's addresses, ports and mark.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// It matches only while a socket is bound that would take the packet.
    pub needs_socket: bool,
    /// What it has to do with the lease.
    pub lease: LeaseUse,
}

/// What a rule has to do with the lease of the address that its packets go to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LeaseUse {
    /// Nothing.
    #[default]
    None,
    /// It matches probes, and notes the time of each.
    Renews,
    /// It matches only while the lease lasts.
    Needs {
        /// So many probes must have been noted
        probes: u32,
        /// within this time.
        seconds: u32,
    },
}

impl Narrowing {
    /// That of `rule` where these matches may be had.
    pub(super) fn of(rule: &Rule, available: OptionalMatches) -> Self {
        Self {
            needs_socket: available.socket && takes_socket_match(rule),
            lease: if available.recent { LeaseUse::of(rule) } else { LeaseUse::None },
        }
    }

    /// Whether a rule such as `rule` may have it; another one is not ours.
    pub(super) fn fits(self, rule: &Rule) -> bool {
        let fits_lease = match (self.lease, LeaseUse::of(rule)) {
            (LeaseUse::None, _)
            | (LeaseUse::Renews, LeaseUse::Renews)
            | (LeaseUse::Needs { .. }, LeaseUse::Needs { .. }) => true,
            (LeaseUse::Renews | LeaseUse::Needs { .. }, _) => false,
        };
        fits_lease && (!self.needs_socket || takes_socket_match(rule))
    }

    /// As an iptables program takes it for a rule with `address`, a space ahead of each match.
    pub(super) fn text(self, address: IpAddr) -> String {
        // Without --nowildcard, sockets bound to every address would not count.
        let socket = if self.needs_socket { " -m socket --nowildcard" } else { "" };
        let use_of_list = match self.lease {
            LeaseUse::None => return socket.to_owned(),
            LeaseUse::Renews => "--set".to_owned(),
            LeaseUse::Needs { probes, seconds } => format!("--rcheck --seconds {seconds} --hitcount {probes}"),
        };
        let LeaseList { name, mask } = LeaseList::of(address);
        format!("{socket} -m recent {use_of_list} --name {name} --mask {mask} --rdest")
    }
}

impl LeaseUse {
    /// That of `rule` where `-m recent` may be had.
    pub(super) fn of(rule: &Rule) -> Self {
        match (rule.end, rule.mark) {
            (PacketEnd::Destination, None) if rule.hook.is_raw() => {
                Self::Needs { probes: LEASE_PROBES, seconds: LEASE_SECONDS }
            }
            // A connection is several packets, which would count as so many probes.
            (PacketEnd::Destination, Some(_)) if rule.protocol == TransportProtocol::Udp && rule.hook.is_raw() => {
                Self::Renews
            }
            _ => Self::None,
        }
    }

    /// What follows `-m recent` in a listing of a rule with `address`, up to the first word that is no option of it
    /// which we use. None for somebody else's list, or one of other keys than whole destination addresses.
    pub(super) fn read<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, address: IpAddr) -> Option<Self> {
        let list = LeaseList::of(address);
        let (mut is_set, mut is_check, mut is_by_destination) = (false, false, false);
        let (mut seconds, mut probes, mut name, mut mask) = (None, None, None, None);
        while let Some(word) = words.peek().copied() {
            match word {
                "--set" => is_set = true,
                "--rcheck" => is_check = true,
                "--rdest" => is_by_destination = true,
                "--seconds" | "--hitcount" | "--name" | "--mask" => {}
                _ => break,
            }
            words.next();
            match word {
                "--seconds" => seconds = Some(words.next()?.parse().ok()?),
                "--hitcount" => probes = Some(words.next()?.parse().ok()?),
                "--name" => name = Some(words.next()?),
                "--mask" => mask = Some(words.next()?),
                _ => {}
            }
        }
        if !is_by_destination || name != Some(list.name) || mask != Some(list.mask) {
            return None;
        }
        match (is_set, is_check, seconds, probes) {
            (true, false, None, None) => Some(Self::Renews),
            (false, true, Some(seconds), probes) => Some(Self::Needs { probes: probes.unwrap_or(1), seconds }),
            _ => None,
        }
    }
}

/// Whether `rule` can be narrowed to while a socket is bound: only packets that come in are looked up.
fn takes_socket_match(rule: &Rule) -> bool {
    rule.hook == Hook::RawPrerouting
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(hook: Hook, protocol: TransportProtocol, mark: Option<u32>) -> Rule {
        Rule { hook, protocol, end: PacketEnd::Destination, address: [10, 96, 0, 10].into(), port: 53, mark }
    }

    fn read<'a>(text: &'a str, address: &str) -> (Option<LeaseUse>, Vec<&'a str>) {
        let mut words = text.split_whitespace().peekable();
        let read = LeaseUse::read(&mut words, address.parse().unwrap());
        (read, words.collect())
    }

    #[test]
    fn queries_need_the_lease_and_probes_over_udp_renew_it() {
        let (udp, tcp) = (TransportProtocol::Udp, TransportProtocol::Tcp);
        let lease = |rule: Rule| Narrowing::of(&rule, OptionalMatches::ALL).lease;
        let needed = LeaseUse::Needs { probes: 2, seconds: 1 };
        for protocol in [udp, tcp] {
            assert_eq!(lease(rule(Hook::RawPrerouting, protocol, None)), needed);
            assert_eq!(lease(rule(Hook::RawOutput, protocol, None)), needed);
        }
        assert_eq!(lease(rule(Hook::RawOutput, udp, Some(1))), LeaseUse::Renews);
        assert_eq!(lease(rule(Hook::RawOutput, tcp, Some(1))), LeaseUse::None);
        let reply = Rule { end: PacketEnd::Source, ..rule(Hook::RawOutput, udp, None) };
        assert_eq!(lease(reply), LeaseUse::None, "late replies are untracked whoever lives");
        assert_eq!(lease(rule(Hook::FilterInput, udp, None)), LeaseUse::None);
    }

    #[test]
    fn what_is_lacking_is_found_by_trying_less_and_less() {
        let query = rule(Hook::RawPrerouting, TransportProtocol::Udp, None);
        let probe = rule(Hook::RawOutput, TransportProtocol::Udp, Some(1));
        let accept = rule(Hook::FilterInput, TransportProtocol::Udp, None);
        let (socket, recent) = (
            OptionalMatches { recent: false, ..OptionalMatches::ALL },
            OptionalMatches { socket: false, ..OptionalMatches::ALL },
        );
        let (all, none) = (OptionalMatches::ALL, OptionalMatches::NONE);
        assert_eq!(all.attempts(&[query, probe]), [all, recent, socket, none]);
        assert_eq!(all.attempts(&[probe, accept]), [recent, none]);
        assert_eq!(all.attempts(&[accept]), [none]);
        assert_eq!(socket.attempts(&[query]), [socket, none]);
        assert_eq!(none.attempts(&[query]), [none]);
    }

    #[test]
    fn what_was_refused_is_wanted_again_ever_more_seldom_and_told_once() {
        let query = rule(Hook::RawPrerouting, TransportProtocol::Udp, None);
        let (all, none) = (OptionalMatches::ALL, OptionalMatches::NONE);
        let without_recent = OptionalMatches { recent: false, ..all };
        let (mut availability, mut now) = (MatchAvailability::new(), Instant::now());
        for seconds in [1, 2, 4, 8] {
            let attempts = availability.attempts(&[query], now);
            assert_eq!(attempts[0], all);
            let news = availability.learn(&attempts, without_recent, now);
            let lacking = if seconds == 1 { OptionalMatches { socket: false, ..all } } else { none };
            assert_eq!(news, MatchNews { lacking, regained: none });
            let pause = Duration::from_secs(seconds);
            let early = availability.attempts(&[query], now + pause - Duration::from_millis(1));
            assert_eq!(early[0], without_recent);
            availability.learn(&early, without_recent, now);
            now += pause;
        }
        let attempts = availability.attempts(&[query], now);
        let regained = OptionalMatches { socket: false, ..all };
        assert_eq!(availability.learn(&attempts, all, now), MatchNews { lacking: none, regained });
        assert_eq!(availability.attempts(&[query], now)[0], all);
        assert_eq!(availability.retry_at, None);
    }

    #[test]
    fn a_list_is_ours_by_its_name_its_key_and_what_is_done_with_it() {
        let needed = Some(LeaseUse::Needs { probes: 2, seconds: 1 });
        let (ipv4, ipv6) = ("10.96.0.10", "fd00::10");
        let own = "--name nodelocaldns --mask 255.255.255.255 --rdest";
        let own6 = "--name nodelocaldns-ip6 --mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rdest";
        let listed = format!("--rcheck --seconds 1 --hitcount 2 {own} -m comment");
        assert_eq!(read(&listed, ipv4), (needed, vec!["-m", "comment"]));
        assert_eq!(read(&format!("--set {own6}"), ipv6).0, Some(LeaseUse::Renews));
        let another = format!("--rcheck --seconds 2 {own}");
        assert_eq!(read(&another, ipv4).0, Some(LeaseUse::Needs { probes: 1, seconds: 2 }), "of another version");
        for foreign in [
            "--set --name KUBE-SEP --mask 255.255.255.255 --rdest".to_owned(),
            "--set --name nodelocaldns --mask 255.255.255.255 --rsource".to_owned(),
            "--set --name nodelocaldns --mask 255.255.0.0 --rdest".to_owned(),
            "--set --name nodelocaldns --rdest".to_owned(),
            format!("--set {own6}"),
            format!("--set --seconds 1 {own}"),
            format!("--rcheck {own}"),
            format!("--update --seconds 1 {own}"),
            format!("--rcheck --seconds {own}"),
            "--rdest".to_owned(),
            "--name".to_owned(),
            String::new(),
        ] {
            let read = read(&foreign, ipv4).0;
            assert_eq!(read, None, "{foreign}");
        }
    }
}
