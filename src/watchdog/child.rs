//! Starts and watches the server's process: this program again, with the control socket as descriptor 3.

use super::channel::{Channel, ChannelError};
use super::control::{Instruction, ServerReport};
use super::state::Exit;
use crate::server::Sockets;
use command_fds::{CommandFdExt, FdMapping};
use rustix::fs::fcntl_get_seals;
use std::ffi::OsString;
use std::fs;
use std::future::pending;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Names the descriptor of the control socket in the server's environment.
pub(crate) const CONTROL_FD: &str = "NODELOCALDNS_CONTROL_FD";
const DESCRIPTOR: i32 = 3;

/// Read by glibc when a program starts.
const TUNABLES: &str = "GLIBC_TUNABLES";
const TCACHE_COUNT: &str = "glibc.malloc.tcache_count";
/// Freed blocks of one size that glibc's allocator keeps at hand for a thread. Its own 7 are soon used up where the
/// queries of a batch begin and end together, and the slow way took a twelfth of a miss's instructions
/// (benches/README.md).
const TCACHE_BLOCKS: u32 = 127;

/// What a process asks to be added to what it holds when the kernel looks for one to kill, in thousandths of the memory
/// that is short: the container's limit, or all of the machine's (proc_pid_oom_score_adj(5)).
const OWN_OOM_SCORE: &str = "/proc/self/oom_score_adj";
/// The watchdog's: killed after everything else but what must never be killed (-1000). Only CAP_SYS_RESOURCE may lower
/// it.
const OOM_SCORE: i32 = -999;
/// How much above the watchdog's the server's is at least, which takes no capability. A server that has just begun
/// holds less than the watchdog, and is to be killed all the same: the watchdog holds less than a fifth of any limit
/// above 32 MiB. Not more, since when the whole machine is short each process that has the score of a guaranteed or
/// node-critical pod (-997) and holds less than this part of it is killed after the server; every ordinary one is
/// killed before.
const OOM_DISTANCE: i32 = 200;
const MOST_OOM_SCORE: i32 = 1000;

/// What to start, time and again.
pub(crate) struct ServerProgram {
    arguments: Vec<OsString>,
    /// The server's score for the out-of-memory killer, if it is not simply ours.
    oom_score: Option<i32>,
}

impl ServerProgram {
    /// This program with these arguments, the first of which is its name.
    pub(crate) fn new(arguments: Vec<OsString>) -> Self {
        Self { arguments, oom_score: None }
    }

    /// Makes this process the last to be killed when memory runs out, as far as it may, and each server one that is
    /// killed before it.
    pub(crate) fn shield_from_oom(&mut self) {
        let Some(before) = oom_score() else { return };
        if let Err(error) = fs::write(OWN_OOM_SCORE, OOM_SCORE.to_string()) {
            tracing::debug!("watchdog: the score for the out-of-memory killer stays {before}: {error}");
        }
        self.oom_score = oom_score().map(|own| server_oom_score(before, own));
    }

    /// Starts a server. May wait for the memory and the file system that a program is started from.
    fn spawn(&self) -> io::Result<ServerProcess> {
        let (here, there) = Channel::pair()?;
        let mut command = Command::new("/proc/self/exe");
        let mut arguments = self.arguments.iter();
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        command
            .args(arguments)
            .env(CONTROL_FD, DESCRIPTOR.to_string())
            .env(TUNABLES, tunables(std::env::var_os(TUNABLES)));
        let mapping = FdMapping { parent_fd: there.into_fd(), child_fd: DESCRIPTOR };
        command.fd_mappings(vec![mapping]).map_err(io::Error::other)?;
        let process = command.spawn()?;
        if let (Some(score), Some(pid)) = (self.oom_score, process.id())
            && let Err(error) = fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
        {
            tracing::debug!("watchdog: the server keeps the watchdog's score for the out-of-memory killer: {error}");
        }
        let readable = here.watch()?;
        Ok(ServerProcess { process, channel: Some((here, readable)) })
    }
}

/// Orders servers. They are started by whoever has the other end ([`SpawnLoop`]), which may wait for the file system
/// that a program is started from.
pub(crate) struct SpawnHandle(mpsc::Sender<oneshot::Sender<io::Result<ServerProcess>>>);

/// Starts the servers that are ordered.
pub(crate) struct SpawnLoop {
    program: ServerProgram,
    orders: mpsc::Receiver<oneshot::Sender<io::Result<ServerProcess>>>,
}

impl SpawnHandle {
    /// Both ends.
    pub(crate) fn new(program: ServerProgram) -> (Self, SpawnLoop) {
        let (order, orders) = mpsc::channel();
        (Self(order), SpawnLoop { program, orders })
    }

    /// A new server, once it is started. Dropped, it is not wanted any longer.
    pub(super) fn spawn(&self) -> oneshot::Receiver<io::Result<ServerProcess>> {
        let (wanted, server) = oneshot::channel();
        // Fails only when the process ends.
        _ = self.0.send(wanted);
        server
    }
}

impl SpawnLoop {
    /// Starts servers, to be watched in `runtime`, until the [`SpawnHandle`] is gone. To be called on the main thread,
    /// which lives as long as the process: a server is killed when the thread ends that started it, and is among that
    /// thread's children in /proc.
    pub(crate) fn serve(self, runtime: &Handle) {
        let _entered = runtime.enter();
        while let Ok(wanted) = self.orders.recv() {
            if !wanted.is_closed() {
                // One that comes too late is killed as it is dropped.
                _ = wanted.send(self.program.spawn());
            }
        }
    }
}

/// This process's score for the out-of-memory killer.
fn oom_score() -> Option<i32> {
    fs::read_to_string(OWN_OOM_SCORE).ok()?.trim().parse().ok()
}

/// The server's: the watchdog's `before` it was lowered to its `own`, unless that is too near.
fn server_oom_score(before: i32, own: i32) -> i32 {
    before.max(own + OOM_DISTANCE).min(MOST_OOM_SCORE)
}

/// The server's tunables: ours, and what we want if they do not say otherwise.
fn tunables(ours: Option<OsString>) -> OsString {
    let mut tunables = ours.unwrap_or_default();
    if !tunables.to_string_lossy().contains(TCACHE_COUNT) {
        if !tunables.is_empty() {
            tunables.push(":");
        }
        tunables.push(format!("{TCACHE_COUNT}={TCACHE_BLOCKS}"));
    }
    tunables
}

/// News of the server.
#[derive(Debug)]
pub(super) enum ServerEvent {
    Report(ServerReport),
    /// What its caches hold.
    Cache(OwnedFd),
    /// It has said what is no report; nothing it says is listened to any longer.
    ProtocolError(ChannelError),
    /// It has ended, and all it had to say has been told.
    Exited(Exit),
}

/// A running server. Killed when dropped.
pub(super) struct ServerProcess {
    process: Child,
    channel: Option<(Channel, AsyncFd<OwnedFd>)>,
}

impl ServerProcess {
    /// The next event. May be dropped and called again at any time.
    pub(super) async fn next_event(&mut self) -> ServerEvent {
        let Self { process, channel } = self;
        // Through a pidfd, so that the end is known at once.
        let exit = tokio::select! {
            biased;
            event = listen(channel) => return event,
            exit = process.wait() => exit,
        };
        if let Some(Ok(Some((report, passed)))) = channel.as_ref().map(|(channel, _)| channel.receive()) {
            return to_event(report, passed);
        }
        ServerEvent::Exited(exit.map_or(Exit::Status(1), to_exit))
    }

    /// Says something, with descriptors beside it.
    pub(super) fn tell(&self, instruction: &Instruction, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        self.channel.as_ref().map_or(Err(ChannelError::Closed), |(channel, _)| channel.send(instruction, descriptors))
    }

    /// Passes sockets that it wanted.
    pub(super) fn pass(&self, sockets: &Sockets) -> Result<(), ChannelError> {
        let descriptors: Vec<BorrowedFd<'_>> = sockets.fds().collect();
        let (channel, _) = self.channel.as_ref().ok_or(ChannelError::Closed)?;
        channel.send_in_packets(&descriptors, |more| Instruction::Sockets { more })
    }

    /// Ends it now, even if it is stopped.
    pub(super) fn kill(&mut self) {
        // Fails only if it has ended.
        _ = self.process.start_kill();
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What the server says; silent for good once its end is closed.
async fn listen(channel: &mut Option<(Channel, AsyncFd<OwnedFd>)>) -> ServerEvent {
    while let Some((open, readable)) = channel {
        let Ok(mut ready) = readable.readable().await else { break };
        match open.receive() {
            Ok(Some((report, passed))) => {
                let event = to_event(report, passed);
                if matches!(event, ServerEvent::ProtocolError(_)) {
                    drop(ready);
                    *channel = None;
                }
                return event;
            }
            Ok(None) => ready.clear_ready(),
            Err(ChannelError::Closed) => {
                drop(ready);
                *channel = None;
            }
            Err(error) => {
                drop(ready);
                *channel = None;
                return ServerEvent::ProtocolError(error);
            }
        }
    }
    pending().await
}

/// Beside a cache belongs a file in memory, beside any other report nothing: what else came could be anything, and is
/// kept by nobody.
fn to_event(report: ServerReport, mut passed: Vec<OwnedFd>) -> ServerEvent {
    match (report, passed.pop()) {
        (ServerReport::Cache, Some(cache)) if passed.is_empty() && fcntl_get_seals(&cache).is_ok() => {
            ServerEvent::Cache(cache)
        }
        (report, None) => ServerEvent::Report(report),
        (_, Some(_)) => ServerEvent::ProtocolError(ChannelError::UnexpectedDescriptors),
    }
}

fn to_exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Status(code),
        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Exit, ServerEvent, server_oom_score, to_event, to_exit, tunables};
    use crate::watchdog::control::ServerReport;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    #[test]
    fn the_allocator_is_told_to_keep_more_unless_the_user_says_otherwise() {
        let ours = |text: &str| tunables(Some(text.into())).into_string().unwrap();
        assert_eq!(tunables(None), "glibc.malloc.tcache_count=127");
        assert_eq!(ours("glibc.malloc.arena_max=2"), "glibc.malloc.arena_max=2:glibc.malloc.tcache_count=127");
        assert_eq!(ours("glibc.malloc.tcache_count=3"), "glibc.malloc.tcache_count=3");
    }

    #[test]
    fn a_server_is_far_enough_above_its_watchdog_for_the_out_of_memory_killer_and_not_above_the_most() {
        assert_eq!(server_oom_score(0, -999), 0, "ours could be lowered");
        assert_eq!(server_oom_score(-997, -997), -797, "a node-critical pod without CAP_SYS_RESOURCE");
        assert_eq!(server_oom_score(-997, -999), -799, "with it");
        assert_eq!(server_oom_score(0, 0), 200);
        assert_eq!(server_oom_score(900, 900), 1000);
    }

    #[test]
    fn an_exit_is_by_status_or_by_signal() {
        assert_eq!(to_exit(ExitStatus::from_raw(3 << 8)), Exit::Status(3));
        assert_eq!(to_exit(ExitStatus::from_raw(9)), Exit::Signal(9));
    }

    #[test]
    fn nothing_but_a_file_in_memory_is_taken_and_that_beside_a_cache_alone() {
        let file = || memfd_create("cache", MemfdFlags::CLOEXEC).unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        let other = || ServerReport::SetupError { errortype: "text".to_owned() };
        assert!(matches!(to_event(ServerReport::Cache, vec![file()]), ServerEvent::Cache(_)));
        assert!(matches!(to_event(ServerReport::Cache, vec![]), ServerEvent::Report(ServerReport::Cache)));
        assert!(matches!(to_event(other(), vec![]), ServerEvent::Report(_)));
        assert!(matches!(to_event(ServerReport::Cache, vec![reader.into()]), ServerEvent::ProtocolError(_)));
        assert!(matches!(to_event(ServerReport::Cache, vec![file(), file()]), ServerEvent::ProtocolError(_)));
        assert!(matches!(to_event(other(), vec![file()]), ServerEvent::ProtocolError(_)));
    }
}
