//! The machine's side: its first process, the process of a case, and what is written down when one fails.

pub mod case;
mod dump;
pub mod init;
mod mounts;
