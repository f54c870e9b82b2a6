//! The generator over TCP: some connections, each with several queries on their way (RFC 7766 section 6.2.1.1).

use crate::generator::{Outcome, PATIENCE};
use crate::message::{A, id};
use crate::questions::{Question, Questions};
use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How often lost queries are looked for when nothing comes.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Octets of the length before each message.
const LENGTH: usize = 2;

/// A query that waits for its answer, or a place for one.
struct Slot {
    question: Question,
    sent: Option<Instant>,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    slots: Vec<Slot>,
}

/// Keeps `outstanding` queries on their way over so many connections until `duration` is over, then waits for the last
/// answers. A server may close a connection at any time; what was on its way is then asked again on a new one.
pub fn closed_loop(
    server: SocketAddr,
    questions: &mut dyn Questions,
    connections: usize,
    outstanding: usize,
    duration: Duration,
) -> Result<Outcome> {
    let window = (outstanding / connections).max(1);
    let mut all = (0..connections).map(|_| Connection::open(server, window)).collect::<Result<Vec<_>>>()?;
    let mut outcome = Outcome::default();
    let started = Instant::now();
    let mut now = started;
    loop {
        let goes_on = now - started < duration;
        for connection in &mut all {
            if goes_on {
                connection.fill(questions, now);
            }
            if let Err(error) = connection.write() {
                connection.replace(server, &error)?;
            }
        }
        if !goes_on && all.iter().all(Connection::is_done) {
            break;
        }
        let mut waiting: Vec<_> =
            all.iter().map(|connection| PollFd::new(&connection.stream, connection.interest())).collect();
        poll(&mut waiting, Some(&LOOK))?;
        let ready: Vec<bool> = waiting.iter().map(|waiting| !waiting.revents().is_empty()).collect();
        now = Instant::now();
        for (connection, _) in all.iter_mut().zip(ready).filter(|(_, is_ready)| *is_ready) {
            if let Err(error) = connection.read(now, &mut outcome) {
                connection.replace(server, &error)?;
            }
        }
        for slot in all.iter_mut().flat_map(|connection| &mut connection.slots) {
            if slot.sent.is_some_and(|sent| now - sent > PATIENCE) {
                slot.sent = None;
                outcome.lost += 1;
            }
        }
    }
    outcome.elapsed = now - started;
    Ok(outcome)
}

impl Connection {
    fn open(server: SocketAddr, window: usize) -> Result<Self> {
        ensure!(window < 256, "a slot's number has one octet of the ID");
        let nothing = Question::new("a.bench.example", A);
        let slots = (0..window).map(|_| Slot { question: nothing.clone(), sent: None }).collect();
        Ok(Self { stream: connect(server)?, input: Vec::new(), output: Vec::new(), slots })
    }

    fn is_done(&self) -> bool {
        self.slots.iter().all(|slot| slot.sent.is_none())
    }

    fn interest(&self) -> PollFlags {
        if self.output.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
    }

    /// Puts a new query into each free slot.
    fn fill(&mut self, questions: &mut dyn Questions, now: Instant) {
        for (number, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.sent.is_none()) {
            let round = slot.question.octets[0].wrapping_add(1);
            questions.next(&mut slot.question);
            slot.question.octets[..2].copy_from_slice(&[round, number as u8]);
            slot.sent = Some(now);
            append(&slot.question, &mut self.output);
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => _ = self.output.drain(..count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(&mut self, now: Instant, outcome: &mut Outcome) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut rest = self.input.as_slice();
        while let Some((length, after)) = rest.split_first_chunk::<LENGTH>() {
            let Some((reply, after)) = after.split_at_checked(usize::from(u16::from_be_bytes(*length))) else { break };
            rest = after;
            let slot = id(reply).and_then(|id| self.slots.get_mut(usize::from(id & 0xff)));
            let Some(slot) = slot.filter(|slot| reply.starts_with(&slot.question.octets[..2])) else { continue };
            let Some(sent) = slot.sent.take() else { continue };
            outcome.add(&slot.question, reply, now - sent);
        }
        let used = self.input.len() - rest.len();
        self.input.drain(..used);
        Ok(())
    }

    /// Goes on with a new connection in the place of one that has ended.
    fn replace(&mut self, server: SocketAddr, error: &io::Error) -> Result<()> {
        self.stream =
            connect(server).with_context(|| format!("a connection ended ({error}), and there is no other"))?;
        self.input.clear();
        self.output.clear();
        for slot in self.slots.iter().filter(|slot| slot.sent.is_some()) {
            append(&slot.question, &mut self.output);
        }
        Ok(())
    }
}

fn connect(server: SocketAddr) -> Result<TcpStream> {
    let stream =
        TcpStream::connect_timeout(&server, PATIENCE).with_context(|| format!("cannot connect to {server}"))?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// The message behind its length (RFC 1035 section 4.2.2).
fn append(question: &Question, out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(question.octets.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(&question.octets);
}
