//! A client's request on its way through a chain.

use super::{BatchClock, Metadata, Spans, Trail};
use crate::message::{
    ClientSubnet, DEFAULT_UDP_SIZE, PrefixLimits, Query, ReplyOptions, ReplyShape, RequestKey, Response, TtlRule,
    UpstreamOptions, WireError,
};
use smallvec::SmallVec;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// How the request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A datagram (RFC 1035 section 4.2.1).
    Udp,
    /// A stream (RFC 7766).
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
    /// Where it came from.
    pub client: SocketAddr,
    /// Where it arrived.
    pub local: SocketAddr,
    /// How it came.
    pub transport: Transport,
}

/// A message from a client, as it was received.
#[derive(Clone, Copy)]
pub struct Received<'a> {
    /// Its octets, without TCP's length.
    pub wire: &'a [u8],
    /// Between whom.
    pub peer: &'a Peer,
    /// When it was received, and how long ago that is.
    pub clock: &'a BatchClock,
}

/// Why the chain runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client waits for the answer.
    Answer,
    /// The cache wants a newer answer; nobody waits.
    Refresh,
    /// A client waits, and a cache before has no answer: the handlers behind it are tried on the fast path. One that
    /// would give what a cache keeps ([`crate::message::Rcode::is_cached_bare`]) says [`super::FastPath::Slow`], so
    /// that the cache sees its answer.
    BehindCache,
}

/// The subnet of a client in a server block that keeps those (`client_subnet`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptSubnet {
    /// As the client sent it, and gets it back.
    pub sent: ClientSubnet,
    /// What of it goes upstream, and is part of the request's key.
    pub asked: ClientSubnet,
}

impl KeptSubnet {
    /// That of a query, cut to what the block passes on; `None` if it has none.
    ///
    /// # Errors
    /// It is malformed, and to be answered FORMERR.
    pub fn of(query: &Query, wire: &[u8], limits: PrefixLimits) -> Result<Option<Self>, WireError> {
        let sent = query.client_subnet(wire)?;
        Ok(sent.map(|sent| Self { sent, asked: sent.within(limits) }))
    }
}

/// A request, borrowed from the datagram it came in or from an [`OwnedRequest`].
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The client's message.
    pub wire: &'a [u8],
    pub query: &'a Query,
    pub peer: &'a Peer,
    /// Index of the listen address in [`super::BuildContext::servers`].
    pub server_index: usize,
    /// Index of the zone that matched in [`super::BuildContext::block_zones`].
    pub zone: usize,
    /// The block's `bufsize`, if it has one, in place of [`DEFAULT_UDP_SIZE`].
    pub udp_cap: Option<u16>,
    /// The client's, in a block that keeps them. Such a request takes the slow path alone.
    pub client_subnet: Option<&'a KeptSubnet>,
    /// This server's name, for a client that asks for it in a block that tells it. Such a request takes the slow path
    /// alone.
    pub nsid: Option<&'a Arc<[u8]>>,
    /// EDNS options that a directive before has put there for the upstream. Such a request takes the slow path alone.
    pub options: Option<&'a UpstreamOptions>,
    /// Where directives leave what they know of this request, in a block with `metadata`. On the slow path alone.
    pub metadata: Option<&'a Arc<Metadata>>,
    /// Where it is noted how the answer is had. On the slow path alone.
    pub trail: Option<&'a Arc<Trail>>,
    pub received: Instant,
    pub purpose: Purpose,
    /// A directive before makes another reply of this one on the fast path, and cuts that to what the client takes.
    pub is_cut_later: bool,
}

impl<'a> Request<'a> {
    /// A client's request as it is before a listener or a directive has added anything: of the first listen address and
    /// zone, and without options.
    pub(crate) fn new(wire: &'a [u8], query: &'a Query, peer: &'a Peer, received: Instant) -> Self {
        Self {
            wire,
            query,
            peer,
            server_index: 0,
            zone: 0,
            udp_cap: None,
            client_subnet: None,
            nsid: None,
            options: None,
            metadata: None,
            trail: None,
            received,
            purpose: Purpose::Answer,
            is_cut_later: false,
        }
    }
}

impl Request<'_> {
    /// Everything that the answer may depend on.
    pub fn key(&self) -> RequestKey<'_> {
        RequestKey { options: self.options, ..self.query.key(self.client_subnet.map(|subnet| &subnet.asked)) }
    }
    /// Appends the reply for this client, with the TTLs that the answer has.
    pub fn write(&self, response: &Response, out: &mut Vec<u8>) {
        let shape = self.reply(TtlRule::Keep);
        if self.client_subnet.is_none() && self.nsid.is_none() && response.extended_error().is_none() {
            return response.write(self.query, self.wire, shape, out);
        }
        let mut options = ReplyOptions::default();
        if let Some(subnet) = self.client_subnet {
            response.put_subnet(&subnet.sent, &mut options);
        }
        if let Some(name) = self.nsid {
            options.push_nsid(name);
        }
        if let Some(error) = response.extended_error() {
            options.push_extended_error(error);
        }
        response.write_with_options(self.query, self.wire, shape, &options, out);
    }
    /// Octets the reply may have. Over UDP no client's offer takes more than [`Request::udp_size`]: its address may be
    /// another's, which then gets what it never asked for.
    pub fn limit(&self) -> usize {
        match self.peer.transport {
            Transport::Udp if !self.is_cut_later => self.udp_limit(),
            Transport::Tcp | Transport::Udp => usize::from(u16::MAX),
        }
    }
    /// Octets that a reply to this query may have over UDP, however it came.
    pub fn udp_limit(&self) -> usize {
        usize::from(self.query.udp_limit().min(self.udp_size()).max(512))
    }
    /// The largest UDP payload size, and the one to state in OPT records, to the client and upstream: what the block
    /// says, else ours.
    pub fn udp_size(&self) -> u16 {
        self.udp_cap.unwrap_or(DEFAULT_UDP_SIZE)
    }
    /// How the reply is shaped for this client.
    pub fn reply(&self, ttl: TtlRule) -> ReplyShape {
        ReplyShape { ttl, limit: self.limit(), udp_size: self.udp_size() }
    }
    #[allow(clippy::wrong_self_convention, reason = "a copy is larger than the reference")]
    pub fn to_owned(&self) -> OwnedRequest {
        OwnedRequest {
            wire: self.wire.into(),
            query: self.query.clone(),
            peer: *self.peer,
            server_index: self.server_index,
            zone: self.zone,
            udp_cap: self.udp_cap,
            client_subnet: self.client_subnet.copied(),
            nsid: self.nsid.cloned(),
            options: self.options.cloned(),
            metadata: self.metadata.cloned(),
            trail: self.trail.cloned(),
            received: self.received,
            purpose: self.purpose,
            wants_refresh: false,
            spans: None,
        }
    }
}

/// A request that outlives its datagram.
pub struct OwnedRequest {
    /// Most queries fit, and need no memory of their own.
    pub wire: SmallVec<[u8; 128]>,
    pub query: Query,
    pub peer: Peer,
    pub server_index: usize,
    pub zone: usize,
    pub udp_cap: Option<u16>,
    pub client_subnet: Option<KeptSubnet>,
    pub nsid: Option<Arc<[u8]>>,
    pub options: Option<UpstreamOptions>,
    pub metadata: Option<Arc<Metadata>>,
    pub trail: Option<Arc<Trail>>,
    pub received: Instant,
    pub purpose: Purpose,
    /// A [`Purpose::Refresh`] of it is to run beside it: who would have answered on the fast path wanted one.
    pub wants_refresh: bool,
    /// Where its spans are recorded, if it is traced.
    pub spans: Option<Arc<Spans>>,
}

impl OwnedRequest {
    pub fn borrow(&self) -> Request<'_> {
        Request {
            wire: &self.wire,
            query: &self.query,
            peer: &self.peer,
            server_index: self.server_index,
            zone: self.zone,
            udp_cap: self.udp_cap,
            client_subnet: self.client_subnet.as_ref(),
            nsid: self.nsid.as_ref(),
            options: self.options.as_ref(),
            metadata: self.metadata.as_ref(),
            trail: self.trail.as_ref(),
            received: self.received,
            purpose: self.purpose,
            is_cut_later: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::chain::testing::Sample;
    use crate::message::RecordType;

    #[test]
    fn no_offer_takes_more_over_udp_than_the_block_says_or_else_1232_octets() {
        for (offer, udp_cap, stated, limit) in [
            (u16::MAX, None, 1232, 1232),
            (1231, None, 1232, 1231),
            (4096, Some(600), 600, 600),
            (u16::MAX, Some(4096), 4096, 4096),
            (2000, Some(4096), 4096, 2000),
            (100, None, 1232, 512),
        ] {
            let mut sample = Sample::with_edns("a.example.", RecordType::A, Some((offer, false)));
            sample.udp_cap = udp_cap;
            let request = sample.exchange().request;
            assert_eq!((request.udp_size(), request.limit()), (stated, limit), "{offer}, {udp_cap:?}");
        }
    }
}
