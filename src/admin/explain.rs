//! `nodelocaldns explain`: what the plan that serves would do with a question, and does with it if it is asked.

use super::command::{COMMAND_PATIENCE, Commands, listeners};
use crate::message::{Name, NameError, RecordType};
use crate::plan::{self, Asked, ExplainError, ExplainReport};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// How long a question that is asked for real may take: longer than `forward` takes with its defaults, and less than
/// whoever asks here waits for.
const ASK_PATIENCE: Duration = Duration::from_secs(8);

/// Questions that are asked for real at a time, those included that nobody waits for any more: few enough to leave
/// connections to others.
pub(super) const MOST_ASKED: usize = 4;

/// From who wants to know what would become of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainRequest {
    pub name: String,
    pub qtype: u16,
    /// Who asks; `None`: this machine.
    pub client: Option<IpAddr>,
    /// Which listen address is asked; `None`: the first that has a server block for it.
    pub server: Option<SocketAddr>,
    /// It is asked for real, too.
    pub asks: bool,
}

/// [`ExplainRequest`], checked.
#[derive(Debug)]
pub(super) struct ExplainTask {
    asked: Asked,
    asks: bool,
}

/// What is wrong with an [`ExplainRequest`].
#[derive(Debug, thiserror::Error)]
pub(super) enum ExplainRequestError {
    #[error("the name cannot be read: {0}")]
    Name(#[from] NameError),
    #[error("nobody is asked in the name of another client: ask without a client, or explain without asking")]
    OtherClient,
}

/// Why there is nothing to tell.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExplainFailure {
    #[error("the server has not said within {} s what it serves: try again", COMMAND_PATIENCE.as_secs())]
    Busy,
    #[error("{MOST_ASKED} questions are being asked already: try again in a few seconds, or without --ask")]
    Crowded,
    #[error(transparent)]
    Refused(#[from] ExplainError),
    #[error("a directive panicked as it explained itself; this is a fault of nodelocaldns, please report it")]
    Panicked,
}

impl ExplainRequest {
    /// # Errors
    /// The name is none, or somebody else is to be the one that asks for real.
    pub(super) fn read(self) -> Result<ExplainTask, ExplainRequestError> {
        let Self { name, qtype, client, server, asks } = self;
        if asks && client.is_some() {
            return Err(ExplainRequestError::OtherClient);
        }
        let asked = Asked { name: Name::parse(&name)?, qtype: RecordType(qtype), client, server };
        Ok(ExplainTask { asked, asks })
    }
}

/// What becomes of it, and if that is wanted what came of it.
/// `places`: for questions that are asked for real, [`MOST_ASKED`] at a time.
pub(super) async fn explain(
    task: &ExplainTask,
    commands: &Commands,
    places: &Arc<Semaphore>,
) -> Result<ExplainReport, ExplainFailure> {
    let ExplainTask { asked, asks } = task;
    let listeners = listeners(commands).await.ok_or(ExplainFailure::Busy)?;
    let explained = AssertUnwindSafe(|| plan::explain(&listeners, asked, Instant::now()));
    let mut report = catch_unwind(explained).map_err(|_| ExplainFailure::Panicked)??;
    if *asks {
        let place = places.clone().try_acquire_owned().map_err(|_| ExplainFailure::Crowded)?;
        report.asked = Some(plan::ask(&listeners, asked, ASK_PATIENCE, place).await?);
    }
    Ok(report)
}
