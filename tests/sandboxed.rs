//! The server in its sandbox, started by a watchdog that is really root: it serves, reloads, is replaced and ends as
//! one without walls does. Without root there is no other user, and these tests fail; tests/watchdog.rs has the same
//! for a server that keeps its user.

mod support;

use std::fs::{Permissions, set_permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use support::client::{ask, http, loopback, metric};
use support::dnstap::{Capture, count};
use support::ports::free_port;
use support::processes::{self, signal};
use support::server::{Server, binary, reference_command, scratch, wait_until};
use support::tools::write;
use support::upstream::{Upstream, address_rule};

const SOON: Duration = Duration::from_secs(20);

/// Fails without root, which a user namespace does not give: it has the user that made it and no other.
fn require_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root, since only root can give the server a user of its own: run it as root, as in `sudo -E env PATH=\"$PATH\" cargo test \
         --test sandboxed`, or leave it out, as in `cargo nextest run -E 'not binary(sandboxed)'`"
    );
}

struct Scene {
    watchdog: Server,
    dns: u16,
    metrics: u16,
}

impl Scene {
    /// The agent on a template that imports what stands in another folder; only root may read either. `more` is in the
    /// block.
    fn start(more: &str) -> Self {
        let (dns, metrics) = (free_port(), free_port());
        let folder = scratch();
        let at = folder.path();
        std::fs::create_dir(at.join("other")).expect("the scratch folder can be written");
        write(&at.join("other"), "log.conf", "log\n");
        let text = format!(
            ".:{dns} {{\n bind 127.0.0.1\n prometheus 127.0.0.1:{metrics}\n reload 2s\n import {}/other/*.conf\n{more}}}\n",
            at.display()
        );
        write(at, "Corefile.base", &text);
        for name in ["", "other", "other/log.conf", "Corefile.base"] {
            let mode = if at.join(name).is_dir() { 0o700 } else { 0o600 };
            set_permissions(at.join(name), Permissions::from_mode(mode)).expect("it is ours");
        }
        let command = reference_command(&at.join("Corefile"), free_port());
        let scene = Self { watchdog: Server::spawn(command, folder), dns, metrics };
        scene.await_answer("ready.example.");
        scene
    }

    fn await_answer(&self, name: &str) {
        let is_answered = || ask(loopback(self.dns), name, "A").is_some();
        assert!(wait_until(SOON, is_answered), "no answer:\n{}", self.watchdog.tail(20));
    }

    fn server(&self) -> i32 {
        processes::server(self.watchdog.pid()).unwrap_or_else(|| panic!("no server:\n{}", self.watchdog.tail(20)))
    }

    fn await_other(&self, before: i32) {
        let is_other = || processes::server(self.watchdog.pid()).is_some_and(|now| now != before);
        assert!(wait_until(SOON, is_other), "it is not replaced:\n{}", self.watchdog.tail(20));
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.watchdog.folder.path().join(name)
    }
}

fn is_there(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[test]
fn each_thread_of_the_server_is_another_user_without_rights_behind_a_filter() {
    require_root();
    let scene = Scene::start(" whoami\n");
    let server = scene.server();
    let mut threads = 0;
    for task in std::fs::read_dir(format!("/proc/{server}/task")).expect("the server lives").flatten() {
        let Ok(status) = std::fs::read_to_string(task.path().join("status")) else { continue };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
            line.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
        };
        assert_eq!([field("Uid"), field("Gid")], ["61053 61053 61053 61053"; 2], "{status}");
        assert_eq!([field("Groups"), field("NoNewPrivs"), field("Seccomp")], ["", "1", "2"], "{status}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(set), "0000000000000000", "{set}\n{status}");
        }
        threads += 1;
    }
    assert!(threads > 1, "its workers are threads");
    assert!(!scene.watchdog.output().contains("sandbox:"), "it lacks nothing here:\n{}", scene.watchdog.output());
    // What doctor and whoever looks from outside read as root.
    assert!(std::fs::read_dir(format!("/proc/{server}/fd")).expect("root may look").count() > 3);
    assert!(metric(scene.metrics, "process_open_fds").is_some_and(|open| open > 3.0));
    assert!(metric(scene.metrics, "process_start_time_seconds").is_some_and(|start| start > 1e9));
}

#[test]
fn the_watchdog_can_end_it_and_its_own_end_is_the_servers_though_that_is_stopped() {
    require_root();
    let scene = Scene::start(" whoami\n");
    let first = scene.server();
    // One that has answered no probe yet is waited for for 30 s.
    let probes = || metric(scene.metrics, "nodelocaldns_watchdog_probe_duration_seconds_count");
    let is_heard = || probes().is_some_and(|count| count >= 4.0);
    assert!(wait_until(SOON, is_heard), "no probe is answered:\n{}", scene.watchdog.tail(20));
    signal(first, libc::SIGSTOP);
    scene.await_other(first);
    scene.await_answer("after.example.");
    let second = scene.server();
    signal(second, libc::SIGSTOP);
    scene.watchdog.signal(libc::SIGKILL);
    assert!(wait_until(SOON, || !is_there(second)), "a server outlives its watchdog");
}

#[test]
fn files_that_only_root_may_read_are_read_at_start_reload_and_replacement_and_the_rendered_one_is_written() {
    require_root();
    let upstream = Upstream::start(vec![address_rule("up.example.", 60, "192.0.2.1")], None);
    let scene = Scene::start(" whoami\n");
    let template = std::fs::read_to_string(scene.path("Corefile.base")).expect("it was written");
    // The import is in force: `log` writes by a thread of its own.
    scene.watchdog.wait_output("ready.example.", SOON);
    // A folder that nobody knew of at the start, with a resolv.conf that only root may read, and a host name.
    let new = scene.path("new");
    std::fs::create_dir(&new).expect("the scratch folder can be written");
    write(&new, "resolv.conf", "nameserver 127.0.0.1\n");
    write(
        &new,
        "more.conf",
        &format!("forward . localhost:{}\n forward example.net {}/resolv.conf\n", upstream.port, new.display()),
    );
    for name in ["resolv.conf", "more.conf", ""] {
        set_permissions(new.join(name), Permissions::from_mode(if name.is_empty() { 0o700 } else { 0o600 }))
            .expect("it is ours");
    }
    let changed = template.replace(" whoami\n", &format!(" import {}/more.conf\n", new.display()));
    std::fs::write(scene.path("Corefile.base"), changed).expect("the scratch folder can be written");
    let is_forwarded = || ask(loopback(scene.dns), "up.example.", "A").is_some_and(|answer| !answer.answers.is_empty());
    assert!(wait_until(SOON, is_forwarded), "{}", scene.watchdog.output());
    let is_written = || std::fs::read_to_string(scene.path("Corefile")).is_ok_and(|text| text.contains("more.conf"));
    assert!(wait_until(SOON, is_written), "{}", scene.watchdog.output());
    let before = scene.server();
    signal(before, libc::SIGKILL);
    scene.await_other(before);
    assert!(wait_until(SOON, is_forwarded), "{}", scene.watchdog.output());
}

#[test]
fn sockets_that_only_root_may_reach_are_tapped_to_from_the_start_and_from_a_reload_on() {
    require_root();
    // Only root may enter it.
    let folder = scratch();
    let [one, two, listening] = ["one", "two", "listening"].map(|name| folder.path().join(name).display().to_string());
    let captures = [(&one, "first"), (&two, "second")]
        .map(|(socket, name)| Capture::start(&["-u", socket.as_str()], folder.path(), name));
    let scene = Scene::start(&format!(" dnstap {one} full\n dnstap listen {listening}\n whoami\n"));
    let is_read = |socket: &str| {
        let line = format!("nodelocaldns_dnstap_readers{{endpoint=\"{socket}\"}} 1");
        let is_told = || http(&format!("{}/metrics", scene.metrics)).is_some_and(|(_, text)| text.contains(&line));
        assert!(wait_until(SOON, is_told), "{socket} has no reader:\n{}", scene.watchdog.tail(20));
    };
    is_read(&one);
    let mut reader = std::os::unix::net::UnixStream::connect(&listening).expect("the watchdog listens there");
    reader.write_all(&support::dnstap::accept()).expect("it is connected");
    is_read(&listening);
    drop(reader);
    let template = std::fs::read_to_string(scene.path("Corefile.base")).expect("it was written");
    let changed = template.replace(" whoami\n", &format!(" dnstap {two} full\n whoami\n"));
    std::fs::write(scene.path("Corefile.base"), changed).expect("the scratch folder can be written");
    is_read(&two);
    scene.await_answer("tapped.example.");
    let mut watchdog = scene.watchdog;
    watchdog.signal(libc::SIGTERM);
    assert!(watchdog.wait_exit(SOON).is_some(), "it does not end");
    for capture in captures {
        let told = capture.finish();
        let is_tapped = told.iter().any(|line| line.ends_with(" tapped.example/IN/A"));
        assert!(is_tapped && count(&told, "CQ") == count(&told, "CR"), "{}", told.join("\n"));
    }
}

#[test]
fn a_watchdog_that_could_not_end_another_user_keeps_the_server_and_says_so() {
    require_root();
    let dns = free_port();
    let folder = scratch();
    let corefile = write(folder.path(), "Corefile", &format!(".:{dns} {{\n bind 127.0.0.1\n whoami\n}}\n"));
    let mut command = std::process::Command::new(support::tools::require("setpriv"));
    command.args(["--inh-caps=-all", "--bounding-set=-kill"]).arg(binary()).arg("-conf").arg(Path::new(&corefile));
    let mut watchdog = Server::spawn(command, folder);
    watchdog.wait_ready(dns).unwrap_or_else(|e| panic!("{e}"));
    watchdog.wait_output("sandbox: the server runs without a user of its own, since the container lacks KILL", SOON);
    let server = processes::server(watchdog.pid()).expect("it has a server");
    let status = std::fs::read_to_string(format!("/proc/{server}/status")).expect("the server lives");
    assert!(status.contains("Uid:\t0\t") && status.contains("Seccomp:\t2"), "{status}");
}
