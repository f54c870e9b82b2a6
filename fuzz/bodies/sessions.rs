//! What a client sends within TLS, after decryption, and then no more. The first octet says what is spoken, the second
//! how it is cut up.

use crate::nowhere::Nowhere;
use nodelocaldns::chain::{Loaders, ProcessContext};
use nodelocaldns::corefile::parse;
use nodelocaldns::message::framing::{self, Frame};
use nodelocaldns::message::{Query, Response};
use nodelocaldns::plan::{Plan, configure};
use nodelocaldns::server::{SessionProtocol, serve_decrypted};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
use tokio::time::timeout;

/// Answers every name itself.
const COREFILE: &str = "https://. {\n whoami\n}\n";

/// Octets of the longest query that the server reads.
const LONGEST_QUERY: usize = 4096;

/// Octets that wait between both ends, in each direction.
const BETWEEN: usize = 16 << 10;

/// When a connection has ended of which the client has closed its side.
const PATIENCE: Duration = Duration::from_secs(60);

/// Octets that may be said to nothing, and for each octet of HTTP: what answers the shortest request is a few times as
/// long.
const GREETING: usize = 4096;
const ANSWER_PART: usize = 64;

fn plan() -> &'static Plan {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    PLAN.get_or_init(|| {
        let (corefile, _) = parse(Path::new("Corefile"), COREFILE, &Nowhere);
        let (config, _) = configure(&corefile, 53, Loaders { files: &Nowhere, interfaces: &Nowhere });
        config.build(&ProcessContext::new(1, 1 << 20)).expect("a plan")
    })
}

/// Panics if anything that a client or the server relies on does not hold.
pub fn run(octets: &[u8]) {
    let Some((&[kind, cut], stream)) = octets.split_first_chunk() else { return };
    match kind {
        b'd' => check_messages(stream, &converse(SessionProtocol::Dns, stream, cut)),
        b'1' => {
            let replies = converse(SessionProtocol::Http1, stream, cut);
            check_amount(stream, &replies);
            assert!(replies.is_empty() || replies.starts_with(b"HTTP/1."), "it speaks HTTP");
        }
        b'2' => check_amount(stream, &converse(SessionProtocol::Http2, stream, cut)),
        _ => {}
    }
}

/// One connection, on a clock that goes on when nothing else does. It must end; what the server has said.
fn converse(protocol: SessionProtocol, stream: &[u8], cut: u8) -> Vec<u8> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let (server, client) = duplex(BETWEEN);
        let (mut reader, mut writer) = split(client);
        let send = async {
            for piece in stream.chunks(usize::from(cut) + 1) {
                // The server may have closed.
                if writer.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            _ = writer.shutdown().await;
        };
        let mut replies = Vec::new();
        let serving = serve_decrypted(&plan().listeners[0], protocol, server);
        // What is read before an error counts.
        let both = async { tokio::join!(serving, send, reader.read_to_end(&mut replies)) };
        _ = timeout(PATIENCE, both).await.expect("the connection ends");
        replies
    })
}

/// Each query has one reply, in any order; with what is no DNS the connection ends.
fn check_messages(stream: &[u8], replies: &[u8]) {
    let mut asked: Vec<[u8; 2]> = Vec::new();
    let mut left = stream;
    let is_whole = loop {
        match framing::first(left, 1..=LONGEST_QUERY) {
            Frame::Message { octets, rest } => {
                let is_answered = match Query::read(octets) {
                    Ok(_) => true,
                    Err(rejection) => rejection.write(octets, &mut Vec::new()),
                };
                asked.extend(octets.first_chunk::<2>().filter(|_| is_answered));
                left = rest;
            }
            Frame::Incomplete => break true,
            Frame::OutOfBounds => break false,
        }
    };
    let mut answered: Vec<[u8; 2]> = Vec::new();
    let mut left = replies;
    while let Frame::Message { octets, rest } = framing::first(left, 12..=usize::from(u16::MAX)) {
        assert_eq!(octets[2] & 0x80, 0x80, "a reply has the response bit set");
        assert!(octets.len() == 12 || Response::read(octets).is_ok(), "a reply is whole");
        answered.extend(octets.first_chunk::<2>());
        left = rest;
    }
    assert!(left.is_empty() || !is_whole, "the last reply is whole");
    asked.sort_unstable();
    answered.sort_unstable();
    let all_are_of_queries = answered.iter().all(|id| asked.binary_search(id).is_ok());
    assert!(all_are_of_queries && answered.len() <= asked.len(), "replies to {answered:?} of {asked:?}");
    assert!(!is_whole || answered == asked, "replies to {answered:?} of {asked:?}");
}

/// What is said is in proportion to what was.
fn check_amount(stream: &[u8], replies: &[u8]) {
    let most = GREETING + ANSWER_PART * stream.len();
    assert!(replies.len() <= most, "{} octets for {}", replies.len(), stream.len());
}
