//! The rules that a packet meets in a built-in chain of iptables before the rule that is for it. Pure.

use super::text::{IptablesTable, chain, present};
use crate::node::desired::{PacketEnd, Rule, TransportProtocol};
use ipnet::IpNet;
use std::collections::{HashMap, HashSet};

/// How deep chains may jump into each other before nothing more is said of them.
const DEPTH: usize = 8;

/// Somebody's rule that comes first and may decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrecedingRule {
    /// The rule as the listing has it.
    pub line: String,
    /// Its target, such as `ACCEPT`.
    pub target: String,
    /// Whether it takes every packet of ours, as far as its conditions tell; else it may.
    pub is_certain: bool,
}

/// The rules in `listing`, the output of `-S` for `table`, that a packet of `rule` meets before `rule` and that would
/// end its way through the chain, or have it tracked. All of the chain's, if `rule` is not there. Each once, however
/// often it is met; the work is linear in the listing.
pub fn preceding_rules(table: IptablesTable, listing: &str, rule: &Rule) -> Vec<PrecedingRule> {
    let mut chains: HashMap<&str, Vec<(&str, &str)>> = HashMap::new();
    for line in listing.lines() {
        if let Some(name) = line.strip_prefix("-N ") {
            chains.entry(name).or_default();
        } else if let Some((name, conditions)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) {
            chains.entry(name).or_default().push((line, conditions));
        }
    }
    let mut walk =
        PrecedingWalk { table, rule, chains, walked: HashSet::new(), told: HashSet::new(), found: Vec::new() };
    walk.follow(chain(rule.hook), true, DEPTH);
    walk.found
}

struct PrecedingWalk<'a> {
    table: IptablesTable,
    rule: &'a Rule,
    /// Line and conditions of each rule, by chain.
    chains: HashMap<&'a str, Vec<(&'a str, &'a str)>>,
    /// What was followed: chain, whether all packets come there, depth.
    walked: HashSet<(String, bool, usize)>,
    told: HashSet<(&'a str, bool)>,
    found: Vec<PrecedingRule>,
}

impl PrecedingWalk<'_> {
    /// Follows a chain up to its end or the rule.
    fn follow(&mut self, chain: &str, is_certain: bool, depth: usize) {
        for (line, conditions) in self.chains.get(chain).cloned().unwrap_or_default() {
            if present(self.table, line).iter().any(|present| present.rule == *self.rule) {
                return;
            }
            let Some((matches, target)) = applies(conditions, self.rule) else { continue };
            let is_certain = is_certain && matches;
            let decides = match target.as_str() {
                // In a chain of somebody's it only goes back.
                "RETURN" => depth == DEPTH,
                "ACCEPT" | "DROP" | "REJECT" | "CT" | "QUEUE" | "NFQUEUE" => true,
                _ => false,
            };
            if decides && self.told.insert((line, is_certain)) {
                self.found.push(PrecedingRule { line: line.to_owned(), target, is_certain });
            } else if !decides && depth > 0 && self.walked.insert((target.clone(), is_certain, depth)) {
                self.follow(&target, is_certain, depth - 1);
            }
        }
    }
}

/// None if no packet of `rule` can match; else whether all do, and the target. Conditions that are not known may match.
fn applies(conditions: &str, rule: &Rule) -> Option<(bool, String)> {
    let mut words = conditions.split_whitespace();
    let (mut is_certain, mut is_negated, mut target) = (true, false, None);
    while let Some(word) = words.next() {
        let matches = match word {
            "!" => {
                is_negated = true;
                continue;
            }
            "-p" => Some(match (words.next()?, rule.protocol) {
                ("udp", protocol) => protocol == TransportProtocol::Udp,
                ("tcp", protocol) => protocol == TransportProtocol::Tcp,
                ("all", _) => true,
                _ => false,
            }),
            "-d" | "-s" => {
                let network: IpNet = words.next()?.parse().ok()?;
                is_end(word, "-s", rule).then(|| network.contains(&rule.address))
            }
            "--dport" | "--sport" => {
                let text = words.next()?;
                let (first, last) = text.split_once(':').unwrap_or((text, text));
                let (first, last): (u16, u16) = (first.parse().unwrap_or(0), last.parse().unwrap_or(u16::MAX));
                is_end(word, "--sport", rule).then(|| (first..=last).contains(&rule.port))
            }
            "-m" => match words.next()? {
                "udp" | "tcp" | "comment" => continue,
                _ => None,
            },
            "-j" | "-g" => {
                target = Some(words.next()?.to_owned());
                continue;
            }
            "--notrack" if target.as_deref() == Some("CT") => return None,
            "--comment" => {
                skip_quoted(&mut words);
                continue;
            }
            _ if target.is_some() => continue,
            // An argument of a condition that is not known.
            _ => None,
        };
        match matches {
            Some(matches) if matches == is_negated => return None,
            Some(_) => {}
            None => is_certain = false,
        }
        is_negated = false;
    }
    Some((is_certain, target?))
}

/// Whether the condition is about the end of the packet that has our address.
fn is_end(word: &str, source: &str, rule: &Rule) -> bool {
    (word == source) == (rule.end == PacketEnd::Source)
}

fn skip_quoted<'a>(words: &mut impl Iterator<Item = &'a str>) {
    let Some(first) = words.next() else { return };
    if first.starts_with('"') && (first.len() == 1 || !first.ends_with('"')) {
        for word in words {
            if word.ends_with('"') && !word.ends_with("\\\"") {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::desired::Hook;

    const RULE: Rule = Rule {
        hook: Hook::RawPrerouting,
        protocol: TransportProtocol::Udp,
        end: PacketEnd::Destination,
        address: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10)),
        port: 53,
        mark: None,
    };
    const OURS: &str = "-A PREROUTING -d 10.96.0.10/32 -p udp -m udp --dport 53 -m comment --comment \
                        \"NodeLocal DNS Cache: skip conntrack\" -j NOTRACK";

    fn targets(lines: &str) -> Vec<(String, bool)> {
        let listing = format!("-P PREROUTING ACCEPT\n{lines}\n{OURS}\n-A PREROUTING -j ACCEPT\n");
        preceding_rules(IptablesTable::Raw, &listing, &RULE)
            .into_iter()
            .map(|preceding_rules| (preceding_rules.target, preceding_rules.is_certain))
            .collect()
    }

    #[test]
    fn what_comes_after_ours_does_not_matter() {
        assert_eq!(targets(""), []);
    }

    #[test]
    fn a_rule_that_takes_our_packets_first_is_found_and_one_for_others_is_not() {
        let certain = |target: &str| vec![(target.to_owned(), true)];
        assert_eq!(targets("-A PREROUTING -j ACCEPT"), certain("ACCEPT"));
        assert_eq!(targets("-A PREROUTING -d 10.96.0.0/12 -p udp -m udp --dport 53 -j CT --zone 3"), certain("CT"));
        assert_eq!(targets("-A PREROUTING ! -p tcp -m comment --comment \"a -j DROP b\" -j ACCEPT"), certain("ACCEPT"));
        for others in [
            "-A OUTPUT -j ACCEPT",
            "-A PREROUTING -p tcp -j ACCEPT",
            "-A PREROUTING -d 10.96.0.11/32 -j ACCEPT",
            "-A PREROUTING ! -d 10.96.0.0/12 -j ACCEPT",
            "-A PREROUTING -p udp -m udp --dport 54:60 -j ACCEPT",
            "-A PREROUTING -j CT --notrack",
            "-A PREROUTING -j MARK --set-xmark 0x1/0x1",
        ] {
            assert_eq!(targets(others), [], "{others}");
        }
    }

    #[test]
    fn a_condition_that_cannot_be_told_makes_it_a_perhaps() {
        assert_eq!(targets("-A PREROUTING -i eth0 -j DROP"), [("DROP".to_owned(), false)]);
        assert_eq!(targets("-A PREROUTING -s 10.244.0.0/16 -j ACCEPT"), [("ACCEPT".to_owned(), false)]);
        assert_eq!(targets("-A PREROUTING -m set --match-set x src -j ACCEPT"), [("ACCEPT".to_owned(), false)]);
    }

    #[test]
    fn chains_that_are_jumped_to_are_followed_and_returning_from_them_decides_nothing() {
        let lines = "-N mine\n-A PREROUTING -i cali+ -j mine\n-A mine -p tcp -j DROP\n-A mine -p udp -j ACCEPT\n-A mine -j RETURN";
        assert_eq!(targets(lines), [("ACCEPT".to_owned(), false)]);
        assert_eq!(targets("-N loop\n-A loop -j loop\n-A PREROUTING -j loop"), [], "it ends");
    }

    #[test]
    fn chains_that_jump_into_each_other_many_times_are_followed_once() {
        let jumps = ["-A one -j two\n-A two -j one\n"; 50].concat();
        let lines = format!("-N one\n-N two\n-A PREROUTING -j one\n{jumps}-A two -p udp -j ACCEPT");
        assert_eq!(targets(&lines), [("ACCEPT".to_owned(), true)]);
    }
}
