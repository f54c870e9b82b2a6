//! The clients within TLS and over HTTPS beside an attack on those listeners: each asks by the clock, on a session that
//! it keeps and on sessions of their own, and judges every answer as the client over UDP and TCP does.

use crate::certificate::{Certificate, HTTPS, TLS, session};
use crate::polite::{Name, PATIENCE, QueryCounts, tcp_from};
use crate::wire::{A, framed, query};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two queries of one client.
const INTERVAL: Duration = Duration::from_millis(100);
/// Nobody attacks from here.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

type Session = StreamOwned<ClientConnection, TcpStream>;

/// Clients that ask until they are stopped: within TLS and over HTTPS.
pub struct PoliteSessions {
    stop: Arc<AtomicBool>,
    clients: [[JoinHandle<QueryCounts>; 2]; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tls,
    Https,
}

impl PoliteSessions {
    pub fn start(certificate: &Certificate) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = [Protocol::Tls, Protocol::Https].map(|protocol| {
            let config = certificate.client((protocol == Protocol::Https).then_some(&b"http/1.1"[..]));
            [true, false].map(|is_kept| {
                let (stop, config) = (stop.clone(), config.clone());
                std::thread::spawn(move || ask(protocol, is_kept, &config, &stop))
            })
        });
        Self { stop, clients }
    }

    /// Waits for what is on the way; within TLS, and over HTTPS.
    pub fn finish(self) -> [QueryCounts; 2] {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.map(|clients| {
            let mut counts = QueryCounts::default();
            for client in clients {
                counts.add(client.join().expect("it does not panic"));
            }
            counts
        })
    }
}

fn ask(protocol: Protocol, is_kept: bool, config: &Arc<ClientConfig>, stop: &AtomicBool) -> QueryCounts {
    let mut counts = QueryCounts::default();
    let mut kept: Option<Session> = None;
    let mut next = Instant::now();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = Name::of(number);
        let answer = exchange(protocol, is_kept, config, kept.take(), &query(&name.text, A));
        counts.note(&name, answer.as_ref().ok().map(|(answer, _)| &**answer));
        kept = answer.ok().map(|(_, session)| session).filter(|_| is_kept);
        // What the machine gave no time for is not made up for.
        next = (next + INTERVAL).max(Instant::now() - INTERVAL);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    counts
}

/// The answer, and the session that it came on.
fn exchange(
    protocol: Protocol,
    is_kept: bool,
    config: &Arc<ClientConfig>,
    kept: Option<Session>,
    wire: &[u8],
) -> io::Result<(Vec<u8>, Session)> {
    let mut session = match kept {
        Some(session) => session,
        None => {
            let server = if protocol == Protocol::Tls { TLS } else { HTTPS };
            let stream = tcp_from(SOURCE.into(), server, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            StreamOwned::new(session(config), stream)
        }
    };
    let answer = match protocol {
        Protocol::Tls => {
            session.write_all(&framed(wire))?;
            let mut length = [0; 2];
            session.read_exact(&mut length)?;
            let mut answer = vec![0; u16::from_be_bytes(length).into()];
            session.read_exact(&mut answer)?;
            answer
        }
        Protocol::Https => {
            let connection = if is_kept { "keep-alive" } else { "close" };
            let head = format!(
                "POST /dns-query HTTP/1.1\r\nHost: dns.example\r\nConnection: {connection}\r\nContent-Length: {}\r\n\r\n",
                wire.len()
            );
            session.write_all(&[head.as_bytes(), wire].concat())?;
            read_body(&mut session)?
        }
    };
    Ok((answer, session))
}

/// The body of the next response, which has status 200.
fn read_body(session: &mut Session) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut octet = [0];
    while !head.ends_with(b"\r\n\r\n") {
        session.read_exact(&mut octet)?;
        head.push(octet[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let length = length.filter(|_| head.starts_with("http/1.1 200 ")).ok_or(io::ErrorKind::InvalidData)?;
    let mut body = vec![0; length];
    session.read_exact(&mut body)?;
    Ok(body)
}
