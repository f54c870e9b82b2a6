//! Rules as iptables writes them, and what there is to do to those that exist. Pure.

use super::narrowing::{LeaseUse, Narrowing, OptionalMatches};
use crate::node::desired::{ALLOW_TRAFFIC, Hook, PacketEnd, Rule, TransportProtocol};
use std::fmt::Write;
use std::net::IpAddr;

/// The reference's comment on NOTRACK rules, ours too.
const SKIP_CONNTRACK: &str = "NodeLocal DNS Cache: skip conntrack";

/// Tables that hold rules of ours, with what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IptablesTable {
    /// `raw`: no connection tracking.
    Raw,
    /// `filter`: accept and drop.
    Filter,
}

impl IptablesTable {
    /// Both tables.
    pub const ALL: [Self; 2] = [Self::Raw, Self::Filter];

    /// As `-t` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Filter => "filter",
        }
    }

    /// The table of a rule for this hook.
    pub fn of(hook: Hook) -> Self {
        if hook.is_raw() { Self::Raw } else { Self::Filter }
    }

    pub(super) fn comment(self) -> &'static str {
        match self {
            Self::Raw => SKIP_CONNTRACK,
            Self::Filter => ALLOW_TRAFFIC,
        }
    }
}

/// A rule of ours or the reference's, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentRule {
    pub rule: Rule,
    /// When it counts.
    pub narrowing: Narrowing,
    /// What stands after `-A CHAIN`, as the program itself writes it.
    pub text: String,
}

/// What makes one table what it should be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct IptablesChanges {
    /// To be added.
    pub missing: Vec<Rule>,
    /// To be deleted.
    pub surplus: Vec<PresentRule>,
}

/// Name of the chain of `hook`.
pub(super) fn chain(hook: Hook) -> &'static str {
    match hook {
        Hook::RawPrerouting => "PREROUTING",
        Hook::RawOutput => "OUTPUT",
        Hook::FilterInput | Hook::FilterInputLoopback => "INPUT",
        Hook::FilterOutput | Hook::FilterOutputLoopback => "OUTPUT",
    }
}

/// The match that narrows `hook` to the link it is for.
fn link_match(hook: Hook) -> &'static str {
    match hook {
        Hook::FilterInputLoopback => "-i lo ",
        Hook::FilterOutputLoopback => "-o lo ",
        Hook::RawPrerouting | Hook::RawOutput | Hook::FilterInput | Hook::FilterOutput => "",
    }
}

/// What iptables-restore reads to make `changes` so: new rules at the front of their chains, then those that go.
pub fn script(table: IptablesTable, changes: &IptablesChanges, available: OptionalMatches) -> String {
    let missing = changes.missing.iter().map(|rule| {
        let text = specification(rule, Narrowing::of(rule, available));
        format!("-I {} 1 {text}\n", chain(rule.hook))
    });
    let surplus = changes.surplus.iter().map(|present| format!("-D {} {}\n", chain(present.rule.hook), present.text));
    let lines: String = missing.chain(surplus).collect();
    format!("*{}\n{lines}COMMIT\n", table.name())
}

/// What stands after the chain.
fn specification(rule: &Rule, narrowing: Narrowing) -> String {
    let protocol = match rule.protocol {
        TransportProtocol::Udp => "udp",
        TransportProtocol::Tcp => "tcp",
    };
    let (address, port) = match rule.end {
        PacketEnd::Source => ("-s", "--sport"),
        PacketEnd::Destination => ("-d", "--dport"),
    };
    let link = link_match(rule.hook);
    let mut text = format!("{link}-p {protocol} {address} {} {port} {}", rule.address, rule.port);
    if let Some(mark) = rule.mark {
        let _a_string_takes_it_all = write!(text, " -m mark --mark {mark:#x}/{mark:#x}");
    }
    text.push_str(&narrowing.text(rule.address));
    let table = IptablesTable::of(rule.hook);
    let target = match table {
        IptablesTable::Raw => "NOTRACK",
        IptablesTable::Filter => "ACCEPT",
    };
    let _a_string_takes_it_all = write!(text, " -m comment --comment \"{}\" -j {target}", table.comment());
    text
}

/// The rules with our comments in `listing`, the output of `-S` for `table`. A rule that says more than ours do is
/// somebody else's.
pub fn present(table: IptablesTable, listing: &str) -> Vec<PresentRule> {
    listing.lines().filter_map(|line| parse(table, line)).collect()
}

fn parse(table: IptablesTable, line: &str) -> Option<PresentRule> {
    let rest = line.strip_prefix("-A ")?;
    let (chain, text) = rest.split_once(' ')?;
    let mut hook = match (table, chain) {
        (IptablesTable::Raw, "PREROUTING") => Hook::RawPrerouting,
        (IptablesTable::Raw, "OUTPUT") => Hook::RawOutput,
        (IptablesTable::Filter, "INPUT") => Hook::FilterInput,
        (IptablesTable::Filter, "OUTPUT") => Hook::FilterOutput,
        _ => return None,
    };
    let (before, after) = text.split_once(&format!("-m comment --comment \"{}\"", table.comment()))?;
    let mut words = before.split_whitespace().chain(after.split_whitespace()).peekable();
    let (mut protocol, mut end, mut port, mut mark, mut target) = (None, None, None, None, None);
    let mut narrowing = Narrowing::default();
    while let Some(word) = words.next() {
        match word {
            "-p" => {
                protocol = match words.next()? {
                    "udp" => Some(TransportProtocol::Udp),
                    "tcp" => Some(TransportProtocol::Tcp),
                    _ => return None,
                }
            }
            "-s" => end = Some((PacketEnd::Source, host(words.next()?)?)),
            "-d" => end = Some((PacketEnd::Destination, host(words.next()?)?)),
            "--sport" => port = Some((PacketEnd::Source, words.next()?.parse().ok()?)),
            "--dport" => port = Some((PacketEnd::Destination, words.next()?.parse().ok()?)),
            "--mark" => mark = Some(bits(words.next()?)?),
            "--nowildcard" => narrowing.needs_socket = true,
            "-i" | "-o" => {
                hook = match (hook, word, words.next()?) {
                    (Hook::FilterInput, "-i", "lo") => Hook::FilterInputLoopback,
                    (Hook::FilterOutput, "-o", "lo") => Hook::FilterOutputLoopback,
                    _ => return None,
                }
            }
            "-m" => match words.next()? {
                "udp" | "tcp" | "mark" | "socket" => {}
                "recent" if narrowing.lease == LeaseUse::None => {
                    narrowing.lease = LeaseUse::read(&mut words, end?.1)?;
                }
                _ => return None,
            },
            "-j" => target = Some(words.next()?),
            // `-j CT --notrack` is how newer programs write NOTRACK.
            "--notrack" if target == Some("CT") => target = Some("NOTRACK"),
            _ => return None,
        }
    }
    let wanted_target = match table {
        IptablesTable::Raw => "NOTRACK",
        IptablesTable::Filter => "ACCEPT",
    };
    let ((end, address), (port_end, port)) = (end?, port?);
    let rule = Rule { hook, protocol: protocol?, end, address, port, mark };
    let is_ours = port_end == end && target == Some(wanted_target) && narrowing.fits(&rule);
    is_ours.then(|| PresentRule { rule, narrowing, text: text.to_owned() })
}

/// `10.96.0.10/32`, `fd00::10/128`: one address.
pub(super) fn host(text: &str) -> Option<IpAddr> {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().ok()?;
    let whole = if address.is_ipv4() { "32" } else { "128" };
    (length.is_empty() || length == whole).then_some(address)
}

/// `0x100000/0x100000`: bits that must be set.
fn bits(text: &str) -> Option<u32> {
    let (value, mask) = text.split_once('/')?;
    (value == mask).then(|| u32::from_str_radix(value.strip_prefix("0x")?, 16).ok()).flatten()
}

/// What makes the rules that are `present` in one table those that are `desired`. Rules that somebody else may still
/// need are surplus only when `is_alone`; a rule that is there several times is so in any case. `available` says when
/// those that are desired should count.
pub fn changes(
    desired: &[Rule],
    available: OptionalMatches,
    present: &[PresentRule],
    is_alone: bool,
) -> IptablesChanges {
    let is_it = |rule: &Rule, present: &PresentRule| {
        present.rule == *rule && present.narrowing == Narrowing::of(rule, available)
    };
    let missing = desired.iter().filter(|rule| !present.iter().any(|present| is_it(rule, present)));
    let surplus = present.iter().enumerate().filter(|(index, candidate)| {
        let is_desired = desired.iter().any(|rule| is_it(rule, candidate));
        let is_repeated =
            present.iter().take(*index).any(|earlier| earlier.text == candidate.text && earlier.rule == candidate.rule);
        is_repeated || (!is_desired && is_alone)
    });
    IptablesChanges {
        missing: missing.copied().collect(),
        surplus: surplus.map(|(_, present)| present.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::desired::{Interception, NodeSpec, desired};
    use crate::node::fallback_rules::Fallback;
    use proptest::prelude::*;

    fn on() -> Interception {
        Interception::of(&["10.96.0.10", "169.254.20.10"].map(|text| text.parse().unwrap()))
    }

    fn rules(interception: &Interception) -> Vec<Rule> {
        let addresses = on().addresses().collect();
        let fallback = Fallback::default();
        let spec =
            NodeSpec { addresses, port: 53, health_port: 8080, interface: None, probe_mark: 0x10_0000, fallback };
        desired(&spec, interception).rules
    }

    fn raw_rules(interception: &Interception) -> Vec<Rule> {
        rules(interception).into_iter().filter(|rule| rule.hook.is_raw()).collect()
    }

    /// As `iptables -S` writes it (1.8.9, both kinds).
    const LISTING: &str = r#"-P PREROUTING ACCEPT
-P OUTPUT ACCEPT
-N cali-PREROUTING
-A PREROUTING -j cali-PREROUTING
-A PREROUTING -d 10.96.0.10/32 -p udp -m udp --dport 53 -m socket --nowildcard -m recent --rcheck --seconds 1 --hitcount 2 --name nodelocaldns --mask 255.255.255.255 --rdest -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
-A OUTPUT -d fd00::10/128 -p tcp -m tcp --dport 53 -m mark --mark 0x100000/0x100000 -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j CT --notrack
-A OUTPUT -s 10.96.0.10/32 -p udp -m udp --sport 53 -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
-A OUTPUT -s 10.96.0.0/16 -p udp -m udp --sport 53 -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
-A OUTPUT ! -s 10.96.0.10/32 -p udp -m udp --sport 53 -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
-A OUTPUT -s 10.96.0.10/32 -p udp -m udp --sport 53 -m comment --comment "mine" -j NOTRACK
-A OUTPUT -s 10.96.0.10/32 -p udp -m udp --sport 53 -j NOTRACK
"#;

    #[test]
    fn our_rules_are_read_from_a_listing_and_nobody_else_s() {
        let rules: Vec<String> =
            present(IptablesTable::Raw, LISTING).iter().map(|present| present.rule.to_string()).collect();
        assert_eq!(
            rules,
            [
                "raw PREROUTING: udp to 10.96.0.10 port 53 NOTRACK",
                "raw OUTPUT: tcp to fd00::10 port 53 with mark 0x100000 NOTRACK",
                "raw OUTPUT: udp from 10.96.0.10 port 53 NOTRACK",
            ]
        );
        let lease = LeaseUse::Needs { probes: 2, seconds: 1 };
        assert_eq!(present(IptablesTable::Raw, LISTING)[0].narrowing, Narrowing { needs_socket: true, lease });
        assert_eq!(present(IptablesTable::Filter, LISTING), []);
    }

    #[test]
    fn a_rule_is_written_for_the_front_of_its_chain() {
        let rules = raw_rules(&on());
        let rule = rules.last().unwrap();
        assert_eq!(
            specification(rule, Narrowing::of(rule, OptionalMatches::ALL)),
            "-p tcp -d 169.254.20.10 --dport 53 -m socket --nowildcard -m recent --rcheck --seconds 1 --hitcount 2 --name nodelocaldns \
             --mask 255.255.255.255 --rdest -m comment --comment \"NodeLocal DNS Cache: skip conntrack\" -j NOTRACK"
        );
    }

    #[test]
    fn a_rule_for_lo_is_none_for_every_link_and_none_for_another() {
        let comment = "-m comment --comment \"NodeLocal DNS Cache: allow DNS traffic\" -j ACCEPT";
        let line = |link: &str| format!("-A INPUT -s 10.96.0.10/32{link} -p udp -m udp --sport 53 {comment}");
        let hook = |link: &str| present(IptablesTable::Filter, &line(link)).first().map(|present| present.rule.hook);
        assert_eq!(hook(" -i lo"), Some(Hook::FilterInputLoopback));
        assert_eq!(hook(""), Some(Hook::FilterInput));
        for foreign in [" -i eth0", " ! -i lo", " -o lo", " -i lo -i lo"] {
            assert_eq!(hook(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn an_empty_table_lacks_everything_in_the_desired_order() {
        let rules = raw_rules(&on());
        assert_eq!(
            changes(&rules, OptionalMatches::ALL, &[], true),
            IptablesChanges { missing: rules, surplus: vec![] }
        );
    }

    #[test]
    fn a_script_changes_one_table_and_leaves_the_rest_of_it() {
        let on = raw_rules(&on());
        let surplus = present(IptablesTable::Raw, LISTING).remove(2);
        let text = surplus.text.clone();
        let changes = IptablesChanges { missing: vec![on[0]], surplus: vec![surplus] };
        let expected = format!(
            "*raw\n-I OUTPUT 1 {}\n-D OUTPUT {text}\nCOMMIT\n",
            specification(&on[0], Narrowing::of(&on[0], OptionalMatches::ALL))
        );
        assert_eq!(script(IptablesTable::Raw, &changes, OptionalMatches::ALL), expected);
    }

    #[test]
    fn another_agent_s_rules_stay_but_repeated_ones_go() {
        let on = raw_rules(&on());
        let mut present = listed(&on, OptionalMatches::NONE);
        present.push(present[0].clone());
        let changes = changes(&raw_rules(&Interception::default()), OptionalMatches::NONE, &present, false);
        assert_eq!(changes, IptablesChanges { missing: vec![], surplus: vec![present[0].clone()] });
    }

    #[test]
    fn the_reference_s_rules_that_need_neither_socket_nor_lease_are_replaced() {
        let on = raw_rules(&on());
        let changes = changes(&on, OptionalMatches::ALL, &listed(&on, OptionalMatches::NONE), true);
        let narrowed = |rule: &&Rule| Narrowing::of(rule, OptionalMatches::ALL) != Narrowing::default();
        let wanted: Vec<Rule> = on.iter().filter(narrowed).copied().collect();
        // Queries in and out over UDP and TCP and to the health port, and probes over UDP, of two addresses.
        assert_eq!((wanted.len(), &changes.missing), (2 * 6, &wanted));
        let mut surplus: Vec<Rule> = changes.surplus.iter().map(|present| present.rule).collect();
        surplus.sort_by_key(|rule| wanted.iter().position(|wanted| wanted == rule));
        assert_eq!(surplus, wanted);
    }

    #[test]
    fn a_lease_of_another_length_is_replaced() {
        let on = raw_rules(&on());
        let mut present = listed(&on, OptionalMatches::ALL);
        let first = present.iter_mut().find(|present| present.rule.hook == Hook::RawPrerouting).unwrap();
        first.narrowing.lease = LeaseUse::Needs { probes: 1, seconds: 2 };
        let first = first.clone();
        let changes = changes(&on, OptionalMatches::ALL, &present, true);
        assert_eq!(changes, IptablesChanges { missing: vec![first.rule], surplus: vec![first] });
    }

    #[test]
    fn a_rule_with_a_condition_that_ours_of_its_kind_never_have_is_somebody_else_s() {
        let queries = "-p udp -m udp --dport 53";
        let set = "-m recent --set --name nodelocaldns --mask 255.255.255.255 --rdest";
        let comment = "-m comment --comment \"NodeLocal DNS Cache: skip conntrack\" -j NOTRACK";
        for foreign in [
            format!("-A PREROUTING -d 10.96.0.10/32 {queries} {set} {comment}"),
            format!("-A OUTPUT -d 10.96.0.10/32 {queries} -m socket --nowildcard {comment}"),
            format!("-A OUTPUT -d 10.96.0.10/32 {queries} -m mark --mark 0x1/0x1 {set} {set} {comment}"),
        ] {
            assert_eq!(present(IptablesTable::Raw, &foreign), [], "{foreign}");
        }
    }

    /// The rules as a program that appends them one after another would list them.
    fn listed(rules: &[Rule], available: OptionalMatches) -> Vec<PresentRule> {
        let line = |rule: &Rule| {
            let text = specification(rule, Narrowing::of(rule, available));
            format!("-A {} {text}", chain(rule.hook))
        };
        let listing = rules.iter().map(line).collect::<Vec<_>>().join("\n");
        IptablesTable::ALL.iter().flat_map(|table| present(*table, &listing)).collect()
    }

    fn available() -> impl Strategy<Value = OptionalMatches> {
        (any::<bool>(), any::<bool>()).prop_map(|(socket, recent)| OptionalMatches { socket, recent })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(index in 0_usize..44, available in available()) {
            let rules = rules(&on());
            let rule = rules[index % rules.len()];
            let read = listed(&[rule], available);
            prop_assert_eq!(read.len(), 1);
            prop_assert_eq!(read[0].rule, rule);
            prop_assert_eq!(read[0].narrowing, Narrowing::of(&rule, available));
        }

        /// Whatever is there, the changes make it what it should be, and a second look finds nothing to do.
        #[test]
        fn changes_lead_to_what_is_desired(
            picks in prop::collection::vec((0_usize..24, available()), 0..30),
            intercepted in prop::sample::subsequence(on().addresses().collect::<Vec<_>>(), 0..=2),
            available in available(),
        ) {
            let all = raw_rules(&on());
            let listed_one = |(index, with): &(usize, OptionalMatches)| listed(&[all[index % all.len()]], *with);
            let before: Vec<PresentRule> = picks.iter().flat_map(listed_one).collect();
            let desired = raw_rules(&Interception::of(&intercepted));
            let changes_found = changes(&desired, available, &before, true);
            let mut after: Vec<PresentRule> = before;
            after.extend(listed(&changes_found.missing, available));
            for gone in &changes_found.surplus {
                let place = after.iter().position(|present| present == gone).unwrap();
                after.remove(place);
            }
            prop_assert_eq!(changes(&desired, available, &after, true), IptablesChanges::default());
            prop_assert_eq!(after.len(), desired.len());
        }

        #[test]
        fn no_listing_makes_it_panic(text in "(-A|-P|OUTPUT|-p|udp|-s|/|\\PC| |\"|--mark|0x|-m recent|--name){0,60}") {
            let _read = present(IptablesTable::Raw, &text);
        }
    }
}
