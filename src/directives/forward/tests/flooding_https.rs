//! An upstream over HTTPS that answers each request with frames without end. It has a thread of its own for each
//! connection, so that it does not wait for the runtime that it floods, and writes frames of HTTP/2 itself.

use parking_lot::Mutex;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Octets after which the flood of a connection ends without the client's doing.
const FLOOD: usize = 64 << 20;
const PREFACE: usize = 24;
const HEADER: usize = 9;

/// What an upstream floods with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flood {
    /// Interim responses of status 103.
    Interim,
    /// Frames of a type that nobody knows, which are to be ignored (RFC 9113 section 5.5).
    Unknown,
}

/// One frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

impl Flood {
    fn frame(self, stream: u32) -> Vec<u8> {
        match self {
            Self::Interim => frame(1, 4, stream, b"\x08\x03103"),
            Self::Unknown => frame(0xb, 0, stream, b""),
        }
    }
}

pub(super) struct FloodingUpstream {
    pub address: SocketAddr,
    /// Of each connection that is over, whether the client has ended it.
    ended: Arc<Mutex<Vec<bool>>>,
    opened: Arc<Mutex<usize>>,
}

impl FloodingUpstream {
    pub(super) fn start(tls: ServerConfig, flood: Flood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (ended, opened) = (Arc::<Mutex<Vec<bool>>>::default(), Arc::<Mutex<usize>>::default());
        let upstream = Self { address, ended: ended.clone(), opened: opened.clone() };
        let tls = Arc::new(tls);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, tls, ended) = (stream.unwrap(), tls.clone(), ended.clone());
                *opened.lock() += 1;
                std::thread::spawn(move || {
                    let is_cut = serve(stream, tls, flood).is_err();
                    ended.lock().push(is_cut);
                });
            }
        });
        upstream
    }

    /// Of each connection, whether the client has ended it; `None` while there is one that is not over.
    pub(super) fn ended(&self) -> Option<Vec<bool>> {
        let (opened, ended) = (*self.opened.lock(), self.ended.lock().clone());
        (opened == ended.len()).then_some(ended)
    }
}

/// Floods until there was enough of it.
///
/// # Errors
/// The client has ended the connection.
fn serve(stream: TcpStream, tls: Arc<ServerConfig>, flood: Flood) -> io::Result<()> {
    let mut session = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
    session.read_exact(&mut [0; PREFACE])?;
    session.write_all(&frame(4, 0, 0, b""))?;
    let stream = loop {
        let mut header = [0; HEADER];
        session.read_exact(&mut header)?;
        let [a, b, c, kind, flags, stream @ ..] = header;
        let length = u32::from_be_bytes([0, a, b, c]);
        session.read_exact(&mut vec![0; length as usize])?;
        if kind == 4 && flags & 1 == 0 {
            session.write_all(&frame(4, 1, 0, b""))?;
        }
        // The end of a body.
        if kind == 0 && flags & 1 == 1 {
            break u32::from_be_bytes(stream);
        }
    };
    let chunk = flood.frame(stream).repeat(1000);
    let mut sent = 0;
    while sent < FLOOD {
        session.write_all(&chunk)?;
        sent += chunk.len();
    }
    Ok(())
}
