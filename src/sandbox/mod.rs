//! The server's sandbox: a user of its own, no capability, no files but its own figures in /proc, and only the system
//! calls it makes. README.md beside this file lists what it can still do.
//!
//! Each of the three layers is set up as far as this machine allows. One that cannot be is reported ([`MissingLayer`]),
//! and service goes on without it.

mod credentials;
mod landlock;
mod seccomp;

use rustix::thread::set_no_new_privs;
use std::io;

/// The server's user and group. It is in no file: the number lies between the ranges that Debian and systemd give out,
/// below the 65,536 of a container that has a user namespace of its own.
pub const USER: u32 = 61053;

/// Which layers are to be set up. Capabilities are given up in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxLayers {
    /// A user of its own.
    pub user: bool,
    /// No files (landlock(7)).
    pub files: bool,
    /// Only the system calls it needs (seccomp(2)).
    pub calls: bool,
}

impl SandboxLayers {
    /// All layers.
    pub const ALL: Self = Self { user: true, files: true, calls: true };
}

/// Why the sandbox could not be entered at all.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says it")]
pub enum SandboxError {
    #[error("cannot rule out new privileges: {0}")]
    Privileges(io::Error),
    #[error("cannot give up capabilities: {0}")]
    Capabilities(io::Error),
}

/// A layer that is not there, or not whole, and why.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says it")]
pub enum MissingLayer {
    #[error("a user of its own, since the watchdog is not root")]
    NotRoot,
    #[error(
        "a user of its own, since the container lacks {0}: add it to the container's capabilities (docs/kubernetes.md)"
    )]
    Rights(String),
    #[error("a user of its own, since this user namespace has no user {USER}, or forbids to change: {0}")]
    User(io::Error),
    #[error("landlock, which keeps it from files: {0}")]
    Files(String),
    #[error("landlock for signals and abstract sockets, which Linux has since 6.12")]
    Scopes,
    #[error("seccomp, which keeps it to the system calls it makes: {0}")]
    Calls(String),
}

impl MissingLayer {
    /// Nobody who started the program as an ordinary user has to be told.
    pub fn is_expected(&self) -> bool {
        matches!(self, Self::NotRoot)
    }
}

/// Gives up everything that the server does not need, for good. To be called while the process has one thread: those
/// that it starts have no more than it has then. What is open stays open. `prepare` is called when the user has
/// changed, which makes the kernel forget some of what it was asked for, and before the calls are bound.
///
/// # Errors
/// Capabilities are kept, which the kernel never does.
pub fn enter(layers: SandboxLayers, prepare: impl FnOnce()) -> Result<Vec<MissingLayer>, SandboxError> {
    // Asked once, and known from then on: later its file in /proc is root's, and rustix panics without it.
    _ = rustix::param::page_size();
    // A static program cannot look up the C library's function, opens /dev/urandom once, and keeps it open.
    _ = rand::random::<u32>();
    set_no_new_privs(true).map_err(|error| SandboxError::Privileges(error.into()))?;
    let mut missing_layers = Vec::new();
    if layers.user {
        missing_layers.extend(credentials::change().err());
    }
    credentials::give_up_capabilities().map_err(|error| SandboxError::Capabilities(error.into()))?;
    prepare();
    if layers.files {
        missing_layers.extend(landlock::restrict());
    }
    if layers.calls {
        missing_layers.extend(seccomp::restrict().err());
    }
    Ok(missing_layers)
}
