//! A client's request on its way through a chain.

use crate::message::{Query, Reply, TtlRule};
use smallvec::SmallVec;
use std::net::SocketAddr;
use std::time::Instant;

/// How the request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    /// `udp` or `tcp`, as metrics and logs write it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// The two ends and the transport of a request.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub client: SocketAddr,
    pub local: SocketAddr,
    pub transport: Transport,
}

/// Why the chain runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client waits for the answer.
    Answer,
    /// The cache wants a newer answer; nobody waits.
    Refresh,
}

/// The UDP payload size we state and ask for: what crosses every path unfragmented (DNS flag day 2020).
pub const OWN_UDP_SIZE: u16 = 1232;

/// A request, borrowed from the datagram it came in or from an [`OwnedRequest`].
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The client's message.
    pub wire: &'a [u8],
    pub query: &'a Query,
    pub peer: &'a Peer,
    /// Index of the listen address in [`super::BuildContext::servers`].
    pub server: usize,
    /// Index of the zone that matched in [`super::BuildContext::block_zones`].
    pub zone: usize,
    /// The block's `bufsize`, if it has one: no UDP payload size above it is used or offered.
    pub udp_cap: Option<u16>,
    pub received: Instant,
    pub purpose: Purpose,
}

impl Request<'_> {
    /// Octets the reply may have.
    pub fn limit(&self) -> usize {
        match self.peer.transport {
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp => usize::from(self.query.udp_limit().min(self.udp_cap.unwrap_or(u16::MAX)).max(512)),
        }
    }
    /// The UDP payload size to state in OPT records, to the client and upstream: what the block says, else ours.
    pub fn udp_size(&self) -> u16 {
        self.udp_cap.unwrap_or(OWN_UDP_SIZE)
    }
    /// How the reply is shaped for this client.
    pub fn reply(&self, ttl: TtlRule) -> Reply {
        Reply { ttl, limit: self.limit(), udp_size: self.udp_size() }
    }
    pub fn to_owned(&self) -> OwnedRequest {
        OwnedRequest {
            wire: self.wire.into(),
            query: self.query.clone(),
            peer: *self.peer,
            server: self.server,
            zone: self.zone,
            udp_cap: self.udp_cap,
            received: self.received,
            purpose: self.purpose,
        }
    }
}

/// A request that outlives its datagram.
pub struct OwnedRequest {
    /// Most queries fit, and need no memory of their own.
    pub wire: SmallVec<[u8; 128]>,
    pub query: Query,
    pub peer: Peer,
    pub server: usize,
    pub zone: usize,
    pub udp_cap: Option<u16>,
    pub received: Instant,
    pub purpose: Purpose,
}

impl OwnedRequest {
    pub fn borrow(&self) -> Request<'_> {
        Request {
            wire: &self.wire,
            query: &self.query,
            peer: &self.peer,
            server: self.server,
            zone: self.zone,
            udp_cap: self.udp_cap,
            received: self.received,
            purpose: self.purpose,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::chain::testing::Sample;
    use crate::message::RecordType;

    #[test]
    fn the_size_that_the_block_says_is_stated_even_if_it_is_more_than_ours() {
        let mut sample = Sample::with_edns("a.example.", RecordType::A, Some((4096, false)));
        for (udp_cap, stated, limit) in [(None, 1232, 4096), (Some(600), 600, 600), (Some(4096), 4096, 4096)] {
            sample.udp_cap = udp_cap;
            let request = sample.exchange().request;
            assert_eq!((request.udp_size(), request.limit()), (stated, limit), "{udp_cap:?}");
        }
    }
}
