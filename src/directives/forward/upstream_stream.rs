//! What a connection to an upstream is written to and read from: a TCP stream, or a TLS session over one.

use std::future::Future;
use std::io::{self, Read, Write};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConnection;

/// TLS records read at one time. They need not bring a single octet of an answer, and others have their turn in
/// between.
const MAX_RECORDS: usize = 16;

/// Octets in both directions. What cannot be done now is [`io::ErrorKind::WouldBlock`].
pub(super) trait UpstreamStream: Send + Sync {
    /// Waits until [`UpstreamStream::try_read`] may succeed.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Waits until [`UpstreamStream::try_write`] or [`UpstreamStream::try_flush`] may succeed.
    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Reads into `buffer`. Returns 0 at the end of the stream.
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Takes some of `octets`, which may not have left before [`UpstreamStream::try_flush`] succeeds.
    fn try_write(&mut self, octets: &[u8]) -> io::Result<usize>;
    /// Sends what was taken and has not left.
    fn try_flush(&mut self) -> io::Result<()>;
}

impl UpstreamStream for TcpStream {
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send {
        TcpStream::readable(self)
    }
    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send {
        TcpStream::writable(self)
    }
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        TcpStream::try_read(self, buffer)
    }
    fn try_write(&mut self, octets: &[u8]) -> io::Result<usize> {
        TcpStream::try_write(self, octets)
    }
    fn try_flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A TLS session. It says goodbye when it is dropped, if that can be sent without waiting.
pub(super) struct TlsSession {
    tcp: TcpStream,
    tls: ClientConnection,
    /// There may be octets that have been decrypted and not read: the server may send them with the end of its
    /// handshake.
    has_plaintext: bool,
}

impl From<TlsStream<TcpStream>> for TlsSession {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        let (tcp, tls) = stream.into_inner();
        Self { tcp, tls, has_plaintext: true }
    }
}

impl UpstreamStream for TlsSession {
    async fn readable(&self) -> io::Result<()> {
        if self.has_plaintext { Ok(()) } else { self.tcp.readable().await }
    }
    async fn writable(&self) -> io::Result<()> {
        self.tcp.writable().await
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for _ in 0..MAX_RECORDS {
            match self.tls.reader().read(buffer) {
                Ok(count) => {
                    self.has_plaintext = count == buffer.len();
                    return Ok(count);
                }
                // Many servers close the connection without closing the session. Messages have lengths, so that a
                // missing part is noticed.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.has_plaintext = false,
                Err(error) => return Err(error),
            }
            self.tls.read_tls(&mut NonBlocking(&self.tcp))?;
            match self.tls.process_new_packets() {
                Ok(state) => self.has_plaintext = state.plaintext_bytes_to_read() > 0,
                Err(error) => {
                    // The alert that tells the server what it has done wrong.
                    let _ = self.try_flush();
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn try_write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.try_flush()?;
        let count = self.tls.writer().write(octets)?;
        match self.try_flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(count),
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut NonBlocking(&self.tcp))?;
        }
        Ok(())
    }
}

impl Drop for TlsSession {
    fn drop(&mut self) {
        self.tls.send_close_notify();
        let _ = self.try_flush();
    }
}

/// A TCP stream as rustls reads and writes it.
struct NonBlocking<'a>(&'a TcpStream);

impl Read for NonBlocking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for NonBlocking<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.try_write(octets)
    }
    fn write_vectored(&mut self, octets: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(octets)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
