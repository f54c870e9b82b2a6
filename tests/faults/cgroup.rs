//! A container's memory limit: a cgroup of the test's own, version 2 or 1, whichever this machine has. That takes root
//! outside of the namespace too, which CI has; without it the test fails and says so.

use crate::support::server::wait_until;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Removed when dropped; what runs in it must have ended.
pub struct Cgroup {
    folder: PathBuf,
    limit: &'static str,
    usage: &'static str,
    /// Entry of `memory.stat`.
    idle_files: &'static str,
    /// File with a line `oom_kill NUMBER`.
    events: &'static str,
}

impl Cgroup {
    pub fn make() -> Self {
        let name = format!("nodelocaldns-test-{}-{}", std::process::id(), fastrand::u32(..));
        let root = Path::new("/sys/fs/cgroup");
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let cgroup = if controllers.split_whitespace().any(|controller| controller == "memory") {
            // Processes may be in the root beside its children, nowhere else.
            _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            let folder = root.join(name);
            Self {
                folder,
                limit: "memory.max",
                usage: "memory.current",
                idle_files: "inactive_file",
                events: "memory.events",
            }
        } else {
            let folder = root.join("memory").join(name);
            let (limit, usage) = ("memory.limit_in_bytes", "memory.usage_in_bytes");
            Self { folder, limit, usage, idle_files: "total_inactive_file", events: "memory.oom_control" }
        };
        let made = fs::create_dir(&cgroup.folder).and_then(|()| fs::metadata(cgroup.folder.join(cgroup.limit)));
        made.unwrap_or_else(|e| {
            panic!(
                "this test limits memory by a cgroup, which it cannot make: run it as root: {}: {e}",
                cgroup.folder.display()
            )
        });
        cgroup
    }

    /// Has what `command` runs start in it.
    pub fn command(&self, command: Command) -> Command {
        let mut inside = Command::new("sh");
        inside.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(self.folder.join("cgroup.procs"));
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }

    /// Octets that it may hold.
    pub fn set_limit(&self, octets: u64) {
        fs::write(self.folder.join(self.limit), octets.to_string())
            .unwrap_or_else(|e| panic!("limiting memory to {octets}: {e}"));
    }

    /// Octets that it holds without cached files that nobody uses.
    pub fn held(&self) -> u64 {
        let usage: u64 = self.read(self.usage).trim().parse().expect("a number");
        usage.saturating_sub(self.entry("memory.stat", self.idle_files))
    }

    /// How many of its processes the kernel has killed for want of memory.
    pub fn killed(&self) -> u64 {
        self.entry(self.events, "oom_kill")
    }

    fn entry(&self, file: &str, name: &str) -> u64 {
        let text = self.read(file);
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {file}:\n{text}"))
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap_or_else(|e| panic!("{file} of the cgroup: {e}"))
    }

    /// Has a process in it take memory, step by step, until the kernel kills one, which is `victim`: a tenth of the
    /// limit ahead of the one that takes memory.
    ///
    /// Were it taken at once, there could be a second one: while the threads of the first end, and have not given its
    /// memory back, the kernel no longer sees it and takes the next best.
    pub fn kill_by_exhaustion(&self, victim: i32) {
        static STEP: [u8; 256 << 10] = [0; 256 << 10];
        let before = self.killed();
        fs::write(format!("/proc/{victim}/oom_score_adj"), "1000").expect("anyone may raise a score of his own");
        let mut hog = Command::new("sh");
        // It keeps what it reads for as long as no line ends.
        hog.args(["-c", "echo 900 >/proc/self/oom_score_adj && exec tail"]);
        let mut hog = self.command(hog);
        let mut hog = hog.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("tail runs");
        let mut input = hog.stdin.take().expect("it is a pipe");
        let is_killed = wait_until(Duration::from_secs(20), || {
            self.killed() > before || input.write_all(&STEP).is_err() || self.killed() > before
        });
        hog.kill().expect("it is ours");
        hog.wait().expect("it is reaped");
        assert!(is_killed && self.killed() > before, "nobody is killed");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        wait_until(Duration::from_secs(5), || fs::remove_dir(&self.folder).is_ok());
    }
}
