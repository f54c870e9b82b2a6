//! What the thread of the admin socket has the process's control thread do.

use super::log_level::{LogLevelRequest, LogLevels};
use crate::plan::Listener;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// How long the process's control thread may take to do what it is told.
pub(super) const COMMAND_PATIENCE: Duration = Duration::from_secs(5);

/// Gets what closes when all workers have done it.
pub(crate) type Told = oneshot::Sender<mpsc::Receiver<Infallible>>;

/// What the process's control thread is to do.
#[derive(Debug)]
pub(crate) enum AdminCommand {
    /// Have the workers' packet caches let go of all.
    FlushPackets(Told),
    /// Have the workers show all that they answer as long as somebody taps.
    FollowTaps(Told),
    /// Log more or less, if that is wanted by this user, and say what is logged.
    LogLevel { request: LogLevelRequest, user: u32, tell: oneshot::Sender<LogLevels> },
    /// Give the listeners of the plan that serves.
    Listeners(oneshot::Sender<Vec<Arc<Listener>>>),
}

/// The process's control thread, as it is told.
pub(crate) type Commands = mpsc::UnboundedSender<AdminCommand>;

/// What the control thread says to a command. `None`: nothing within [`COMMAND_PATIENCE`].
pub(super) async fn ask<T>(commands: &Commands, command: impl FnOnce(oneshot::Sender<T>) -> AdminCommand) -> Option<T> {
    let (tell, told) = oneshot::channel();
    commands.send(command(tell)).ok()?;
    timeout(COMMAND_PATIENCE, told).await.ok()?.ok()
}

/// Has something done by all workers. `None`: not within [`COMMAND_PATIENCE`].
pub(super) async fn carry_out(commands: &Commands, command: fn(Told) -> AdminCommand) -> Option<()> {
    let work = async {
        // Closes, and says nothing.
        ask(commands, command).await?.recv().await.map_or(Some(()), |never| match never {})
    };
    timeout(COMMAND_PATIENCE, work).await.ok().flatten()
}

/// The listeners of the plan that serves. `None`: not within [`COMMAND_PATIENCE`].
pub(super) async fn listeners(commands: &Commands) -> Option<Vec<Arc<Listener>>> {
    ask(commands, AdminCommand::Listeners).await
}
