//! The fallback's table: that it stays, comes back, and goes when it should. Who is answered by it:
//! `tests/interception`.

use super::scene::{
    ACCEPT_RULES, accept_rules, addresses_on, bridge, in_a_namespace, kubelet, mended, nft_tables, on, run, runtime,
    spec,
};
use nodelocaldns::node::{Backend, Change, Fallback, Node, NodeSpec, Redirection, teardown};
use std::time::Duration;

const SYNC: Duration = Duration::from_secs(60);

/// For the link-local address, with an upstream of each family whose last part is `last`.
fn node_spec(last: u8) -> NodeSpec {
    let ipv4 = Redirection { local: [169, 254, 20, 10].into(), upstream: [10, 96, 0, last].into() };
    let ipv6 =
        Redirection { local: "fd00:53::10".parse().unwrap(), upstream: [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into() };
    NodeSpec { fallback: Fallback { mark: 0x1000, ipv4: Some(ipv4), ipv6: Some(ipv6) }, ..spec() }
}

async fn start(spec: NodeSpec, backend: Backend) -> Node {
    let mut node = Node::open(spec, backend, SYNC).await.unwrap();
    node.ensure_link().await.unwrap();
    node.ensure_fallback().unwrap();
    node
}

fn listing() -> String {
    run("nft list table inet nodelocaldns-fallback")
}

fn is_there() -> bool {
    !nft_tables("nodelocaldns-fallback").is_empty()
}

#[test]
fn a_fallback_that_is_as_wanted_is_taken_over_as_it_stands() {
    in_a_namespace(|| {
        bridge("nodelocaldns");
        let handles = || run("nft --handle list table inet nodelocaldns-fallback");
        runtime().block_on(async {
            assert!(start(node_spec(11), Backend::Nftables).await.teardown().await.is_empty());
            let first = handles();
            let node = start(node_spec(11), Backend::Nftables).await;
            assert_eq!(handles(), first, "neither the table nor a rule of it is another one");
            assert!(nft_tables("nodelocaldns-fallback-trial").is_empty());
            assert!(node.teardown().await.is_empty());
            let node = start(node_spec(12), Backend::Nftables).await;
            assert_ne!(handles(), first, "one that is not as wanted is replaced");
            assert!(node.teardown().await.is_empty());
        });
    });
}

#[test]
fn the_fallback_stays_with_the_link_when_its_agent_ends_and_the_next_one_replaces_it() {
    in_a_namespace(|| {
        bridge("nodelocaldns");
        runtime().block_on(async {
            let node = start(node_spec(11), Backend::Nftables).await;
            let first = listing();
            for rule in [
                "ip daddr 169.254.20.10 udp dport 53 ct state",
                "ip6 daddr fd00:53::10 tcp dport 53 ct state",
                "untracked meta mark set meta mark | 0x00001000 ip daddr set 10.96.0.11",
                "untracked meta mark set meta mark | 0x00001000 ip6 daddr set fd00::b",
                "ip saddr 10.96.0.11 tcp sport 53 ct mark & 0x00001000 == 0x00001000 ip saddr set 169.254.20.10",
                "type filter hook prerouting priority raw + 1; policy accept;",
                "type nat hook postrouting priority srcnat - 1; policy accept;",
            ] {
                assert!(first.contains(rule), "{rule} is not in\n{first}");
            }
            assert!(node.teardown().await.is_empty());
            assert_eq!(listing(), first);
            assert_eq!(nft_tables("nodelocaldns").lines().count(), 1, "the interception is gone");
            assert_eq!(addresses_on("nodelocaldns").len(), 2);

            // Of another shape, as another version may leave it.
            run("nft flush chain inet nodelocaldns-fallback query-output && nft delete chain inet nodelocaldns-fallback query-output");
            run("nft add chain inet nodelocaldns-fallback query-output '{ type route hook output priority 0; }'");
            let node = start(node_spec(11), Backend::Nftables).await;
            assert_eq!(listing(), first);
            drop(node);
            let node = start(node_spec(12), Backend::Nftables).await;
            assert!(listing().contains("set 10.96.0.12 ") && !listing().contains("10.96.0.11"), "{}", listing());
            assert!(node.teardown().await.is_empty());
            assert!(teardown(&spec()).await.is_empty());
            assert_eq!((nft_tables("nodelocaldns"), addresses_on("nodelocaldns")), (String::new(), vec![]));
        });
    });
}

#[test]
fn the_fallback_comes_back_when_somebody_takes_it_away_or_changes_it() {
    in_a_namespace(|| {
        runtime().block_on(async {
            for backend in [Backend::Nftables, Backend::Iptables] {
                let mut node = start(NodeSpec { interface: None, ..node_spec(11) }, backend).await;
                node.ensure(&on()).await.unwrap();
                let whole = listing();
                for change in [
                    "nft delete table inet nodelocaldns-fallback",
                    "nft flush ruleset",
                    "nft flush chain inet nodelocaldns-fallback answer-input",
                    "nft add rule inet nodelocaldns-fallback query-output drop",
                ] {
                    run(change);
                    while !is_there() || listing() != whole {
                        let change =
                            tokio::time::timeout(SYNC / 6, node.changed()).await.expect("the change is noticed");
                        assert_eq!(change, Change::Rules);
                        node.ensure(&on()).await.unwrap();
                        node.ensure_fallback().unwrap();
                    }
                }
                kubelet();
                mended(&mut node, &on(), || accept_rules() == ACCEPT_RULES).await;
            }
        });
    });
}

/// The kernel tells the listener of an overflow once, and of nothing more until all that waits has been read.
#[test]
fn a_change_is_noticed_also_after_others_came_faster_than_they_were_read() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let mut node = start(NodeSpec { interface: None, ..node_spec(11) }, Backend::Nftables).await;
            node.ensure(&on()).await.unwrap();
            let whole = listing();
            run("nft 'add table ip somebody; add chain ip somebody forward'");
            for _batch in 0..20 {
                run("for i in $(seq 500); do echo 'add rule ip somebody forward counter'; done | nft -f -");
            }
            for _overflow_and_change in 0..2 {
                let change = tokio::time::timeout(SYNC / 6, node.changed()).await.expect("the change is noticed");
                assert_eq!(change, Change::Rules);
                node.ensure_fallback().unwrap();
                assert_eq!(listing(), whole);
                run("nft delete table inet nodelocaldns-fallback");
            }
        });
    });
}

#[test]
fn a_predecessors_fallback_goes_when_none_is_wanted_and_no_other_agent_needs_it() {
    in_a_namespace(|| {
        runtime().block_on(async {
            for backend in [Backend::Nftables, Backend::Iptables, Backend::None] {
                let old = start(NodeSpec { interface: None, ..node_spec(11) }, Backend::Nftables).await;
                let mut new = start(NodeSpec { interface: None, ..spec() }, backend).await;
                assert!(is_there(), "the old one is at work");
                drop(old);
                new.ensure_fallback().unwrap();
                assert!(!is_there(), "{backend:?}");
            }
        });
    });
}

#[test]
fn without_rules_that_shadow_it_no_fallback_is_made() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let _node = start(NodeSpec { interface: None, ..node_spec(11) }, Backend::None).await;
            assert!(!is_there());
            let mut node =
                Node::prepare(NodeSpec { interface: None, ..node_spec(11) }, Backend::Nftables, SYNC).unwrap();
            node.ensure_fallback().unwrap();
            assert!(!is_there(), "the rules are not there yet");
        });
    });
}

#[test]
fn two_agents_that_want_different_fallbacks_come_to_rest() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let mut old = start(NodeSpec { interface: None, ..node_spec(11) }, Backend::Nftables).await;
            let mut new = start(NodeSpec { interface: None, ..node_spec(12) }, Backend::Nftables).await;
            let has = |last: u8| is_there() && listing().contains(&format!("set 10.96.0.{last} "));
            run("nft delete table inet nodelocaldns-fallback");
            let quiet = Duration::from_millis(300);
            let mut changes = 0;
            loop {
                let change = async {
                    tokio::select! {
                        change = old.changed() => (change, true),
                        change = new.changed() => (change, false),
                    }
                };
                let Ok((change, is_old)) = tokio::time::timeout(quiet, change).await else { break };
                assert_eq!(change, Change::Rules);
                if is_old { &mut old } else { &mut new }.ensure_fallback().unwrap();
                changes += 1;
                assert!(changes < 100, "they never stop");
            }
            assert!(has(11) || has(12), "it is back, whoever was first");
            drop(new);
            old.ensure_fallback().unwrap();
            assert!(has(11), "who is left has its way:\n{}", listing());
        });
    });
}
