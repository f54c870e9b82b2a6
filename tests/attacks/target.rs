//! The program under attack: ours, or the reference. What /proc tells of the process that serves.

use crate::starvation::Waits;
use crate::support::processes::server;
use crate::support::server::{Server, binary, reference_command, scratch, wait_until, write_corefile};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Where the watchdog's metrics are.
pub const WATCHDOG_METRICS: u16 = 9353;

const SAMPLED_EVERY: Duration = Duration::from_millis(100);

/// Of the kernel's clock ticks in /proc/PID/stat; 100 on every Linux there is.
const TICKS_A_SECOND: f64 = 100.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Ours,
    /// The node-cache that `NODE_CACHE` names.
    Reference,
}

impl Program {
    /// How a process in a namespace is told which one it starts.
    pub fn role(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Reference => "reference",
        }
    }
    pub fn of_role(role: &str) -> Self {
        if role == Self::Reference.role() { Self::Reference } else { Self::Ours }
    }

    fn command(self, folder: &std::path::Path) -> Command {
        let corefile = folder.join("Corefile");
        if self == Self::Ours {
            let mut command = Command::new(binary());
            command
                .arg("-conf")
                .arg(corefile)
                .arg("-metrics-listen-address")
                .arg(format!("127.0.0.1:{WATCHDOG_METRICS}"));
            return command;
        }
        let theirs = reference_command(&corefile, WATCHDOG_METRICS);
        let mut command = Command::new(reference().expect("this role is given out only when NODE_CACHE is set"));
        command.args(theirs.get_args());
        command
    }
}

/// Where the reference is, if the environment says so.
pub fn reference() -> Option<PathBuf> {
    std::env::var_os("NODE_CACHE").map(PathBuf::from)
}

/// The running program, watched.
pub struct Target {
    pub server: Server,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

/// What was seen of the serving process, or processes one after the other.
#[derive(Default)]
struct Seen {
    pids: BTreeSet<i32>,
    /// Octets.
    peak: u64,
    files: usize,
    waits: Waits,
}

impl Target {
    /// Starts it on a Corefile, by way of `around`, and waits until it serves `address`.
    pub fn start(
        program: Program,
        corefile: &str,
        address: SocketAddr,
        around: impl FnOnce(Command) -> Command,
    ) -> Self {
        let folder = scratch();
        write_corefile(folder.path(), corefile);
        let server = Server::spawn(around(program.command(folder.path())), folder);
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let mut target = Self { server, seen: seen.clone(), stop: stop.clone(), watcher: None };
        let is_ready = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok();
        let is_ready = wait_until(Duration::from_secs(20), || target.server.exit_status().is_some() || is_ready());
        assert!(is_ready && target.server.exit_status().is_none(), "it does not serve:\n{}", target.server.tail(20));
        let watchdog = target.server.pid();
        target.watcher = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                seen.lock().expect("no test panics with this lock held").look(watchdog);
                std::thread::sleep(SAMPLED_EVERY);
            }
        }));
        target
    }

    /// The process that serves.
    pub fn pid(&self) -> i32 {
        serving(self.server.pid())
    }
    /// How many processes served in place of the first.
    pub fn replaced(&self) -> usize {
        self.seen.lock().expect("no test panics with this lock held").pids.len().saturating_sub(1)
    }
    /// The most memory that it had, in octets.
    pub fn peak(&self) -> u64 {
        self.seen.lock().expect("no test panics with this lock held").peak
    }
    /// The most descriptors that it had.
    pub fn files(&self) -> usize {
        self.seen.lock().expect("no test panics with this lock held").files
    }
    /// The largest share of any 400 ms in which one of its threads waited for a processor.
    pub fn waited(&self) -> f64 {
        self.seen.lock().expect("no test panics with this lock held").waits.worst()
    }
    /// Octets of resident memory now.
    pub fn memory(&self) -> u64 {
        kibibytes(self.pid(), "VmRSS:").unwrap_or_default() << 10
    }
    /// Seconds of processor time until now.
    pub fn processor_time(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // The command's name, in parentheses, may hold anything.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
        ticks.sum::<f64>() / TICKS_A_SECOND
    }
    /// A field of /proc/PID/status.
    pub fn status(&self, field: &str) -> Option<String> {
        status(self.pid(), field)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            let ended = watcher.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the watcher panicked");
        }
    }
}

impl Seen {
    fn look(&mut self, watchdog: u32) {
        let pid = serving(watchdog);
        // It may have ended since.
        let Some(peak) = kibibytes(pid, "VmHWM:") else { return };
        let is_program = server(watchdog) == Some(pid) || self.pids.is_empty();
        if is_program {
            self.pids.insert(pid);
        }
        self.peak = self.peak.max(peak << 10);
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        self.files = self.files.max(files);
        self.waits.look(pid);
    }
}

/// The watchdog's server, or the process itself, where there is no watchdog.
fn serving(watchdog: u32) -> i32 {
    server(watchdog).unwrap_or(watchdog.cast_signed())
}

fn status(pid: i32, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(field)?.trim().to_owned()))
}

fn kibibytes(pid: i32, field: &str) -> Option<u64> {
    status(pid, field)?.split_whitespace().next()?.parse().ok()
}
