//! Rows in which an upstream over TCP pours what nobody asked for.

use crate::flood::random_name;
use crate::outcome::Outcome;
use crate::polite::udp_from;
use crate::row::row;
use crate::scene::{EVIL, Scene, Setup, duration};
use crate::target::Program;
use crate::wire::{A, Answer, POISON, QUESTION_NAME, Question, Section, framed, query};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Octets that one connection may take of what nobody asked for: as much as kernels keep for a reader and a writer, and
/// a message or two.
const MOST: u64 = 24 << 20;

/// What a connection gives after the first query: the same again and again.
#[derive(Clone, Copy, Debug)]
pub enum Pour {
    /// Messages of no octets.
    Zeros,
    /// Answers of 64 KiB with IDs that were never sent.
    Large,
    /// Headers with IDs that were never sent.
    Headers,
    /// The query's own ID, and another question.
    OtherQuestions,
    /// The answer, and then the answer again without end.
    Repeated,
    /// A claim of 65,535 octets, and one octet of it each 50 ms.
    Drip,
    /// Neither an answer nor an end.
    Nothing,
    /// The end at once.
    End,
}

impl Pour {
    fn octets(self, query: &[u8]) -> Vec<u8> {
        let Some(question) = Question::of(query) else { return Vec::new() };
        let answer = Answer::to(query, &question).with(Section::Answer, QUESTION_NAME, A, &POISON);
        match self {
            Self::Zeros => vec![0; 1 << 18],
            Self::Large => {
                let mut large = answer;
                large.wire[0] ^= 0x5a;
                large.wire.resize(65_535, 0);
                framed(&large.wire).repeat(4)
            }
            Self::Headers => (0..20_000_u16)
                .flat_map(|number| {
                    let [high, low] = number.to_be_bytes();
                    framed(&[query[0] ^ high | 1, query[1] ^ low ^ 1, 0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 0])
                })
                .collect(),
            Self::OtherQuestions => {
                let mut other = answer;
                other.wire[13] ^= 1;
                framed(&other.wire).repeat(4_000)
            }
            Self::Repeated => framed(&answer.wire).repeat(4_000),
            Self::Drip => vec![0xff, 0xff],
            Self::Nothing | Self::End => Vec::new(),
        }
    }
}

/// An upstream whose connections pour. Ends when dropped.
struct Pourer {
    /// The most octets that one connection took, and how many connections there were.
    most: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pourer {
    fn start(kinds: &'static [Pour]) -> Self {
        let listener = TcpListener::bind(EVIL).expect("the address is free");
        listener.set_nonblocking(true).expect("a socket can be told not to wait");
        let (most, connections, stop) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let thread = {
            let (most, connections, stop) = (most.clone(), connections.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Ok((stream, _)) = listener.accept() else {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    let number = connections.fetch_add(1, Ordering::Relaxed);
                    let kind = kinds[usize::try_from(number).expect("few connections") % kinds.len()];
                    let (most, stop) = (most.clone(), stop.clone());
                    std::thread::spawn(move || pour(stream, kind, &most, &stop));
                }
            })
        };
        Self { most, connections, stop, thread: Some(thread) }
    }
}

impl Drop for Pourer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Until the program closes the connection, or the attack is over.
fn pour(mut stream: TcpStream, kind: Pour, most: &AtomicU64, stop: &AtomicBool) {
    _ = stream.set_nonblocking(false);
    _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
    let mut query = [0; 2048];
    let Ok(length) = stream.read(&mut query) else { return };
    if length < 14 || matches!(kind, Pour::End) {
        return;
    }
    let mut poured = 0;
    let octets = kind.octets(&query[2..length]);
    let mut next: &[u8] = &octets;
    while !stop.load(Ordering::Relaxed) {
        match kind {
            Pour::Nothing => {
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
            Pour::Drip if poured >= 2 => {
                std::thread::sleep(Duration::from_millis(50));
                next = b"x";
            }
            _ if next.is_empty() => next = &octets,
            _ => {}
        }
        match stream.write(next) {
            Ok(written) => {
                poured += written as u64;
                next = &next[written..];
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
        most.fetch_max(poured, Ordering::Relaxed);
    }
}

/// Five questions a second for names whose upstream pours.
pub fn poured(program: Program, kinds: &'static [Pour]) -> Outcome {
    let scene = Scene::start(program, Setup { evil: Some(("force_tcp".to_owned(), None)), ..Setup::default() });
    let pourer = Pourer::start(kinds);
    let socket = udp_from(Ipv4Addr::new(127, 1, 0, 1).into(), scene.server);
    let (mut outcome, ()) = scene.attack(|_| {
        let ends = Instant::now() + 2 * duration();
        while Instant::now() < ends {
            socket.send(&query(&random_name("evil.example"), A)).expect("the server listens");
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    let (most, connections) = (pourer.most.load(Ordering::Relaxed), pourer.connections.load(Ordering::Relaxed));
    outcome.tell(format!("{connections} connections"));
    outcome.at_most("KiB that one of them took:", most >> 10, MOST >> 10);
    drop(pourer);
    scene.memory_goes_back(&mut outcome);
    outcome
}

#[test]
#[ignore = "a row of make attacks"]
fn zeros() {
    row("pours::zeros", "a TCP upstream pours zeros", |program| poured(program, &[Pour::Zeros]));
}

#[test]
#[ignore = "a row of make attacks"]
fn large_messages() {
    row("pours::large_messages", "a TCP upstream pours messages of 64 KiB that nobody asked for", |program| {
        poured(program, &[Pour::Large])
    });
}

#[test]
#[ignore = "a row of make attacks"]
fn small_messages() {
    row(
        "pours::small_messages",
        "a TCP upstream pours headers, other questions, its answer again and again",
        |program| poured(program, &[Pour::Headers, Pour::OtherQuestions, Pour::Repeated]),
    );
}

#[test]
#[ignore = "a row of make attacks"]
fn drips() {
    row("pours::drips", "a TCP upstream drips, says nothing, ends at once", |program| {
        poured(program, &[Pour::Drip, Pour::Nothing, Pour::End])
    });
}
