//! The admin socket: what root on the node may ask of the server's process, and have it do, beside HTTP and DNS.
//!
//! It is a Unix socket with an abstract name, opened by the watchdog and served by the server ([`server`]) on a thread
//! of its own. Nothing of it is on a query's way. Who may ask is told by the kernel (SO_PEERCRED): root, and the user
//! that the program was started by. Each server has a name of its own ([`socket`]), so none waits for another's, and
//! the name is gone with the server.
//!
//! A connection carries one request and its answer, both lines of JSON ([`protocol`]), or, where queries are shown
//! ([`queries`]), many lines until one side ends it. docs/admin.md, docs/queries.md and docs/explain.md are
//! what users read.

mod client;
mod command;
mod explain;
mod lines;
mod log_level;
mod protocol;
mod queries;
mod server;
mod socket;

pub(crate) use client::{AdminError, QueriesStream, connect};
pub(crate) use command::{AdminCommand, Commands};
pub(crate) use explain::ExplainRequest;
pub(crate) use log_level::{LogLevelRequest, LogLevels};
pub(crate) use protocol::{CacheRequest, FlushTarget, QueriesLine, QueriesRequest, QueriesSummary};
pub(crate) use server::{AdminContext, serve};
pub(crate) use socket::{LABEL_OCTETS, is_label, listen};
