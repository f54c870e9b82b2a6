//! `nodelocaldns explain`: what the plan that serves would do with a question, and does with it if it is asked.

use super::command::{COMMAND_PATIENCE, Commands, listeners};
use crate::message::{Name, NameError, RecordType};
use crate::plan::{self, Asked, ExplainError, ExplainReport};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long a question that is asked for real may take: longer than `forward` takes with its defaults, and less than
/// whoever asks here waits for.
const ASK_PATIENCE: Duration = Duration::from_secs(8);

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

/// Why there is nothing to tell.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExplainFailure {
    #[error("the server has not said within {} s what it serves: try again", COMMAND_PATIENCE.as_secs())]
    Busy,
    #[error(transparent)]
    Refused(#[from] ExplainError),
    #[error("a directive panicked as it explained itself; this is a fault of nodelocaldns, please report it")]
    Panicked,
}

impl ExplainRequest {
    /// # Errors
    /// The name is none.
    pub(super) fn read(self) -> Result<ExplainTask, NameError> {
        let Self { name, qtype, client, server, asks } = self;
        let asked = Asked { name: Name::parse(&name)?, qtype: RecordType(qtype), client, server };
        Ok(ExplainTask { asked, asks })
    }
}

/// What becomes of it, and if that is wanted what came of it.
pub(super) async fn explain(task: &ExplainTask, commands: &Commands) -> Result<ExplainReport, ExplainFailure> {
    let ExplainTask { asked, asks } = task;
    let listeners = listeners(commands).await.ok_or(ExplainFailure::Busy)?;
    let explained = AssertUnwindSafe(|| plan::explain(&listeners, asked, Instant::now()));
    let mut report = catch_unwind(explained).map_err(|_| ExplainFailure::Panicked)??;
    if *asks {
        report.asked = match timeout(ASK_PATIENCE, plan::ask(&listeners, asked)).await {
            Ok(asked) => Some(asked?),
            Err(_late) => {
                let why = format!("there is no answer within {} s", ASK_PATIENCE.as_secs());
                Some(plan::AskReport { failure: Some(why), ..plan::AskReport::default() })
            }
        };
    }
    Ok(report)
}
