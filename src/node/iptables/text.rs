//! Rules as iptables writes them, and what there is to do to those that exist. Pure.

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

    fn comment(self) -> &'static str {
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
    /// Whether it counts only while a socket is bound that would take the packet.
    pub needs_socket: bool,
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

/// Whether `rule` can be narrowed to while a socket is bound: only packets that come in are looked up.
pub(super) fn takes_socket_match(rule: &Rule) -> bool {
    rule.hook == Hook::RawPrerouting
}

/// What iptables-restore reads to make `changes` so: new rules at the front of their chains, then those that go.
pub fn script(table: IptablesTable, changes: &IptablesChanges, with_socket: bool) -> String {
    let missing = changes.missing.iter().map(|rule| {
        let text = specification(rule, with_socket && takes_socket_match(rule));
        format!("-I {} 1 {text}\n", chain(rule.hook))
    });
    let surplus = changes.surplus.iter().map(|present| format!("-D {} {}\n", chain(present.rule.hook), present.text));
    let lines: String = missing.chain(surplus).collect();
    format!("*{}\n{lines}COMMIT\n", table.name())
}

/// What stands after the chain.
fn specification(rule: &Rule, needs_socket: bool) -> String {
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
    if needs_socket {
        // Without --nowildcard, sockets bound to every address would not count.
        text.push_str(" -m socket --nowildcard");
    }
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
    let mut words = before.split_whitespace().chain(after.split_whitespace());
    let (mut protocol, mut end, mut port, mut mark, mut target) = (None, None, None, None, None);
    let mut needs_socket = false;
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
            "--nowildcard" => needs_socket = true,
            "-i" | "-o" => {
                hook = match (hook, word, words.next()?) {
                    (Hook::FilterInput, "-i", "lo") => Hook::FilterInputLoopback,
                    (Hook::FilterOutput, "-o", "lo") => Hook::FilterOutputLoopback,
                    _ => return None,
                }
            }
            "-m" => match words.next()? {
                "udp" | "tcp" | "mark" | "socket" => {}
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
    let is_whole = port_end == end && target == Some(wanted_target);
    let rule = Rule { hook, protocol: protocol?, end, address, port, mark };
    is_whole.then(|| PresentRule { rule, needs_socket, text: text.to_owned() })
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
/// need are surplus only when `is_alone`; a rule that is there several times is so in any case.
pub fn changes(desired: &[Rule], with_socket: bool, present: &[PresentRule], is_alone: bool) -> IptablesChanges {
    let wants = |rule: &Rule| with_socket && takes_socket_match(rule);
    let is_it = |rule: &Rule, present: &PresentRule| present.rule == *rule && present.needs_socket == wants(rule);
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
-A PREROUTING -d 10.96.0.10/32 -p udp -m udp --dport 53 -m socket --nowildcard -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
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
        assert!(present(IptablesTable::Raw, LISTING)[0].needs_socket);
        assert_eq!(present(IptablesTable::Filter, LISTING), []);
    }

    #[test]
    fn a_rule_is_written_for_the_front_of_its_chain() {
        let rules = raw_rules(&on());
        let rule = rules.last().unwrap();
        assert_eq!(
            specification(rule, true),
            "-p tcp -d 169.254.20.10 --dport 53 -m socket --nowildcard -m comment --comment \"NodeLocal DNS Cache: skip conntrack\" \
             -j NOTRACK"
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
        assert_eq!(changes(&rules, true, &[], true), IptablesChanges { missing: rules, surplus: vec![] });
    }

    #[test]
    fn a_script_changes_one_table_and_leaves_the_rest_of_it() {
        let on = raw_rules(&on());
        let surplus = present(IptablesTable::Raw, LISTING).remove(2);
        let text = surplus.text.clone();
        let changes = IptablesChanges { missing: vec![on[0]], surplus: vec![surplus] };
        let expected = format!("*raw\n-I OUTPUT 1 {}\n-D OUTPUT {text}\nCOMMIT\n", specification(&on[0], false));
        assert_eq!(script(IptablesTable::Raw, &changes, true), expected);
    }

    #[test]
    fn another_agent_s_rules_stay_but_repeated_ones_go() {
        let on = raw_rules(&on());
        let mut present = listed(&on, false);
        present.push(present[0].clone());
        let changes = changes(&raw_rules(&Interception::default()), false, &present, false);
        assert_eq!(changes, IptablesChanges { missing: vec![], surplus: vec![present[0].clone()] });
    }

    #[test]
    fn the_reference_s_rule_without_the_socket_match_is_replaced() {
        let on = raw_rules(&on());
        let changes = changes(&on, true, &listed(&on, false), true);
        assert_eq!(changes.missing.len(), 4);
        assert!(changes.missing.iter().all(takes_socket_match));
        assert_eq!(changes.surplus.iter().map(|present| present.rule).collect::<Vec<_>>(), changes.missing);
    }

    /// The rules as a program that appends them one after another would list them.
    fn listed(rules: &[Rule], with_socket: bool) -> Vec<PresentRule> {
        let line = |rule: &Rule| {
            let text = specification(rule, with_socket && takes_socket_match(rule));
            format!("-A {} {text}", chain(rule.hook))
        };
        let listing = rules.iter().map(line).collect::<Vec<_>>().join("\n");
        IptablesTable::ALL.iter().flat_map(|table| present(*table, &listing)).collect()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(index in 0_usize..44, with_socket: bool) {
            let rules = rules(&on());
            let rule = rules[index % rules.len()];
            let read = listed(&[rule], with_socket);
            prop_assert_eq!(read.len(), 1);
            prop_assert_eq!(read[0].rule, rule);
            prop_assert_eq!(read[0].needs_socket, with_socket && takes_socket_match(&rule));
        }

        /// Whatever is there, the changes make it what it should be, and a second look finds nothing to do.
        #[test]
        fn changes_lead_to_what_is_desired(
            picks in prop::collection::vec((0_usize..24, any::<bool>()), 0..30),
            intercepted in prop::sample::subsequence(on().addresses().collect::<Vec<_>>(), 0..=2),
            with_socket: bool,
        ) {
            let all = raw_rules(&on());
            let listed_one = |(index, socket): &(usize, bool)| listed(&[all[index % all.len()]], *socket);
            let before: Vec<PresentRule> = picks.iter().flat_map(listed_one).collect();
            let desired = raw_rules(&Interception::of(&intercepted));
            let changes_found = changes(&desired, with_socket, &before, true);
            let mut after: Vec<PresentRule> = before;
            after.extend(listed(&changes_found.missing, with_socket));
            for gone in &changes_found.surplus {
                let place = after.iter().position(|present| present == gone).unwrap();
                after.remove(place);
            }
            prop_assert_eq!(changes(&desired, with_socket, &after, true), IptablesChanges::default());
            prop_assert_eq!(after.len(), desired.len());
        }

        #[test]
        fn no_listing_makes_it_panic(text in "(-A|-P|OUTPUT|-p|udp|-s|/|\\PC| |\"|--mark|0x){0,60}") {
            let _read = present(IptablesTable::Raw, &text);
        }
    }
}
