//! The scripted upstream that every server forwards to: a process of its own on the generator's core, so that none of its cost is
//! in a server's figures.

use crate::datagrams::Datagrams;
use crate::message::{question, write_reply};
use crate::zone::content;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::thread;

/// Answers over UDP and TCP on `address` until killed.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    let (udp, tcp) = (UdpSocket::bind(address)?, TcpListener::bind(address)?);
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            // One that fails is the server's to open again.
            thread::spawn(move || _ = serve_stream(stream));
        }
    });
    let (mut received, mut replies, mut reply) = (Datagrams::new(), Datagrams::new(), Vec::new());
    loop {
        for index in 0..received.receive(udp.as_fd())? {
            reply.clear();
            answer(received.octets(index), &mut reply);
            if !reply.is_empty() {
                replies.push_reply(&received, index, |buffer| {
                    buffer[..reply.len()].copy_from_slice(&reply);
                    reply.len()
                });
            }
        }
        if let Err(error) = replies.send(udp.as_fd()) {
            // A server that was just stopped refuses what was meant for it; the others' replies are asked for again.
            eprintln!("the upstream's replies were not taken: {error}");
            replies.clear();
        }
    }
}

/// Answers one connection's queries in order, all that one read brought in one write.
fn serve_stream(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut input, mut held, mut out, mut reply) = (vec![0; 65_536], 0, Vec::new(), Vec::new());
    loop {
        let count = stream.read(&mut input[held..])?;
        if count == 0 {
            return Ok(());
        }
        held += count;
        let mut at = 0;
        while let Some(length) = input[at..held].first_chunk::<2>().map(|length| usize::from(u16::from_be_bytes(*length))) {
            let Some(query) = input[..held].get(at + 2..at + 2 + length) else { break };
            reply.clear();
            answer(query, &mut reply);
            out.extend_from_slice(&u16::try_from(reply.len()).unwrap_or(0).to_be_bytes());
            out.extend_from_slice(&reply);
            at += 2 + length;
        }
        input.copy_within(at..held, 0);
        held -= at;
        stream.write_all(&out)?;
        out.clear();
    }
}

/// Writes the reply to `query`, or nothing if that is no query.
fn answer(query: &[u8], out: &mut Vec<u8>) {
    if let Some((labels, rtype)) = question(query) {
        write_reply(query, content(&labels, rtype), out);
    }
}
