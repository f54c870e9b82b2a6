//! `nodelocaldns doctor`: whether this node's queries are really intercepted, and what to do if not.
//!
//! [`collect()`] sees what is there ([`Findings`]) and changes nothing; [`diagnose()`] makes a
//! [`diagnosis::Diagnosis`] of it, purely. README.md beside this file lists the checks and the fields of the JSON
//! output.

mod checks;
mod collect;
mod diagnosis;
mod findings;

pub use checks::diagnose;
pub(crate) use collect::{agents, collect};
pub use collect::{netfilter_sockets, privileges_of};
pub use findings::{AgentProcess, Expectation, Findings, ListeningSocket, SocketHolder};
