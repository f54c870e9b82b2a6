//! KubeDNS, fast enough to answer everybody when the node does not. Says AA, as the `kubernetes` directive of CoreDNS
//! does, so that an answer tells whether it came from a cache.

use crate::cluster::{KUBE_DNS, Place, shell};
use crate::wire::reply;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::spawn;
use std::time::Duration;

/// How often a connection's thread looks whether it is to be reset though nothing came.
const LOOK: Duration = Duration::from_millis(20);

/// The running server; its threads end with the test's process.
pub struct KubeDns {
    place: Place,
    /// Counts them: a connection from before one is to end.
    resets: Arc<AtomicU32>,
}

impl KubeDns {
    /// Serves any name on both addresses of `place`.
    pub fn start(place: &Place) -> Self {
        let resets = Arc::new(AtomicU32::new(0));
        for address in KUBE_DNS {
            let address = SocketAddr::new(address.parse::<IpAddr>().expect("an address"), 53);
            let bind = || (UdpSocket::bind(address), TcpListener::bind(address));
            let (udp, tcp) = place.visit(bind);
            let (udp, tcp) = (udp.expect("the address is the pod's"), tcp.expect("the port is free"));
            let resets = resets.clone();
            spawn(move || serve_udp(&udp));
            spawn(move || {
                for stream in tcp.incoming().flatten() {
                    let resets = resets.clone();
                    spawn(move || serve_connection(stream, &resets));
                }
            });
        }
        Self { place: place.clone(), resets }
    }

    /// Resets every TCP connection there is, whatever has been asked on it.
    pub fn reset_connections(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether nothing reaches it any longer, nor anything of it anybody: its pod is gone, and nobody says so.
    pub fn set_dead(&self, is_dead: bool) {
        let chain = "chain gone { type filter hook input priority 0; policy drop; };";
        let change =
            if is_dead { format!("add table inet dead {{ {chain} }}") } else { "delete table inet dead".to_owned() };
        self.place.visit(|| shell(&format!("nft '{change}'")));
    }
}

fn serve_udp(socket: &UdpSocket) {
    let mut buffer = [0; 4096];
    loop {
        // An error is ICMP's word on a client that is gone.
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        if let Some(answer) = reply(&buffer[..length]) {
            _ = socket.send_to(&answer, client);
        }
    }
}

/// Answers until the client closes, or a reset is wanted.
fn serve_connection(mut stream: TcpStream, resets: &AtomicU32) {
    let resets_before = resets.load(Ordering::Relaxed);
    stream.set_read_timeout(Some(LOOK)).expect("a timeout above zero");
    let mut received = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(_) => return,
        };
        if resets.load(Ordering::Relaxed) != resets_before {
            // With what has been asked a moment ago. Zero lingering makes it a reset.
            _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            return;
        }
        received.extend_from_slice(&buffer[..length]);
        let mut answers = Vec::new();
        let mut rest = received.as_slice();
        while let Some((length, more)) = rest.split_first_chunk::<2>()
            && let Some((query, after)) = more.split_at_checked(usize::from(u16::from_be_bytes(*length)))
        {
            rest = after;
            if let Some(answer) = reply(query) {
                answers.extend_from_slice(&u16::try_from(answer.len()).expect("a message").to_be_bytes());
                answers.extend_from_slice(&answer);
            }
        }
        received = rest.to_vec();
        if stream.write_all(&answers).is_err() {
            return;
        }
    }
}
