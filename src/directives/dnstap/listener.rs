//! The listener of an endpoint that readers connect to. Each of them gets what comes while it is connected, and is cut
//! off where it reads too slowly.

use super::shared::{Address, Mode, Shared, Taken, Troubles};
use super::writer::{
    self, GATHERING, PATIENCE, Stream, WriteError, addresses, gather, is_gone, shake_hands, unix_socket,
};
use crate::backoff::Backoff;
use crate::corefile::SocketRole;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::unix::net;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Readers at one time. Further ones are closed at once.
const MOST_READERS: usize = 16;
/// Octets that wait for one reader, beyond which it is cut off.
const MOST_WAITING: usize = 4_000_000;
/// The pause before another attempt to listen doubles from here to there.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Where readers connect.
enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection that is not one of a reader yet.
enum Accepted {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Accepting {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => Ok(Accepted::Tcp(listener.accept().await?.0)),
            Self::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

/// What waits for a reader.
struct Reader {
    frames: mpsc::UnboundedSender<Arc<[u8]>>,
    waiting: Arc<AtomicUsize>,
}

/// The task of the endpoint's thread.
pub(super) struct Listener<'a> {
    shared: &'a Shared,
    troubles: Troubles<'a>,
    readers: Vec<Reader>,
    tasks: JoinSet<()>,
}

impl<'a> Listener<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared, troubles: Troubles::new(shared), readers: Vec::new(), tasks: JoinSet::new() }
    }

    /// Serves readers until the endpoint is closed.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        while !self.shared.ending.is_asked() {
            match listen(self.shared).await {
                Ok(accepting) => {
                    backoff.reset();
                    self.troubles.connected();
                    self.serve(&accepting).await;
                }
                Err(error) => {
                    self.troubles.failed(&format_args!("cannot listen: {error}"));
                    tokio::select! {
                        () = sleep(backoff.next_pause()) => {}
                        () = self.shared.ending.asked() => {}
                    }
                }
            }
        }
    }

    async fn serve(&mut self, accepting: &Accepting) {
        let mut frames = Vec::new();
        while !self.shared.ending.is_asked() {
            tokio::select! {
                biased;
                () = self.shared.ending.asked() => {}
                Some(_) = self.tasks.join_next() => self.forget_gone(),
                accepted = accepting.accept() => match accepted {
                    Ok(accepted) => self.take(accepted),
                    // Descriptors are at their limit, for one.
                    Err(error) => {
                        self.troubles.failed(&format_args!("cannot accept: {error}"));
                        sleep(GATHERING).await;
                    }
                },
                () = self.shared.queue.filled() => {
                    gather(self.shared).await;
                    self.hand_out(&mut frames);
                }
            }
        }
        self.hand_out(&mut frames);
        self.readers.clear();
        let all_done = async { while self.tasks.join_next().await.is_some() {} };
        _ = timeout(PATIENCE, all_done).await;
    }

    /// A connection becomes a reader's once it has said so; what comes meanwhile waits for it.
    fn take(&mut self, accepted: Accepted) {
        if self.readers.len() >= MOST_READERS {
            self.troubles.failed(&format_args!("more than {MOST_READERS} readers"));
            return;
        }
        let (frames, incoming) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let session = Session { incoming, waiting: waiting.clone(), sent: self.shared.sent.clone() };
        let Mode::Listen { tls } = self.shared.config.mode.clone() else { return };
        self.tasks.spawn(async move {
            let outcome = match (accepted, tls) {
                (Accepted::Unix(mut stream), _) => session.run(&mut stream).await,
                (Accepted::Tcp(mut stream), None) => session.run(&mut stream).await,
                (Accepted::Tcp(stream), Some(tls)) => match timeout(PATIENCE, tls.accept(stream)).await {
                    Ok(Ok(mut stream)) => session.run(&mut stream).await,
                    Ok(Err(error)) => Err(WriteError::Tls(error.into())),
                    Err(_) => Err(WriteError::Late("make a TLS session")),
                },
            };
            if let Err(error) = outcome {
                tracing::debug!("plugin/dnstap: a reader is cut off: {error}");
            }
        });
        self.readers.push(Reader { frames, waiting });
        self.count_readers();
    }

    fn forget_gone(&mut self) {
        self.readers.retain(|reader| !reader.frames.is_closed());
        self.count_readers();
    }

    fn count_readers(&self) {
        self.shared.readers.set(self.readers.len() as f64);
        self.shared.queue.set_wanted(!self.readers.is_empty());
    }

    /// Gives every reader what is queued. One for which too much waits is cut off, and the others lose nothing.
    fn hand_out(&mut self, frames: &mut Vec<u8>) {
        frames.clear();
        if !self.shared.queue.take(frames) {
            return;
        }
        let batch: Arc<[u8]> = frames.as_slice().into();
        self.readers.retain(|reader| {
            let waiting = reader.waiting.fetch_add(batch.len(), Ordering::Relaxed);
            let is_kept = waiting == 0 || waiting + batch.len() <= MOST_WAITING;
            if !is_kept {
                self.shared.queue.drop_frames(super::frames::count(&batch));
            }
            is_kept && reader.frames.send(batch.clone()).is_ok()
        });
        self.count_readers();
        self.troubles.tell_drops();
    }
}

/// A reader's connection.
struct Session {
    incoming: mpsc::UnboundedReceiver<Arc<[u8]>>,
    waiting: Arc<AtomicUsize>,
    sent: crate::metrics::Counter,
}

impl Session {
    async fn run(mut self, stream: &mut dyn Stream) -> Result<(), WriteError> {
        shake_hands(stream).await?;
        let mut taken = Taken::default();
        loop {
            let batch = tokio::select! {
                batch = self.incoming.recv() => batch,
                error = is_gone(stream) => return Err(error),
            };
            let Some(batch) = batch else {
                writer::take_leave(stream).await;
                return Ok(());
            };
            taken.frames.extend_from_slice(&batch);
            let written = writer::write_taken(stream, &mut taken).await;
            self.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
            taken.settle(&self.sent);
            written?;
        }
    }
}

async fn listen(shared: &Shared) -> Result<Accepting, WriteError> {
    let (host, port) = match &shared.config.address {
        Address::Unix(_) => {
            let socket = unix_socket(shared, SocketRole::Listen).await.map_err(WriteError::Connect)?;
            let listener = UnixListener::from_std(net::UnixListener::from(socket)).map_err(WriteError::Connect)?;
            return Ok(Accepting::Unix(listener));
        }
        Address::Tcp { host, port } => (host, *port),
    };
    let addresses = match host.is_empty() {
        true => vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))],
        false => addresses(shared, host, port).await?,
    };
    Ok(Accepting::Tcp(TcpListener::bind(&*addresses).await.map_err(WriteError::Connect)?))
}
