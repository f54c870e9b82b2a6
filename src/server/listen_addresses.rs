//! The addresses where DNS is served: those with sockets for UDP and TCP, and those with TCP's alone (TLS, HTTPS).

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Addresses at which DNS is served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenAddresses {
    /// Over UDP and TCP.
    pub dns: Vec<SocketAddr>,
    /// Over TCP alone, as it is within TLS or HTTP.
    pub streams: Vec<SocketAddr>,
}

impl ListenAddresses {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = SocketAddr> {
        self.dns.iter().chain(&self.streams).copied()
    }

    pub fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }
}

impl FromIterator<SocketAddr> for ListenAddresses {
    /// Over UDP and TCP at each of these.
    fn from_iter<T: IntoIterator<Item = SocketAddr>>(dns: T) -> Self {
        Self { dns: dns.into_iter().collect(), streams: Vec::new() }
    }
}
