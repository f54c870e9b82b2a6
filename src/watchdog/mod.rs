//! The first process. It holds the listening sockets and the interception, and guards the server, its child: starts it, hands the
//! sockets over, asks it real questions on every address, replaces it when it ends or hangs, and takes the interception back when it
//! cannot be brought back in time, so that cluster DNS answers instead. When the watchdog itself is killed, the kernel drops what it
//! held, and the server ends by itself.
//!
//! [`state`] decides, purely; [`control`] is the protocol between the two processes, [`channel`] its socket; [`child`] the server's
//! process; [`probe`] the questions; [`interception`] the seam to the node; [`handover`] that to the watchdog before and the one after;
//! [`mod@run`] puts them together. [`server_end`] is the
//! server's side.

pub mod channel;
pub mod child;
pub mod control;
mod foreign;
pub mod handover;
pub mod interception;
pub mod metrics;
pub mod probe;
pub mod run;
pub mod server_end;
pub mod state;

pub use interception::{Idle, Interceptor, SetupError};
pub use metrics::{HTTP_LISTEN, Metrics};
pub use run::{Settings, run};
pub use server_end::{Order, ServerEnd};
