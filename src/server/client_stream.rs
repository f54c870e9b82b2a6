//! A client's connection, with TLS or without.

use socket2::SockRef;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::server::TlsStream;

/// Octets that are read of a connection that is about to end: more than the kernel's buffer holds, so that only a
/// client that goes on sending is cut off.
const MOST_RECEIVED: usize = 256 << 10;

/// What a connection that carries DNS messages, each behind its length, is served over.
pub(super) trait ClientStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Writes as much as can be at once, if that costs less than to wait until all can be.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if nothing can be.
    fn write_at_once(&mut self, octets: &[u8]) -> io::Result<usize>;

    /// Appends all that has been received, asking the kernel itself: the runtime may not have heard of it yet.
    ///
    /// # Errors
    /// The connection has failed.
    fn read_received(&mut self, input: &mut Vec<u8>) -> io::Result<()>;

    /// Tells the client that nothing more comes, as far as that can be done without waiting.
    fn end(&mut self);

    /// Has the kernel reset the connection and drop what the client has not read. It would keep that and go on offering
    /// it for minutes. Not by SO_LINGER, which the server may not set ([`crate::sandbox`]).
    fn forget_unread(&self);
}

impl ClientStream for TcpStream {
    fn write_at_once(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.try_write(octets)
    }

    fn read_received(&mut self, input: &mut Vec<u8>) -> io::Result<()> {
        let socket = SockRef::from(&*self);
        let mut buffer = [0; 4096];
        while input.len() < MOST_RECEIVED {
            match (&*socket).read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => input.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        // It fails only if the client is gone.
        _ = SockRef::from(&*self).shutdown(Shutdown::Write);
    }

    fn forget_unread(&self) {
        _ = rustix::net::connect_unspec(self);
    }
}

impl ClientStream for TlsStream<TcpStream> {
    fn write_at_once(&mut self, _: &[u8]) -> io::Result<usize> {
        // What it takes may stay in the session, and has to be flushed.
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn read_received(&mut self, input: &mut Vec<u8>) -> io::Result<()> {
        let (stream, session) = self.get_mut();
        let socket = SockRef::from(&*stream);
        let mut buffer = [0; 4096];
        while input.len() < MOST_RECEIVED {
            loop {
                match session.reader().read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(count) => input.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            match session.read_tls(&mut &*socket) {
                Ok(0) => break,
                Ok(_) => _ = session.process_new_packets().map_err(io::Error::other)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        let (stream, session) = self.get_mut();
        session.send_close_notify();
        while session.wants_write() && session.write_tls(&mut AtOnce(stream)).is_ok() {}
        stream.end();
    }

    fn forget_unread(&self) {
        self.get_ref().0.forget_unread();
    }
}

/// Writes to a connection what can be written without waiting.
struct AtOnce<'a>(&'a TcpStream);

impl Write for AtOnce<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.try_write(octets)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What octets come and go over.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Duplex for S {}

/// Any of them: HTTP is not compiled for each apart.
pub(super) type AnyStream = Pin<Box<dyn Duplex>>;

/// One that fails once a client has taken nothing for so long.
pub(super) fn with_write_timeout(stream: impl Duplex + 'static, patience: Duration) -> AnyStream {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(patience));
    Box::pin(stream)
}
