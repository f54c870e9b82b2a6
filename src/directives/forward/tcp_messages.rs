//! DNS messages on a TCP connection or in a TLS session, each behind its length (RFC 1035 section 4.2.2, RFC 7858
//! section 3.3).

use super::idle_timer::IdleTimer;
use super::in_flight::Delivery;
use super::tcp_connection::{ConnectionEnd, TcpConnection};
use super::upstream_stream::UpstreamStream;
use crate::message::framing::{self, Frame};
use std::cell::RefCell;
use std::io;
use std::time::Instant;

/// Octets that are read at once.
const READ_SIZE: usize = 65536;

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// Writes queries and reads answers. Ends well when the upstream closes the connection, or when it is retired and done.
pub(super) async fn serve<S: UpstreamStream>(connection: &TcpConnection, mut stream: S) -> Result<(), ConnectionEnd> {
    let mut inbox = Vec::new();
    let mut outbox = Vec::new();
    let mut written = 0;
    let mut idle = IdleTimer::new(connection.remote.settings.expire);
    loop {
        let mut is_blocked = false;
        while !is_blocked {
            if written == outbox.len() {
                written = 0;
                outbox.clear();
                std::mem::swap(&mut outbox, &mut connection.state.lock().outbox);
                if outbox.is_empty() {
                    break;
                }
                idle.restart();
            }
            match stream.try_write(outbox.get(written..).unwrap_or_default()) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => is_blocked = true,
                Err(error) => return Err(error.into()),
            }
        }
        if !is_blocked {
            match stream.try_flush() {
                Ok(()) => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => is_blocked = true,
                Err(error) => return Err(error.into()),
            }
        }
        if connection.is_done() {
            return Ok(());
        }
        tokio::select! {
            biased;
            // Before what the upstream sends, so that it cannot put the end off.
            () = idle.tick(connection) => {}
            ready = stream.readable() => {
                ready?;
                let Received { end, messages } = read(connection, &mut stream, &mut inbox)?;
                // Octets that are no message are no use that is made of the connection.
                if messages > 0 {
                    idle.restart();
                }
                match end {
                    ReadEnd::EndOfStream => return Ok(()),
                    // Other tasks of this worker get their turn before what may be an endless stream.
                    ReadEnd::MayHaveMore => tokio::task::yield_now().await,
                    ReadEnd::ReadAll => (),
                }
            }
            ready = stream.writable(), if is_blocked => ready?,
            () = connection.changed.notified() => {}
        }
    }
}

/// What a read has brought.
struct Received {
    end: ReadEnd,
    /// Whole ones.
    messages: usize,
}

enum ReadEnd {
    /// The buffer was filled.
    MayHaveMore,
    ReadAll,
    EndOfStream,
}

/// Reads what has arrived, [`READ_SIZE`] octets at most, and delivers the messages in it.
fn read(
    connection: &TcpConnection,
    stream: &mut impl UpstreamStream,
    inbox: &mut Vec<u8>,
) -> Result<Received, ConnectionEnd> {
    READ_BUFFER.with_borrow_mut(|buffer| match stream.try_read(buffer) {
        Ok(0) => Ok(Received { end: ReadEnd::EndOfStream, messages: 0 }),
        Ok(length) => {
            inbox.extend_from_slice(buffer.get(..length).unwrap_or_default());
            let messages = deliver(connection, inbox)?;
            Ok(Received { end: if length < READ_SIZE { ReadEnd::ReadAll } else { ReadEnd::MayHaveMore }, messages })
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received { end: ReadEnd::ReadAll, messages: 0 }),
        Err(error) => Err(error.into()),
    })
}

/// Takes the complete messages off the front of `inbox`, but no more than there can be answers; returns how many.
fn deliver(connection: &TcpConnection, inbox: &mut Vec<u8>) -> Result<usize, ConnectionEnd> {
    let endpoints = connection.endpoints();
    let unanswered = connection.state.lock().unanswered;
    let mut messages = 0;
    let mut rest = inbox.as_slice();
    let now = Instant::now();
    let mut in_flight = connection.in_flight.lock();
    while let Frame::Message { octets: message, rest: after } = framing::first(rest, 0..=usize::from(u16::MAX)) {
        if messages == unanswered {
            connection.remote.metrics.mismatched.increment();
            return Err(ConnectionEnd::Unsolicited);
        }
        messages += 1;
        // A response whose ID is unknown is no sign of forgery on a connection: its caller has stopped waiting.
        if in_flight.deliver(message, endpoints, now, |_| false) == Delivery::Mismatched {
            connection.remote.metrics.mismatched.increment();
        }
        rest = after;
    }
    drop(in_flight);
    let taken = inbox.len() - rest.len();
    if taken > 0 {
        inbox.drain(..taken);
        let mut state = connection.state.lock();
        state.waiting_since = now;
        state.last_answer = Some(now);
        state.unanswered -= messages;
    }
    Ok(messages)
}
