//! Firewalls on the node, with no iptables program for the agent: rules that accept go into iptables-nft's chains over
//! netlink, and what a foreign table drops is not intercepted.

use super::scene::{ACCEPT_RULES, ADDRESSES, accept_rules, in_a_namespace, mended, off, on, run, runtime, spec};
use nodelocaldns::node::{Backend, Error, Node};
use std::collections::BTreeSet;
use std::time::Duration;

const SYNC: Duration = Duration::from_secs(60);

/// As firewalld's: a later table, which rejects whatever it does not know.
const REJECTING: &str = "nft -f - <<'END'
table inet wall {
  chain input {
    type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    iifname \"lo\" accept
    tcp dport 22 ct state { new, untracked } accept
    meta l4proto { icmp, ipv6-icmp } accept
    reject with icmpx type admin-prohibited
  }
}
END";

/// Runs `work`, of this one thread's runtime, with no program to be found.
fn without_programs<T>(work: impl Future<Output = T>) -> T {
    let path = std::env::var_os("PATH").unwrap();
    // SAFETY: no other thread of this process runs yet that could read the environment.
    unsafe { std::env::set_var("PATH", "/nonexistent") };
    let outcome = runtime().block_on(work);
    // SAFETY: the runtime has ended, and its threads with it.
    unsafe { std::env::set_var("PATH", path) };
    outcome
}

/// The rules of both families' INPUT and OUTPUT, as the programs list them.
fn listed() -> Vec<String> {
    let listing = run("iptables-nft -S; ip6tables-nft -S");
    listing
        .lines()
        .filter(|line| line.starts_with("-A INPUT") || line.starts_with("-A OUTPUT"))
        .map(str::to_owned)
        .collect()
}

fn ours(rules: &[String]) -> BTreeSet<String> {
    rules.iter().filter(|rule| rule.contains("NodeLocal DNS Cache: allow DNS traffic")).cloned().collect()
}

/// The addresses for which packets from other links are let in.
fn intercepted() -> Vec<&'static str> {
    let chain = run("nft list chain inet nodelocaldns prerouting");
    // The others are about connections that are open.
    let entering: Vec<&str> = chain.lines().filter(|rule| rule.contains("jump enter-")).collect();
    ADDRESSES.into_iter().filter(|address| entering.iter().any(|rule| rule.contains(address))).collect()
}

fn told(node: &mut Node) -> Vec<String> {
    let errors = node.take_background_errors();
    assert!(errors.iter().all(|error| matches!(error, Error::Filtered { .. })), "{errors:?}");
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn rules_that_accept_are_to_iptables_nft_as_if_it_had_made_them() {
    in_a_namespace(|| {
        let by_programs = runtime().block_on(async {
            let node = Node::open(spec(), Backend::Iptables, SYNC).await.unwrap();
            let by_programs = ours(&listed());
            assert_eq!(by_programs.len(), ACCEPT_RULES);
            assert!(node.teardown().await.is_empty());
            by_programs
        });
        assert_eq!(accept_rules(), 0);
        without_programs(async { drop(Node::open(spec(), Backend::Nftables, SYNC).await.unwrap()) });
        let rules = listed();
        assert_eq!(ours(&rules), by_programs, "what is killed leaves them");
        let first = rules.iter().filter(|rule| rule.starts_with("-A INPUT")).take(ACCEPT_RULES / 4);
        assert!(first.clone().all(|rule| rule.contains("NodeLocal")), "{rules:#?}");
        // kube-proxy does so; it would end with an error if the table were not iptables' own.
        run("for program in iptables-nft ip6tables-nft; do $program-save -t filter | $program-restore || exit 1; done");
        assert_eq!(ours(&listed()), by_programs);
        without_programs(async {
            let node = Node::open(spec(), Backend::Nftables, SYNC).await.unwrap();
            assert!(node.teardown().await.is_empty());
        });
        assert_eq!(listed().len(), 4, "the kubelet's: {:#?}", listed());
    });
}

#[test]
fn rules_that_are_flushed_or_put_behind_one_that_drops_come_to_the_front_again() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::Nftables, SYNC).await.unwrap();
            node.ensure(&on()).await.unwrap();
            run("iptables-nft -F INPUT");
            assert!(accept_rules() < ACCEPT_RULES);
            mended(&mut node, &on(), || accept_rules() == ACCEPT_RULES).await;
            run("iptables-nft -I INPUT -p udp --dport 53 -j DROP");
            let place = |text: &str| listed().iter().position(|rule| rule.contains(text)).unwrap();
            mended(&mut node, &on(), || {
                place("10.96.0.10/32 -p udp -m udp --dport 53") < place("-p udp -m udp --dport 53 -j DROP")
            })
            .await;
            assert_eq!(accept_rules(), ACCEPT_RULES);
            run("iptables-nft -I INPUT -p icmp -j DROP");
            _ = tokio::time::timeout(Duration::from_secs(2), node.changed()).await;
            node.ensure(&on()).await.unwrap();
            _ = tokio::time::timeout(Duration::from_secs(2), node.changed()).await;
            assert_eq!(place("-p icmp -j DROP"), 0, "what drops nothing of ours may be first");
            assert_eq!(told(&mut node), Vec::<String>::new());
        });
    });
}

#[test]
fn firewalls_in_iptables_nft_keep_nobody_from_the_cache() {
    in_a_namespace(|| {
        let established = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
        for rules in [
            "$i -P INPUT DROP; $i -A INPUT -i lo -j ACCEPT".to_owned(),
            format!(
                "$i -P INPUT ACCEPT; $i -A INPUT {established}; $i -A INPUT -i lo -j ACCEPT; $i -A INPUT -j REJECT"
            ),
        ] {
            run(&format!("for i in iptables-nft ip6tables-nft; do $i -F INPUT; {rules}; done"));
            without_programs(async {
                let mut node = Node::open(spec(), Backend::Nftables, SYNC).await.unwrap();
                node.ensure(&on()).await.unwrap();
                assert_eq!(told(&mut node), Vec::<String>::new());
                assert!(!node.reach().is_nobody_served);
                assert!(node.teardown().await.is_empty());
            });
        }
    });
}

/// What a kubelet has in the filter tables of legacy iptables, where its programs are of that kind.
const LEGACY_KUBELET: &str = "
for i in iptables-legacy ip6tables-legacy; do
  $i -N KUBE-FIREWALL; $i -A INPUT -j KUBE-FIREWALL; $i -A OUTPUT -j KUBE-FIREWALL
done
iptables-legacy -A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP";

/// What is told of the firewall at a start without programs.
fn told_at_a_start() -> Vec<Error> {
    without_programs(async {
        let mut node = Node::open(spec(), Backend::Nftables, SYNC).await.unwrap();
        node.ensure(&on()).await.unwrap();
        let errors = node.take_background_errors();
        assert!(node.teardown().await.is_empty());
        errors
    })
}

#[test]
fn a_legacy_table_that_nobody_here_can_change_is_told_of_only_if_its_rules_may_drop_our_packets() {
    in_a_namespace(|| {
        run(LEGACY_KUBELET);
        let told = told_at_a_start();
        assert!(told.is_empty(), "{told:?}");
        for drop in ["iptables-legacy -A INPUT -p udp -m udp --dport 53 -j DROP", "ip6tables-legacy -P INPUT DROP"] {
            run(drop);
            let told = told_at_a_start();
            assert!(matches!(&told[..], [Error::LegacyFilter]), "{drop}: {told:?}");
            run("iptables-legacy -D INPUT -p udp -m udp --dport 53 -j DROP || true; ip6tables-legacy -P INPUT ACCEPT");
        }
    });
}

#[test]
fn what_a_foreign_table_drops_is_not_intercepted_until_it_is_gone() {
    in_a_namespace(|| {
        runtime().block_on(async {
            run(REJECTING);
            let mut node = Node::open(spec(), Backend::Nftables, SYNC).await.unwrap();
            node.ensure(&on()).await.unwrap();
            assert_eq!(intercepted(), [""; 0], "it was there before");
            let errors = told(&mut node);
            assert_eq!(errors.len(), ADDRESSES.len());
            assert!(errors.iter().all(|error| error.contains("inet wall input")), "{errors:?}");
            assert!(node.reach().is_nobody_served);
            run("nft delete table inet wall");
            mended(&mut node, &on(), || intercepted() == ADDRESSES).await;
            assert!(!node.reach().is_nobody_served);
            run(REJECTING);
            mended(&mut node, &on(), || intercepted().is_empty()).await;
            run("nft insert rule inet wall input ip daddr 10.96.0.10 meta l4proto { tcp, udp } th dport 53 accept");
            mended(&mut node, &on(), || intercepted() == [ADDRESSES[0]]).await;
            node.ensure(&off()).await.unwrap();
        });
    });
}

#[test]
fn a_filter_table_that_comes_later_gets_the_rules_then() {
    in_a_namespace(|| {
        runtime().block_on(async {
            run("nft flush ruleset");
            let mut node = Node::open(spec(), Backend::Nftables, SYNC).await.unwrap();
            node.ensure(&on()).await.unwrap();
            assert_eq!(run("nft list tables").matches("filter").count(), 0, "none is made for it");
            run("iptables-nft -P INPUT DROP && ip6tables-nft -P INPUT DROP && iptables-nft -P OUTPUT DROP && ip6tables-nft -P OUTPUT DROP");
            mended(&mut node, &on(), || accept_rules() == ACCEPT_RULES && intercepted() == ADDRESSES).await;
        });
    });
}
