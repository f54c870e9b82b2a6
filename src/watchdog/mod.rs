//! The watchdog is the first process. It holds the listening sockets and the interception rules, and guards the server,
//! its child process.
//!
//! It starts the server, passes it the sockets and asks it real questions at every address. It replaces a server that
//! ends or hangs. When no server answers in time it withdraws the interception, so that cluster DNS answers instead.
//! When the watchdog itself is killed, the kernel kills the server and drops nftables' rules.
//!
//! - [`state`] decides: a state machine without sockets, processes or clocks. [`mod@run`] is the loop that feeds it and
//!   does what it says.
//! - [`child`] starts the server's process. [`control`] has the messages between both processes, [`channel`] the socket
//!   that carries them, and [`control_client`] the server's end of it.
//! - [`probe`] asks the questions. [`backlog`] tells whether they may have been dropped on their way.
//! - [`metrics_exchange`] has each of them tell the other what it counts.
//! - [`status`] is what it tells of itself, and the page that shows it.
//! - [`node_thread`] keeps link and rules as wanted, by way of an [`Interceptor`].
//! - [`handover`] talks to the watchdog before this one and to the one after it.

mod backlog;
pub(crate) mod channel;
pub(crate) mod child;
pub mod control;
pub(crate) mod control_client;
mod foreign_responder;
pub mod handover;
pub mod metrics;
mod metrics_exchange;
mod node_thread;
pub mod probe;
pub(crate) mod run;
pub mod state;
mod status;

pub(crate) use control_client::{ControlClient, ServerCommand};
pub(crate) use metrics::HTTP_LISTEN;
pub(crate) use metrics_exchange::MetricsExchange;
pub(crate) use node_thread::{EnsureOutcome, Interceptor, NoopInterceptor, SetupError};
pub(crate) use run::{StatusPage, WatchdogSettings, run};
