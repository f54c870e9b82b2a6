//! The immutable plan that serves: listeners, the zones on each, their chains. [`configure`] reads a tree into a [`PlanConfig`] and
//! collects every error; [`PlanConfig::build`] makes the [`Plan`]; [`Listener::dispatch`] is the way of a message through it.

mod dispatch;

pub use dispatch::{Dispatch, Pending};

use crate::chain::{Endpoint, Timeouts};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Everything a Corefile asks for, ready to serve. Immutable: a changed Corefile makes a new one.
pub struct Plan {
    /// One for each distinct address and port.
    pub listeners: Vec<Arc<Listener>>,
    pub endpoints: Vec<Endpoint>,
    /// How long to serve on after SIGTERM: the longest of the blocks' lameducks.
    pub lameduck: Duration,
}

/// An address and port, and the zones served there.
pub struct Listener {
    pub address: SocketAddr,
    pub timeouts: Timeouts,
}
