//! The unit under systemd itself, with all walls that it asks for: systemd runs as the first process of namespaces, on
//! a copy of this machine's files, in a cgroup that is removed with all below it. That takes root.

use crate::support::server::{binary, scratch, wait_until};
use crate::support::tools::{checkout, require, tool};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Where systemd is; it is on nobody's PATH.
const SYSTEMD: &str = "/lib/systemd/systemd";

/// Long for a loaded machine: it takes five seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// A cgroup (version 2) for a whole machine; removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make() -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let root = if root.join("cgroup.procs").is_file() { root.to_owned() } else { root.join("unified") };
        let folder = root.join(format!("nodelocaldns-test-{}", std::process::id()));
        fs::create_dir(&folder).unwrap_or_else(|e| {
            panic!(
                "this test starts systemd in a cgroup, which it cannot make: run it as root: {}: {e}",
                folder.display()
            )
        });
        Self(folder)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        wait_until(Duration::from_secs(5), || remove(&self.0));
    }
}

/// Whether the cgroup and all below it are gone.
fn remove(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.path().is_dir()) {
        // What is left is seen by what comes next.
        _ = remove(&entry.path());
    }
    fs::remove_dir(folder).is_ok()
}

#[test]
fn systemd_runs_reloads_restarts_and_stops_it() {
    assert!(Path::new(SYSTEMD).is_file(), "this test needs systemd: run scripts/install-test-deps");
    require("unshare");
    require("nft");
    let cgroup = Cgroup::make();
    let folder = scratch();
    fs::create_dir(folder.path().join("machine")).expect("the scratch folder can be written");
    let boot = fs::File::create(folder.path().join("boot")).expect("the scratch folder can be written");
    let mut command = tool("sh");
    command.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(cgroup.0.join("cgroup.procs"));
    command.args(["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child"]);
    command
        .arg("bash")
        .arg(checkout("tests/systemd/boot.sh"))
        .arg(binary())
        .arg(checkout("systemd"))
        .arg(folder.path());
    let errors = boot.try_clone().expect("a second handle");
    let mut machine = command.stdin(Stdio::null()).stdout(boot).stderr(errors).spawn().expect("a shell runs");
    let has_ended = wait_until(PATIENCE, || machine.try_wait().is_ok_and(|status| status.is_some()));
    _ = machine.kill();
    _ = machine.wait();
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let (look, told) = (read("look"), format!("{}\n{}\n{}", read("boot"), read("look"), read("log")));
    assert!(has_ended && look.lines().any(|line| line == "looked"), "systemd did not come to the end:\n{told}");
    for line in ["intercepted", "reloaded", "restarted", "Result=success", "ExecMainStatus=0"] {
        assert!(look.lines().any(|found| found == line), "{line} is missing:\n{told}");
    }
    assert!(!look.contains("in vain"), "{told}");
    assert!(look.contains("table inet nodelocaldns-fallback") && !look.contains("inet nodelocaldns\n"), "{told}");

    // capabilities(7): bits 5, 6, 7, 10 and 12, KILL, SETGID, SETUID, NET_BIND_SERVICE and NET_ADMIN.
    let status = |name: &str| -> Vec<&str> {
        look.lines().filter_map(|line| line.strip_prefix(name)?.split_whitespace().next()).collect()
    };
    assert_eq!(status("Uid:"), ["0", "61053"], "watchdog and server:\n{told}");
    assert_eq!(status("CapEff:"), ["00000000000014e0", "0000000000000000"], "{told}");
    assert_eq!(status("CapBnd:"), ["00000000000014e0"; 2], "{told}");
    assert_eq!(status("NoNewPrivs:"), ["1"; 2], "{told}");
    assert_eq!(status("Seccomp:"), ["2"; 2], "{told}");
    // What the server could not put up behind the unit's own walls it says.
    assert!(!read("log").contains("sandbox: the server runs without"), "{told}");
}
