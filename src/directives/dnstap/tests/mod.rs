//! Taps read by a reader of this file, which decodes messages by types of its own.

mod parse;
mod pending;
mod readers;

use prost::Message;
use std::io::{Read, Write};
use std::time::Duration;

/// dnstap.proto, as far as it is read here.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Dnstap {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub identity: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub version: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "3")]
    pub extra: Option<Vec<u8>>,
    #[prost(message, optional, tag = "14")]
    pub message: Option<Body>,
    #[prost(uint32, optional, tag = "15")]
    pub r#type: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Body {
    #[prost(uint32, optional, tag = "1")]
    pub r#type: Option<u32>,
    #[prost(uint32, optional, tag = "2")]
    pub socket_family: Option<u32>,
    #[prost(uint32, optional, tag = "3")]
    pub socket_protocol: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub query_address: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "5")]
    pub response_address: Option<Vec<u8>>,
    #[prost(uint32, optional, tag = "6")]
    pub query_port: Option<u32>,
    #[prost(uint32, optional, tag = "7")]
    pub response_port: Option<u32>,
    #[prost(uint64, optional, tag = "8")]
    pub query_time_sec: Option<u64>,
    #[prost(fixed32, optional, tag = "9")]
    pub query_time_nsec: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "10")]
    pub query_message: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "12")]
    pub response_time_sec: Option<u64>,
    #[prost(fixed32, optional, tag = "13")]
    pub response_time_nsec: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "14")]
    pub response_message: Option<Vec<u8>>,
}

impl Body {
    fn query_time(&self) -> Option<Duration> {
        Some(Duration::new(self.query_time_sec?, self.query_time_nsec?))
    }
    fn response_time(&self) -> Option<Duration> {
        Some(Duration::new(self.response_time_sec?, self.response_time_nsec?))
    }
}

/// The next frame; `None` for a control frame, which is STOP.
fn next_frame(stream: &mut impl Read) -> Option<Vec<u8>> {
    let length = next_word(stream);
    if length == 0 {
        assert_eq!([next_word(stream), next_word(stream)], [4, 3], "STOP");
        return None;
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).unwrap();
    Some(frame)
}

fn next_word(stream: &mut impl Read) -> usize {
    let mut word = [0; 4];
    stream.read_exact(&mut word).unwrap();
    u32::from_be_bytes(word) as usize
}

/// The control frame that is due, and its type.
fn next_control(stream: &mut impl Read) -> u32 {
    assert_eq!(next_word(stream), 0, "a control frame");
    let mut body = vec![0; next_word(stream)];
    stream.read_exact(&mut body).unwrap();
    u32::from_be_bytes(*body.first_chunk().unwrap())
}

/// Says what a reader says at the beginning.
fn accept(stream: &mut (impl Read + Write)) {
    assert_eq!(next_control(stream), 4, "READY");
    stream.write_all(&super::frames::Control::Accept.frame()).unwrap();
    assert_eq!(next_control(stream), 2, "START");
}

fn next_message(stream: &mut impl Read) -> Dnstap {
    Dnstap::decode(&*next_frame(stream).expect("a message")).unwrap()
}

#[test]
fn clients_within_tls_are_told_by_what_is_spoken_at_their_listen_address() {
    let spoken = ["dns://127.0.0.1:53", "tls://127.0.0.1:853", "https://:443"].map(super::encrypted);
    assert_eq!(spoken, [None, Some(super::message::Protocol::Tls), Some(super::message::Protocol::Https)]);
}
