//! The admin socket: what root on the node may ask of the server's process, and have it do, beside HTTP and DNS.
//!
//! It is a Unix socket with an abstract name, opened by the watchdog and served by the server ([`server`]) on a thread
//! of its own. Nothing of it is on a query's way. Who may ask is told by the kernel (SO_PEERCRED): root, and the user
//! that the program was started by. Each server has a name of its own ([`socket`]), so none waits for another's, and
//! the name is gone with the server.
//!
//! A connection carries one request and its answer, both lines of JSON ([`protocol`]). docs/admin.md and
//! docs/explain.md are what users read.

mod client;
mod command;
mod explain;
mod protocol;
mod server;
mod socket;

pub(crate) use client::connect;
pub(crate) use command::{AdminCommand, Commands};
pub(crate) use explain::ExplainRequest;
pub(crate) use protocol::{CacheRequest, FlushTarget};
pub(crate) use server::{AdminContext, serve};
pub(crate) use socket::{LABEL_OCTETS, is_label, listen};
