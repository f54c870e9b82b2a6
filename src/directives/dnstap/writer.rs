//! The writer of an endpoint that we connect to: it says what comes, writes it, and connects again when the reader is
//! gone.

use super::frames::{self, CONTROL_HEADER, Control, FrameError};
use super::shared::{Address, Mode, Shared, Taken, Troubles};
use crate::backoff::Backoff;
use crate::corefile::SocketRole;
use crate::deadline;
use crate::message::Name;
use crate::net::tls::TlsError;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout_at};

/// How long a reader may take for each step: to be connected, to say that it takes dnstap, and to take some octets
/// (tcpTimeout of CoreDNS' plugin/dnstap).
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// How long frames gather before they are written in one call.
pub(super) const GATHERING: Duration = Duration::from_millis(50);
/// The pause before another attempt doubles from here to there (errorCheckInterval of CoreDNS' plugin/dnstap).
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Why nothing can be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("no connection: the name {0} cannot be resolved: {1}")]
    Resolve(String, String),
    #[error("no TLS session: {0}")]
    Tls(#[from] TlsError),
    #[error("the reader does not {0} within {PATIENCE:?}")]
    Late(&'static str),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the reader is gone: {0}")]
    Gone(io::Error),
    #[error("more than {0} octets wait for the reader")]
    Behind(usize),
}

/// A connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// `work` within [`PATIENCE`].
pub(super) async fn patiently<T>(
    what: &'static str,
    work: impl Future<Output = Result<T, WriteError>>,
) -> Result<T, WriteError> {
    timeout_at(Instant::now() + PATIENCE, work).await.unwrap_or(Err(WriteError::Late(what)))
}

/// The reader says that it takes dnstap: READY, ACCEPT. How long that may take is the caller's to say.
///
/// # Errors
/// It does not.
pub(super) async fn offer(stream: &mut dyn Stream) -> Result<(), WriteError> {
    stream.write_all(&Control::Ready.frame()).await.map_err(WriteError::Gone)?;
    stream.flush().await.map_err(WriteError::Gone)?;
    read_control(stream, Control::Accept).await
}

/// Messages come from here on: START.
///
/// # Errors
/// The reader does not take that within [`PATIENCE`].
pub(super) async fn start(stream: &mut dyn Stream) -> Result<(), WriteError> {
    let start = async {
        stream.write_all(&Control::Start.frame()).await.map_err(WriteError::Gone)?;
        stream.flush().await.map_err(WriteError::Gone)
    };
    patiently("read", start).await
}

/// The last frame is written: STOP, FINISH.
pub(super) async fn take_leave(stream: &mut dyn Stream) {
    let leave = async {
        stream.write_all(&Control::Stop.frame()).await.map_err(WriteError::Gone)?;
        stream.flush().await.map_err(WriteError::Gone)?;
        read_control(stream, Control::Finish).await
    };
    // Who says nothing has all the same what was written.
    _ = patiently("finish", leave).await;
}

/// Reads the control frame that is due.
///
/// # Errors
/// Something else comes, or nothing more.
pub(super) async fn read_control(stream: &mut dyn Stream, due: Control) -> Result<(), WriteError> {
    let mut header = [0; CONTROL_HEADER];
    stream.read_exact(&mut header).await.map_err(WriteError::Gone)?;
    let mut body = vec![0; Control::length(header)?];
    stream.read_exact(&mut body).await.map_err(WriteError::Gone)?;
    Ok(due.check(&body)?)
}

/// Writes what is taken, as far as the reader takes it.
///
/// # Errors
/// It takes nothing for [`PATIENCE`], or is gone.
pub(super) async fn write_taken(stream: &mut dyn Stream, taken: &mut Taken) -> Result<(), WriteError> {
    while !taken.rest().is_empty() {
        let write = async {
            match stream.write(taken.rest()).await {
                Ok(0) => Err(WriteError::Gone(io::ErrorKind::WriteZero.into())),
                Ok(octets) => Ok(octets),
                Err(error) => Err(WriteError::Gone(error)),
            }
        };
        taken.written += patiently("read", write).await?;
    }
    patiently("read", async { stream.flush().await.map_err(WriteError::Gone) }).await
}

/// Resolves when the reader has closed the connection; what it says before that has no meaning.
pub(super) async fn is_gone(stream: &mut dyn Stream) -> WriteError {
    let mut octets = [0; 64];
    loop {
        match stream.read(&mut octets).await {
            Ok(0) => return WriteError::Gone(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) => return WriteError::Gone(error),
        }
    }
}

/// The task of the endpoint's thread.
pub(super) struct Writer<'a> {
    shared: &'a Shared,
    taken: Taken,
    troubles: Troubles<'a>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared, taken: Taken::default(), troubles: Troubles::new(shared) }
    }

    /// Writes until the endpoint is closed. What could not be written then is dropped and counted.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            match self.try_once(&mut backoff).await {
                Ok(()) => break,
                Err(error) => self.troubles.failed(&error),
            }
            self.troubles.tell_drops();
            if self.shared.ending.is_asked() {
                break;
            }
            tokio::select! {
                () = sleep(backoff.next_pause()) => {}
                () = self.shared.ending.asked() => {}
            }
        }
        self.shared.queue.take(&mut self.taken.frames);
        self.shared.queue.drop_frames(frames::count(self.taken.rest()));
    }

    /// Connects, and writes until the endpoint is closed or the reader is gone. Whoever accepts a connection and does
    /// not take dnstap, or ends before it has taken messages, is no reader: the pauses go on growing, and the trouble
    /// is not over.
    async fn try_once(&mut self, backoff: &mut Backoff) -> Result<(), WriteError> {
        let mut stream = connect(self.shared).await?;
        patiently("say that it takes dnstap", offer(&mut *stream)).await?;
        start(&mut *stream).await?;
        self.shared.readers.set(1.0);
        let outcome = self.write_to(&mut *stream, backoff).await;
        self.shared.readers.set(0.0);
        outcome
    }

    /// Writes until the endpoint is closed, or the reader is gone.
    async fn write_to(&mut self, stream: &mut dyn Stream, backoff: &mut Backoff) -> Result<(), WriteError> {
        let shared = self.shared;
        let mut written_batches = 0_u64;
        loop {
            if self.taken.frames.is_empty() {
                tokio::select! {
                    biased;
                    () = shared.ending.asked() => {}
                    () = shared.queue.filled() => gather(shared).await,
                    error = is_gone(stream) => return Err(error),
                }
                shared.queue.take(&mut self.taken.frames);
            }
            let written = write_taken(stream, &mut self.taken).await;
            self.taken.settle(&shared.sent);
            written?;
            written_batches += 1;
            // The kernel takes a first batch for a reader that is gone, too; it then says so of the next one.
            if written_batches == 2 {
                backoff.reset();
                self.troubles.connected();
            }
            self.troubles.tell_drops();
            if shared.ending.is_asked() && !shared.queue.take(&mut self.taken.frames) {
                take_leave(stream).await;
                return Ok(());
            }
        }
    }
}

/// Waits for more frames, unless there are many already.
pub(super) async fn gather(shared: &Shared) {
    tokio::select! {
        () = sleep(GATHERING) => {}
        () = shared.queue.half_full() => {}
        () = shared.ending.asked() => {}
    }
}

async fn connect(shared: &Shared) -> Result<Box<dyn Stream>, WriteError> {
    let Mode::Connect { tls, buffer_octets } = &shared.config.mode else {
        return Err(WriteError::Connect(io::ErrorKind::Unsupported.into()));
    };
    let connect = async {
        let (host, port) = match &shared.config.address {
            Address::Unix(_) => return connect_unix(shared).await,
            Address::Tcp { host, port } => (host, *port),
        };
        let stream = connect_tcp(&addresses(shared, host, port).await?).await.map_err(WriteError::Connect)?;
        // As many as the kernel gives (net.core.wmem_max).
        _ = socket2::SockRef::from(&stream).set_send_buffer_size(*buffer_octets);
        match tls {
            None => Ok(Box::new(stream) as Box<dyn Stream>),
            Some(tls) => Ok(Box::new(tls.client_of(host).connect(stream).await?)),
        }
    };
    patiently("let us connect", connect).await
}

/// On a thread of its own: the file system may hang, and it may be the watchdog's to connect.
async fn connect_unix(shared: &Shared) -> Result<Box<dyn Stream>, WriteError> {
    let socket = unix_socket(shared, SocketRole::Connect).await.map_err(WriteError::Connect)?;
    let stream = UnixStream::from_std(net::UnixStream::from(socket)).map_err(WriteError::Connect)?;
    Ok(Box::new(stream))
}

/// A socket with the endpoint's path.
///
/// # Errors
/// Those of connect(2) and bind(2), and of the watchdog.
pub(super) async fn unix_socket(shared: &Shared, role: SocketRole) -> io::Result<OwnedFd> {
    let Address::Unix(path) = shared.config.address.clone() else { return Err(io::ErrorKind::Unsupported.into()) };
    // The one before may hang still.
    if Arc::strong_count(&shared.unix_threads) > 1 {
        return Err(deadline::late(PATIENCE));
    }
    let (sockets, thread) = (shared.unix_sockets.clone(), shared.unix_threads.clone());
    let socket = deadline::begin(move || {
        let socket = sockets(&path, role);
        drop(thread);
        socket
    })?;
    socket.await.unwrap_or_else(|_| Err(io::Error::other("it ended before its time: please report this")))
}

/// Where a host is.
///
/// # Errors
/// Its name cannot be resolved.
pub(super) async fn addresses(shared: &Shared, host: &str, port: u16) -> Result<Vec<SocketAddr>, WriteError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed = |error: &dyn std::fmt::Display| WriteError::Resolve(host.to_owned(), error.to_string());
    let name = Name::parse(host).map_err(|error| failed(&error))?;
    let (addresses, _) = shared.lookup.addresses_of(&name).await.map_err(|error| failed(&error))?;
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

async fn connect_tcp(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Takes a connection as a reader does, and as many batches, each of one frame.
    async fn read(listener: &TcpListener, shared: &Shared, batches: usize) {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&Control::Accept.frame()).await.unwrap();
        let beginning = [Control::Ready.frame(), Control::Start.frame()].concat();
        stream.read_exact(&mut vec![0; beginning.len()]).await.unwrap();
        for _ in 0..batches {
            shared.queue.push(&[0, 0, 0, 1, 7], 1);
            stream.read_exact(&mut [0; 5]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_reader_that_ends_before_it_has_taken_messages_is_tried_ever_more_seldom() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        let shared = Shared::of_test(address, Mode::Connect { tls: None, buffer_octets: 1 << 20 });
        let (mut writer, mut backoff) = (Writer::new(&shared), Backoff::new(FIRST_PAUSE, LONGEST_PAUSE));
        let mut pauses = Vec::new();
        for batches in [0, 0, 1, 2] {
            let (outcome, ()) = tokio::join!(writer.try_once(&mut backoff), read(&listener, &shared, batches));
            assert!(matches!(outcome, Err(WriteError::Gone(_))), "{outcome:?}");
            pauses.push(backoff.next_pause().as_millis());
        }
        assert_eq!(pauses, [100, 200, 400, 100]);
    }
}
