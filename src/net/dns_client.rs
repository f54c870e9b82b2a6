//! One DNS query over a socket of its own. The caller composes the query and sets the time limit.

use super::bounded_reads::{BoundedReads, ReadAllowance};
use super::doh::{self, DohError, DohResource, ExchangeError};
use super::tls::TlsClient;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

/// Octets of the header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;

/// Octets that are read of a connection in TLS: those of its handshake with a long chain of certificates, of the
/// longest message, and of a head of HTTP.
const MAX_ENCRYPTED: usize = 128 << 10;

/// What a query fails with whose server sends far more than an answer has.
pub(crate) const FLOODED: io::ErrorKind = io::ErrorKind::FileTooLarge;

/// How a query is sent, and how much of its response is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DnsClient {
    pub server: SocketAddr,
    /// The local address; `None` for the kernel's choice.
    pub source: Option<IpAddr>,
    /// Packets carry this mark (SO_MARK, which needs NET_ADMIN).
    pub mark: Option<u32>,
    /// TCP connections end with a reset, so that they leave no TIME_WAIT behind.
    pub resets: bool,
    /// Octets of a response that are read at most.
    pub max_octets: usize,
}

impl DnsClient {
    /// A client of `server` that reads responses of 4,096 octets at most.
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self { server, source: None, mark: None, resets: false, max_octets: 4096 }
    }

    /// Sends `query` in a datagram, and again after each `resend` if there is one. Returns the first response that has
    /// the query's ID.
    ///
    /// # Errors
    /// The socket fails, or ICMP says that nobody listens. Waits forever if no response comes.
    pub(crate) async fn query_udp(&self, query: &[u8], resend: Option<Duration>) -> io::Result<Vec<u8>> {
        let socket = self.socket(Type::DGRAM, Protocol::UDP)?;
        socket.connect(&self.server.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let mut message = vec![0; self.max_octets];
        loop {
            socket.send(query).await?;
            let response = receive(&socket, query, &mut message);
            let length = match resend {
                None => response.await?,
                Some(pause) => match timeout_at(Instant::now() + pause, response).await {
                    Ok(length) => length?,
                    Err(_) => continue,
                },
            };
            message.truncate(length);
            return Ok(message);
        }
    }

    /// Sends `query` over a connection. Returns what comes, if it is a response with the query's ID.
    ///
    /// # Errors
    /// The connection fails, or [`io::ErrorKind::InvalidData`]: something else came. Waits forever if nothing comes.
    pub(crate) async fn query_tcp(&self, query: &[u8]) -> io::Result<Vec<u8>> {
        self.exchange(self.connect().await?, query).await
    }

    /// As [`DnsClient::query_tcp`], in a TLS session (RFC 7858).
    ///
    /// # Errors
    /// Those of [`DnsClient::query_tcp`]; there is no session, or [`FLOODED`].
    pub(crate) async fn query_tls(&self, query: &[u8], tls: &TlsClient) -> io::Result<Vec<u8>> {
        self.bounded(async |stream| {
            let session = tls.connect(stream).await.map_err(io::Error::other)?;
            self.exchange(session, query).await
        })
        .await
    }

    /// As [`DnsClient::query_tcp`], over HTTPS (RFC 8484). `tls` has to be one [`super::tls::ClientTls::for_http2`].
    ///
    /// # Errors
    /// Those of [`DnsClient::query_tls`]; the response is no answer.
    pub(crate) async fn query_https(
        &self,
        query: &[u8],
        tls: &TlsClient,
        resource: &DohResource,
    ) -> io::Result<Vec<u8>> {
        self.bounded(async |stream| {
            let session = tls.connect(stream).await.map_err(io::Error::other)?;
            let mut message = doh::exchange(session, resource, query.to_vec()).await.map_err(of_exchange)?.message;
            // It was asked with another ID, and has its stream for itself.
            message.iter_mut().zip(query.iter().take(2)).for_each(|(octet, id)| *octet = *id);
            if is_response_to(query, &message) { Ok(message) } else { Err(io::ErrorKind::InvalidData.into()) }
        })
        .await
    }

    /// Does `work` with a connection of which [`MAX_ENCRYPTED`] octets are read.
    async fn bounded<T>(&self, work: impl AsyncFnOnce(BoundedReads<TcpStream>) -> io::Result<T>) -> io::Result<T> {
        let allowance = ReadAllowance::new(MAX_ENCRYPTED);
        let stream = BoundedReads::new(self.connect().await?, allowance.clone());
        work(stream).await.map_err(|error| if allowance.is_spent() { io::Error::new(FLOODED, error) } else { error })
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::from_std_stream(self.socket(Type::STREAM, Protocol::TCP)?.into());
        if self.resets {
            SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        }
        socket.connect(self.server).await
    }

    async fn exchange(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, query: &[u8]) -> io::Result<Vec<u8>> {
        let length = u16::try_from(query.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], query].concat()).await?;
        stream.flush().await?;
        let length = usize::from(stream.read_u16().await?);
        let mut message = vec![0; length.min(self.max_octets)];
        stream.read_exact(&mut message).await?;
        if is_response_to(query, &message) { Ok(message) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn socket(&self, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(self.server), kind.nonblocking(), Some(protocol))?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        if let Some(source) = self.source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        Ok(socket)
    }
}

/// [`FLOODED`] where a response has no end.
fn of_exchange(error: ExchangeError) -> io::Error {
    match error {
        ExchangeError::Response(DohError::Interim | DohError::TooLong) => io::Error::new(FLOODED, error),
        other => io::Error::other(other),
    }
}

/// Octets of the first response to `query`, which are then in `message`.
async fn receive(socket: &UdpSocket, query: &[u8], message: &mut [u8]) -> io::Result<usize> {
    loop {
        let length = socket.recv(message).await?;
        if is_response_to(query, message.get(..length).unwrap_or_default()) {
            return Ok(length);
        }
    }
}

/// True if `message` has a whole header, the QR bit and the ID of `query`.
fn is_response_to(query: &[u8], message: &[u8]) -> bool {
    message.len() >= HEADER && message[2] & 0x80 != 0 && query.get(..2) == message.get(..2)
}

#[cfg(test)]
mod tests {
    use super::{DnsClient, is_response_to};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UdpSocket};

    const QUERY: [u8; 12] = [0x12, 0x34, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    /// REFUSED.
    const RESPONSE: [u8; 12] = [0x12, 0x34, 0x81, 5, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn a_response_has_the_qr_bit_and_the_id_of_its_query() {
        assert!(is_response_to(&QUERY, &RESPONSE));
        assert!(!is_response_to(&[0x12, 0x35], &RESPONSE));
        assert!(!is_response_to(&QUERY, &RESPONSE[..11]));
        assert!(!is_response_to(&QUERY, &QUERY));
    }

    #[tokio::test]
    async fn a_lost_datagram_is_sent_again_and_what_is_no_response_is_passed_over() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let client =
            DnsClient { source: Some("127.0.0.1".parse().unwrap()), ..DnsClient::new(server.local_addr().unwrap()) };
        let serve = async {
            let mut message = [0; 512];
            server.recv_from(&mut message).await.unwrap();
            let (length, peer) = server.recv_from(&mut message).await.unwrap();
            assert_eq!(message[..length], QUERY);
            server.send_to(&QUERY, peer).await.unwrap();
            server.send_to(&RESPONSE, peer).await.unwrap();
        };
        let (response, ()) = tokio::join!(client.query_udp(&QUERY, Some(Duration::from_millis(20))), serve);
        assert_eq!(response.unwrap(), RESPONSE);
    }

    #[tokio::test]
    async fn over_tcp_something_else_than_a_response_is_an_error() {
        for (answer, is_response) in [(RESPONSE, true), (QUERY, false)] {
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = DnsClient::new(server.local_addr().unwrap());
            let serve = async {
                let (mut stream, _) = server.accept().await.unwrap();
                let mut message = [0; 14];
                stream.read_exact(&mut message).await.unwrap();
                assert_eq!(message[..2], [0, 12]);
                stream.write_all(&[&[0, 12], &answer[..]].concat()).await.unwrap();
                stream
            };
            let (response, _stream) = tokio::join!(client.query_tcp(&QUERY), serve);
            assert_eq!(response.is_ok_and(|response| response == answer), is_response);
        }
    }
}
