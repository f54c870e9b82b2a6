//! What the thread of the admin socket has the process's control thread do.

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
    /// Give the listeners of the plan that serves.
    Listeners(oneshot::Sender<Vec<Arc<Listener>>>),
}

/// The process's control thread, as it is told.
pub(crate) type Commands = mpsc::UnboundedSender<AdminCommand>;

/// Has something done by all workers. `None`: not within [`COMMAND_PATIENCE`].
pub(super) async fn carry_out(commands: &Commands, command: fn(Told) -> AdminCommand) -> Option<()> {
    let work = async {
        let (tell, told) = oneshot::channel();
        commands.send(command(tell)).ok()?;
        // Closes, and says nothing.
        told.await.ok()?.recv().await.map_or(Some(()), |never| match never {})
    };
    timeout(COMMAND_PATIENCE, work).await.ok().flatten()
}

/// The listeners of the plan that serves. `None`: not within [`COMMAND_PATIENCE`].
pub(super) async fn listeners(commands: &Commands) -> Option<Vec<Arc<Listener>>> {
    let (tell, told) = oneshot::channel();
    commands.send(AdminCommand::Listeners(tell)).ok()?;
    timeout(COMMAND_PATIENCE, told).await.ok()?.ok()
}
