//! What the thread of the admin socket has the process's control thread do.

use std::convert::Infallible;
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
