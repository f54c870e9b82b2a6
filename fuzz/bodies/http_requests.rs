//! What a client sends to an HTTP address. The first octet says what it does beside, the second how what it sends is
//! cut up.

use nodelocaldns::chain::{Endpoint, HttpAnswer};
use nodelocaldns::server::serve_connection;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::time::{Instant, timeout};

const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 9253);

/// Octets of the page.
const PAGE: usize = 1000;

/// Octets that wait between both ends, in each direction.
const BETWEEN: usize = 4 << 10;

/// Octets of the shortest request, `GET / HTTP/1.1` and two ends of lines.
const SHORTEST_REQUEST: usize = 16;

/// Octets of the longest answer, and of what an error adds.
const LONGEST_ANSWER: usize = PAGE + 250;

/// From one answer on a connection to the next.
const SPACING: Duration = Duration::from_millis(50);

/// When a connection has ended on which nothing is sent or read any more, with much to spare: on a busy machine pages
/// take longer to make, and the server then rests for longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Pages that are made for a client that reads nothing: what waits between both ends, twice (the server keeps some
/// too), and one that does not fit.
const MADE_UNREAD: usize = 2 * (BETWEEN / PAGE + 1) + 1;

/// Octets of the header of a request that is plain, fewer than make as many fields as hyper reads.
const PLAIN_HEADER: usize = 800;

/// A client's end of a connection, which is open as long as this is held.
type End = (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>);

/// What became of a connection.
struct Outcome {
    /// What the server sent, if it was read.
    replies: Vec<u8>,
    /// When the page was made, on the virtual clock.
    made: Vec<Instant>,
}

/// Panics if anything that a client or the server relies on does not hold.
pub fn run(octets: &[u8]) {
    let Some((&[kind, cut], stream)) = octets.split_first_chunk() else { return };
    let requests = stream.len() / SHORTEST_REQUEST;
    let outcome = match kind {
        // Sends, and reads until the server closes.
        b'r' => {
            let outcome = converse(stream, cut, Client::Reads, requests);
            check_answers(stream, &outcome.replies);
            outcome
        }
        // Sends, and reads nothing.
        b'n' => {
            let outcome = converse(stream, cut, Client::ReadsNothing, requests);
            assert!(
                outcome.made.len() <= MADE_UNREAD,
                "{} pages made for a client that reads none",
                outcome.made.len()
            );
            outcome
        }
        // Sends, and says that this is all.
        b'e' => converse(stream, cut, Client::Ends, requests),
        _ => return,
    };
    assert!(outcome.made.len() <= requests, "{} pages made for {} octets", outcome.made.len(), stream.len());
    assert!(
        outcome.replies.len() <= (requests + 1) * LONGEST_ANSWER,
        "{} octets for {}",
        outcome.replies.len(),
        stream.len()
    );
    let is_spaced = outcome.made.windows(2).all(|pair| pair[1] - pair[0] >= SPACING);
    assert!(is_spaced, "made sooner than may be: {:?}", outcome.made);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Reads,
    ReadsNothing,
    Ends,
}

/// One connection over octets in memory, on a clock that goes on when nothing else does. It must end.
fn converse(stream: &[u8], cut: u8, client: Client, requests: usize) -> Outcome {
    let made: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let noted = made.clone();
    let answer = move || {
        noted.lock().expect("nobody panics with it").push(Instant::now());
        HttpAnswer { status: 200, content_type: "text/plain", body: b"x".repeat(PAGE) }
    };
    let address = SocketAddr::from(ADDRESS);
    let endpoints = [Endpoint::shared(address, "/metrics", answer)];
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let (server, theirs) = duplex(BETWEEN);
        let serving = serve_connection(&endpoints, address, server);
        let within = PATIENCE + SPACING * u32::try_from(requests).expect("inputs are short");
        let playing = play(theirs, stream, cut, client);
        let both = async {
            match client {
                // It holds its end until the server has let go of its own.
                Client::ReadsNothing => {
                    let hold = async { (playing.await, std::future::pending::<()>().await) };
                    tokio::select! { () = serving => Vec::new(), _ = hold => unreachable!("it is held for ever") }
                }
                Client::Reads | Client::Ends => tokio::join!(serving, playing).1.0,
            }
        };
        let replies = timeout(within, both).await.expect("the connection ends");
        let made = std::mem::take(&mut *made.lock().expect("nobody panics with it"));
        Outcome { replies, made }
    })
}

/// The client's part; gives what it has read, and its end of the connection.
async fn play(connection: DuplexStream, stream: &[u8], cut: u8, client: Client) -> (Vec<u8>, End) {
    let (mut reader, mut writer) = split(connection);
    let send = async {
        for piece in stream.chunks(usize::from(cut) + 1) {
            // The server may have closed.
            if writer.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if client == Client::Ends {
            _ = writer.shutdown().await;
        }
    };
    let mut replies = Vec::new();
    let read = async {
        if client != Client::ReadsNothing {
            // What is read before an error counts.
            _ = reader.read_to_end(&mut replies).await;
        }
    };
    tokio::join!(send, read);
    (replies, (reader, writer))
}

/// Every plain request that the stream begins with is answered whole and in order.
fn check_answers(stream: &[u8], replies: &[u8]) {
    let mut replies = replies;
    for (index, expected) in plain_requests(stream).into_iter().enumerate() {
        let (status, body, rest) =
            first_answer(replies).unwrap_or_else(|| panic!("request {index} has no whole answer"));
        assert_eq!(status, expected, "request {index}");
        assert_eq!(body == [b'x'; PAGE], expected == *b"200", "request {index}");
        replies = rest;
    }
}

/// The status of each request that nobody could misread, up to the first that somebody could.
fn plain_requests(stream: &[u8]) -> Vec<[u8; 3]> {
    let mut expected = Vec::new();
    let mut rest = stream;
    while let Some(end) = rest.windows(4).take(PLAIN_HEADER).position(|octets| octets == b"\r\n\r\n") {
        let (head, others) = rest.split_at(end + 4);
        let Ok(head) = std::str::from_utf8(head) else { break };
        let mut lines = head.strip_suffix("\r\n\r\n").unwrap_or(head).split("\r\n");
        let target = lines.next().and_then(|line| line.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1"));
        let Some(path) = target.and_then(|target| target.strip_prefix('/')) else { break };
        let is_plain = |text: &str| text.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-./_".contains(&octet));
        let is_plain_header = |line: &str| {
            line.split_once(": ")
                .is_some_and(|(name, value)| ["Host", "Accept", "User-Agent"].contains(&name) && is_plain(value))
        };
        if !is_plain(path) || !lines.all(is_plain_header) {
            break;
        }
        expected.push(if path == "metrics" { *b"200" } else { *b"404" });
        rest = others;
    }
    expected
}

/// Status and body of the first answer to a GET, and what comes after it.
fn first_answer(replies: &[u8]) -> Option<([u8; 3], &[u8], &[u8])> {
    let end = replies.windows(4).position(|octets| octets == b"\r\n\r\n")?;
    let (head, rest) = replies.split_at(end + 4);
    let status = head.strip_prefix(b"HTTP/1.1 ")?.first_chunk()?;
    let head = std::str::from_utf8(head).ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())?;
    let (body, rest) = rest.split_at_checked(length)?;
    Some((*status, body, rest))
}
