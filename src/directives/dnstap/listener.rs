//! The listener of an endpoint that readers connect to. Each of them gets what comes while it is connected, and is cut
//! off where it reads too slowly.

use super::frames;
use super::shared::{Address, Mode, Shared, Taken, Troubles};
use super::writer::{
    self, GATHERING, PATIENCE, Stream, WriteError, addresses, gather, is_gone, patiently, unix_socket,
};
use crate::backoff::Backoff;
use crate::corefile::SocketRole;
use crate::net::tls::ServerTls;
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::unix::net;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Readers at one time. Further ones are closed at once.
const MOST_READERS: usize = 16;
/// Connections at one time that have not said yet that they take dnstap. A further one takes the oldest's place.
const MOST_GREETED: usize = 64;
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

/// What a connection has become once it has said that it takes dnstap.
type Greeted = Result<Box<dyn Stream>, WriteError>;

/// The way to a reader's session. Dropped, it lets the session write what waits, and take its leave.
struct Reader {
    frames: mpsc::UnboundedSender<Arc<[u8]>>,
    /// Octets.
    waiting: Arc<AtomicUsize>,
    cut_off: oneshot::Sender<()>,
}

impl Reader {
    /// Whether too much would wait with so many octets more.
    fn is_behind(&self, octets: usize) -> bool {
        let waiting = self.waiting.load(Ordering::Relaxed);
        waiting > 0 && waiting + octets > MOST_WAITING
    }

    fn give(&self, batch: &Arc<[u8]>) {
        self.waiting.fetch_add(batch.len(), Ordering::Relaxed);
        // It may be gone: then its session says so.
        _ = self.frames.send(batch.clone());
    }
}

/// The task of the endpoint's thread.
pub(super) struct Listener<'a> {
    shared: &'a Shared,
    troubles: Troubles<'a>,
    greetings: JoinSet<Greeted>,
    /// Those that go on, the oldest first.
    greeted: VecDeque<AbortHandle>,
    readers: Vec<Reader>,
    /// Those of readers, and of ones that are cut off until they have ended. Each ends with the number of messages
    /// that it has dropped.
    sessions: JoinSet<u64>,
}

impl<'a> Listener<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            troubles: Troubles::new(shared),
            greetings: JoinSet::new(),
            greeted: VecDeque::new(),
            readers: Vec::new(),
            sessions: JoinSet::new(),
        }
    }

    /// Serves readers until the endpoint is closed.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        while !self.shared.ending.is_asked() {
            match listen(self.shared).await {
                Ok(accepting) => {
                    backoff.reset();
                    self.troubles.connected();
                    self.serve(async || accepting.accept().await).await;
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

    /// Serves those whom `accept` gives. Connections come last, so that a flood of them keeps no reader waiting.
    async fn serve(&mut self, accept: impl AsyncFn() -> io::Result<Accepted>) {
        let shared = self.shared;
        let gathered = || async {
            shared.queue.filled().await;
            gather(shared).await;
        };
        let mut frames = Vec::new();
        let mut gathering = pin!(gathered());
        while !shared.ending.is_asked() {
            tokio::select! {
                biased;
                () = shared.ending.asked() => {}
                () = &mut gathering => {
                    gathering.set(gathered());
                    self.hand_out(&mut frames);
                }
                Some(dropped) = self.sessions.join_next() => self.forget_gone(dropped.unwrap_or_default()),
                Some(greeted) = self.greetings.join_next() => {
                    self.greeted.retain(|greeting| !greeting.is_finished());
                    // One that has given way is no trouble.
                    if let Ok(greeted) = greeted {
                        self.admit(greeted);
                    }
                }
                accepted = accept() => match accepted {
                    Ok(accepted) => self.greet(accepted),
                    // Descriptors are at their limit, for one.
                    Err(error) => {
                        self.troubles.failed(&format_args!("cannot accept: {error}"));
                        sleep(GATHERING).await;
                    }
                },
            }
        }
        self.hand_out(&mut frames);
        self.greetings.abort_all();
        self.readers.clear();
        let all_done = async { while self.sessions.join_next().await.is_some() {} };
        _ = timeout(PATIENCE, all_done).await;
    }

    /// Asks a connection whether it takes dnstap.
    fn greet(&mut self, accepted: Accepted) {
        let Mode::Listen { tls } = self.shared.config.mode.clone() else { return };
        if self.greeted.len() >= MOST_GREETED
            && let Some(oldest) = self.greeted.pop_front()
        {
            oldest.abort();
        }
        let greeting = patiently("say that it takes dnstap", greet(accepted, tls));
        self.greeted.push_back(self.greetings.spawn(greeting));
    }

    /// Makes a reader of a connection that takes dnstap, if there is a place. What comes from then on is its.
    fn admit(&mut self, greeted: Greeted) {
        let stream = match greeted {
            Ok(stream) => stream,
            Err(error) => return tracing::debug!("plugin/dnstap: a connection is no reader: {error}"),
        };
        // One that is cut off holds its memory and its place until its task has ended.
        if self.sessions.len() >= MOST_READERS {
            return self.troubles.failed(&format_args!("more than {MOST_READERS} readers"));
        }
        let (frames, incoming) = mpsc::unbounded_channel();
        let (cut_off, is_cut_off) = oneshot::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let session = Session { incoming, waiting: waiting.clone(), sent: self.shared.sent.clone() };
        self.sessions.spawn(session.run(stream, is_cut_off));
        self.readers.push(Reader { frames, waiting, cut_off });
        self.count_readers();
    }

    /// A session has ended, and has dropped so many messages.
    fn forget_gone(&mut self, dropped: u64) {
        self.shared.queue.drop_frames(dropped);
        self.readers.retain(|reader| !reader.frames.is_closed());
        self.count_readers();
    }

    fn count_readers(&self) {
        self.shared.readers.set(self.readers.len() as f64);
        self.shared.queue.set_wanted(!self.readers.is_empty());
    }

    /// Gives every reader what is queued. One for which too much waits is cut off, and the others lose nothing.
    fn hand_out(&mut self, taken: &mut Vec<u8>) {
        taken.clear();
        if !self.shared.queue.take(taken) {
            return;
        }
        let batch: Arc<[u8]> = taken.as_slice().into();
        for behind in self.readers.extract_if(.., |reader| reader.is_behind(batch.len())) {
            self.shared.queue.drop_frames(frames::count(&batch));
            _ = behind.cut_off.send(());
        }
        self.readers.iter().for_each(|reader| reader.give(&batch));
        self.count_readers();
        self.troubles.tell_drops();
    }
}

/// A connection that has said that it takes dnstap.
async fn greet(accepted: Accepted, tls: Option<ServerTls>) -> Greeted {
    let mut stream: Box<dyn Stream> = match (accepted, tls) {
        (Accepted::Unix(stream), _) => Box::new(stream),
        (Accepted::Tcp(stream), None) => Box::new(stream),
        (Accepted::Tcp(stream), Some(tls)) => {
            Box::new(tls.accept(stream).await.map_err(|error| WriteError::Tls(error.into()))?)
        }
    };
    writer::offer(&mut *stream).await?;
    Ok(stream)
}

/// What a reader's connection writes.
struct Session {
    incoming: mpsc::UnboundedReceiver<Arc<[u8]>>,
    waiting: Arc<AtomicUsize>,
    sent: crate::metrics::Counter,
}

impl Session {
    /// Writes until there is nothing more to come, the reader is gone, or it is cut off; returns how many messages are
    /// dropped since it was too slow.
    async fn run(mut self, mut stream: Box<dyn Stream>, is_cut_off: oneshot::Receiver<()>) -> u64 {
        let mut taken = Taken::default();
        let outcome = tokio::select! {
            biased;
            Ok(()) = is_cut_off => Err(WriteError::Behind(MOST_WAITING)),
            outcome = self.write_to(&mut *stream, &mut taken) => outcome,
        };
        drop(stream);
        taken.settle(&self.sent);
        let Err(error) = outcome else { return 0 };
        tracing::debug!("plugin/dnstap: a reader is cut off: {error}");
        if !matches!(error, WriteError::Behind(_) | WriteError::Late(_)) {
            return 0;
        }
        let mut dropped = frames::count(taken.rest());
        while let Ok(batch) = self.incoming.try_recv() {
            dropped += frames::count(&batch);
        }
        dropped
    }

    async fn write_to(&mut self, stream: &mut dyn Stream, taken: &mut Taken) -> Result<(), WriteError> {
        writer::start(stream).await?;
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
            let written = writer::write_taken(stream, taken).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::pending;

    #[tokio::test]
    async fn connections_without_end_keep_no_reader_waiting_for_what_is_queued() {
        let shared = Shared::of_test(Address::Tcp { host: String::new(), port: 0 }, Mode::Listen { tls: None });
        shared.queue.push(&[0; Shared::QUEUE_OF_TEST], 1);
        let accepted = Cell::new(0);
        let accept = async || {
            accepted.set(accepted.get() + 1);
            assert!(accepted.get() < 1000, "nothing is handed out");
            if accepted.get() > 1 && !shared.queue.take(&mut Vec::new()) {
                shared.ending.ask();
                return pending().await;
            }
            Ok(Accepted::Unix(tokio::net::UnixStream::pair()?.0))
        };
        Listener::new(&shared).serve(accept).await;
    }
}
