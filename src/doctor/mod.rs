//! `nodelocaldns doctor`: whether this node's queries are really intercepted, and what to do if not.
//!
//! [`look()`] sees what is there ([`Findings`]) and changes nothing; [`judge()`] makes a [`Diagnosis`] of it, purely. README.md beside this file
//! lists the checks and the fields of the JSON output.

mod diagnosis;
mod findings;
mod judge;
mod look;

pub use diagnosis::{Check, Diagnosis, Verdict};
pub use findings::{Agent, Asked, Findings, Holder, Listener, Page, Question, Reply, Rights, Way};
pub use judge::judge;
pub use look::{agents, look, netfilter_sockets, rights_of};
