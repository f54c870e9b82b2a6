//! A dnstap message in its frame: dnstap.proto of github.com/dnstap/dnstap.pb, written into one buffer, since this
//! happens for every query. Pure.

use prost::encoding::{WireType, encode_key, encode_varint};
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Octets before each frame: its length (fstrm's data frames).
pub(super) const FRAME_HEADER: usize = 4;

/// What a message tells of (`Message.Type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ClientQuery = 5,
    ClientResponse = 6,
    ForwarderQuery = 7,
    ForwarderResponse = 8,
}

/// How it was sent (`SocketProtocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Udp = 1,
    Tcp = 2,
    Tls = 3,
    Https = 4,
}

/// `Message`, as far as it is used here.
#[derive(Clone, Copy, Debug)]
pub(super) struct TapMessage<'a> {
    pub kind: Kind,
    pub protocol: Protocol,
    /// Who asks.
    pub query: Option<SocketAddr>,
    /// Who answers.
    pub response: Option<SocketAddr>,
    /// Since the Unix epoch.
    pub query_time: Option<Duration>,
    pub response_time: Option<Duration>,
    /// The DNS message.
    pub wire: Option<Wire<'a>>,
}

/// A DNS message, whose ID may stand elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire<'a> {
    pub id: [u8; 2],
    pub after_id: &'a [u8],
}

impl<'a> Wire<'a> {
    /// This message.
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self::with_id(message, message)
    }

    /// This message with the ID of another.
    pub(super) fn with_id(message: &'a [u8], other: &[u8]) -> Self {
        let id = other.first_chunk().copied().unwrap_or_default();
        Self { id, after_id: message.get(2..).unwrap_or_default() }
    }
}

/// What every message of a tap begins with: who tells it, by which program.
pub(super) fn envelope(identity: &[u8], version: &[u8]) -> Box<[u8]> {
    let mut out = Vec::new();
    put_octets(1, &[identity], &mut out);
    put_octets(2, &[version], &mut out);
    out.into()
}

thread_local! {
    /// A message, whose length is to stand before it.
    static MESSAGE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Appends a frame with one message.
pub(super) fn append(envelope: &[u8], extra: Option<&str>, message: &TapMessage<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER]);
    out.extend_from_slice(envelope);
    if let Some(extra) = extra {
        put_octets(3, &[extra.as_bytes()], out);
    }
    MESSAGE.with_borrow_mut(|inner| {
        inner.clear();
        put_message(message, inner);
        put_octets(14, &[inner], out);
    });
    // Dnstap.Type.MESSAGE.
    put_number(15, 1, out);
    let length = (out.len() - start - FRAME_HEADER) as u32;
    if let Some(header) = out.get_mut(start..start + FRAME_HEADER) {
        header.copy_from_slice(&length.to_be_bytes());
    }
}

fn put_message(message: &TapMessage<'_>, out: &mut Vec<u8>) {
    put_number(1, message.kind as u64, out);
    let is_ipv4 = |address: SocketAddr| address.ip().to_canonical().is_ipv4();
    if let Some(address) = message.query.or(message.response) {
        // SocketFamily: INET or INET6.
        put_number(2, if is_ipv4(address) { 1 } else { 2 }, out);
    }
    put_number(3, message.protocol as u64, out);
    for (tag, address) in [(4, message.query), (5, message.response)] {
        match address.map(|address| address.ip().to_canonical()) {
            Some(IpAddr::V4(address)) => put_octets(tag, &[&address.octets()], out),
            Some(IpAddr::V6(address)) => put_octets(tag, &[&address.octets()], out),
            None => {}
        }
    }
    for (tag, address) in [(6, message.query), (7, message.response)] {
        if let Some(address) = address {
            put_number(tag, address.port().into(), out);
        }
    }
    let is_response = matches!(message.kind, Kind::ClientResponse | Kind::ForwarderResponse);
    put_time(8, message.query_time, out);
    if let Some(wire) = message.wire.filter(|_| !is_response) {
        put_octets(10, &[&wire.id, wire.after_id], out);
    }
    put_time(12, message.response_time, out);
    if let Some(wire) = message.wire.filter(|_| is_response) {
        put_octets(14, &[&wire.id, wire.after_id], out);
    }
}

/// Seconds under this tag and, as a fixed32, nanoseconds under the next.
fn put_time(tag: u32, time: Option<Duration>, out: &mut Vec<u8>) {
    let Some(time) = time else { return };
    put_number(tag, time.as_secs(), out);
    encode_key(tag + 1, WireType::ThirtyTwoBit, out);
    out.extend_from_slice(&time.subsec_nanos().to_le_bytes());
}

fn put_number(tag: u32, number: u64, out: &mut Vec<u8>) {
    encode_key(tag, WireType::Varint, out);
    encode_varint(number, out);
}

fn put_octets(tag: u32, parts: &[&[u8]], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(parts.iter().map(|part| part.len() as u64).sum(), out);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}
