//! Servers as processes: pinned to a core, ended with this program however it ends, and what the kernel says they took.

#![allow(unsafe_code, reason = "clocks of other processes, and what a child does before it is another program")]

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Pins the calling thread, and what it starts from now on, to one core.
pub fn pin_to(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set)
        .with_context(|| format!("cannot pin this thread to core {core}: the bench needs cores 0 and 1"))
}

/// Raises the limit of open files as far as it goes, for thousands of connections here and, inherited, in the servers.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where it may not be raised, an experiment that needs more says so.
    _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// How often the times of a tree of processes are read until none of them ends meanwhile.
const READ_TRIES: usize = 20;

/// A running program. Killed when dropped, and by the kernel when this program ends without dropping it.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` on `cores`; what it prints goes to `log`.
    pub fn start(mut command: Command, cores: &[usize], log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let errors = output.try_clone()?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let mut set = CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        let prepare = move || -> io::Result<()> {
            sched_setaffinity(None, &set)?;
            set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        };
        // SAFETY: two system calls, which are async-signal-safe, and no allocation.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Fails, with the end of its output, if it has ended.
    pub fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(10).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("it ended with {status}; its output is in {}, and ends so:\n{}", self.log.display(), tail.join("\n"));
    }

    /// CPU time that it and its descendants have used, those included that have ended and been waited for.
    pub fn cpu_time(&self) -> Result<Duration> {
        // A descendant that ends between being listed and being read is then in its parent's sum: read again.
        let mut tries = 0;
        loop {
            let sum: Result<Duration> =
                self.tree()?.into_iter().map(|pid| Ok(cpu_time(pid)? + ended_children(pid)?)).sum();
            tries += 1;
            if sum.is_ok() || tries == READ_TRIES {
                return sum;
            }
        }
    }

    /// Resident memory of it and its descendants.
    pub fn memory(&self) -> Result<Memory> {
        let mut all = Memory::default();
        for pid in self.tree()? {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
                .with_context(|| format!("cannot read the memory of process {pid}"))?;
            all.rss_octets += field(&text, "Rss:")? << 10;
            all.pss_octets += field(&text, "Pss:")? << 10;
        }
        Ok(all)
    }

    /// It and its descendants.
    fn tree(&self) -> Result<Vec<i32>> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            // It may have ended since. The name, in parentheses, may hold anything; the parent is the second field
            // after it.
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent =
                stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<i32>().ok());
            parents.extend(parent.map(|parent| (pid, parent)));
        }
        let mut tree = vec![self.child.id().cast_signed()];
        let mut index = 0;
        while index < tree.len() {
            tree.extend(
                parents.iter().filter(|(_, parent)| *parent == tree[index]).map(|(pid, _)| *pid).collect::<Vec<_>>(),
            );
            index += 1;
        }
        Ok(tree)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // For ours, the kernel ends the server with the watchdog.
        let _it_may_have_ended = self.child.kill();
        let _it_is_reaped = self.child.wait();
    }
}

/// Resident memory, in octets.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Memory {
    /// Pages in memory, each as often as a process has it.
    pub rss_octets: u64,
    /// The same with pages that are shared divided by the number of processes that share them.
    pub pss_octets: u64,
}

/// A field of smaps_rollup, in KiB.
fn field(text: &str, name: &str) -> Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    value.with_context(|| format!("smaps_rollup has no {name}"))
}

/// What the scheduler has accounted to all threads of a process, ended ones included, in nanoseconds' precision: the
/// process's CPU clock (clock_getcpuclockid(3)), which is what utime and stime of /proc/PID/stat are scaled to.
fn cpu_time(pid: i32) -> Result<Duration> {
    let mut clock = 0;
    // SAFETY: `clock` is written, nothing else.
    let failure = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    if failure != 0 {
        return Err(io::Error::from_raw_os_error(failure)).with_context(|| format!("process {pid} has no CPU clock"));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is written, nothing else.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("cannot read the CPU clock of process {pid}"));
    }
    Ok(Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0)))
}

/// What children of a process that it has waited for, and theirs, had used: cutime and cstime of /proc/PID/stat, in
/// clock ticks.
fn ended_children(pid: i32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("cannot read the times of process {pid}"))?;
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>()).unwrap_or_default();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<u64>().ok());
    let (user, system) = ticks(13).zip(ticks(14)).with_context(|| format!("/proc/{pid}/stat has no times"))?;
    // SAFETY: sysconf(3) only reads.
    let ticks_per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1);
    Ok(Duration::from_millis((user + system) * 1000 / ticks_per_second))
}

/// Where a program is, on PATH or where Debian puts daemons.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::Pid;

    #[test]
    fn the_clock_of_a_process_counts_what_its_child_uses() {
        let folder = std::env::temp_dir().join(format!("nodelocaldns-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "(while :; do :; done) & wait"]);
        let process = Process::start(command, &[0], &folder.join("log")).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while process.cpu_time().unwrap() < Duration::from_millis(50) {
            assert!(std::time::Instant::now() < deadline, "a busy child is not seen");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(process.memory().unwrap().rss_octets > 4096);
        let child = process.tree().unwrap()[1];
        drop(process);
        // The busy loop outlives its shell.
        rustix::process::kill_process(Pid::from_raw(child).unwrap(), Signal::KILL).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
