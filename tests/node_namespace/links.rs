//! What others do to the link, and what the kernel refuses for it.

use crate::scene::{ADDRESSES, addresses_on, bridge, in_a_namespace, link_exists, run, runtime, spec};
use crate::{SYNC, mended_link};
use nodelocaldns::node::{Backend, Node, teardown};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Log lines, as they are written.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// From now on, of this test's process.
    fn start() -> Self {
        let lines = Self::default();
        let writer = lines.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
        lines
    }

    /// Those that contain `word`.
    fn with(&self, word: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        text.lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(octets)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A link is renamed where the kernel takes that from one that is up (Linux 6.2), or else while it is down.
fn rename(from: &str, to: &str) {
    run(&format!("ip link set dev {from} name {to} || (ip link set {from} down && ip link set dev {from} name {to})"));
}

/// How many links carry the first address.
fn carriers() -> usize {
    run("ip -oneline address show").lines().filter(|line| line.contains(&format!(" {}/32 ", ADDRESSES[0]))).count()
}

#[test]
fn a_link_of_ours_that_somebody_renames_gets_its_name_back_and_stays_one() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::None, SYNC).await.unwrap();
            node.ensure_link().await.unwrap();
            rename("nodelocaldns", "dns0");
            mended_link(&mut node, || {
                link_exists("nodelocaldns") && addresses_on("nodelocaldns").len() == ADDRESSES.len()
            })
            .await;
            assert!(!link_exists("dns0"));
            assert_eq!(carriers(), 1);
            assert!(node.teardown().await.is_empty());
            assert!(!link_exists("nodelocaldns"));
            assert_eq!(carriers(), 0);
        });
    });
}

#[test]
fn a_link_of_ours_whose_name_is_taken_is_used_and_removed_under_the_one_it_has() {
    in_a_namespace(|| {
        let lines = Lines::start();
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::None, SYNC).await.unwrap();
            node.ensure_link().await.unwrap();
            rename("nodelocaldns", "dns0");
            bridge("nodelocaldns");
            for _ in 0..3 {
                run("ip address flush dev dns0");
                node.ensure_link().await.unwrap();
            }
            assert_eq!(addresses_on("dns0").len(), ADDRESSES.len());
            assert_eq!(addresses_on("nodelocaldns"), Vec::<String>::new(), "it is somebody else's");
            assert_eq!(lines.with("another link has its name").len(), 1, "{lines:?}");
            assert!(node.teardown().await.is_empty());
            assert!(!link_exists("dns0") && link_exists("nodelocaldns"));
            assert_eq!(carriers(), 0);
        });
    });
}

#[test]
fn a_link_of_ours_that_was_renamed_while_no_agent_ran_is_found_again_and_torn_down() {
    in_a_namespace(|| {
        let start = async || {
            let mut node = Node::open(spec(), Backend::None, SYNC).await.unwrap();
            node.ensure_link().await.unwrap();
        };
        runtime().block_on(async {
            start().await;
            rename("nodelocaldns", "dns0");
            start().await;
            assert!(link_exists("nodelocaldns") && !link_exists("dns0"));
            assert_eq!(carriers(), 1);
            rename("nodelocaldns", "dns0");
            assert!(teardown(&spec()).await.is_empty());
            assert!(!link_exists("nodelocaldns") && !link_exists("dns0"));
        });
    });
}

#[test]
fn of_two_links_that_are_ours_one_goes() {
    in_a_namespace(|| {
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::None, SYNC).await.unwrap();
            node.ensure_link().await.unwrap();
            drop(node);
            bridge("dns0");
            run("ip link set dev dns0 alias 'made by nodelocaldns as nodelocaldns'");
            run(&format!("ip address add {}/32 dev dns0", ADDRESSES[0]));
            bridge("dns1");
            run("ip link set dev dns1 alias 'made by nodelocaldns as another'");
            let mut node = Node::open(spec(), Backend::None, SYNC).await.unwrap();
            node.ensure_link().await.unwrap();
            assert!(!link_exists("dns0") && link_exists("dns1"));
            assert_eq!(addresses_on("nodelocaldns").len(), ADDRESSES.len());
            assert_eq!(carriers(), 1);
        });
    });
}

#[test]
fn an_adopted_link_that_is_renamed_keeps_no_address_of_ours() {
    in_a_namespace(|| {
        bridge("nodelocaldns");
        run("ip address add 192.0.2.1/24 dev nodelocaldns");
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::None, SYNC).await.unwrap();
            node.ensure_link().await.unwrap();
            rename("nodelocaldns", "theirs");
            mended_link(&mut node, || link_exists("nodelocaldns") && carriers() == 1).await;
            assert_eq!(addresses_on("theirs"), ["192.0.2.1/24"]);
            assert!(node.teardown().await.is_empty());
            assert!(link_exists("theirs") && !link_exists("nodelocaldns"));
        });
    });
}

#[test]
fn who_removes_an_address_over_and_over_is_told_of_once() {
    in_a_namespace(|| {
        let lines = Lines::start();
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::None, SYNC).await.unwrap();
            node.ensure_link().await.unwrap();
            for _ in 0..20 {
                run(&format!("ip address delete {}/32 dev nodelocaldns", ADDRESSES[0]));
                node.ensure_link().await.unwrap();
                assert_eq!(addresses_on("nodelocaldns").len(), ADDRESSES.len());
            }
            assert_eq!(lines.with("is mended").len(), 1, "{lines:?}");
        });
    });
}

#[test]
fn a_link_that_somebody_flushes_again_and_again_is_mended_ever_more_seldom() {
    in_a_namespace(|| {
        let lines = Lines::start();
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::None, SYNC).await.unwrap();
            node.ensure_link().await.unwrap();
            let began = Instant::now();
            for _ in 0..6 {
                run("ip address flush dev nodelocaldns");
                mended_link(&mut node, || addresses_on("nodelocaldns").len() == ADDRESSES.len()).await;
            }
            // Between them are 100, 200, 400 and 800 ms, and a second.
            assert!(began.elapsed() >= Duration::from_millis(2500), "{:?}", began.elapsed());
            assert_eq!(lines.with("again and again").len(), 1, "{lines:?}");
        });
    });
}

#[test]
fn a_link_that_is_made_anew_is_told_at_once_and_over_and_over_only_once() {
    in_a_namespace(|| {
        let lines = Lines::start();
        bridge("nodelocaldns");
        runtime().block_on(async {
            let mut node = Node::open(spec(), Backend::None, SYNC).await.unwrap();
            node.ensure_link().await.unwrap();
            for _ in 0..10 {
                run("ip link delete nodelocaldns");
                node.ensure_link().await.unwrap();
            }
            assert_eq!(lines.with("nodelocaldns: found").len(), 1, "{lines:?}");
            assert_eq!(lines.with("nodelocaldns: made").len(), 1, "{lines:?}");
        });
    });
}

#[test]
fn ipv6_that_is_switched_off_is_told_as_such_and_nothing_is_called_mended() {
    in_a_namespace(|| {
        let lines = Lines::start();
        bridge("nodelocaldns");
        for place in ["nodelocaldns", "all"] {
            run(&format!("echo 1 >/proc/sys/net/ipv6/conf/{place}/disable_ipv6"));
            runtime().block_on(async {
                let mut node = Node::open(spec(), Backend::None, SYNC).await.unwrap();
                let mended = lines.with("mended").len();
                for _ in 0..3 {
                    let error = node.ensure_link().await.unwrap_err();
                    let text = error.to_string();
                    assert!(
                        text.contains(&format!("net.ipv6.conf.{place}.disable_ipv6")) && text.contains(ADDRESSES[1]),
                        "{text}"
                    );
                    assert!(!text.contains("NET_ADMIN") && !error.is_lack_of_rights(), "{text}");
                    assert_eq!(error.error_type(), "interface_check");
                }
                assert_eq!(
                    addresses_on("nodelocaldns"),
                    [format!("{}/32", ADDRESSES[0])],
                    "IPv4 is served all the same"
                );
                assert_eq!(lines.with("mended").len(), mended, "{lines:?}");
                run(&format!("echo 0 >/proc/sys/net/ipv6/conf/{place}/disable_ipv6"));
                node.ensure_link().await.unwrap();
                assert!(node.teardown().await.is_empty());
            });
        }
    });
}
