//! The generator: queries over UDP, either a closed loop with so many outstanding, or at a fixed rate.

use crate::datagrams::{Datagrams, LONGEST};
use crate::message::{A, describe, id, is_right};
use crate::questions::{Question, Questions};
use anyhow::{Context, Result, ensure};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// A query without an answer for so long is lost.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// How often a closed loop looks for lost queries when nothing comes.
const LOOK: Duration = Duration::from_millis(100);
/// While a closed loop begins.
const BETWEEN_BATCHES: Duration = Duration::from_millis(1);
/// Octets of answers that wait for the generator, so that none is lost while the upstream has its core.
pub const RECEIVE_BUFFER: usize = 8 << 20;
/// At a fixed rate, queries on their way at most; what is due beyond them waits, and its waiting counts. A generator
/// that was kept from its core for a while would else flood the server's receive buffer (net.core.rmem_default has room
/// for about 270).
const MOST_ON_THEIR_WAY: usize = 128;

/// What a run gave.
#[derive(Debug, Default)]
pub struct Outcome {
    pub answered: u64,
    pub wrong: u64,
    /// What the first wrong answer said.
    pub first_wrong: Option<String>,
    pub lost: u64,
    pub elapsed: Duration,
    /// From sending, or at a fixed rate from when it was due, to the answer; in nanoseconds, not in order.
    pub latencies: Vec<u32>,
}

impl Outcome {
    /// Counts an answer that came so long after its question.
    pub fn add(&mut self, question: &Question, reply: &[u8], latency: Duration) {
        self.answered += 1;
        self.latencies.push(u32::try_from(latency.as_nanos()).unwrap_or(u32::MAX));
        if !is_right(&question.octets, reply, question.expected) {
            self.wrong += 1;
            self.first_wrong.get_or_insert_with(|| format!("{}, not {:?}", describe(reply), question.expected));
        }
    }

    /// Fails if there was no answer or more than so many wrong ones.
    pub fn check_answers(&self, tolerated: u64) -> Result<()> {
        ensure!(self.answered > 0, "no answer at all");
        let first = self.first_wrong.as_deref().unwrap_or_default();
        ensure!(self.wrong <= tolerated, "{} of {} answers are wrong, the first: {first}", self.wrong, self.answered);
        Ok(())
    }

    /// Fails, too, if more than one in a thousand was lost: what is left then is no measure of the server.
    pub fn check_loss(&self) -> Result<()> {
        ensure!(self.lost <= 1 + self.answered / 1000, "{} queries are lost, {} answered", self.lost, self.answered);
        Ok(())
    }
}

/// A query that waits for its answer.
struct Slot {
    question: Question,
    /// The part of the ID that changes, so that a late answer to a query that was given up is told from one to its
    /// successor.
    round: u16,
    sent: Option<Instant>,
}

/// A socket to one server.
pub struct Generator {
    socket: UdpSocket,
    /// What is asked in turn, if it is more than the one address that the socket is connected to.
    servers: Vec<SocketAddrV4>,
    turn: usize,
    received: Datagrams,
    outgoing: Datagrams,
}

impl Generator {
    pub fn new(server: SocketAddrV4) -> Result<Self> {
        Self::from_address(Ipv4Addr::LOCALHOST, server)
    }

    /// Asks from an address of its own.
    pub fn from_address(client: Ipv4Addr, server: SocketAddrV4) -> Result<Self> {
        let generator = Self::unconnected(client)?;
        generator.socket.connect(server)?;
        Ok(generator)
    }

    /// Asks each of `servers`, which are one server's addresses, in turn.
    pub fn in_turn(servers: Vec<SocketAddrV4>) -> Result<Self> {
        Ok(Self { servers, ..Self::unconnected(Ipv4Addr::LOCALHOST)? })
    }

    fn unconnected(client: Ipv4Addr) -> Result<Self> {
        let socket =
            UdpSocket::bind((client, 0)).with_context(|| format!("cannot open a socket on {client} to ask from"))?;
        socket.set_read_timeout(Some(LOOK))?;
        // Where it may not exceed the limit, it gets as much as the limit has.
        _ = set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
            .or_else(|_| set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER));
        Ok(Self { socket, servers: Vec::new(), turn: 0, received: Datagrams::new(), outgoing: Datagrams::new() })
    }

    /// Asks one question again and again until it is rightly answered, for at most `patience`.
    pub fn wait_for(&mut self, question: &Question, patience: Duration, interval: Duration) -> Result<()> {
        self.socket.set_read_timeout(Some(interval))?;
        let outcome = self.ask_until_answered(question, patience, interval);
        self.socket.set_read_timeout(Some(LOOK))?;
        outcome
    }

    fn ask_until_answered(&self, question: &Question, patience: Duration, interval: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut buffer = [0; LONGEST];
        loop {
            let asked = Instant::now();
            // Refused while nobody listens yet.
            let received = self.socket.send(&question.octets).and_then(|_| self.socket.recv(&mut buffer));
            if let Ok(length) = received
                && is_right(&question.octets, &buffer[..length], question.expected)
            {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "no right answer within {patience:?}");
            std::thread::sleep(interval.saturating_sub(asked.elapsed()));
        }
    }

    /// Keeps `outstanding` queries on their way until `duration` is over or `count` were sent, then waits for the last
    /// answers.
    pub fn closed_loop(&mut self, questions: &mut dyn Questions, outstanding: usize, end: End) -> Result<Outcome> {
        let bits = outstanding.next_power_of_two().trailing_zeros();
        ensure!(bits <= 14, "at most 16384 queries can be outstanding");
        let nothing = Slot { question: Question::new("a.bench.example", A), round: fastrand::u16(..), sent: None };
        let mut slots: Vec<Slot> =
            (0..outstanding).map(|_| Slot { question: nothing.question.clone(), ..nothing }).collect();
        let mut outcome = Outcome::default();
        let (started, mut sent, mut waiting) = (Instant::now(), 0, 0);
        let mut now = started;
        let mut free: Vec<usize> = (0..outstanding).collect();
        let mut looked = started;
        loop {
            while !free.is_empty() && end.goes_on(now - started, sent) {
                while !self.outgoing.is_full()
                    && end.goes_on(now - started, sent)
                    && let Some(number) = free.pop()
                {
                    let slot = &mut slots[number];
                    slot.round = slot.round.wrapping_add(1);
                    slot.sent = Some(now);
                    questions.next(&mut slot.question);
                    let id = slot.round << bits | number as u16;
                    slot.question.octets[..2].copy_from_slice(&id.to_be_bytes());
                    self.put(&slots[number].question);
                    sent += 1;
                    waiting += 1;
                }
                self.send()?;
                if !free.is_empty() {
                    // More than a batch at once could be more than the server's receive buffer has room for.
                    std::thread::sleep(BETWEEN_BATCHES);
                    now = Instant::now();
                }
            }
            if waiting == 0 {
                break;
            }
            let count = match self.received.receive(self.socket.as_fd()) {
                Ok(count) => count,
                Err(error) if is_passing(&error) => 0,
                Err(error) => return Err(error).context("cannot receive answers"),
            };
            now = Instant::now();
            for index in 0..count {
                let reply = self.received.octets(index);
                let Some(id) = id(reply) else { continue };
                let number = usize::from(id) & ((1 << bits) - 1);
                let Some(slot) = slots.get_mut(number) else { continue };
                if slot.question.octets[..2] != id.to_be_bytes() {
                    continue;
                }
                let Some(at) = slot.sent.take() else { continue };
                outcome.add(&slot.question, reply, now - at);
                free.push(number);
                waiting -= 1;
            }
            if now - looked > LOOK {
                looked = now;
                for (number, slot) in slots.iter_mut().enumerate() {
                    if slot.sent.is_some_and(|at| now - at > PATIENCE) {
                        slot.sent = None;
                        outcome.lost += 1;
                        free.push(number);
                        waiting -= 1;
                    }
                }
            }
        }
        outcome.elapsed = now - started;
        Ok(outcome)
    }

    /// Sends so many queries a second, whatever comes back. A latency counts from when its query was due, so that a
    /// server that stalls is seen in every query of the stall.
    pub fn fixed_rate(&mut self, questions: &mut dyn Questions, rate: f64, duration: Duration) -> Result<Outcome> {
        self.socket.set_nonblocking(true)?;
        let outcome = self.pace(questions, rate, duration);
        self.socket.set_nonblocking(false)?;
        outcome
    }

    fn pace(&mut self, questions: &mut dyn Questions, rate: f64, duration: Duration) -> Result<Outcome> {
        let nothing = (Question::new("a.bench.example", A), None::<Duration>);
        let mut asked = vec![nothing; 1 << 16];
        let first = usize::from(fastrand::u16(..));
        let total = (rate * duration.as_secs_f64()) as usize;
        let mut outcome = Outcome::default();
        let (started, mut sent, mut waiting, mut last_answer) = (Instant::now(), 0, 0_usize, Duration::ZERO);
        loop {
            let now = started.elapsed();
            if now > last_answer + PATIENCE {
                waiting = 0;
            }
            let due = |number: usize| Duration::from_secs_f64(number as f64 / rate);
            while sent < total && due(sent) <= now && !self.outgoing.is_full() && waiting < MOST_ON_THEIR_WAY {
                let id = (first + sent) & 0xffff;
                let (question, at) = &mut asked[id];
                outcome.lost += u64::from(at.is_some());
                *at = Some(due(sent));
                questions.next(question);
                question.octets[..2].copy_from_slice(&(id as u16).to_be_bytes());
                self.put(question);
                sent += 1;
                waiting += 1;
            }
            self.send()?;
            match self.received.receive(self.socket.as_fd()) {
                Ok(count) => {
                    let now = started.elapsed();
                    for index in 0..count {
                        let reply = self.received.octets(index);
                        let Some((question, at)) = id(reply).map(|id| &mut asked[usize::from(id)]) else { continue };
                        let Some(at) = at.take() else { continue };
                        waiting = waiting.saturating_sub(1);
                        last_answer = now;
                        outcome.add(question, reply, now.saturating_sub(at));
                    }
                }
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error).context("cannot receive answers"),
            }
            if sent == total && (waiting == 0 || now > last_answer + PATIENCE) {
                break;
            }
        }
        outcome.lost += asked.iter().filter(|(_, at)| at.is_some()).count() as u64;
        outcome.elapsed = started.elapsed();
        Ok(outcome)
    }

    /// Adds a query to what is sent next. There must be room.
    fn put(&mut self, question: &Question) {
        let write = |buffer: &mut [u8; LONGEST]| {
            buffer[..question.octets.len()].copy_from_slice(&question.octets);
            question.octets.len()
        };
        if self.servers.is_empty() {
            self.outgoing.push(write);
        } else {
            self.turn = (self.turn + 1) % self.servers.len();
            self.outgoing.push_to(self.servers[self.turn], write);
        }
    }

    fn send(&mut self) -> Result<()> {
        match self.outgoing.send(self.socket.as_fd()) {
            Ok(()) => Ok(()),
            Err(error) if is_passing(&error) => {
                self.outgoing.clear();
                Ok(())
            }
            Err(error) => Err(error).context("cannot send queries"),
        }
    }
}

/// When a closed loop ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    After(Duration),
    Count(u64),
}

impl End {
    fn goes_on(self, elapsed: Duration, sent: u64) -> bool {
        match self {
            Self::After(duration) => elapsed < duration,
            Self::Count(count) => sent < count,
        }
    }
}

/// Nothing there yet, or nobody there: what is lost by it is counted.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted | ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Content, write_reply};

    #[test]
    fn a_wrong_answer_is_told_and_heeded_unless_it_is_tolerated() {
        let question = Question::new("a.bench.example", A);
        let mut right = Vec::new();
        write_reply(&question.octets, Content::Records { count: 1, ttl: 30 }, &mut right);
        let mut servfail = right.clone();
        servfail[3] |= 2;
        let mut outcome = Outcome::default();
        assert!(outcome.check_answers(0).is_err(), "there is no answer");
        outcome.add(&question, &right, Duration::from_micros(5));
        assert!(outcome.check_answers(0).is_ok());
        outcome.add(&question, &servfail, Duration::from_micros(7));
        assert!(outcome.check_answers(1).is_ok());
        let error = outcome.check_answers(0).expect_err("one is wrong").to_string();
        assert_eq!(error, "1 of 2 answers are wrong, the first: RCODE 2, 1 answers, not Records");
        assert_eq!(outcome.latencies, [5000, 7000]);
    }
}
