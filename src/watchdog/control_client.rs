//! The server's end of the control socket.

use super::channel::{Channel, ChannelError};
use super::child::CONTROL_FD;
use super::control::{Instruction, ServerReport};
use crate::chain::Level;
use crate::platform::take_inherited_descriptor;
use crate::sandbox::{self, MissingLayer, SandboxError, SandboxLayers};
use crate::server::{ListenAddresses, Sockets};
use parking_lot::Mutex;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// How long the watchdog may take to answer. It opens sockets at once; longer only if it is stopped.
const PATIENCE: Duration = Duration::from_secs(5);

/// More descriptors than a server has when it begins to serve.
const ABOVE_SOCKETS: i32 = 1000;

/// Why a process that was started as a server cannot be one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlClientError {
    #[error(
        "{CONTROL_FD}={0:?} names no control socket: {1}; it is for the watchdog to set, so start nodelocaldns without it"
    )]
    NoSocket(String, io::Error),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("the watchdog is gone")]
    Orphaned,
    #[error("the watchdog did not say what to do: {0}")]
    Channel(#[from] ChannelError),
    #[error(
        "the watchdog began with something else than the generation number; both processes must be of the same build"
    )]
    NoHello,
}

/// What the watchdog wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerCommand {
    /// Look at the configuration again.
    Reload,
    /// Queries for more of the listen addresses come here: see whether those to upstreams do too.
    ProbeUpstreams,
    /// Report what the caches hold.
    ExportCache,
    /// Whether a successor reads the sockets too, and is to have its share of what arrives.
    Yield { is_on: bool },
    /// Log lines of this level, and those above, as the server before was told to.
    LogLevel { level: Level },
    /// Answer what has been received, and end. With `leave` another process reads the sockets on; else they are this
    /// process's own now.
    Stop { leave: bool },
    /// The watchdog is gone, and interception with it: it ends at once.
    Orphaned,
}

/// The server's end of the control socket.
pub(crate) struct ControlClient {
    channel: Channel,
    commands: Mutex<VecDeque<ServerCommand>>,
    generation: u64,
    is_first: bool,
    missing_layers: Vec<MissingLayer>,
    files: Mutex<Option<OwnedFd>>,
    metrics: Mutex<Option<OwnedFd>>,
    admin: Mutex<Option<OwnedFd>>,
    cache: Mutex<Option<OwnedFd>>,
    /// Kept for its end alone.
    rules_owner: Mutex<Option<OwnedFd>>,
}

impl ControlClient {
    /// The end that the watchdog has passed; `None` in a process that no watchdog started. This process then is in its
    /// sandbox, and is killed when the watchdog ends. To be called before any thread is started, since capabilities are
    /// a thread's.
    ///
    /// # Errors
    /// No socket was passed, or the watchdog does not answer.
    pub(crate) fn from_environment() -> Result<Option<Self>, ControlClientError> {
        let Some(value) = std::env::var_os(CONTROL_FD) else { return Ok(None) };
        let value = value.to_string_lossy().into_owned();
        let channel = channel(&value).map_err(|error| ControlClientError::NoSocket(value, error))?;
        let parent = getppid();
        let end_with_parent = || _ = set_parent_process_death_signal(Some(Signal::KILL));
        // Without a watchdog nobody withdraws the interception from a server that hangs.
        let missing_layers = sandbox::enter(SandboxLayers::ALL, end_with_parent)?;
        if getppid() != parent {
            return Err(ControlClientError::Orphaned);
        }
        match channel.wait(PATIENCE)? {
            (Instruction::Hello { generation, is_first, admin }, passed) => {
                let mut passed = passed.into_iter();
                let mut next = || Mutex::new(passed.next());
                let (files, metrics) = (next(), next());
                let admin = if admin { next() } else { Mutex::default() };
                let cache = next();
                let (commands, rules_owner) = (Mutex::default(), Mutex::default());
                Ok(Some(Self {
                    channel,
                    commands,
                    generation,
                    is_first,
                    missing_layers,
                    files,
                    metrics,
                    admin,
                    cache,
                    rules_owner,
                }))
            }
            _ => Err(ControlClientError::NoHello),
        }
    }

    /// What to answer probes with.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether no server of this watchdog ran before.
    pub(crate) fn is_first(&self) -> bool {
        self.is_first
    }

    /// What the sandbox lacks.
    pub(crate) fn missing_layers(&self) -> &[MissingLayer] {
        &self.missing_layers
    }

    /// The socket at which the configuration's files are to be had, once.
    pub(crate) fn take_files(&self) -> Option<OwnedFd> {
        self.files.lock().take()
    }

    /// The admin socket, which listens, once; `None` if there is none.
    pub(crate) fn take_admin(&self) -> Option<OwnedFd> {
        self.admin.lock().take()
    }

    /// The socket at which each process asks the other for its metrics, once.
    pub(crate) fn take_metrics(&self) -> Option<OwnedFd> {
        self.metrics.lock().take()
    }

    /// What a predecessor's caches held, once, if anything was handed over.
    pub(crate) fn take_cache(&self) -> Option<OwnedFd> {
        self.cache.lock().take()
    }

    /// DNS sockets for every address: those that `previous` has, from the watchdog for the others. Waits until the
    /// watchdog has answered. On failure all errors are told. Not to be called while an order is awaited.
    pub(crate) async fn sockets(
        &self,
        wanted: &ListenAddresses,
        workers: usize,
        previous: &Sockets,
    ) -> Result<Sockets, Vec<String>> {
        let received = match previous.lacking(wanted) {
            lacking if lacking.is_empty() => Sockets::default(),
            lacking => self.want(lacking, workers).await?,
        };
        Sockets::assemble(wanted, &received, previous)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    async fn want(&self, listen: ListenAddresses, workers: usize) -> Result<Sockets, Vec<String>> {
        let failed = |error: ChannelError| vec![format!("no sockets from the watchdog: {error}")];
        let readable = self.channel.watch().map_err(|error| failed(error.into()))?;
        self.channel.send(&ServerReport::Want { listen, workers }, &[]).map_err(failed)?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut descriptors = Vec::new();
        loop {
            let Some((instruction, passed)) = self.channel.receive().map_err(failed)? else {
                match tokio::time::timeout_at(deadline, readable.readable()).await {
                    Ok(Ok(mut ready)) => ready.clear_ready(),
                    Ok(Err(error)) => return Err(failed(error.into())),
                    Err(_) => return Err(failed(ChannelError::TimedOut(PATIENCE))),
                }
                continue;
            };
            match instruction {
                Instruction::Sockets { more } => {
                    descriptors.extend(passed);
                    if !more {
                        return Sockets::from_fds(descriptors).map_err(|error| vec![error.to_string()]);
                    }
                }
                Instruction::Refused { errors } => return Err(errors),
                other => self.take(&other, passed),
            }
        }
    }

    /// Tells the watchdog what is served from now on, and how long the end may take.
    pub(crate) fn report_serving(&self, listen: ListenAddresses, http: Vec<SocketAddr>, drain: Duration) {
        let drain_ms = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
        self.report(&ServerReport::Serving { listen, http, drain_ms });
    }

    /// Tells the watchdog where queries are sent.
    pub(crate) fn report_upstreams(&self, addresses: Vec<SocketAddr>) {
        self.report(&ServerReport::Upstreams { addresses });
    }

    /// Tells the watchdog that the configuration cannot be served.
    pub(crate) fn report_failure(&self, message: String) {
        self.report(&ServerReport::Failed { message });
    }

    /// Has the watchdog count an error of this type, such as `configmap`.
    pub(crate) fn report_setup_error(&self, errortype: &str) {
        self.report(&ServerReport::SetupError { errortype: errortype.to_owned() });
    }

    /// Tells the watchdog what a user wants logged.
    pub(crate) fn report_log_level(&self, level: Option<Level>) {
        self.report(&ServerReport::LogLevel { level });
    }

    /// Tells the watchdog that the thread of clients within TLS and HTTPS has had a turn.
    pub(crate) fn report_streams_alive(&self) {
        // A watchdog that does not read is stopped, and needs not know.
        _ = self.channel.offer(&ServerReport::StreamsAlive);
    }

    /// Hands the watchdog what the caches hold, for the server that comes next.
    pub(crate) fn report_cache(&self, cache: BorrowedFd<'_>) {
        self.report_beside(&ServerReport::Cache, &[cache]);
    }

    fn report(&self, report: &ServerReport) {
        self.report_beside(report, &[]);
    }

    fn report_beside(&self, report: &ServerReport, descriptors: &[BorrowedFd<'_>]) {
        if let Err(error) = self.channel.send(report, descriptors) {
            tracing::warn!("the watchdog was not told: {error}");
        }
    }

    fn take(&self, instruction: &Instruction, passed: Vec<OwnedFd>) {
        match instruction {
            Instruction::Hold => *self.rules_owner.lock() = passed.into_iter().next().map(close_before_sockets),
            other => self.commands.lock().extend(to_command(other)),
        }
    }

    /// The next order. May be dropped and called again at any time.
    pub(crate) async fn next_command(&self) -> ServerCommand {
        let Ok(readable) = self.channel.watch() else { return ServerCommand::Orphaned };
        loop {
            if let Some(command) = self.commands.lock().pop_front() {
                return command;
            }
            match self.channel.receive() {
                Ok(Some((instruction, passed))) => self.take(&instruction, passed),
                Ok(None) => match readable.readable().await {
                    Ok(mut ready) => ready.clear_ready(),
                    Err(_) => return ServerCommand::Orphaned,
                },
                Err(ChannelError::Closed) => return ServerCommand::Orphaned,
                Err(error) => {
                    tracing::error!("the watchdog cannot be understood, so this server ends: {error}");
                    return ServerCommand::Stop { leave: false };
                }
            }
        }
    }
}

fn to_command(instruction: &Instruction) -> Option<ServerCommand> {
    match instruction {
        Instruction::Reload => Some(ServerCommand::Reload),
        Instruction::Intercepted => Some(ServerCommand::ProbeUpstreams),
        Instruction::ExportCache => Some(ServerCommand::ExportCache),
        Instruction::Yield { is_on } => Some(ServerCommand::Yield { is_on: *is_on }),
        Instruction::LogLevel { level } => Some(ServerCommand::LogLevel { level: *level }),
        Instruction::Stop { leave } => Some(ServerCommand::Stop { leave: *leave }),
        Instruction::Hello { .. } | Instruction::Hold | Instruction::Sockets { .. } | Instruction::Refused { .. } => {
            None
        }
    }
}

fn channel(value: &str) -> io::Result<Channel> {
    let number: i32 = value.parse().map_err(io::Error::other)?;
    Channel::from_fd(take_inherited_descriptor(number)?)
}

/// The same under a number above those of the listening sockets. When a process ends the kernel closes its files from
/// the highest to the lowest (close_files() defers each to the task's work, which is done last first; seen on Linux
/// 6.18): so the rules are gone before the sockets, and no query meets rules that lead here and a port that is closed.
fn close_before_sockets(owner: OwnedFd) -> OwnedFd {
    // Where so many files may not be open a query or two may be lost.
    rustix::io::fcntl_dupfd_cloexec(&owner, ABOVE_SOCKETS).unwrap_or(owner)
}
