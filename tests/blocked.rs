//! Nothing outside stops either process: an output that nobody reads, disks that are full, file systems that hang.

mod support;

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use support::client::{ask, loopback, metric};
use support::mounts::Mounts;
use support::namespace::Namespace;
use support::ports::free_port;
use support::processes::{kill_server, server, signal};
use support::server::{Server, binary, scratch, wait_until};
use tempfile::TempDir;

/// For what takes seconds at most on a machine that is not busy with other things.
const SOON: Duration = Duration::from_secs(30);

/// What the files of an agent are, each in a folder of its own, and its ports.
struct Scene {
    folder: TempDir,
    mounts: Mounts,
    dns: u16,
    metrics: u16,
    own_metrics: u16,
}

impl Scene {
    fn new() -> Self {
        let (folder, mounts) = (scratch(), Mounts::new());
        for name in ["base", "kube-dns", "conf", "handover", "pid"] {
            std::fs::create_dir(folder.path().join(name)).expect("the scratch folder can be written");
        }
        let scene = Self { folder, mounts, dns: free_port(), metrics: free_port(), own_metrics: free_port() };
        scene.write_template("");
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The template, with `more` in its block.
    fn write_template(&self, more: &str) {
        let (dns, metrics) = (self.dns, self.metrics);
        let text = format!(".:{dns} {{\n bind 127.0.0.1\n whoami\n prometheus 127.0.0.1:{metrics}\n{more}}}\n");
        let beside = self.at("base/.new");
        std::fs::write(&beside, text).expect("the scratch folder can be written");
        std::fs::rename(beside, self.at("base/Corefile.base")).expect("the scratch folder can be written");
    }

    fn command(&self) -> Command {
        let mut command = self.mounts.command(binary());
        command.args(["-localip", "127.0.0.1", "-setupinterface=false", "-setupiptables=false", "-skipteardown"]);
        command.arg("-conf").arg(self.at("conf/Corefile")).arg("-basecorefile").arg(self.at("base/Corefile.base"));
        command.arg("--handover").arg(self.at("handover/socket")).arg("-pidfile").arg(self.at("pid/pid"));
        command.arg("-kubednscm").arg(self.at("kube-dns"));
        command.arg("-metrics-listen-address").arg(format!("127.0.0.1:{}", self.own_metrics));
        command
    }

    /// Starts it, and waits until it answers.
    fn start(&self) -> Server {
        let server = Server::spawn(self.command(), scratch());
        self.await_answer(&server);
        server
    }

    fn await_answer(&self, server: &Server) {
        assert!(wait_until(SOON, || self.is_answered()), "no answer:\n{}", server.tail(20));
    }

    fn is_answered(&self) -> bool {
        ask(loopback(self.dns), "ready.example.", "A").is_some()
    }
}

/// SIGTERM ends it in order.
fn assert_ends(server: &mut Server) {
    server.signal(libc::SIGTERM);
    let status = server.wait_exit(SOON);
    assert!(status.is_some_and(|status| status.success()), "{status:?}:\n{}", server.tail(20));
}

/// A pipe that has no room, and its end to read from.
fn full_pipe() -> (OwnedFd, File) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
    rustix::io::ioctl_fionbio(&writer, true).expect("a pipe");
    let mut filling = File::from(writer.try_clone().expect("a pipe"));
    while filling.write(&[b'.'; 4096]).is_ok() {}
    while filling.write(b".").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).expect("a pipe");
    (writer, reader.into())
}

/// A process with an output of its own. Killed when dropped.
struct Silent(Child);

impl Silent {
    fn start(scene: &Scene, output: OwnedFd) -> Self {
        let mut command = scene.command();
        command.stderr(output.try_clone().expect("a descriptor")).stdout(output).stdin(Stdio::null());
        Self(command.spawn().expect("the program starts"))
    }
    fn signal(&self, signal: libc::c_int) {
        support::processes::signal(self.0.id().cast_signed(), signal);
    }
    fn wait_exit(&mut self) -> Option<ExitStatus> {
        let mut status = None;
        wait_until(SOON, || {
            status = self.0.try_wait().expect("the process can be asked");
            status.is_some()
        });
        status
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _it_may_have_ended = self.0.kill();
        let _it_is_reaped = self.0.wait();
    }
}

#[test]
fn nobody_reads_the_output_and_the_server_is_replaced_reloaded_and_ended_all_the_same() {
    let scene = Scene::new();
    let (output, mut reader) = full_pipe();
    let mut program = Silent::start(&scene, output);
    assert!(wait_until(SOON, || scene.is_answered()));
    let before = server(program.0.id()).expect("the watchdog has a server");
    signal(before, libc::SIGKILL);
    assert!(wait_until(SOON, || server(program.0.id()).is_some_and(|next| next != before)));
    assert!(wait_until(SOON, || scene.is_answered()));
    scene.write_template(" debug\n");
    program.signal(libc::SIGUSR1);
    let is_reloaded = || std::fs::read_to_string(scene.at("conf/Corefile")).is_ok_and(|text| text.contains("debug"));
    assert!(wait_until(SOON, is_reloaded));
    assert!(scene.is_answered());
    assert!(metric(scene.metrics, "nodelocaldns_log_lines_dropped_total").is_some());
    assert!(metric(scene.own_metrics, "nodelocaldns_log_lines_dropped_total").is_some());
    // What is read now is what waited, in whole lines.
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    program.signal(libc::SIGTERM);
    let status = program.wait_exit();
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    let text = reading.join().expect("it is read").expect("it is read");
    let said = text.trim_start_matches('.');
    assert!(said.contains("watchdog: the server was ended by signal 9\n"), "{said}");
    let odd: Vec<&str> =
        said.lines().filter(|line| line.matches("[INFO]").count() > 1 || line.contains("WARNING] [")).collect();
    assert!(odd.is_empty(), "{odd:?}");
}

#[test]
fn nobody_reads_the_output_for_ever_and_sigterm_ends_both_processes() {
    let scene = Scene::new();
    let (output, _reader) = full_pipe();
    let mut program = Silent::start(&scene, output);
    assert!(wait_until(SOON, || scene.is_answered()));
    program.signal(libc::SIGTERM);
    let status = program.wait_exit();
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}

#[test]
fn a_bad_corefile_ends_the_program_though_nobody_reads_why() {
    let scene = Scene::new();
    std::fs::write(scene.at("base/Corefile.base"), "nonsense {").expect("the scratch folder can be written");
    let (output, _reader) = full_pipe();
    let status = Silent::start(&scene, output).wait_exit();
    assert!(status.is_some_and(|status| !status.success()), "{status:?}");
}

#[test]
fn while_the_templates_folder_hangs_the_server_serves_on_and_reloads_after_it() {
    let scene = Scene::new();
    let mut program = scene.start();
    let hanging = scene.mounts.hang(&scene.at("base"));
    program.signal(libc::SIGUSR1);
    // All the while metrics and queries are answered.
    let is_told = || {
        assert!(scene.is_answered(), "{}", program.tail(20));
        assert!(metric(scene.metrics, "coredns_build_info").is_some(), "{}", program.tail(20));
        program.output().contains("cannot be read: no answer within")
    };
    assert!(wait_until(SOON, is_told), "{}", program.tail(20));
    hanging.release();
    scene.write_template(" debug\n");
    let is_reloaded = || std::fs::read_to_string(scene.at("conf/Corefile")).is_ok_and(|text| text.contains("debug"));
    assert!(wait_until(SOON, is_reloaded), "{}", program.tail(20));
    program.wait_output("can be read again", SOON);
    assert_ends(&mut program);
}

#[test]
fn a_server_that_begins_while_the_templates_folder_hangs_serves_what_the_one_before_has_written() {
    let scene = Scene::new();
    let mut program = scene.start();
    let hanging = scene.mounts.hang(&scene.at("kube-dns"));
    kill_server(program.pid());
    program.wait_output("is served as it stands", SOON);
    scene.await_answer(&program);
    hanging.release();
    scene.write_template(" debug\n");
    let is_reloaded = || std::fs::read_to_string(scene.at("conf/Corefile")).is_ok_and(|text| text.contains("debug"));
    assert!(wait_until(SOON, is_reloaded), "{}", program.tail(20));
    assert_ends(&mut program);
}

#[test]
fn a_start_with_a_templates_folder_that_hangs_says_so_and_can_be_ended() {
    let scene = Scene::new();
    let _hanging = scene.mounts.hang(&scene.at("base"));
    let mut program = Server::spawn(scene.command(), scratch());
    program.wait_output("still waiting for ", SOON);
    assert!(
        metric(scene.own_metrics, "nodelocaldns_watchdog_interception").is_some_and(|interception| interception == 0.0)
    );
    assert_ends(&mut program);
}

#[test]
fn a_start_with_a_templates_folder_that_hangs_serves_once_it_answers() {
    let scene = Scene::new();
    let hanging = scene.mounts.hang(&scene.at("base"));
    let mut program = Server::spawn(scene.command(), scratch());
    program.wait_output("still waiting for ", SOON);
    hanging.release();
    scene.await_answer(&program);
    assert_ends(&mut program);
}

#[test]
fn other_folders_that_hang_keep_nobody_from_serving_and_ending() {
    for name in ["conf", "handover", "pid"] {
        let scene = Scene::new();
        let _hanging = scene.mounts.hang(&scene.at(name));
        let mut program = scene.start();
        assert_ends(&mut program);
    }
}

#[test]
fn folders_that_begin_to_hang_keep_nobody_from_being_replaced_and_ending() {
    let scene = Scene::new();
    let mut program = scene.start();
    let _hanging: Vec<_> = ["conf", "handover", "pid"].iter().map(|name| scene.mounts.hang(&scene.at(name))).collect();
    kill_server(program.pid());
    program.wait_output("ended by signal 9", SOON);
    scene.await_answer(&program);
    assert_ends(&mut program);
}

#[test]
fn full_disks_keep_nobody_from_serving_and_ending() {
    let scene = Scene::new();
    for (name, file) in [("conf", "Corefile"), ("handover", "other"), ("pid", "pid")] {
        scene.mounts.fill(&scene.at(name), &[file]);
    }
    let mut program = scene.start();
    assert!(program.output().contains("cannot write"), "{}", program.output());
    assert_ends(&mut program);
}

#[test]
fn a_pipe_where_the_pidfile_should_be_is_refused_at_once_and_a_link_is_not_followed() {
    let scene = Scene::new();
    let pidfile = scene.at("pid/pid");
    let refused = |scene: &Scene| {
        let mut program = Server::spawn(scene.command(), scratch());
        let status = program.wait_exit(SOON);
        assert!(status.is_some_and(|status| !status.success()), "{status:?}");
        assert!(program.output().contains("is not a regular file"), "{}", program.output());
    };
    assert!(Command::new("mkfifo").arg(&pidfile).status().is_ok_and(|status| status.success()));
    refused(&scene);
    std::fs::remove_file(&pidfile).expect("the scratch folder can be written");
    std::fs::write(scene.at("precious"), "precious").expect("the scratch folder can be written");
    std::os::unix::fs::symlink(scene.at("precious"), &pidfile).expect("the scratch folder can be written");
    refused(&scene);
    assert_eq!(std::fs::read_to_string(scene.at("precious")).ok().as_deref(), Some("precious"));
}

#[test]
fn pipes_where_the_rendered_corefile_and_the_socket_should_be_hold_nobody_up() {
    let scene = Scene::new();
    for name in ["conf/Corefile", "handover/socket"] {
        assert!(Command::new("mkfifo").arg(scene.at(name)).status().is_ok_and(|status| status.success()));
    }
    let mut program = scene.start();
    assert_ends(&mut program);
}

#[test]
fn a_pipe_where_the_template_should_be_is_refused_at_start_and_keeps_nobody_from_serving_later() {
    let scene = Scene::new();
    let mut program = scene.start();
    std::fs::remove_file(scene.at("base/Corefile.base")).expect("the scratch folder can be written");
    let made = Command::new("mkfifo").arg(scene.at("base/Corefile.base")).status();
    assert!(made.is_ok_and(|status| status.success()));
    program.signal(libc::SIGUSR1);
    program.wait_output("it is a pipe", SOON);
    assert!(scene.is_answered() && metric(scene.metrics, "coredns_build_info").is_some());
    assert_ends(&mut program);
    std::fs::remove_file(scene.at("conf/Corefile")).expect("it was written");
    let mut program = Server::spawn(scene.command(), scratch());
    let status = program.wait_exit(SOON);
    assert!(status.is_some_and(|status| !status.success()), "{status:?}:\n{}", program.tail(20));
}

#[test]
fn iptables_programs_that_hang_are_killed_and_keep_nobody_from_ending() {
    let scene = Scene::new();
    let namespace = Namespace::new(&[]);
    let programs = scene.at("programs");
    std::fs::create_dir(&programs).expect("the scratch folder can be written");
    for name in ["iptables", "iptables-nft", "iptables-legacy", "iptables-restore", "ip6tables"] {
        let path = programs.join(name);
        std::fs::write(&path, "#!/bin/sh\nexec /bin/sleep 1000\n").expect("the scratch folder can be written");
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("the scratch folder can be written");
    }
    for interception in ["nftables", "iptables"] {
        let mut command = namespace.command("/usr/bin/env");
        command.arg(format!("PATH={}", programs.display())).arg(binary());
        command.args(["-localip", "169.254.20.10", "--fallback", "none", "--interception", interception]);
        command.arg("-conf").arg(scene.at("conf/Corefile")).arg("-basecorefile").arg(scene.at("base/Corefile.base"));
        let mut program = Server::spawn(command, scratch());
        program.wait_output("has not come to an end in 8 s and was killed", SOON);
        assert_ends(&mut program);
    }
}

#[test]
fn a_standard_input_that_does_not_end_can_be_ended() {
    let mut command = Command::new(binary());
    command.args(["-conf", "stdin"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut program = Silent(command.spawn().expect("the program starts"));
    // Signals are caught once it has more threads than one.
    let tasks = || std::fs::read_dir(format!("/proc/{}/task", program.0.id())).map_or(0, Iterator::count);
    assert!(wait_until(SOON, || tasks() > 2));
    program.signal(libc::SIGTERM);
    let status = program.wait_exit();
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}

#[test]
fn the_pidfile_goes_at_an_orderly_end() {
    let scene = Scene::new();
    let mut program = scene.start();
    let is_there = |path: &Path| path.exists();
    assert!(is_there(&scene.at("pid/pid")));
    assert_ends(&mut program);
    assert!(!is_there(&scene.at("pid/pid")));
}

#[test]
fn a_reload_that_needs_a_stopped_watchdog_keeps_nobody_from_metrics_and_answers() {
    let scene = Scene::new();
    let program = scene.start();
    let server = server(program.pid()).expect("the watchdog has a server");
    program.signal(libc::SIGSTOP);
    let other = free_port();
    let template = std::fs::read_to_string(scene.at("base/Corefile.base")).expect("it was written");
    std::fs::write(scene.at("base/Corefile.base"), format!("{template}.:{other} {{\n bind 127.0.0.1\n whoami\n}}\n"))
        .expect("a file");
    signal(server, libc::SIGUSR1);
    let is_told = || {
        assert!(scene.is_answered(), "{}", program.tail(20));
        assert!(metric(scene.metrics, "coredns_build_info").is_some(), "{}", program.tail(20));
        program.output().contains("cannot be read: no answer within")
    };
    assert!(wait_until(SOON, is_told), "{}", program.tail(20));
    program.signal(libc::SIGCONT);
    signal(server, libc::SIGUSR1);
    assert!(wait_until(SOON, || ask(loopback(other), "ready.example.", "A").is_some()), "{}", program.tail(20));
}
