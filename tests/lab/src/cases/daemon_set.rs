//! The DaemonSet's pod, run by crun with a configuration made from the manifest, on a node as kubelet sets it up.

use crate::case::{CASE, Case, Place};
use crate::cluster::{CLUSTER_IPS, KUBE_DNS, LOCAL, Network, is_alive, leaves_untracked, rules, shell};
use crate::container::{Change, Kubelet, OomGroup, Pod, manifest};
use crate::guest::case::note;
use crate::kube_dns::KubeDns;
use crate::load::{Load, Plan};
use crate::node::Proxy;
use crate::records::{Records, Who};
use crate::support::server::{binary, scratch, wait_until};
use crate::wire::Answer;
use std::process::Command;
use std::time::Duration;

/// What its cases need.
const DAEMON_SET: Case =
    Case { packages: &["golang-github-containers-common"], limit: Duration::from_secs(400), ..CASE };

/// The family's.
pub const CASES: &[Case] = &[
    Case { name: "daemon-set/the_pod_serves_with_the_rights_it_is_given", body: serves, ..DAEMON_SET },
    Case { name: "daemon-set/an_update_and_its_rollback_cost_nothing", body: update, ..DAEMON_SET },
    Case { name: "daemon-set/a_version_that_is_refused_leaves_the_old_one_serving", body: refused, ..DAEMON_SET },
    Case { name: "daemon-set/its_deletion_costs_nothing_and_teardown_leaves_nothing", body: deleted, ..DAEMON_SET },
    Case { name: "daemon-set/kube_dns_answers_until_a_killed_pod_is_back", body: killed, ..DAEMON_SET },
    Case { name: "daemon-set/a_pod_that_hangs_is_restarted", body: hangs, ..DAEMON_SET },
    Case { name: "daemon-set/a_limit_of_processor_time_costs_nothing", body: throttled, ..DAEMON_SET },
    Case { name: "daemon-set/out_of_memory_all_of_it_is_restarted", body: out_of_memory_all, ..DAEMON_SET },
    Case { name: "daemon-set/out_of_memory_the_server_alone_is_replaced", body: out_of_memory_one, ..DAEMON_SET },
    Case {
        name: "daemon-set/after_a_boot_it_may_come_before_everything_else",
        body: first_after_boot,
        place: Place::Machine,
        ..DAEMON_SET
    },
    Case {
        name: "daemon-set/after_a_boot_it_may_come_last",
        body: last_after_boot,
        place: Place::Machine,
        ..DAEMON_SET
    },
];

/// The manifest's addresses, as docs/kubernetes.md fills it in.
const ADDRESSES: &[&str] = &[LOCAL, CLUSTER_IPS[0]];
/// Queries a second: few, since pods take half a minute to be available, for which an emulated machine has them all to
/// translate.
const RATE: u32 = 100;
/// For what takes some seconds there.
const SOON: Duration = Duration::from_secs(90);
/// Before and after what is done while clients ask.
const LEAD: Duration = Duration::from_millis(500);

/// What a killed server may have had in hand and in its sockets, at this rate.
const IN_HAND: usize = 10;

/// The node: pods' networks, KubeDNS, kube-proxy's rules, kubelet.
struct Node {
    kubelet: Kubelet,
    _kube_dns: KubeDns,
    network: Network,
}

impl Node {
    fn new() -> Self {
        Self::with(kubelet())
    }

    /// Where kubelet has come first.
    fn with(kubelet: Kubelet) -> Self {
        let network = Network::bare();
        Proxy::IptablesNft.install();
        let kube_dns = KubeDns::start(&network.kube_dns);
        Self { kubelet, _kube_dns: kube_dns, network }
    }

    /// The DaemonSet's pod in service.
    fn start(&self, changes: &[Change]) -> Pod {
        let pod = self.kubelet.start(manifest(changes));
        pod.await_available();
        self.await_service(&pod);
        pod
    }

    /// Waits until the node's cache answers everybody. It has an answer for 30 s, and the next is KubeDNS's.
    fn await_service(&self, pod: &Pod) {
        let mut last = Records::new(Vec::new());
        let is_in_service = wait_until(SOON, || {
            last = self.ask_for(Duration::from_millis(500));
            last.lost() == 0 && last.from(Answer::Node) * 10 >= last.asked() * 9
        });
        assert!(is_in_service, "not in service:\n{}\n{}\n{}", last.detail(), pod.told(), rules());
    }

    fn ask_for(&self, time: Duration) -> Records {
        let load = Load::start(&self.network, PLAN);
        std::thread::sleep(time);
        load.finish()
    }

    /// What becomes of queries before, while and after something is done. The user sees the figures.
    fn ask_during<T>(&self, what: &str, work: impl FnOnce() -> T) -> (Records, T) {
        let overruns = self.network.overruns();
        let load = Load::start(&self.network, PLAN);
        std::thread::sleep(LEAD);
        let done = work();
        std::thread::sleep(LEAD);
        let mut records = load.finish();
        records.overruns = self.network.overruns() - overruns;
        note(format_args!("{what}: lost {records} at the longest"));
        (records, done)
    }
}

const PLAN: Plan = Plan { rate: RATE, addresses: ADDRESSES, fresh_every: None };

/// The node's nameserver is one that answers all names outside the cluster. An emulated machine is not to spend half of
/// its time on waiting for probes and for `minReadySeconds`.
fn kubelet() -> Kubelet {
    let mut kubelet = Kubelet::new(&format!("nameserver {}\n", KUBE_DNS[0]));
    kubelet.hurry = 3;
    kubelet
}

fn assert_lost(records: &Records, most: usize) {
    assert!(records.lost_by_us() <= most, "more than {most} are lost:\n{}", records.detail());
}

/// The rights of the manifest are the process's, and they do.
fn serves() {
    let node = Node::new();
    let pod = node.start(&[]);
    let status = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let (watchdog, server) = (status(pod.watchdog()), status(pod.server()));
    // capabilities(7): bits 5, 6, 7, 10 and 12, KILL, SETGID, SETUID, NET_BIND_SERVICE and NET_ADMIN.
    for line in ["CapBnd:\t00000000000014e0", "CapEff:\t00000000000014e0", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(watchdog.contains(line), "no {line}:\n{watchdog}");
    }
    for line in ["CapEff:\t0000000000000000", "Uid:\t61053\t61053"] {
        assert!(server.contains(line), "no {line}:\n{server}");
    }
    let filters = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
        line.and_then(|count| count.trim().parse::<u32>().ok()).expect("the kernel counts filters")
    };
    assert!(filters(&server) > filters(&watchdog), "the server has no filter besides the runtime's:\n{server}");
    let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", pod.watchdog())).expect("the process lives");
    let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/"));
    assert!(root.is_some_and(|root| root.contains(" ro,")), "the root can be written:\n{mounts}");
    let (records, ()) = node.ask_during("nothing done", || std::thread::sleep(Duration::from_secs(2)));
    assert_lost(&records, 0);
    let told = pod.told();
    let bad: Vec<&str> = told.lines().filter(|line| line.contains("[WARNING]") || line.contains("[ERROR]")).collect();
    assert_eq!(bad, Vec::<&str>::new(), "it complains");
}

/// The new pod comes before the old one goes, as `maxSurge` has it.
fn roll(node: &Node, old: Pod, changes: &[Change]) -> Pod {
    let new = node.kubelet.start(manifest(changes));
    new.await_available();
    let told = old.told();
    assert!(told.contains("a successor has taken over"), "no hand-over:\n{told}\n{}", new.told());
    assert!(new.told().contains("cached answers taken over"), "no cache:\n{}", new.told());
    let end = old.delete();
    assert!(end.contains("exit status: 0"), "{end}:\n{told}");
    new
}

fn update() {
    let node = Node::new();
    let old = node.start(&[]);
    let (records, new) = node.ask_during("update", || roll(&node, old, &[("success 9984 30", "success 9984 40")]));
    assert_lost(&records, 0);
    let (records, pod) = node.ask_during("rollback", || roll(&node, new, &[]));
    assert_lost(&records, 0);
    node.await_service(&pod);
}

fn refused() {
    let node = Node::new();
    let old = node.start(&[]);
    let (records, ()) = node.ask_during("an update that is refused, and its rollback", || {
        let new = node.kubelet.start(manifest(&[("force_tcp", "forse_tcp")]));
        // The second restart comes a pause after the first.
        new.await_ends(3);
        assert!(!new.is_ready(), "ready:\n{}", new.told());
        assert!(new.told().contains("forse_tcp"), "it does not say why:\n{}", new.told());
        drop(new);
    });
    assert_lost(&records, 0);
    assert!(old.ends().is_empty() && old.is_ready(), "{}", old.told());
    node.await_service(&old);
}

/// As an eviction. The fallback stays, so that KubeDNS answers at the address that is in pods' resolv.conf.
fn deleted() {
    let node = Node::new();
    let pod = node.start(&[]);
    let (records, end) = node.ask_during("deletion", || {
        let end = pod.delete();
        std::thread::sleep(Duration::from_secs(2));
        end
    });
    assert!(end.contains("exit status: 0"), "{end}");
    assert_lost(&records, 0);
    let settled = node.ask_for(LEAD);
    assert_eq!(settled.from(Answer::KubeDns), settled.asked(), "{}", settled.detail());
    assert!(!leaves_untracked(), "{}", rules());
    let addresses = ADDRESSES.join(",");
    let torn_down = Command::new(binary()).args(["teardown", "-localip", &addresses]).output().expect("it runs");
    assert!(torn_down.status.success(), "{torn_down:?}");
    assert!(!rules().contains("nodelocaldns"), "{}", rules());
    assert!(!shell("ip -oneline link").contains("nodelocaldns"));
}

fn killed() {
    let node = Node::new();
    let pod = node.start(&[]);
    let (records, ()) = node.ask_during("everything killed at once, and restarted", || {
        pod.kill_all();
        pod.await_ends(1);
        pod.await_available();
    });
    assert_lost(&records, IN_HAND);
    node.await_service(&pod);
}

/// Liveness probes find it. Until then nobody answers: a watchdog that is stopped withdraws nothing.
fn hangs() {
    let mut node = Node::new();
    node.kubelet.hurry = 6;
    let pod = node.start(&[]);
    let hung = pod.watchdog();
    let group = pod.cgroup("cgroup.freeze");
    std::fs::write(&group, "1").expect("the group is there");
    pod.await_ends(1);
    assert!(!is_alive(hung));
    assert!(pod.ends()[0].contains("liveness"), "{}", pod.told());
    pod.await_available();
    node.await_service(&pod);
}

/// The container is at its limit: all of it stands still for most of each 100 ms. Answers come late, and nobody takes
/// either process for one that hangs.
fn throttled() {
    let node = Node::new();
    let pod = node.start(&[("requests:", "limits: {cpu: 250m}\n            requests:")]);
    let read = |file: &str| std::fs::read_to_string(pod.cgroup(file)).expect("the group is there");
    assert_eq!(read("cpu.max").trim(), "25000 100000");
    let stat = |name: &str| -> u64 {
        let stat = read("cpu.stat");
        let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {stat}"))
    };
    let processes = (pod.watchdog(), pod.server());
    let before = (stat("nr_periods"), stat("nr_throttled"));
    let (records, ()) = node.ask_during("the container is at its limit of processor time", || {
        let mut hog = Command::new("sh");
        hog.args(["-c", "echo $$ >\"$0\" && while :; do :; done"]).arg(pod.cgroup("cgroup.procs"));
        let mut hog = hog.spawn().expect("a shell runs");
        std::thread::sleep(Duration::from_secs(5));
        hog.kill().expect("it runs");
        hog.wait().expect("it is reaped");
    });
    let (periods, throttled) = (stat("nr_periods") - before.0, stat("nr_throttled") - before.1);
    note(format_args!("it was stopped in {throttled} of {periods} periods"));
    assert!(throttled * 2 > periods, "not at its limit: stopped in {throttled} of {periods} periods");
    assert_lost(&records, 0);
    assert_eq!((pod.watchdog(), pod.server()), processes, "replaced:\n{}", pod.told());
    assert!(pod.ends().is_empty(), "{}", pod.told());
    node.await_service(&pod);
}

/// A memory limit as operators set it.
const LIMITED: Change = ("requests:", "limits: {memory: 256Mi}\n            requests:");

fn out_of_memory_all() {
    let node = Node::new();
    let pod = node.start(&[LIMITED]);
    let watchdog = pod.watchdog();
    let (records, ()) = node.ask_during("out of memory, all killed and restarted", || {
        exhaust(&pod);
        pod.await_ends(1);
        pod.await_available();
    });
    assert!(!is_alive(watchdog));
    assert!(pod.ends()[0].contains("137"), "{}", pod.told());
    assert_lost(&records, IN_HAND);
    node.await_service(&pod);
}

fn out_of_memory_one() {
    let mut node = Node::new();
    node.kubelet.oom_group = OomGroup::Off;
    let pod = node.start(&[LIMITED]);
    let (watchdog, server) = (pod.watchdog(), pod.server());
    let (records, ()) = node.ask_during("out of memory, the server killed", || {
        exhaust(&pod);
        assert!(wait_until(SOON, || !is_alive(server)), "the server lives:\n{}", pod.told());
        assert!(wait_until(SOON, || pod.server() != server && pod.is_ready()), "no other:\n{}", pod.told());
    });
    assert!(pod.ends().is_empty() && pod.watchdog() == watchdog, "{}", pod.told());
    assert_lost(&records, IN_HAND);
    node.await_service(&pod);
}

/// Has the container's memory taken until the kernel kills.
///
/// The kernel weighs what a process holds against its score, and one that held all that memory itself would be killed
/// first. So a file in memory takes it, which nobody holds, and is removed when somebody is killed. Who fills it comes
/// between server and watchdog, and is slow enough for that to be in time.
fn exhaust(pod: &Pod) {
    let folder = scratch();
    // Of the group above, which is there when the container's has gone.
    let events = pod.cgroup("memory.events");
    let events = events.ancestors().nth(2).expect("the pod has a group").join("memory.events");
    let killed = || {
        let events = std::fs::read_to_string(&events).unwrap_or_default();
        events.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
    };
    let script = "echo $$ >\"$0\" && echo -900 >/proc/self/oom_score_adj || exit
        while head -c 1048576 /dev/zero; do sleep 0.03; done >\"$1\"";
    let mut hog = Command::new("sh");
    hog.args(["-c", script]).arg(pod.cgroup("cgroup.procs")).arg(folder.path().join("memory"));
    let mut hog = hog.spawn().expect("a shell runs");
    let mut ended = None;
    let is_over = wait_until(SOON, || {
        ended = hog.try_wait().expect("it can be asked");
        killed() || ended.is_some()
    });
    _ = hog.kill();
    drop(folder);
    hog.wait().expect("it is reaped");
    assert!(is_over && killed(), "nobody is killed; what takes memory has ended: {ended:?}");
}

/// kube-proxy, the network of pods and KubeDNS come later, and the lock of xtables is not there.
fn first_after_boot() {
    let kubelet = kubelet();
    assert!(!std::path::Path::new("/run/xtables.lock").exists());
    let pod = kubelet.start(manifest(&[]));
    pod.watchdog();
    // Of a node without anybody to ask the server is not ready at once; it need not be restarted.
    pod.server();
    let node = Node::with(kubelet);
    pod.await_available();
    node.await_service(&pod);
    assert!(pod.ends().is_empty(), "{}", pod.told());
    let (records, pod) = node.ask_during("update after such a boot", || roll(&node, pod, &[]));
    assert_lost(&records, 0);
    let host = records.of(|record| record.kind.who == Who::HostNetwork);
    assert!(host.asked() > 0 && pod.is_ready());
}

fn last_after_boot() {
    let node = Node::new();
    let asked = node.ask_for(LEAD).of(|record| record.kind.address == CLUSTER_IPS[0]);
    assert_eq!(asked.from(Answer::KubeDns), asked.asked(), "{}", asked.detail());
    let (records, pod) = node.ask_during("start beside clients of KubeDNS", || {
        let pod = node.kubelet.start(manifest(&[]));
        pod.await_available();
        pod
    });
    assert_lost(&records.of(|record| record.kind.address == CLUSTER_IPS[0]), 0);
    node.await_service(&pod);
}
