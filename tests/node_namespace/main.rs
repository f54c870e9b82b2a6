//! The node's link and rules on a real kernel, in network namespaces of the tests' own, without root.
//!
//! Each test runs itself again in a user and network namespace (`unshare`); a machine that allows none fails it. To
//! look inside one, put a `sleep` before the assertion and `nsenter --target PID --user --net --preserve-credentials`.

#![allow(unsafe_code, reason = "the programs are hidden by way of PATH")]

mod fallback;
mod firewall;
mod links;
mod probing;
mod scene;
mod streams;

use nodelocaldns::node::{Backend, Change, Error, Node, NodeSpec, teardown};
use scene::{
    ACCEPT_RULES, ADDRESSES, Agent, NOTRACK_RULES_WHEN_ON, accept_rules, addresses_on, bridge, in_a_namespace, kubelet,
    link_exists, mended, nft_tables, notrack_rules, off, on, owned_rules, raw_rules_of, run, runtime, spec, succeeds,
};
use std::time::{Duration, Instant};

/// As long as the reference waits between looks; what comes back sooner was noticed.
const SYNC: Duration = Duration::from_secs(60);

#[test]
fn nftables_rules_follow_the_interception_and_leave_nothing() {
    in_a_namespace(|| {
        runtime().block_on(async {
            bridge("nodelocaldns");
            let mut node = Node::open(spec(), Backend::Auto, SYNC).await.unwrap();
            assert_eq!(node.backend(), "nftables");
            node.ensure_link().await.unwrap();
            let listing = owned_rules();
            assert_eq!(listing.matches("counter packets").count(), 8, "{listing}");
            assert_eq!(listing.matches("meta mark & 0x00100000 == 0x00100000").count(), 4, "{listing}");
            node.ensure(&on()).await.unwrap();
            let listing = owned_rules();
            assert_eq!(listing.matches("counter packets").count(), NOTRACK_RULES_WHEN_ON, "{listing}");
            assert!(listing.contains("flags owner"), "{listing}");
            for rule in [
                "ip daddr 10.96.0.10 udp dport 53 counter",
                "ip6 daddr fd00::10 tcp dport 53 counter",
                "ip6 saddr fd00::10 tcp sport 53 counter",
                "ip saddr 10.96.0.10 tcp sport 8080 counter",
            ] {
                assert!(listing.contains(rule), "{rule} is not in\n{listing}");
            }
            assert_eq!(accept_rules(), ACCEPT_RULES);
            node.ensure(&off()).await.unwrap();
            assert_eq!(owned_rules().matches("counter packets").count(), 8);
            assert_eq!(node.teardown().await.iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
            assert_eq!(nft_tables("nodelocaldns"), "");
            assert_eq!(accept_rules() + notrack_rules(), 0);
            assert!(link_exists("nodelocaldns"), "the link was there before");
            assert_eq!(addresses_on("nodelocaldns"), Vec::<String>::new());
        });
    });
}

#[test]
fn nobody_else_can_take_the_owned_rules_away() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::Nftables, SYNC).await.unwrap();
            node.ensure(&on()).await.unwrap();
            run("nft flush ruleset");
            assert!(!succeeds("nft delete table inet nodelocaldns"));
            assert_eq!(owned_rules().matches("counter packets").count(), NOTRACK_RULES_WHEN_ON);
            assert_eq!(accept_rules(), 0, "those of the filter table can be");
            kubelet();
            mended(&mut node, &on(), || accept_rules() == ACCEPT_RULES).await;
            assert_eq!(owned_rules().matches("counter packets").count(), NOTRACK_RULES_WHEN_ON);
        });
    });
}

#[test]
fn the_rules_stand_until_the_last_descriptor_of_their_owner_is_closed() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::Nftables, SYNC).await.unwrap();
            let owner = node.take_owner().expect("it was just made");
            node.ensure(&on()).await.unwrap();
            assert!(node.take_owner().is_none(), "it is the same table still");
            drop(node);
            assert_eq!(owned_rules().matches("counter packets").count(), NOTRACK_RULES_WHEN_ON);
            drop(owner);
            assert_eq!(nft_tables("nodelocaldns"), "");
        });
    });
}

#[test]
fn the_kernel_removes_the_rules_when_their_owner_is_killed() {
    in_a_namespace(|| {
        bridge("nodelocaldns");
        let agent = Agent::start("nftables");
        assert_eq!(owned_rules().matches("counter packets").count(), NOTRACK_RULES_WHEN_ON);
        agent.kill();
        assert_eq!(nft_tables("nodelocaldns"), "");
        assert_eq!(notrack_rules(), 0);
        assert_eq!(addresses_on("nodelocaldns").len(), ADDRESSES.len(), "the link stays until somebody cleans up");
        runtime().block_on(async {
            assert!(teardown(&spec()).await.is_empty());
        });
        assert_eq!(accept_rules(), 0);
        assert_eq!(addresses_on("nodelocaldns"), Vec::<String>::new());
    });
}

#[test]
fn two_agents_at_once_leave_each_other_what_they_need() {
    in_a_namespace(|| {
        bridge("nodelocaldns");
        let old = Agent::start("nftables");
        let new = Agent::start("nftables");
        assert_eq!(nft_tables("nodelocaldns").lines().count(), 2);
        old.stop();
        assert_eq!(nft_tables("nodelocaldns").lines().count(), 1);
        assert_eq!(addresses_on("nodelocaldns").len(), ADDRESSES.len());
        assert_eq!(accept_rules(), ACCEPT_RULES);
        new.stop();
        assert_eq!(nft_tables("nodelocaldns"), "");
        assert_eq!(addresses_on("nodelocaldns"), Vec::<String>::new());
        assert_eq!(accept_rules(), 0);
    });
}

#[test]
fn a_new_agent_on_iptables_leaves_the_running_one_s_interception_on() {
    in_a_namespace(|| {
        let old = Agent::start("iptables");
        let on = notrack_rules();
        assert_eq!(on, NOTRACK_RULES_WHEN_ON);
        runtime().block_on(async {
            let node = Node::open(spec(), Backend::Iptables, SYNC).await.unwrap();
            assert_eq!(notrack_rules(), on);
            drop(node);
        });
        old.stop();
        assert_eq!(notrack_rules(), 0);
    });
}

#[test]
fn rules_that_an_agent_on_iptables_left_to_another_one_go_when_that_has_ended() {
    in_a_namespace(|| {
        let other = Agent::start("iptables");
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::Iptables, SYNC).await.unwrap();
            node.ensure(&on()).await.unwrap();
            node.ensure(&off()).await.unwrap();
            assert_eq!(notrack_rules(), NOTRACK_RULES_WHEN_ON, "the other one may need them");
            other.kill();
            mended(&mut node, &off(), || notrack_rules() == 8).await;
        });
    });
}

#[test]
fn a_new_agent_on_nftables_removes_the_rules_that_an_old_one_on_iptables_left_to_it() {
    in_a_namespace(|| {
        let old = Agent::start("iptables");
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::Nftables, SYNC).await.unwrap();
            node.ensure(&on()).await.unwrap();
            assert_eq!(notrack_rules(), NOTRACK_RULES_WHEN_ON, "the old one's");
            old.stop();
            node.ensure(&on()).await.unwrap();
            mended(&mut node, &on(), || notrack_rules() == 0).await;
            assert_eq!(owned_rules().matches("counter packets").count(), NOTRACK_RULES_WHEN_ON);
            assert_eq!(accept_rules(), ACCEPT_RULES);
        });
    });
}

#[test]
fn iptables_rules_follow_the_interception_and_leave_nothing() {
    in_a_namespace(|| {
        for kind in ["nft", "legacy"] {
            // kube-proxy's chain tells which kind it is.
            run(&format!("iptables-{kind} -t nat -N KUBE-SERVICES"));
            runtime().block_on(async {
                let mut node = Node::open(spec(), Backend::Iptables, SYNC).await.unwrap();
                assert_eq!(node.backend(), "iptables");
                assert_eq!(raw_rules_of(kind).len(), 8);
                node.ensure(&on()).await.unwrap();
                let rules = raw_rules_of(kind);
                assert_eq!(rules.len(), NOTRACK_RULES_WHEN_ON, "{rules:#?}");
                let incoming: Vec<&String> = rules.iter().filter(|rule| rule.starts_with("-A PREROUTING")).collect();
                assert_eq!(incoming.len(), 4);
                assert!(incoming.iter().all(|rule| rule.contains("-m socket --nowildcard")), "{incoming:#?}");
                let count = |condition: &str| rules.iter().filter(|rule| rule.contains(condition)).count();
                // Queries in and out over UDP and TCP, and to the health port; probes over UDP.
                assert_eq!(
                    count("-m recent --rcheck --seconds 1 --hitcount 2 --name nodelocaldns"),
                    2 * 5,
                    "{rules:#?}"
                );
                assert_eq!(count("-m recent --set --name nodelocaldns"), 2, "{rules:#?}");
                let other = if kind == "nft" { "legacy" } else { "nft" };
                assert_eq!(raw_rules_of(other).len(), 0);
                node.ensure(&off()).await.unwrap();
                assert_eq!(raw_rules_of(kind).len(), 8);
                node.ensure(&on()).await.unwrap();
                assert_eq!(
                    node.teardown().await.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    Vec::<String>::new()
                );
                assert_eq!(raw_rules_of(kind).len(), 0);
                assert_eq!(accept_rules(), 0);
            });
            run(&format!("iptables-{kind} -t nat -X KUBE-SERVICES"));
        }
    });
}

#[test]
fn what_a_kernel_has_no_match_for_is_left_out_of_the_rules_and_all_else_is_there() {
    in_a_namespace(|| {
        run("iptables-nft -t nat -N KUBE-SERVICES");
        let path = std::env::var("PATH").unwrap();
        for lacking in ["recent", "socket", "recent|socket"] {
            let folder = refusing("-m (LACKING)".replace("LACKING", lacking).as_str());
            // SAFETY: no other thread of this process runs yet that could read the environment.
            unsafe { std::env::set_var("PATH", format!("{}:{path}", folder.path().display())) };
            runtime().block_on(async {
                let mut node = Node::open(spec(), Backend::Iptables, SYNC).await.unwrap();
                // A second time, when it is known.
                for _ in 0..2 {
                    node.ensure(&on()).await.unwrap();
                    let rules = raw_rules_of("nft");
                    assert_eq!(rules.len(), NOTRACK_RULES_WHEN_ON, "{lacking}: {rules:#?}");
                    for (name, count) in [("recent", 2 * 6), ("socket", 2 * 2)] {
                        let wanted = if lacking.contains(name) { 0 } else { count };
                        let found = rules.iter().filter(|rule| rule.contains(&format!("-m {name} "))).count();
                        assert_eq!(found, wanted, "{name} without {lacking}: {rules:#?}");
                    }
                    node.ensure(&off()).await.unwrap();
                }
                assert!(node.teardown().await.is_empty());
            });
            // SAFETY: the runtime has ended, and its threads with it.
            unsafe { std::env::set_var("PATH", &path) };
        }
    });
}

#[test]
fn a_match_that_was_refused_once_is_in_the_rules_later() {
    in_a_namespace(|| {
        run("iptables-nft -t nat -N KUBE-SERVICES");
        let path = std::env::var("PATH").unwrap();
        let folder = refusing("-m recent");
        // SAFETY: no other thread of this process runs yet that could read the environment.
        unsafe { std::env::set_var("PATH", format!("{}:{path}", folder.path().display())) };
        let leased = || raw_rules_of("nft").iter().filter(|rule| rule.contains("-m recent ")).count();
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::Iptables, SYNC).await.unwrap();
            node.ensure(&on()).await.unwrap();
            assert_eq!(leased(), 0);
            std::fs::remove_file(folder.path().join("refuses")).unwrap();
            let started = Instant::now();
            while leased() != 2 * 6 {
                assert!(started.elapsed() < SYNC, "{:#?}", raw_rules_of("nft"));
                tokio::time::sleep(Duration::from_millis(100)).await;
                node.ensure(&on()).await.unwrap();
            }
            assert_eq!(raw_rules_of("nft").len(), NOTRACK_RULES_WHEN_ON);
            assert!(node.teardown().await.is_empty());
        });
        // SAFETY: the runtime has ended, and its threads with it.
        unsafe { std::env::set_var("PATH", &path) };
    });
}

/// Programs that refuse what matches `pattern`, as those of a kernel that lacks it, and are otherwise the real ones.
/// They do so as long as the file `refuses` is in the folder.
fn refusing(pattern: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let refuses = folder.path().join("refuses");
    std::fs::write(&refuses, "").unwrap();
    for program in ["iptables-nft-restore", "ip6tables-nft-restore"] {
        let real = run(&format!("command -v {program}"));
        let script = format!(
            "#!/bin/sh\ntext=$(cat)\nif [ -e {} ] && echo \"$text\" | grep -qE -- '{pattern}'; then echo refused >&2; exit 4; fi\n\
             echo \"$text\" | {} \"$@\"\n",
            refuses.display(),
            real.trim()
        );
        let path = folder.path().join(program);
        std::fs::write(&path, script).unwrap();
        run(&format!("chmod +x {}", path.display()));
    }
    folder
}

/// A table with a rule that iptables-nft does not know is none for its programs.
#[test]
fn a_teardown_leaves_native_tables_alone_and_says_so_only_where_ours_are_in_them() {
    in_a_namespace(|| {
        let native =
            |table: &str, chain: &str| run(&format!("nft add rule ip {table} {chain} fib daddr type local accept"));
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::Nftables, SYNC).await.unwrap();
            node.ensure(&on()).await.unwrap();
            drop(node);
            assert_eq!(accept_rules(), ACCEPT_RULES);
            native("filter", "INPUT");
            run("nft add table ip raw && nft add chain ip raw PREROUTING '{ type filter hook prerouting priority raw; }'");
            native("raw", "PREROUTING");
            assert!(!succeeds("iptables-nft -t filter -S") && !succeeds("iptables-nft -t raw -S"));
            let torn_down = async || teardown(&spec()).await.iter().map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(torn_down().await, Vec::<String>::new());
            assert!(!run("nft list ruleset").contains("10.96.0.10"));
            run("nft delete table ip raw");
            run("iptables-nft -t raw -A OUTPUT -d 10.96.0.10/32 -p udp -m udp --dport 53 -m comment --comment 'NodeLocal DNS Cache: skip conntrack' -j NOTRACK");
            native("raw", "OUTPUT");
            let errors = torn_down().await;
            assert!(errors.len() == 1 && errors[0].contains("raw"), "{errors:?}");
        });
    });
}

#[test]
fn iptables_rules_come_back_when_they_are_flushed() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::Iptables, SYNC).await.unwrap();
            node.ensure(&on()).await.unwrap();
            for flush in [
                "iptables-nft -t raw -F",
                "ip6tables-nft -t raw -F OUTPUT",
                "nft flush ruleset",
                "nft delete table ip raw",
            ] {
                run(flush);
                assert!(notrack_rules() < NOTRACK_RULES_WHEN_ON, "{flush}");
                mended(&mut node, &on(), || notrack_rules() == NOTRACK_RULES_WHEN_ON && accept_rules() == ACCEPT_RULES)
                    .await;
            }
        });
    });
}

#[test]
fn changes_of_others_beside_our_rules_wake_nobody() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::Nftables, SYNC).await.unwrap();
            node.ensure(&on()).await.unwrap();
            run("iptables-nft -t nat -N KUBE-SERVICES");
            run("iptables-nft -t nat -A KUBE-SERVICES -j RETURN");
            run("iptables-nft -t nat -F KUBE-SERVICES");
            assert!(tokio::time::timeout(Duration::from_millis(200), node.changed()).await.is_err());
        });
    });
}

#[test]
fn rules_of_a_crashed_reference_are_cleaned_or_adopted() {
    in_a_namespace(|| {
        let leave = || {
            for (chain, end) in [
                ("PREROUTING", "-d 10.96.0.10 --dport 53"),
                ("OUTPUT", "-s 10.96.0.10 --sport 53"),
                ("OUTPUT", "-d 10.96.0.10 --dport 53"),
                ("PREROUTING", "-d 10.96.0.99 --dport 53"),
            ] {
                // Twice, as several crashes would.
                for _ in 0..2 {
                    run(&format!(
                        "iptables-nft -t raw -I {chain} -p udp {end} -j NOTRACK -m comment --comment 'NodeLocal DNS Cache: skip conntrack'"
                    ));
                }
            }
            run(
                "iptables-nft -t raw -I OUTPUT -p udp -d 10.96.0.10 --dport 53 -j NOTRACK -m comment --comment 'somebody else'",
            );
            assert_eq!(raw_rules_of("nft").len(), 9);
        };
        runtime().block_on(async {
            leave();
            let node = Node::open(spec(), Backend::Nftables, SYNC).await.unwrap();
            let rules = raw_rules_of("nft");
            assert!(matches!(&rules[..], [rule] if rule.contains("somebody else")), "{rules:#?}");
            drop(node);
            run("iptables-nft -t raw -F");
            leave();
            let mut node = Node::open(spec(), Backend::Iptables, SYNC).await.unwrap();
            assert_eq!(raw_rules_of("nft").len(), 8 + 1, "only probes and replies, and the rule of somebody else");
            node.ensure(&on()).await.unwrap();
            assert_eq!(raw_rules_of("nft").len(), NOTRACK_RULES_WHEN_ON + 1);
            assert!(node.teardown().await.is_empty());
            assert_eq!(raw_rules_of("nft").len(), 1);
        });
    });
}

#[test]
fn legacy_rules_of_a_crashed_predecessor_are_cleaned_although_kube_proxy_uses_nft() {
    in_a_namespace(|| {
        run("iptables-nft -t nat -N KUBE-SERVICES");
        run(
            "iptables-legacy -t raw -I OUTPUT -p udp -d 10.96.0.10 --dport 53 -j NOTRACK -m comment --comment 'NodeLocal DNS Cache: skip conntrack'",
        );
        runtime().block_on(async {
            let node = Node::open(spec(), Backend::Nftables, SYNC).await.unwrap();
            assert_eq!(notrack_rules(), 0);
            drop(node);
        });
    });
}

#[test]
fn a_held_xtables_lock_is_told_as_such() {
    in_a_namespace(|| {
        // Only the legacy programs take the lock.
        run("iptables-legacy -t nat -N KUBE-SERVICES");
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::Iptables, SYNC).await.unwrap();
            let path = std::env::var("XTABLES_LOCKFILE").unwrap();
            let file = std::fs::File::create(path).unwrap();
            file.lock().unwrap();
            let error = node.ensure(&on()).await.unwrap_err();
            assert_eq!(error.error_type(), "iptables_lock", "{error}");
            file.unlock().unwrap();
            node.ensure(&on()).await.unwrap();
            assert_eq!(raw_rules_of("legacy").len(), NOTRACK_RULES_WHEN_ON);
        });
    });
}

#[test]
fn a_lock_that_is_held_beside_nftables_holds_nothing_up_and_is_told_once() {
    in_a_namespace(|| {
        run("iptables-legacy -N KUBE-FIREWALL && ip6tables-legacy -N KUBE-FIREWALL");
        runtime().block_on(async {
            let file = std::fs::File::create(std::env::var("XTABLES_LOCKFILE").unwrap()).unwrap();
            file.lock().unwrap();
            let mut node = Node::prepare(spec(), Backend::Nftables, SYNC).unwrap();
            node.ensure(&off()).await.unwrap();
            node.ensure(&on()).await.unwrap();
            assert!(owned_rules().contains("notrack"));
            let mut told = Vec::new();
            let started = Instant::now();
            while told.is_empty() && started.elapsed() < SYNC / 2 {
                _ = tokio::time::timeout(Duration::from_secs(1), node.changed()).await;
                told = node.take_background_errors();
            }
            assert!(!told.is_empty() && told.iter().all(|error| error.error_type() == "iptables_lock"), "{told:?}");
            assert!(node.take_background_errors().is_empty());
            file.unlock().unwrap();
        });
    });
}

#[test]
fn without_iptables_nftables_does_and_iptables_is_an_error() {
    in_a_namespace(|| {
        let path = std::env::var_os("PATH").unwrap();
        // SAFETY: no other thread of this process runs yet that could read the environment.
        unsafe { std::env::set_var("PATH", "/nonexistent") };
        let (with_nftables, error) = runtime().block_on(async {
            let with_nftables = Node::open(spec(), Backend::Auto, SYNC).await.unwrap();
            (with_nftables.backend(), Node::open(spec(), Backend::Iptables, SYNC).await.err().unwrap())
        });
        // SAFETY: the runtime has ended, and its threads with it.
        unsafe { std::env::set_var("PATH", path) };
        assert_eq!(with_nftables, "nftables");
        assert!(
            matches!(error, Error::IptablesMissing { .. }) && error.to_string().contains("--interception nftables"),
            "{error}"
        );
    });
}

#[test]
fn without_rules_the_link_is_set_up_and_taken_down_all_the_same() {
    in_a_namespace(|| {
        bridge("nodelocaldns");
        let path = std::env::var_os("PATH").unwrap();
        // SAFETY: no other thread of this process runs yet that could read the environment.
        unsafe { std::env::set_var("PATH", "/nonexistent") };
        let (refused, node) = runtime().block_on(async {
            let mut node = Node::prepare(spec(), Backend::Iptables, SYNC).unwrap();
            let refused = node.ensure(&off()).await.err().unwrap();
            node.ensure_link().await.unwrap();
            (refused, node.backend())
        });
        // SAFETY: the runtime has ended, and its threads with it.
        unsafe { std::env::set_var("PATH", path) };
        assert_eq!((refused.error_type(), node), ("iptables", "none"));
        assert_eq!(addresses_on("nodelocaldns").len(), ADDRESSES.len());
        runtime().block_on(async {
            let mut node = Node::prepare(spec(), Backend::Iptables, SYNC).unwrap();
            node.ensure_link().await.unwrap();
            node.ensure(&on()).await.unwrap();
            assert_eq!((node.backend(), notrack_rules()), ("iptables", NOTRACK_RULES_WHEN_ON));
            assert!(node.teardown().await.is_empty());
        });
        assert_eq!(addresses_on("nodelocaldns"), Vec::<String>::new());
    });
}

#[test]
fn kube_proxys_kind_of_iptables_is_found_while_it_holds_the_lock() {
    in_a_namespace(|| {
        run("iptables-legacy -t nat -N KUBE-SERVICES");
        let file = std::fs::File::create(std::env::var("XTABLES_LOCKFILE").unwrap()).unwrap();
        file.lock().unwrap();
        runtime().block_on(async {
            let mut node = Node::prepare(
                NodeSpec { addresses: vec![ADDRESSES[0].parse().unwrap()], ..spec() },
                Backend::Iptables,
                SYNC,
            )
            .unwrap();
            let error = node.ensure(&off()).await.expect_err("the lock is held");
            assert_eq!(error.error_type(), "iptables_lock", "{error}");
            file.unlock().unwrap();
            node.ensure(&off()).await.unwrap();
        });
        assert_eq!((raw_rules_of("legacy").len(), raw_rules_of("nft").len()), (4, 0));
    });
}

#[test]
fn a_withdrawal_with_nftables_does_not_wait_for_who_holds_the_xtables_lock() {
    in_a_namespace(|| {
        run("iptables-legacy -N KUBE-FIREWALL && ip6tables-legacy -N KUBE-FIREWALL");
        let file = std::fs::File::create(std::env::var("XTABLES_LOCKFILE").unwrap()).unwrap();
        file.lock().unwrap();
        runtime().block_on(async {
            let started = Instant::now();
            let mut node = Node::prepare(spec(), Backend::Nftables, SYNC).unwrap();
            node.ensure(&off()).await.unwrap();
            node.ensure(&on()).await.unwrap();
            assert_eq!(owned_rules().matches("counter packets").count(), NOTRACK_RULES_WHEN_ON);
            node.ensure(&off()).await.unwrap();
            assert_eq!(owned_rules().matches("counter packets").count(), 8);
            // Each program waits for 5 s.
            assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
            file.unlock().unwrap();
            mended(&mut node, &off(), || accept_rules() == 2 * ACCEPT_RULES).await;
        });
    });
}

#[test]
fn a_table_of_our_name_that_is_not_ours_is_left_alone() {
    in_a_namespace(|| {
        run("nft add table inet nodelocaldns");
        run("nft add chain inet nodelocaldns theirs");
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::Auto, SYNC).await.unwrap();
            node.ensure(&on()).await.unwrap();
            assert_eq!(nft_tables("nodelocaldns-").lines().count(), 1);
            assert!(node.teardown().await.is_empty());
        });
        assert_eq!(nft_tables("nodelocaldns").trim(), "table inet nodelocaldns");
        run("nft list chain inet nodelocaldns theirs");
    });
}

#[test]
fn a_link_is_made_and_deleted_a_dummy_one_or_a_bridge_where_the_kernel_has_none() {
    in_a_namespace(|| {
        let has_dummy = succeeds("ip link add probe type dummy && ip link delete probe");
        let kind = if has_dummy { "dummy" } else { "bridge" };
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::None, SYNC).await.unwrap();
            node.ensure_link().await.unwrap();
            assert_eq!(addresses_on("nodelocaldns").len(), ADDRESSES.len());
            let details = run("ip -details link show nodelocaldns");
            assert!(details.contains("made by nodelocaldns") && details.contains(kind), "{details}");
            run("ip link delete nodelocaldns");
            let is_whole = || link_exists("nodelocaldns") && addresses_on("nodelocaldns").len() == ADDRESSES.len();
            mended_link(&mut node, is_whole).await;
            assert!(node.teardown().await.is_empty());
            assert!(!link_exists("nodelocaldns"));
            if has_dummy {
                // As a reference that crashed leaves it; it makes no bridges.
                run("ip link add nodelocaldns type dummy && ip address add 10.96.0.10/32 dev nodelocaldns");
                assert!(teardown(&spec()).await.is_empty());
                assert!(!link_exists("nodelocaldns"));
            }
            // As somebody prepares it.
            run(&format!("ip link add nodelocaldns type {kind}"));
            let mut node = Node::open(spec(), Backend::None, SYNC).await.unwrap();
            node.ensure_link().await.unwrap();
            assert!(node.teardown().await.is_empty());
            assert!(link_exists("nodelocaldns"));
            assert_eq!(addresses_on("nodelocaldns"), Vec::<String>::new());
        });
    });
}

#[test]
fn an_existing_link_is_adopted_and_gets_its_addresses_back_at_once() {
    in_a_namespace(|| {
        bridge("nodelocaldns");
        run("ip address add 192.0.2.1/24 dev nodelocaldns");
        run("ip link set nodelocaldns down");
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::None, SYNC).await.unwrap();
            node.ensure_link().await.unwrap();
            let all = ["10.96.0.10/32", "192.0.2.1/24", "fd00::10/128"];
            assert_eq!(addresses_on("nodelocaldns"), all);
            let usable = std::net::UdpSocket::bind(("fd00::10", 53));
            assert!(usable.is_ok(), "an IPv6 address can be used at once: {usable:?}");
            for change in [
                "ip address del 10.96.0.10/32 dev nodelocaldns",
                "ip address del fd00::10/128 dev nodelocaldns",
                "ip address flush dev nodelocaldns",
                "ip link set nodelocaldns down",
            ] {
                run(change);
                let is_whole = || {
                    let addresses = addresses_on("nodelocaldns");
                    ["10.96.0.10/32", "fd00::10/128"]
                        .iter()
                        .all(|wanted| addresses.iter().any(|address| address == wanted))
                        && run("ip link show nodelocaldns").contains(",UP")
                };
                mended_link(&mut node, is_whole).await;
            }
            run("ip address add 192.0.2.1/24 dev nodelocaldns");
            assert!(node.teardown().await.is_empty());
            assert_eq!(addresses_on("nodelocaldns"), ["192.0.2.1/24"]);
        });
    });
}

#[test]
fn a_link_that_is_deleted_and_made_anew_by_somebody_is_adopted_again() {
    in_a_namespace(|| {
        bridge("nodelocaldns");
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::None, SYNC).await.unwrap();
            node.ensure_link().await.unwrap();
            run("ip link delete nodelocaldns");
            // Whether it can be made here depends on the dummy driver.
            assert_eq!(next_change(&mut node).await, Change::Link);
            let made = node.ensure_link().await;
            if made.is_err() {
                bridge("nodelocaldns");
            }
            mended_link(&mut node, || addresses_on("nodelocaldns").len() == ADDRESSES.len()).await;
        });
    });
}

#[test]
fn the_interval_is_told_when_nothing_else_happens() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let mut node = Node::open(NodeSpec { interface: None, ..spec() }, Backend::None, Duration::from_secs(1))
                .await
                .unwrap();
            assert_eq!(next_change(&mut node).await, Change::SyncDue);
        });
    });
}

/// Waits for changes of the link and mends them until `is_whole`, within the time that a notification takes at most.
async fn mended_link(node: &mut Node, is_whole: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_whole() {
        assert_eq!(next_change(node).await, Change::Link);
        let _a_later_change_may_undo_it = node.ensure_link().await;
        assert!(started.elapsed() < SYNC / 6, "not mended in time");
    }
}

async fn next_change(node: &mut Node) -> Change {
    tokio::time::timeout(SYNC / 6, node.changed()).await.expect("a change is noticed before the interval is over")
}
