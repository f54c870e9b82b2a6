//! What operators have reported of node caches, as cases: an output that nobody reads, an interception that cannot be
//! had.

use crate::case::{CASE, Case};
use crate::cluster::{CLUSTER_IPS, is_alive, rules, shell, signal};
use crate::guest::case::note;
use crate::node::{START, Scene, Start, settled};
use crate::support::processes;
use crate::support::server::scratch;
use crate::wire::Answer;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The family's.
pub const CASES: &[Case] = &[
    Case {
        name: "reports/an_output_that_nobody_reads_stops_neither_process",
        body: output_is_full,
        limit: Duration::from_secs(300),
        ..CASE
    },
    Case { name: "reports/without_the_programs_of_iptables_kube_dns_is_asked_seldom", body: without_programs, ..CASE },
];

/// Queries that a server which ends or hangs may have had in hand.
const IN_HAND: usize = 64;

/// How long KubeDNS's questions are counted while no client asks, and how many a second may be the program's.
const NOBODY_ASKS: Duration = Duration::from_secs(10);
const MOST_A_SECOND: u64 = 5;

/// Within which it ends after SIGTERM, also when it cannot say so. kubelet waits longer.
const END: Duration = Duration::from_secs(8);

/// The output of a container whose runtime has stopped: a pipe that this process alone could read.
struct Output {
    folder: TempDir,
    pipe: File,
}

impl Output {
    fn new() -> Self {
        let folder = scratch();
        let path = folder.path().join("output");
        shell(&format!("mkfifo {}", path.display()));
        let pipe = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path);
        Self { folder, pipe: pipe.expect("it was just made") }
    }

    /// A command that does what `program` does, with this as its output.
    fn command(&self, program: &Command) -> Command {
        let mut command = Command::new("sh");
        let path: PathBuf = self.folder.path().join("output");
        command.args(["-c", "output=$0; exec \"$@\" >\"$output\" 2>&1"]).arg(path);
        command.arg(program.get_program()).args(program.get_args());
        command
    }

    /// Leaves no room in it, as hours of a program's lines do.
    fn fill(&mut self) {
        for piece in [&[b'.'; 4096][..], &b"."[..]] {
            while self.pipe.write(piece).is_ok() {}
        }
        self.assert_full();
    }

    /// Nothing can be written any longer.
    fn assert_full(&mut self) {
        let written = self.pipe.write(b".");
        assert!(written.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "not full: {written:?}");
    }

    /// What is in it, which is gone then.
    fn drain(&mut self) -> String {
        let mut text = String::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = self.pipe.read(&mut buffer) {
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        text
    }
}

/// containerd is stopped, the pipe of the container's output fills up, and then the server dies, and hangs. It is
/// replaced, the program tells of it when its output is read again, and ends when it is to.
fn output_is_full() {
    let mut output = Output::new();
    let mut scene = Scene::prepare_as(&START, |program| output.command(&program));
    scene.await_service();
    output.fill();
    for (what, how) in [("SIGKILL", libc::SIGKILL), ("SIGSTOP", libc::SIGSTOP)] {
        let records = scene.ask_during(&format!("the output is full, server {what}"), |scene| {
            let server = scene.agent.server();
            signal(server, how);
            let watchdog = scene.agent.watchdog.pid();
            let is_replaced = || processes::server(watchdog).is_some_and(|now| now != server);
            settled("the server is replaced", || !is_alive(server) && is_replaced(), rules);
        });
        assert!(records.lost_by_us() <= IN_HAND, "more is lost than it had in hand:\n{}", records.detail());
        scene.await_service();
    }
    output.assert_full();
    let mut told = String::new();
    let has_told = || {
        told += &output.drain();
        told.matches("the server is replaced; cause").count() >= 2
    };
    settled("once its output is read it tells of both servers", has_told, String::new);

    output.fill();
    let asked = Instant::now();
    scene.agent.watchdog.signal(libc::SIGTERM);
    let status = scene.agent.watchdog.wait_exit(END);
    assert!(status.is_some_and(|status| status.success()), "its end after {:?}: {status:?}", asked.elapsed());
    note(format_args!("the output is full, SIGTERM: ended after {} ms", asked.elapsed().as_millis()));
    output.assert_full();
    let records = scene.ask_for(Duration::from_secs(1));
    assert_eq!(records.from(Answer::KubeDns), records.asked(), "{}", records.detail());
    scene.tear_down();
}

/// The image has no iptables, and `--interception iptables` was asked for: pods are answered by KubeDNS, and the
/// watchdog, whose questions reach it too, does not flood it.
fn without_programs() {
    let start = Start { backend: "iptables", ..START };
    let scene = Scene::prepare_as(&start, |mut program| {
        program.env("PATH", "/nowhere");
        program
    });
    let said = || scene.agent.watchdog.output();
    settled("it says what is missing", || said().contains("cannot set iptables rules: no program"), said);
    let records = scene.ask_for(Duration::from_secs(1));
    let of_cluster = records.of(|record| CLUSTER_IPS.contains(&record.kind.address));
    assert_eq!(of_cluster.from(Answer::KubeDns), of_cluster.asked(), "{}", of_cluster.detail());
    let count = || {
        let counters = scene.network.kube_dns.visit(|| shell("nft list chain inet asked in"));
        let packets = counters.split("packets ").skip(1).filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        packets.sum::<u64>()
    };
    scene.network.kube_dns.visit(|| {
        shell(
            "nft 'table inet asked {
                chain in {
                    type filter hook input priority -10;
                    udp dport 53 counter
                    tcp dport 53 tcp flags & (syn | ack) == syn counter
                }
            }'",
        )
    });
    let before = count();
    std::thread::sleep(NOBODY_ASKS);
    let asked = count() - before;
    note(format_args!("{asked} questions and connections reached KubeDNS in {} s", NOBODY_ASKS.as_secs()));
    assert!(asked < MOST_A_SECOND * NOBODY_ASKS.as_secs(), "{asked} questions\n{}", said());
}
