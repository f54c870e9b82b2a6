//! Test queries, as any program on the host's network sends them.

use crate::chain::Transport;
use crate::doctor::findings::Reply;
use crate::message::{Name, Query, Rcode, RecordType};
use crate::plan::probe::{question, read_answer};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

/// For all of an exchange.
const PATIENCE: Duration = Duration::from_secs(2);

/// After which a datagram is sent again: one may be lost without anything being wrong.
const RESEND: Duration = Duration::from_millis(600);

/// Octets of a message whose answer is of interest: the first few.
const BUFFER: usize = 4096;

/// Asks `server` for the addresses of `name`, or for what only a server of ours knows. Packets carry `mark`, for which NET_ADMIN is needed.
pub async fn ask(server: SocketAddr, transport: Transport, name: Option<&Name>, mark: Option<u32>) -> Reply {
    let id = fastrand::u16(..);
    let wire = match name {
        Some(name) => Query::compose(id, name.as_wire(), RecordType::A, true),
        None => question(id),
    };
    let exchange = async {
        match transport {
            Transport::Udp => over_udp(server, &wire, mark).await,
            Transport::Tcp => over_tcp(server, &wire, mark).await,
        }
    };
    match timeout(PATIENCE, exchange).await {
        Err(_) => Reply::Silent,
        Ok(Ok(answer)) => match read_answer(id, &answer) {
            Some(number) if name.is_none() => Reply::Ours(number),
            // The fourth octet's lower half (RFC 1035 section 4.1.1).
            _ => Reply::Other(Rcode((answer.get(3).copied().unwrap_or_default() & 0x0f).into())),
        },
        Ok(Err(error)) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Reply::Refused,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut => Reply::Silent,
            io::ErrorKind::PermissionDenied if mark.is_some() => Reply::Failed("a packet mark needs NET_ADMIN".to_owned()),
            _ => Reply::Failed(error.to_string()),
        },
    }
}

async fn over_udp(server: SocketAddr, wire: &[u8], mark: Option<u32>) -> io::Result<Vec<u8>> {
    let socket = socket(server, Type::DGRAM, Protocol::UDP, mark)?;
    socket.connect(&server.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    let mut buffer = [0; BUFFER];
    loop {
        socket.send(wire).await?;
        let resend = Instant::now() + RESEND;
        while let Ok(received) = timeout_at(resend, socket.recv(&mut buffer)).await {
            let answer = buffer.get(..received?).unwrap_or_default();
            if answer.get(..2) == wire.get(..2) {
                return Ok(answer.to_vec());
            }
        }
    }
}

async fn over_tcp(server: SocketAddr, wire: &[u8], mark: Option<u32>) -> io::Result<Vec<u8>> {
    let socket = TcpSocket::from_std_stream(socket(server, Type::STREAM, Protocol::TCP, mark)?.into());
    // Closed with a reset: no connection of ours lingers in TIME_WAIT.
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    let mut stream = socket.connect(server).await?;
    let length = u16::try_from(wire.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], wire].concat()).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; length.min(BUFFER)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn socket(server: SocketAddr, kind: Type, protocol: Protocol, mark: Option<u32>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(server), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    Ok(socket)
}
