//! The scripted upstream that every server forwards to: a process of its own on the generator's core, so that none of
//! its cost is in a server's figures.

use crate::datagrams::Datagrams;
use crate::generator::RECEIVE_BUFFER;
use crate::message::{question, write_reply};
use crate::zone::content;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long answers to names below [`SLOW`] take over UDP.
const DELAY: Duration = Duration::from_millis(250);
/// The second label of such names.
const SLOW: &[u8] = b"slow";

/// Answers over UDP and TCP on `address` until killed.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    let (udp, tcp) = (UdpSocket::bind(address)?, TcpListener::bind(address)?);
    // All queries that a server has in flight may come at once. Where it may not exceed the limit, it gets as much as
    // the limit has.
    _ = set_socket_recv_buffer_size_force(&udp, RECEIVE_BUFFER)
        .or_else(|_| set_socket_recv_buffer_size(&udp, RECEIVE_BUFFER));
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            // One that fails is the server's to open again.
            thread::spawn(move || _ = serve_stream(stream));
        }
    });
    let (delayed, waiting) = mpsc::channel();
    let clone = udp.try_clone()?;
    thread::spawn(move || send_delayed(&clone, &waiting));
    let (mut received, mut replies, mut reply) = (Datagrams::new(), Datagrams::new(), Vec::new());
    loop {
        for index in 0..received.receive(udp.as_fd())? {
            reply.clear();
            let query = received.octets(index);
            let is_slow = question(query).is_some_and(|(labels, _)| labels.get(1) == Some(&SLOW));
            answer(query, &mut reply);
            if is_slow {
                let late = Late { due: Instant::now() + DELAY, peer: received.peer(index), reply: reply.clone() };
                delayed.send(late).map_err(io::Error::other)?;
            } else if !reply.is_empty() {
                put(&mut replies, received.peer(index), &reply);
            }
        }
        send(&mut replies, &udp);
    }
}

/// A reply that is held back.
struct Late {
    due: Instant,
    peer: SocketAddrV4,
    reply: Vec<u8>,
}

/// Sends replies when they are due; they come in that order.
fn send_delayed(udp: &UdpSocket, waiting: &mpsc::Receiver<Late>) {
    let mut replies = Datagrams::new();
    while let Ok(late) = waiting.recv() {
        let left = late.due.saturating_duration_since(Instant::now());
        if replies.is_full() || !left.is_zero() {
            send(&mut replies, udp);
            thread::sleep(left);
        }
        put(&mut replies, late.peer, &late.reply);
    }
}

fn put(replies: &mut Datagrams, peer: SocketAddrV4, reply: &[u8]) {
    replies.push_to(peer, |buffer| {
        buffer[..reply.len()].copy_from_slice(reply);
        reply.len()
    });
}

fn send(replies: &mut Datagrams, udp: &UdpSocket) {
    if let Err(error) = replies.send(udp.as_fd()) {
        // A server that was just stopped refuses what was meant for it; the others' queries are asked again.
        eprintln!("the upstream's replies were not taken: {error}");
        replies.clear();
    }
}

/// Answers one connection's queries in order, all that one read brought in one write.
fn serve_stream(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut input, mut held, mut out) = (vec![0; 65_536], 0, Vec::new());
    loop {
        let count = stream.read(&mut input[held..])?;
        if count == 0 {
            return Ok(());
        }
        held += count;
        let taken = answer_messages(&input[..held], &mut out);
        input.copy_within(taken..held, 0);
        held -= taken;
        stream.write_all(&out)?;
        out.clear();
    }
}

/// Answers the whole messages at the front of `input`, each behind its length. Returns how many octets they take.
pub fn answer_messages(input: &[u8], out: &mut Vec<u8>) -> usize {
    let (mut at, mut reply) = (0, Vec::new());
    while let Some(length) = input[at..].first_chunk::<2>().map(|length| usize::from(u16::from_be_bytes(*length))) {
        let Some(query) = input.get(at + 2..at + 2 + length) else { break };
        reply.clear();
        answer(query, &mut reply);
        out.extend_from_slice(&u16::try_from(reply.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(&reply);
        at += 2 + length;
    }
    at
}

/// Writes the reply to `query`, or nothing if that is no query.
pub fn answer(query: &[u8], out: &mut Vec<u8>) {
    if let Some((labels, rtype)) = question(query) {
        write_reply(query, content(&labels, rtype), out);
    }
}
