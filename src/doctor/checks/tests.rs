use super::*;
use crate::chain::Transport;
use crate::doctor::diagnosis::{Check, CheckStatus, Diagnosis};
use crate::doctor::findings::{HttpPage, ListeningSocket, Privileges, QueryPath, QueryReply, SocketHolder, TestQuery};
use crate::message::{Name, Rcode};
use crate::node::{
    self, AddressRewrite, ArrivingClient, Backend, BaseChain, BaseHook, ChainRule, Chains, ConnectionTable, Effect,
    Error, Expression, Fallback, Hook, Interception, IptablesTable, LinkView, ListedChain, ListedRule, Listing,
    NetfilterHook, NodeSpec, PacketEnd, Redirection, Ruleset, RulesetTable, Survey, TableFamily, TrackedConnection,
    TransportProtocol, desired,
};
use std::io;
use std::net::{IpAddr, SocketAddr};

const LOCAL: &str = "169.254.20.10";
const CLUSTER_IP: &str = "10.96.0.10";
const WATCHDOG: i32 = 100;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn expected() -> Expectation {
    Expectation {
        spec: NodeSpec {
            addresses: vec![ip(LOCAL), ip(CLUSTER_IP)],
            port: 53,
            health_port: 8080,
            interface: Some("nodelocaldns".to_owned()),
            probe_mark: 0x10_0000,
            fallback: Fallback::default(),
        },
        backend: Backend::Auto,
        metrics_address: Some("127.0.0.1:9353".parse().unwrap()),
        name: Name::parse("kubernetes.default.svc.cluster.local.").unwrap(),
    }
}

fn agents() -> Vec<AgentProcess> {
    let watchdog = AgentProcess {
        pid: WATCHDOG,
        program: "nodelocaldns".to_owned(),
        arguments: vec![],
        is_stopped: false,
        is_server: false,
        port_ids: vec![7],
    };
    vec![watchdog.clone(), AgentProcess { pid: 101, is_server: true, port_ids: vec![], ..watchdog }]
}

fn on() -> Interception {
    Interception::of(&expected().spec.addresses)
}

/// The agent's nftables with the rules of `interception`, and its fallback.
fn ruleset(interception: &Interception) -> Ruleset {
    let chain = |name: &str, at: NetfilterHook, hook: Hook| {
        let rules = desired(&expected().spec, interception).rules.into_iter().filter(|rule| rule.hook == hook);
        ListedChain {
            family: TableFamily::Inet,
            table: "nodelocaldns".to_owned(),
            name: name.to_owned(),
            base: Some(BaseHook { at, priority: -300, drops: false }),
            rules: rules
                .map(|rule| ListedRule { rule: Some(rule), packets: Some(2), ..ListedRule::default() })
                .collect(),
        }
    };
    let table = |name: &str, owner| RulesetTable { family: TableFamily::Inet, name: name.to_owned(), owner };
    let mut chains = vec![
        chain("prerouting", NetfilterHook::Prerouting, Hook::RawPrerouting),
        chain("output", NetfilterHook::Output, Hook::RawOutput),
    ];
    chains.extend(fallback_chains());
    Ruleset { tables: vec![table("nodelocaldns", Some(7)), table("nodelocaldns-fallback", None)], chains }
}

/// Those of the fallback that write addresses.
fn fallback_chains() -> [ListedChain; 4] {
    let (local, upstream) = (ip(LOCAL), ip("10.96.0.11"));
    let query = (PacketEnd::Destination, local, upstream);
    let answer = (PacketEnd::Source, upstream, local);
    [
        (NetfilterHook::Prerouting, query),
        (NetfilterHook::Output, query),
        (NetfilterHook::Postrouting, answer),
        (NetfilterHook::Input, answer),
    ]
    .map(|(at, (end, from, to))| {
        let rewrite = |protocol| ListedRule {
            effects: vec![Effect::Rewrite],
            rewrite: Some(AddressRewrite { end, protocol, from, to, port: 53 }),
            ..ListedRule::default()
        };
        ListedChain {
            family: TableFamily::Inet,
            table: "nodelocaldns-fallback".to_owned(),
            name: format!("{at:?}"),
            base: Some(BaseHook { at, priority: -299, drops: false }),
            rules: [TransportProtocol::Udp, TransportProtocol::Tcp].map(rewrite).into(),
        }
    })
}

fn listing(table: IptablesTable, text: &str) -> Listing {
    Listing { program: "iptables-nft", is_ipv6: false, table, text: text.to_owned() }
}

fn listener(transport: Transport, address: &str, pid: i32, program: &str) -> ListeningSocket {
    let holders = vec![SocketHolder { pid, program: program.to_owned() }];
    ListeningSocket { transport, address: address.parse().unwrap(), holders }
}

fn healthy() -> Findings {
    let addresses = [LOCAL, CLUSTER_IP];
    let transports = [Transport::Udp, Transport::Tcp];
    let each = || addresses.iter().flat_map(|address| transports.map(|transport| (*address, transport)));
    let test_queries = each().flat_map(|(address, transport)| {
        [
            (QueryPath::Client, QueryReply::Ours(9)),
            (QueryPath::Marked, QueryReply::Ours(9)),
            (QueryPath::Name, QueryReply::Other(Rcode::NOERROR)),
        ]
        .map(|(way, reply)| TestQuery { address: ip(address), transport, way, replies: vec![reply; 2] })
    });
    let link = LinkView {
        index: 3,
        kind: Some("dummy".to_owned()),
        name: "nodelocaldns".to_owned(),
        alias: Some("made by nodelocaldns as nodelocaldns".to_owned()),
        is_up: true,
        addresses: addresses.map(|address| (ip(address), 32)).to_vec(),
    };
    let page: HttpPage = Ok((200, "# TYPE\nnodelocaldns_watchdog_interception 1\n".to_owned()));
    Findings {
        agents: agents(),
        elsewhere: vec![],
        privileges: Privileges { is_root: true, has_net_admin: true, has_net_raw: true, is_in_a_user_namespace: false },
        node: Survey {
            link: Ok(Some(link)),
            ipv6_disabled_by: vec![],
            ipvs_link: None,
            has_cilium: false,
            nftables: Ok(ruleset(&on())),
            firewall: Ok(Chains::default()),
            iptables: Ok(vec![
                listing(IptablesTable::Raw, "-P PREROUTING ACCEPT\n-P OUTPUT ACCEPT\n"),
                listing(IptablesTable::Filter, "-P INPUT ACCEPT\n-P OUTPUT ACCEPT\n"),
            ]),
            legacy_tables: vec![],
            legacy_filter: Ok(()),
            has_legacy_kubernetes_chains: None,
            blocked_clients: vec![],
            connections: Ok(vec![]),
            connection_table: Some(ConnectionTable { count: 900, max: 262_144, dropped: 0 }),
            has_agent: true,
        },
        listeners: Ok(each()
            .map(|(address, transport)| listener(transport, &format!("{address}:53"), 101, "nodelocaldns"))
            .chain([listener(Transport::Tcp, &format!("{LOCAL}:8080"), 101, "nodelocaldns")])
            .collect()),
        test_queries: test_queries.collect(),
        health: vec![(format!("{LOCAL}:8080").parse().unwrap(), Ok((200, "OK".to_owned())))],
        metrics: Some(("127.0.0.1:9353".parse().unwrap(), page)),
    }
}

fn diagnose_with(change: impl FnOnce(&mut Findings)) -> Diagnosis {
    let mut findings = healthy();
    change(&mut findings);
    diagnose(&expected(), &findings)
}

/// The check of this name, which must have come out so and be the only one that did, or worse, but for those named.
fn only<'a>(diagnosis: &'a Diagnosis, verdict: CheckStatus, names: &[&str]) -> &'a Check {
    let found: Vec<&Check> = diagnosis.checks.iter().filter(|check| check.verdict != CheckStatus::Ok).collect();
    let found_names: Vec<&str> = found.iter().map(|check| check.name).collect();
    assert_eq!(found_names, names, "{diagnosis}");
    assert_eq!(found[0].verdict, verdict, "{diagnosis}");
    assert!(!found[0].advice.is_empty() || names.len() > 1, "no advice: {diagnosis}");
    found[0]
}

fn set_replies(findings: &mut Findings, way: QueryPath, address: &str, replies: &[QueryReply]) {
    let test_queries = findings
        .test_queries
        .iter_mut()
        .filter(|test_queries| test_queries.way == way && test_queries.address == ip(address));
    test_queries.for_each(|test_queries| test_queries.replies = replies.to_vec());
}

fn denied(what: &'static str) -> Error {
    Error::Listing { what, source: io::Error::from_raw_os_error(libc::EPERM) }
}

#[test]
fn a_healthy_node_has_nothing_to_complain_of() {
    let diagnosis = diagnose_with(|_| {});
    assert_eq!((diagnosis.verdict, diagnosis.intercepted), (CheckStatus::Ok, Some(true)), "{diagnosis}");
    assert!(diagnosis.checks.iter().all(|check| !check.seen.is_empty() && check.advice.is_empty()), "{diagnosis}");
    assert_eq!(diagnosis.verdict.exit_status(), 0);
}

#[test]
fn every_check_has_a_name_of_its_own_and_the_readme_lists_it() {
    let readme = include_str!("../README.md");
    let names: Vec<&str> = diagnose_with(|_| {}).checks.iter().map(|check| check.name).collect();
    for name in &names {
        assert!(readme.contains(&format!("| `{name}` |")), "{name} is not in the README");
        assert_eq!(names.iter().filter(|other| *other == name).count(), 1);
    }
}

#[test]
fn a_link_that_is_down_is_a_problem_of_the_link() {
    let diagnosis = diagnose_with(|findings| {
        if let Ok(Some(link)) = &mut findings.node.link {
            link.is_up = false;
        }
    });
    assert!(only(&diagnosis, CheckStatus::Problem, &["link"]).seen[0].contains("is down"));
}

#[test]
fn a_missing_address_is_named() {
    let diagnosis = diagnose_with(|findings| {
        if let Ok(Some(link)) = &mut findings.node.link {
            link.addresses.remove(1);
        }
    });
    let check = only(&diagnosis, CheckStatus::Problem, &["addresses"]);
    assert!(check.seen[1].contains(CLUSTER_IP) && !check.seen[1].contains(LOCAL), "{diagnosis}");
}

#[test]
fn without_its_link_an_agent_that_is_not_there_is_to_be_started() {
    let diagnosis = diagnose_with(|findings| {
        findings.agents.clear();
        findings.node.has_agent = false;
        findings.node.link = Ok(None);
        findings.node.nftables = Ok(Ruleset::default());
    });
    assert_eq!((diagnosis.verdict, diagnosis.intercepted), (CheckStatus::Problem, Some(false)));
    for name in ["agent", "link", "addresses", "rules", "pod_path"] {
        assert_eq!(diagnosis.check(name).unwrap().verdict, CheckStatus::Problem, "{name}: {diagnosis}");
    }
    assert_eq!(diagnosis.check("link").unwrap().advice, ["start the agent, which makes it"]);
}

#[test]
fn rules_that_only_let_probes_through_are_a_withdrawn_interception() {
    let diagnosis = diagnose_with(|findings| findings.node.nftables = Ok(ruleset(&Interception::default())));
    let check = only(&diagnosis, CheckStatus::Problem, &["rules", "pod_path"]);
    assert!(check.seen.last().unwrap().contains("withdrawn"), "{diagnosis}");
    assert_eq!(diagnosis.intercepted, Some(false));
}

#[test]
fn clients_whose_packets_do_not_arrive_are_a_problem_and_named() {
    let client = ArrivingClient { interface: u32::MAX, address: ip("10.244.1.2") };
    let diagnosis = diagnose_with(|findings| findings.node.blocked_clients = vec![client]);
    let check = only(&diagnosis, CheckStatus::Problem, &["pod_path"]);
    assert!(check.seen[0].contains("10.244.1.2") && check.advice[0].contains("rp_filter"), "{diagnosis}");
}

#[test]
fn an_address_that_is_not_intercepted_is_named_and_the_others_are_not() {
    let addresses = expected().spec.addresses;
    let (first, second) = (addresses[0], addresses[1]);
    let page = format!(
        "nodelocaldns_watchdog_interception 0\nnodelocaldns_watchdog_intercepted{{address=\"{first}\"}} 1\n\
         nodelocaldns_watchdog_intercepted{{address=\"{second}\"}} 0\n"
    );
    let diagnosis = diagnose_with(|findings| {
        findings.node.nftables = Ok(ruleset(&Interception::of(&[first])));
        findings.metrics.as_mut().unwrap().1 = Ok((200, page));
    });
    only(&diagnosis, CheckStatus::Problem, &["rules", "pod_path", "metrics"]);
    for check in ["rules", "pod_path", "metrics"] {
        let said = diagnosis.check(check).unwrap().seen.join("\n");
        assert!(said.contains(&second.to_string()) && !said.contains(&first.to_string()), "{check}: {diagnosis}");
    }
    assert_eq!(diagnosis.intercepted, Some(false));
}

#[test]
fn a_single_rule_that_is_missing_is_named() {
    let diagnosis = diagnose_with(|findings| {
        let Ok(ruleset) = &mut findings.node.nftables else { return };
        ruleset.chains[1].rules.remove(0);
    });
    let check = only(&diagnosis, CheckStatus::Problem, &["rules"]);
    assert!(check.seen[1].contains("raw OUTPUT: udp from 169.254.20.10"), "{diagnosis}");
}

#[test]
fn rules_in_iptables_do_as_well_unless_nobody_is_there_to_answer() {
    let lines: Vec<String> = desired(&expected().spec, &on())
        .rules
        .iter()
        .filter(|rule| rule.hook.is_raw())
        .map(|rule| {
            let chain = if rule.hook == Hook::RawPrerouting { "PREROUTING" } else { "OUTPUT" };
            let (end, port) = if rule.end == crate::node::PacketEnd::Source { ("-s", "--sport") } else { ("-d", "--dport") };
            let protocol = if rule.protocol == TransportProtocol::Udp { "udp" } else { "tcp" };
            let mark = rule.mark.map(|mark| format!("-m mark --mark {mark:#x}/{mark:#x} ")).unwrap_or_default();
            let is_query = rule.end == crate::node::PacketEnd::Destination && rule.mark.is_none();
            let lease = if is_query { "LEASE" } else { "" };
            format!(
                "-A {chain} {end} {}/32 -p {protocol} -m {protocol} {port} {} {mark}{lease}-m comment --comment \"NodeLocal DNS Cache: skip \
                 conntrack\" -j NOTRACK",
                rule.address, rule.port
            )
        })
        .collect();
    let with_lease = |findings: &mut Findings, first: &str, lease: &str| {
        findings.node.nftables =
            Ok(Ruleset { tables: ruleset(&on()).tables.split_off(1), chains: fallback_chains().into() });
        let raw = format!("{first}\n{}\n", lines.join("\n").replace("LEASE", lease));
        findings.node.iptables =
            Ok(vec![listing(IptablesTable::Raw, &raw), listing(IptablesTable::Filter, "-P INPUT ACCEPT\n")]);
    };
    let lease = "-m recent --rcheck --seconds 1 --hitcount 2 --name nodelocaldns --mask 255.255.255.255 --rdest ";
    let with_iptables = |findings: &mut Findings, first: &str| with_lease(findings, first, lease);
    let diagnosis = diagnose_with(|findings| with_iptables(findings, ""));
    assert_eq!((diagnosis.verdict, diagnosis.intercepted), (CheckStatus::Ok, Some(true)), "{diagnosis}");

    let diagnosis = diagnose_with(|findings| with_iptables(findings, "-A PREROUTING -p udp -j ACCEPT"));
    let check = only(&diagnosis, CheckStatus::Problem, &["rule_order"]);
    assert!(
        check.seen[0].contains("-A PREROUTING -p udp -j ACCEPT") && check.seen[0].contains("past our rules"),
        "{diagnosis}"
    );

    let diagnosis = diagnose_with(|findings| with_iptables(findings, "-A PREROUTING -i cali+ -j ACCEPT"));
    only(&diagnosis, CheckStatus::Warning, &["rule_order"]);

    let without_lease = diagnose_with(|findings| with_lease(findings, "", ""));
    let check = only(&without_lease, CheckStatus::Warning, &["rules"]);
    assert!(check.advice[0].contains("xt_recent"), "{without_lease}");

    for (lease, verdict) in [("", CheckStatus::Problem), (lease, CheckStatus::Warning)] {
        let diagnosis = diagnose_with(|findings| {
            with_lease(findings, "", lease);
            findings.agents.clear();
            findings.node.has_agent = false;
        });
        let check = diagnosis.check("rules").unwrap();
        assert_eq!(check.verdict, verdict, "{diagnosis}");
        assert!(check.advice[0].contains("teardown"), "{diagnosis}");
    }
}

#[test]
fn in_iptables_an_accept_does_not_matter_to_rules_in_nftables_but_a_zone_does() {
    let with = |line: &str| {
        let text = format!("-P PREROUTING ACCEPT\n-A PREROUTING {line}\n");
        diagnose_with(|findings| {
            if let Ok(listings) = &mut findings.node.iptables {
                listings[0] = listing(IptablesTable::Raw, &text);
            }
        })
    };
    assert_eq!(with("-j ACCEPT").verdict, CheckStatus::Ok);
    only(&with("-p udp -j CT --zone 1"), CheckStatus::Problem, &["rule_order"]);
    assert_eq!(with("-d 192.0.2.0/24 -p udp -j CT --zone 1").verdict, CheckStatus::Ok);
}

#[test]
fn somebodys_chain_that_drops_or_tracks_before_us_is_named() {
    for (effect, word) in [
        (Effect::Drop, "drops"),
        (Effect::Track, "zone"),
        (Effect::Rewrite, "writes"),
        (Effect::Jump, "not looked into"),
    ] {
        let diagnosis = diagnose_with(|findings| {
            let Ok(ruleset) = &mut findings.node.nftables else { return };
            ruleset.chains.push(ListedChain {
                family: TableFamily::Ip,
                table: "guard".to_owned(),
                name: "early".to_owned(),
                base: Some(BaseHook { at: NetfilterHook::Prerouting, priority: -310, drops: false }),
                rules: vec![ListedRule { effects: vec![effect], ..ListedRule::default() }],
            });
        });
        let check = only(&diagnosis, CheckStatus::Warning, &["rule_order"]);
        assert!(check.seen[0].contains("ip guard early") && check.seen[0].contains(word), "{diagnosis}");
    }
}

#[test]
fn a_firewall_that_drops_by_default_needs_our_accept_rules() {
    let with = |text: &str| {
        diagnose_with(|findings| {
            if let Ok(listings) = &mut findings.node.iptables {
                listings[1] = Listing { program: "iptables-legacy", ..listing(IptablesTable::Filter, text) };
            }
        })
    };
    let check = with("-P INPUT DROP\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n");
    let check = only(&check, CheckStatus::Problem, &["filter"]);
    assert!(check.seen[0].contains("policy is DROP") && check.advice[0].contains("iptables"), "{check:?}");
    assert_eq!(with("-P INPUT DROP\n-A INPUT -j ACCEPT\n").verdict, CheckStatus::Ok);
    only(
        &with("-P INPUT ACCEPT\n-A INPUT -p udp -m udp --dport 53 -j REJECT --reject-with icmp-port-unreachable\n"),
        CheckStatus::Problem,
        &["filter"],
    );
    assert_eq!(with("-P INPUT ACCEPT\n-A INPUT -m conntrack --ctstate INVALID -j DROP\n").verdict, CheckStatus::Ok);
}

#[test]
fn without_an_iptables_program_what_the_kernel_tells_may_do() {
    let missing = || Err(Error::IptablesMissing { program: "iptables" });
    assert_eq!(diagnose_with(|findings| findings.node.iptables = missing()).verdict, CheckStatus::Ok);
    let with_legacy = |read: Result<(), Error>| {
        diagnose_with(|findings| {
            findings.node.iptables = missing();
            findings.node.legacy_tables = vec!["filter".to_owned()];
            findings.node.legacy_filter = read;
        })
    };
    let unread = Err(Error::LegacyUnread { source: std::io::Error::from_raw_os_error(libc::EPERM) });
    assert_eq!(only(&with_legacy(unread), CheckStatus::Unknown, &["filter"]).verdict.exit_status(), 3);
    let diagnosis = diagnose_with(|findings| {
        findings.node.iptables = missing();
        findings.node.legacy_tables = vec!["raw".to_owned()];
    });
    assert_eq!(only(&diagnosis, CheckStatus::Unknown, &["rule_order"]).verdict.exit_status(), 3);
}

#[test]
fn a_legacy_filter_table_that_no_program_lists_is_judged_by_what_the_kernel_tells() {
    let with = |read: Result<(), Error>| {
        diagnose_with(|findings| {
            findings.node.iptables = Err(Error::IptablesMissing { program: "iptables" });
            findings.node.legacy_tables = vec!["filter".to_owned()];
            findings.node.legacy_filter = read;
        })
    };
    assert_eq!(with(Ok(())).verdict, CheckStatus::Ok);
    let diagnosis = with(Err(Error::LegacyFilter));
    let check = only(&diagnosis, CheckStatus::Warning, &["filter"]);
    assert!(check.seen[0].contains("may drop DNS packets") && !check.advice.is_empty(), "{check:?}");
}

/// A table of somebody's with one chain at the hook `input`, of which `expressions` are the only rule.
fn firewall(drops: bool, expressions: Vec<Expression>) -> Chains {
    let name = node::ChainName { family: TableFamily::Inet, table: "wall".to_owned(), name: "incoming".to_owned() };
    let base = BaseHook { at: NetfilterHook::Input, priority: 10, drops };
    let mut chains = Chains::default();
    chains.bases.push(BaseChain { name: name.clone(), base });
    chains.rules.insert(name, vec![ChainRule { handle: 7, expressions }]);
    chains
}

#[test]
fn a_firewall_that_drops_is_named_whether_or_not_there_is_a_program() {
    for has_programs in [true, false] {
        for (chains, by) in [
            (firewall(true, vec![]), "the policy of nftables chain inet wall incoming drops"),
            (
                firewall(false, vec![Expression::Decide(node::NftVerdict::Drop)]),
                "the rule with handle 7 of nftables chain inet wall incoming drops",
            ),
        ] {
            let diagnosis = diagnose_with(|findings| {
                findings.node.firewall = Ok(chains);
                if !has_programs {
                    findings.node.iptables = Err(Error::IptablesMissing { program: "iptables" });
                }
            });
            let check = only(&diagnosis, CheckStatus::Problem, &["filter"]);
            assert!(
                check.seen[0].contains(by) && check.seen[0].contains(&format!("queries to {LOCAL} port 53")),
                "{diagnosis}"
            );
            assert_eq!(diagnosis.verdict.exit_status(), 1);
        }
    }
}

#[test]
fn a_firewall_that_may_drop_is_a_warning_and_one_that_accepts_nothing() {
    let rule = |verdict| vec![Expression::May { name: "limit".to_owned() }, Expression::Decide(verdict)];
    let diagnosis =
        diagnose_with(|findings| findings.node.firewall = Ok(firewall(false, rule(node::NftVerdict::Drop))));
    let check = only(&diagnosis, CheckStatus::Warning, &["filter"]);
    assert!(check.seen[0].contains("may drop"), "{diagnosis}");
    let accepting = firewall(true, vec![Expression::Decide(node::NftVerdict::Accept)]);
    assert_eq!(diagnose_with(|findings| findings.node.firewall = Ok(accepting)).verdict, CheckStatus::Ok);
}

#[test]
fn an_address_that_nobody_listens_on_is_named_and_so_is_somebody_else() {
    let without = |findings: &mut Findings, transport: Transport| {
        let Ok(listeners) = &mut findings.listeners else { return };
        listeners.retain(|listener| listener.transport != transport || listener.address.ip() != ip(LOCAL));
    };
    let diagnosis = diagnose_with(|findings| without(findings, Transport::Udp));
    let check = only(&diagnosis, CheckStatus::Problem, &["sockets"]);
    assert!(check.seen[0].contains("169.254.20.10 over udp: nobody listens"), "{diagnosis}");

    let add = |findings: &mut Findings, address: &str| {
        findings.listeners.as_mut().unwrap().push(listener(Transport::Udp, address, 300, "dnsmasq"));
    };
    let diagnosis = diagnose_with(|findings| add(findings, &format!("{LOCAL}:53")));
    assert!(
        only(&diagnosis, CheckStatus::Problem, &["sockets"]).seen[0].contains("dnsmasq (process 300)"),
        "{diagnosis}"
    );
    only(&diagnose_with(|findings| add(findings, "0.0.0.0:53")), CheckStatus::Warning, &["sockets"]);
    let diagnosis = diagnose_with(|findings| {
        without(findings, Transport::Udp);
        add(findings, "0.0.0.0:53");
    });
    assert!(only(&diagnosis, CheckStatus::Problem, &["sockets"]).seen[0].contains("instead of us"), "{diagnosis}");
}

#[test]
fn a_process_that_cannot_be_seen_is_ours_if_it_proves_it() {
    let hide =
        |findings: &mut Findings| findings.listeners.as_mut().unwrap().iter_mut().for_each(|it| it.holders.clear());
    let diagnosis = diagnose_with(|findings| {
        hide(findings);
        findings.agents.clear();
    });
    assert_eq!((diagnosis.verdict, diagnosis.intercepted), (CheckStatus::Ok, Some(true)), "{diagnosis}");
    let diagnosis = diagnose_with(|findings| {
        hide(findings);
        for way in [QueryPath::Client, QueryPath::Marked] {
            set_replies(findings, way, LOCAL, &[QueryReply::Silent]);
        }
    });
    assert_eq!(diagnosis.check("sockets").unwrap().verdict, CheckStatus::Unknown, "{diagnosis}");
}

#[test]
fn an_answer_of_somebody_else_means_that_queries_are_not_intercepted() {
    let diagnosis = diagnose_with(|findings| {
        set_replies(findings, QueryPath::Client, CLUSTER_IP, &[QueryReply::Other(Rcode::REFUSED)])
    });
    let check = only(&diagnosis, CheckStatus::Problem, &["queries"]);
    assert_eq!(diagnosis.intercepted, Some(false));
    assert!(check.seen[0].contains("somebody else") && check.seen[0].contains("REFUSED"), "{diagnosis}");
    assert!(check.advice[0].contains("our server does answer there"), "the marked query tells: {diagnosis}");
}

#[test]
fn one_strange_answer_among_many_is_enough() {
    let mixed = [QueryReply::Ours(9), QueryReply::Other(Rcode::NXDOMAIN), QueryReply::Ours(9)];
    let diagnosis = diagnose_with(|findings| set_replies(findings, QueryPath::Client, LOCAL, &mixed));
    assert!(only(&diagnosis, CheckStatus::Problem, &["queries"]).seen[0].contains("2 of 3"), "{diagnosis}");
}

#[test]
fn silence_is_told_from_refusal_and_the_server_from_the_way_to_it() {
    let with = |client: QueryReply, marked: QueryReply| {
        diagnose_with(|findings| {
            set_replies(findings, QueryPath::Client, LOCAL, &[client]);
            set_replies(findings, QueryPath::Marked, LOCAL, &[marked]);
        })
    };
    let advice = |diagnosis: &Diagnosis| only(diagnosis, CheckStatus::Problem, &["queries"]).advice[0].clone();
    assert!(advice(&with(QueryReply::Silent, QueryReply::Silent)).contains("does not answer"));
    assert!(advice(&with(QueryReply::Silent, QueryReply::Ours(9))).contains("drops packets on the way"));
    assert!(advice(&with(QueryReply::Silent, QueryReply::Failed("rights".to_owned()))).contains("in that order"));
    assert!(with(QueryReply::Refused, QueryReply::Refused).to_string().contains("nobody listens"));
    let diagnosis = with(QueryReply::Failed("no route".to_owned()), QueryReply::Silent);
    assert_eq!(diagnosis.intercepted, None);
    only(&diagnosis, CheckStatus::Unknown, &["queries"]);
}

#[test]
fn a_name_that_is_not_there_or_cannot_be_had_is_told() {
    let with = |reply: QueryReply| diagnose_with(|findings| set_replies(findings, QueryPath::Name, LOCAL, &[reply]));
    assert!(
        only(&with(QueryReply::Other(Rcode::NXDOMAIN)), CheckStatus::Warning, &["name"]).advice[0].contains("--name")
    );
    assert!(
        only(&with(QueryReply::Other(Rcode::SERVFAIL)), CheckStatus::Problem, &["name"]).advice[0].contains("KubeDNS")
    );
    only(&with(QueryReply::Silent), CheckStatus::Problem, &["name"]);
}

#[test]
fn kube_proxys_mode_is_told_and_an_address_that_ipvs_holds_is_a_problem() {
    let seen = |diagnosis: &Diagnosis| diagnosis.check("kube_proxy").unwrap().seen[0].clone();
    let ipvs = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|address| (ip(address), 32)).collect();
        Some(LinkView { index: 9, kind: Some("dummy".to_owned()), addresses, ..LinkView::default() })
    };
    let diagnosis = diagnose_with(|findings| findings.node.ipvs_link = ipvs(&["10.96.0.1"]));
    assert!(seen(&diagnosis).starts_with("IPVS"), "{diagnosis}");
    // It is no ClusterIP then, and nobody's when the agent is gone.
    assert!(only(&diagnosis, CheckStatus::Warning, &["fallback"]).seen[1].contains(CLUSTER_IP), "{diagnosis}");
    let diagnosis = diagnose_with(|findings| findings.node.ipvs_link = ipvs(&[CLUSTER_IP]));
    assert!(only(&diagnosis, CheckStatus::Problem, &["kube_proxy"]).seen[1].contains(CLUSTER_IP), "{diagnosis}");

    let diagnosis = diagnose_with(|findings| {
        let Ok(ruleset) = &mut findings.node.nftables else { return };
        ruleset.tables.push(RulesetTable { family: TableFamily::Ip, name: "kube-proxy".to_owned(), owner: None });
    });
    assert!(seen(&diagnosis).starts_with("nftables"));
    let diagnosis = diagnose_with(|findings| findings.node.has_legacy_kubernetes_chains = Some(true));
    assert!(seen(&diagnosis).starts_with("iptables"));
    assert!(seen(&diagnose_with(|_| {})).starts_with("none seen"));
    only(&diagnose_with(|findings| findings.node.has_cilium = true), CheckStatus::Warning, &["kube_proxy"]);
}

#[test]
fn the_fallback_matters_to_addresses_that_are_ours_alone() {
    let check = diagnose_with(|_| {}).check("fallback").unwrap().seen.concat();
    assert!(check.contains("cluster DNS (10.96.0.11) answers at 169.254.20.10"), "{check}");
    let remove = |findings: &mut Findings| {
        let Ok(ruleset) = &mut findings.node.nftables else { return };
        ruleset.tables.truncate(1);
        ruleset.chains.truncate(2);
    };
    let diagnosis = diagnose_with(remove);
    let check = only(&diagnosis, CheckStatus::Warning, &["fallback"]);
    assert!(check.seen[0].contains(LOCAL) && !check.seen[0].contains(CLUSTER_IP), "{diagnosis}");
    let mut findings = healthy();
    remove(&mut findings);
    let mut expected = expected();
    expected.spec.addresses.remove(0);
    assert_eq!(diagnose(&expected, &findings).check("fallback").unwrap().verdict, CheckStatus::Ok);
}

#[test]
fn a_fallback_that_lacks_a_rule_or_is_for_another_address_is_none() {
    for (chain, rule) in [(2, 0), (2, 1), (3, 0), (4, 1), (5, 0)] {
        let diagnosis = diagnose_with(|findings| {
            let Ok(ruleset) = &mut findings.node.nftables else { return };
            ruleset.chains[chain].rules.remove(rule);
        });
        let check = only(&diagnosis, CheckStatus::Warning, &["fallback"]);
        assert!(check.seen[0].contains("nobody answers at 169.254.20.10"), "{diagnosis}");
    }
    let mut expected = expected();
    let local: std::net::Ipv4Addr = [10, 1, 1, 1].into();
    expected.spec.fallback.ipv4 = Some(Redirection { local, upstream: [10, 96, 0, 11].into() });
    expected.spec.addresses.push(local.into());
    let diagnosis = diagnose(&expected, &healthy());
    let check = diagnosis.check("fallback").unwrap();
    assert!(
        check.verdict == CheckStatus::Warning && check.seen[1].contains("nobody answers at 10.1.1.1 "),
        "{diagnosis}"
    );
}

#[test]
fn tracked_queries_are_told_with_who_answers_them() {
    let end = |text: &str| text.parse::<SocketAddr>().unwrap();
    let connection = TrackedConnection {
        protocol: TransportProtocol::Udp,
        from: end("10.244.0.3:4000"),
        to: end("10.96.0.10:53"),
        answered_by: Some(end("10.244.0.2:53")),
    };
    let diagnosis = diagnose_with(|findings| findings.node.connections = Ok(vec![connection]));
    let check = only(&diagnosis, CheckStatus::Warning, &["connections"]);
    assert!(check.seen[0].contains("10.244.0.3") && check.seen[0].contains("10.244.0.2:53"), "{diagnosis}");
}

#[test]
fn what_the_agent_says_of_itself_counts() {
    let metrics = |page: HttpPage| {
        diagnose_with(|findings| {
            if let Some((_, found)) = &mut findings.metrics {
                *found = page;
            }
        })
    };
    only(&metrics(Ok((200, "nodelocaldns_watchdog_interception 0\n".to_owned()))), CheckStatus::Problem, &["metrics"]);
    only(&metrics(Ok((200, "coredns_build_info 1\n".to_owned()))), CheckStatus::Warning, &["metrics"]);
    only(&metrics(Err("Connection refused".to_owned())), CheckStatus::Problem, &["metrics"]);
    only(&diagnose_with(|findings| findings.health[0].1 = Ok((503, String::new()))), CheckStatus::Problem, &["health"]);
    only(&diagnose_with(|findings| findings.health.clear()), CheckStatus::Warning, &["health"]);
}

#[test]
fn a_stopped_watchdog_is_a_problem_though_its_server_answers() {
    let diagnosis = diagnose_with(|findings| findings.agents[0].is_stopped = true);
    let check = only(&diagnosis, CheckStatus::Problem, &["agent"]);
    assert!(check.advice[0].contains("kill -CONT 100"), "{diagnosis}");
    assert_eq!(diagnosis.intercepted, Some(true));
}

#[test]
fn without_rights_what_cannot_be_seen_is_unknown_and_no_failure() {
    let diagnosis = diagnose_with(|findings| {
        findings.node.nftables = Err(denied("nftables"));
        findings.node.firewall = Err(denied("the rules of the firewall"));
        findings.node.iptables = Err(denied("iptables"));
        findings.node.connections = Err(denied("tracked connections"));
        for address in [LOCAL, CLUSTER_IP] {
            set_replies(
                findings,
                QueryPath::Marked,
                address,
                &[QueryReply::Failed("a packet mark needs NET_ADMIN".to_owned())],
            );
        }
    });
    let unknown: Vec<&str> =
        diagnosis.checks.iter().filter(|check| check.verdict == CheckStatus::Unknown).map(|check| check.name).collect();
    assert_eq!(
        unknown,
        ["rules", "rule_order", "filter", "pod_path", "kube_proxy", "fallback", "connections"],
        "{diagnosis}"
    );
    assert_eq!((diagnosis.verdict, diagnosis.intercepted), (CheckStatus::Unknown, None));
    assert_eq!(diagnosis.verdict.exit_status(), 3);
    assert!(diagnosis.to_string().contains("NET_ADMIN"), "{diagnosis}");
}

#[test]
fn no_rules_are_missed_where_none_are_asked_for() {
    let mut findings = healthy();
    findings.node.nftables =
        Ok(Ruleset { tables: ruleset(&on()).tables.split_off(1), chains: fallback_chains().into() });
    findings.metrics.as_mut().unwrap().1 = Ok((200, "nodelocaldns_watchdog_interception 0\n".to_owned()));
    let diagnosis = diagnose(&Expectation { backend: Backend::None, ..expected() }, &findings);
    assert_eq!((diagnosis.verdict, diagnosis.intercepted), (CheckStatus::Ok, Some(true)), "{diagnosis}");
}

#[test]
fn the_json_has_the_documented_fields() {
    let json = serde_json::to_value(diagnose_with(|findings| findings.agents[0].is_stopped = true)).unwrap();
    assert_eq!((&json["verdict"], &json["intercepted"]), (&"problem".into(), &true.into()));
    let check = &json["checks"][0];
    assert_eq!((&check["name"], &check["verdict"]), (&"agent".into(), &"problem".into()));
    assert!(check["seen"][0].is_string() && check["advice"][0].is_string());
    assert_eq!(serde_json::to_value(CheckStatus::Unknown).unwrap(), "unknown");
}

#[test]
fn a_socket_beside_ours_that_cannot_be_attributed_is_not_passed_over() {
    let with = |replies: &[QueryReply]| {
        diagnose_with(|findings| {
            let unseen = ListeningSocket {
                transport: Transport::Udp,
                address: format!("{LOCAL}:53").parse().unwrap(),
                holders: vec![],
            };
            findings.listeners.as_mut().unwrap().push(unseen);
            set_replies(findings, QueryPath::Client, LOCAL, replies);
        })
    };
    only(&with(&[QueryReply::Ours(9)]), CheckStatus::Unknown, &["sockets"]);
    assert_eq!(
        with(&[QueryReply::Ours(9), QueryReply::Ours(4)]).verdict,
        CheckStatus::Ok,
        "another agent, during an update"
    );
    only(&with(&[QueryReply::Ours(9), QueryReply::Silent]), CheckStatus::Problem, &["sockets", "queries"]);
}

#[test]
fn a_link_that_somebody_renamed_is_told_and_serves() {
    let diagnosis = diagnose_with(|findings| {
        if let Ok(Some(link)) = &mut findings.node.link {
            link.name = "dns0".to_owned();
        }
    });
    assert!(only(&diagnosis, CheckStatus::Warning, &["link"]).seen[0].contains("called dns0"), "{diagnosis}");
}

#[test]
fn an_address_that_is_missing_since_ipv6_is_switched_off_says_so() {
    let mut expected = expected();
    expected.spec.addresses.push(ip("fd00::10"));
    let mut findings = healthy();
    findings.node.ipv6_disabled_by = vec!["net.ipv6.conf.all.disable_ipv6".to_owned()];
    let diagnosis = diagnose(&expected, &findings);
    let check = diagnosis.check("addresses").unwrap();
    assert_eq!(check.verdict, CheckStatus::Problem);
    assert!(
        check.seen[1].contains("fd00::10") && check.seen[1].contains("net.ipv6.conf.all.disable_ipv6 = 1"),
        "{diagnosis}"
    );
    assert!(check.advice[0].contains("sysctl -w net.ipv6.conf.all.disable_ipv6=0"), "{diagnosis}");
}

#[test]
fn a_full_table_of_connections_is_a_problem_with_numbers_and_sysctl() {
    let with = |count, max, dropped| {
        diagnose_with(|findings| findings.node.connection_table = Some(ConnectionTable { count, max, dropped }))
    };
    let diagnosis = with(262_144, 262_144, 7);
    let check = only(&diagnosis, CheckStatus::Problem, &["connections"]);
    assert!(check.seen[0].contains("262144 of at most 262144") && check.seen[0].contains("7 packets"), "{diagnosis}");
    assert!(check.advice[0].contains("net.netfilter.nf_conntrack_max=524288"), "{diagnosis}");
    assert_eq!(diagnosis.verdict.exit_status(), 1);
    only(&with(230_000, 262_144, 0), CheckStatus::Warning, &["connections"]);
    assert!(only(&with(900, 262_144, 7), CheckStatus::Warning, &["connections"]).seen[0].contains("full at times"));
    assert_eq!(with(900, 0, 0).verdict, CheckStatus::Ok, "no limit");
    assert_eq!(
        diagnose_with(|findings| findings.node.connection_table = None).verdict,
        CheckStatus::Ok,
        "nothing is tracked"
    );
}

#[test]
fn whoever_lacks_rights_is_told_which() {
    let advice = |privileges: Privileges| {
        let diagnosis = diagnose_with(|findings| {
            findings.privileges = privileges;
            findings.node.connections = Err(denied("tracked connections"));
        });
        only(&diagnosis, CheckStatus::Unknown, &["connections"]).advice[0].clone()
    };
    let all = Privileges { is_root: true, has_net_admin: true, has_net_raw: true, is_in_a_user_namespace: false };
    assert!(advice(Privileges::default()).contains("as root on the node"));
    let without = advice(Privileges { has_net_admin: false, ..all });
    assert!(
        without.contains("root without the capability NET_ADMIN") && !without.contains("as root on the node"),
        "{without}"
    );
    assert!(advice(Privileges { is_in_a_user_namespace: true, ..all }).contains("user namespace"));
    assert!(advice(Privileges { has_net_raw: false, ..all }).contains("NET_RAW"));
    assert!(advice(all).contains("not for lack of rights"));
}

#[test]
fn an_agent_in_another_network_namespace_is_told_from_none() {
    let diagnosis = diagnose_with(|findings| {
        findings.agents.clear();
        findings.node.has_agent = false;
        findings.elsewhere = vec![4711];
    });
    let check = diagnosis.check("agent").unwrap();
    assert!(
        check.seen[0].contains("is an agent of another one") && check.advice[0].contains("--target 4711 --net"),
        "{diagnosis}"
    );
}

#[test]
fn an_answer_of_kube_proxys_under_ipvs_says_who_holds_the_address() {
    let diagnosis = diagnose_with(|findings| {
        let addresses = vec![(ip(CLUSTER_IP), 32)];
        findings.node.ipvs_link = Some(LinkView { kind: Some("dummy".to_owned()), addresses, ..LinkView::default() });
        set_replies(findings, QueryPath::Client, CLUSTER_IP, &[QueryReply::Other(Rcode::REFUSED)]);
    });
    assert!(diagnosis.check("queries").unwrap().advice[0].contains("kube-ipvs0"), "{diagnosis}");
}

#[test]
fn the_exit_status_is_0_only_if_all_queries_are_answered_here() {
    for (intercepted, verdict) in
        [(Some(true), CheckStatus::Ok), (Some(false), CheckStatus::Problem), (None, CheckStatus::Unknown)]
    {
        assert_eq!(Diagnosis::new(intercepted, vec![Check::new("agent")]).verdict, verdict);
    }
    let warned = || {
        let mut check = Check::new("agent");
        check.warning("seen", "do");
        vec![check]
    };
    assert_eq!(Diagnosis::new(None, warned()).verdict.exit_status(), 3);
    assert_eq!(Diagnosis::new(Some(true), warned()).verdict.exit_status(), 0);
}

#[test]
fn legacy_chains_that_cannot_be_listed_leave_kube_proxys_mode_open() {
    let diagnosis = diagnose_with(|findings| {
        findings.node.legacy_tables = vec!["nat".to_owned()];
        findings.node.has_legacy_kubernetes_chains = None;
    });
    assert_eq!(diagnosis.check("kube_proxy").unwrap().verdict, CheckStatus::Unknown, "{diagnosis}");
}

#[test]
fn what_others_have_written_steers_no_terminal() {
    let diagnosis = diagnose_with(|findings| {
        let page = "nodelocaldns_watchdog_interception 0\nnodelocaldns_watchdog_intercepted{address=\"\u{1b}[31m\u{202e}\"} 0\n";
        findings.metrics = Some(("127.0.0.1:9353".parse().unwrap(), Ok((200, page.to_owned()))));
    });
    let told = diagnosis.to_string();
    assert!(told.contains("\\u{1b}[31m") && !told.contains(['\u{1b}', '\u{202e}']), "{told}");
}
