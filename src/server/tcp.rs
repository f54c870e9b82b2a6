//! Queries over TCP (RFC 7766): many on a connection, each answered as soon as its answer is there.

use super::buffers::{ConnectionMemory, Reservation};
use super::client_stream::ClientStream;
use super::closing::{self, LAST_HANDSHAKES};
use super::connections::{Caller, Closed, ConnectionAdmission, ConnectionPermit};
use super::dispatcher::Dispatcher;
use super::worker::{Binding, WorkerState};
use crate::chain::{BatchClock, Peer, Received, Transport};
use crate::fairness::Permit;
use crate::message::framing::{self, Frame};
use crate::plan::Dispatch;
use parking_lot::Mutex;
use rustix::net::{SocketFlags, accept_with};
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::coop::unconstrained;
use tokio::time::{sleep, timeout};

/// After an accept that failed for want of something, files or memory: shorter where room could be made.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const EVICTION_PAUSE: Duration = Duration::from_millis(5);

/// Octets of the longest query that is read: a name, and EDNS options far beyond any in use. What is longer is no
/// question, and a buffer for it would only serve whoever wants us out of memory.
pub(super) const MAX_QUERY: usize = 4096;

/// Octets of replies that are gathered before they are written though more could be made.
const ENOUGH_REPLIES: usize = 16 << 10;

/// Octets of replies that a connection may have waiting however many wait elsewhere: those of everyday answers.
const ALWAYS_KEPT_REPLIES: usize = 4 << 10;

/// Octets of unfinished queries that a connection may have, however many others have: everyday ones are shorter, and
/// come in one piece.
const ALWAYS_KEPT_INPUT: usize = 512;

/// Octets of a buffer that an idle connection keeps.
const KEPT_BUFFER: usize = 512;

/// Accepts from one listener until its binding stops, then what has been waiting. `admit` takes each connection.
pub(super) async fn accept<A: Dispatcher>(
    listener: AsyncFd<OwnedFd>,
    binding: Arc<Binding<A>>,
    state: Arc<WorkerState>,
    admit: impl Fn(TcpStream, &Arc<Binding<A>>, &Arc<WorkerState>),
) {
    accept_until_end(&listener, &binding, &state, &admit).await;
    while let Ok(stream) = accept_one(&listener) {
        admit(stream, &binding, &state);
    }
}

/// The connection that has waited longest.
fn accept_one(listener: &AsyncFd<OwnedFd>) -> io::Result<TcpStream> {
    let accept = || accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
    TcpStream::from_std(rustix::io::retry_on_intr(accept)?.into())
}

/// Waits for a connection, and takes it unless a successor has. May be dropped and called again at any time.
async fn next_connection(listener: &AsyncFd<OwnedFd>, state: &WorkerState) -> io::Result<TcpStream> {
    loop {
        // Counts towards the task's turn, as `readable` does not.
        let mut ready = poll_fn(|context| listener.poll_read_ready(context)).await?;
        state.shared.yielding.give_way().await;
        match accept_one(listener) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            accepted => return accepted,
        }
    }
}

/// Accepts until the binding stops, and while handshakes may still be completed that had begun by then.
async fn accept_until_end<A: Dispatcher>(
    listener: &AsyncFd<OwnedFd>,
    binding: &Arc<Binding<A>>,
    state: &Arc<WorkerState>,
    admit: &impl Fn(TcpStream, &Arc<Binding<A>>, &Arc<WorkerState>),
) {
    let mut ended = pin!(async {
        binding.stopped().await;
        if closing::refuses_connections(listener.as_fd()) {
            sleep(LAST_HANDSHAKES).await;
        }
    });
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut ended => return,
            accepted = next_connection(listener, state) => accepted,
        };
        match accepted {
            Ok(stream) => admit(stream, binding, state),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // Mostly EMFILE: a connection less is a file more. UDP goes on meanwhile.
                if let Some(closed) = state.connections.evict() {
                    state.count_closed(&closed);
                    tracing::debug!(
                        "accepting on {} failed: {error}; a connection of {} makes room",
                        binding.address,
                        closed.client
                    );
                    sleep(EVICTION_PAUSE).await;
                } else {
                    tracing::warn!("accepting on {} failed: {error}; no connection is idle", binding.address);
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// accept(2) also tells errors of the connection that was to be accepted; the next one may be well.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable, TimedOut,
    };
    let kinds =
        [ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable, TimedOut];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(libc::EPROTO)
}

/// A connection that has its place.
pub(super) struct Entered {
    pub peer: Peer,
    pub caller: Caller,
    pub is_fair: bool,
    pub permit: ConnectionPermit,
    pub memory: Arc<ConnectionMemory>,
}

/// Takes a connection in and serves it.
pub(super) fn admit<A: Dispatcher>(stream: TcpStream, binding: &Arc<Binding<A>>, state: &Arc<WorkerState>) {
    let Some(entered) = enter(&stream, binding, state) else { return };
    let (connection, permit, memory) = connection(entered, binding, state);
    tokio::spawn(serve(stream, connection, permit, memory));
}

/// A place for a connection; `None`, counted, if there is none.
pub(super) fn enter<A: Dispatcher>(
    stream: &TcpStream,
    binding: &Arc<Binding<A>>,
    state: &Arc<WorkerState>,
) -> Option<Entered> {
    // Fails only if the client is gone already.
    let (client, local) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let peer = Peer { client: canonical(client), local: canonical(local), transport: Transport::Tcp };
    let (now, fairness) = (Instant::now(), state.shared.fairness.get());
    let caller = Caller { client: fairness.client(peer.client.ip()), is_own: peer.client.ip() == peer.local.ip() };
    let permit = match state.connections.admit(caller, fairness.is_on, now) {
        ConnectionAdmission::Granted(permit) => permit,
        ConnectionAdmission::Evicting(permit, closed) => {
            state.count_closed(&closed);
            if state.shared.connections.is_due(now) {
                let Closed { client, held, .. } = closed;
                tracing::warn!(
                    "there are as many connections to {} as there may be: {client}, which has most of them ({held}), gives some up for others \
                     (told once a minute at most; nodelocaldns_tcp_connections_cut_total counts)",
                    binding.address
                );
            }
            permit
        }
        ConnectionAdmission::Full => {
            state.metrics().cut.refused.increment();
            return None;
        }
    };
    _ = stream.set_nodelay(true);
    let memory = state.connections.buffers.memory(caller.client, fairness.is_on);
    Some(Entered { peer, caller, is_fair: fairness.is_on, permit, memory })
}

/// What a connection that carries DNS messages begins with.
pub(super) fn connection<A: Dispatcher>(
    entered: Entered,
    binding: &Arc<Binding<A>>,
    state: &Arc<WorkerState>,
) -> (ServedConnection<A>, ConnectionPermit, Arc<ConnectionMemory>) {
    let Entered { peer, permit, memory, .. } = entered;
    let connection = ServedConnection {
        binding: binding.clone(),
        state: state.clone(),
        peer,
        input: Input { octets: Vec::new(), reservation: Reservation::new(memory.clone()) },
        replies: Arc::new(Replies::new(memory.clone())),
        awaiting_rest_since: None,
        has_dispatched: false,
        queries: 0,
        is_reserved: permit.is_reserved(),
    };
    (connection, permit, memory)
}

/// Why a connection ends before the client wants it to.
enum CloseReason {
    Malformed,
    SlowReader,
    SlowSender,
    /// Too much is kept for clients, and it is one of those for whom most is kept.
    Crowded,
    /// It makes room for another one.
    Evicted,
    /// Broken from the other side, or idle for too long: nothing to count.
    Over,
}

impl From<io::Error> for CloseReason {
    fn from(_: io::Error) -> Self {
        Self::Over
    }
}

/// Serves until either side ends it.
pub(super) async fn serve<A: Dispatcher, S: ClientStream>(
    mut stream: S,
    mut connection: ServedConnection<A>,
    permit: ConnectionPermit,
    memory: Arc<ConnectionMemory>,
) {
    let state = connection.state.clone();
    // Also while it writes to a client that does not read.
    let outcome = tokio::select! {
        biased;
        () = permit.evicted() => Err(CloseReason::Evicted),
        () = memory.cut() => Err(CloseReason::Crowded),
        outcome = converse(&mut stream, &mut connection, &permit) => outcome,
    };
    match outcome {
        // Replies are taken before the connection is seen to close.
        Ok(()) | Err(CloseReason::Over) => stream.end(),
        Err(CloseReason::Malformed) => state.metrics().cut.malformed.increment(),
        Err(CloseReason::SlowSender) => state.metrics().cut.slow_sender.increment(),
        Err(CloseReason::Crowded) if !connection.replies.lack_room() => state.metrics().cut.crowded.increment(),
        Err(CloseReason::SlowReader | CloseReason::Crowded) => {
            state.metrics().cut.slow_reader.increment();
            stream.forget_unread();
        }
        Err(CloseReason::Evicted) if connection.replies.unwritten() > 0 => stream.forget_unread(),
        Err(CloseReason::Evicted) => {}
    }
    connection.replies.close();
}

/// Serves until the client has closed its side, or the binding stops, and all is answered.
async fn converse<A: Dispatcher, S: ClientStream>(
    stream: &mut S,
    connection: &mut ServedConnection<A>,
    permit: &ConnectionPermit,
) -> Result<(), CloseReason> {
    let replies = connection.replies.clone();
    let mut stopped = pin!(connection.binding.stopped_for_connection());
    let mut alarm = pin!(sleep(Duration::ZERO));
    let mut idle_since = Instant::now();
    // Nothing more is read: the client has closed its side, or we stop.
    let mut is_finishing = false;
    loop {
        let progress = connection.dispatch_input()?;
        let has_written = connection.write(stream).await?;
        if replies.is_closed() {
            return Err(CloseReason::SlowReader);
        }
        if has_written && connection.is_reserved {
            return Ok(());
        }
        if !connection.input.count() {
            return Err(CloseReason::Crowded);
        }
        if progress == Progress::Replies {
            tokio::task::yield_now().await;
            continue;
        }
        is_finishing |= connection.has_had_all();

        let is_waiting = connection.replies.are_none_due();
        if is_finishing && is_waiting && progress == Progress::Starved {
            return Ok(());
        }
        if !is_waiting {
            permit.set_busy();
        } else if has_written || connection.has_dispatched {
            connection.has_dispatched = false;
            idle_since = Instant::now();
            permit.set_idle(idle_since);
        }
        let deadline = connection.deadline(is_waiting.then_some(idle_since)).filter(|_| !is_finishing);
        let deadline = deadline.map(tokio::time::Instant::from_std);
        if let Some(deadline) = deadline
            && deadline != alarm.deadline()
        {
            alarm.as_mut().reset(deadline);
        }

        tokio::select! {
            biased;
            () = replies.ready.notified() => {}
            () = &mut stopped, if !is_finishing => {
                stream.read_received(&mut connection.input.octets)?;
                is_finishing = true;
            }
            read = poll_fn(|context| connection.poll_read(Pin::new(stream), context)),
                if progress == Progress::Starved && !is_finishing =>
            {
                is_finishing = read? == Read::Closed;
            }
            // Also when reading has taken up this turn: records of TLS without an octet come without end.
            () = unconstrained(&mut alarm), if deadline.is_some() => {
                let is_unfinished = connection.awaiting_rest_since.is_some();
                return Err(if is_unfinished { CloseReason::SlowSender } else { CloseReason::Over });
            }
        }
    }
}

/// Why no more of the input is dispatched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// There is no whole message in it.
    Starved,
    /// As many queries as allowed are in flight.
    Full,
    /// There are replies enough to write first.
    Replies,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    Some,
    Closed,
}

/// One connection's state. Small while idle: its buffers are then empty.
pub(super) struct ServedConnection<A> {
    binding: Arc<Binding<A>>,
    state: Arc<WorkerState>,
    peer: Peer,
    /// What has been read and not dispatched.
    input: Input,
    replies: Arc<Replies>,
    /// Since when a message is incomplete.
    awaiting_rest_since: Option<Instant>,
    has_dispatched: bool,
    /// Dispatched in all.
    queries: u32,
    /// It has one of the places for the watchdog's probes, and gets one reply.
    is_reserved: bool,
}

/// What a client has sent, counted among what is kept for all.
struct Input {
    octets: Vec<u8>,
    reservation: Reservation,
}

impl Input {
    /// Counts what is there now; false if there is no room for it.
    fn count(&mut self) -> bool {
        let octets = self.octets.len();
        self.reservation.fit(if octets > ALWAYS_KEPT_INPUT { octets } else { 0 })
    }
}

impl<A: Dispatcher> ServedConnection<A> {
    /// Reads up to a buffer's worth. The buffer is on the stack, where it costs the idle connections nothing.
    fn poll_read<S: ClientStream>(&mut self, stream: Pin<&mut S>, context: &mut Context<'_>) -> Poll<io::Result<Read>> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut buffer = ReadBuf::uninit(&mut buffer);
        match ready!(stream.poll_read(context, &mut buffer)) {
            // Of TLS: a client that has closed its side without a word may wait for replies all the same.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(Read::Closed)),
            outcome => outcome?,
        }
        self.input.octets.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(if buffer.filled().is_empty() { Read::Closed } else { Read::Some }))
    }

    /// Dispatches whole messages of the input.
    fn dispatch_input(&mut self) -> Result<Progress, CloseReason> {
        if self.input.octets.is_empty() {
            return Ok(Progress::Starved);
        }
        let now = Instant::now();
        let clock = BatchClock::start(now);
        let dispatcher = self.binding.dispatcher.load();
        let mut reply = self.state.take_scratch();
        let mut packets = self.state.packets();
        let mut rest = self.input.octets.as_slice();
        let progress = loop {
            let (message, after) = match framing::first(rest, 1..=MAX_QUERY) {
                Frame::Message { octets, rest } => (octets, rest),
                Frame::Incomplete => break Progress::Starved,
                Frame::OutOfBounds => return Err(CloseReason::Malformed),
            };
            if self.has_had_all() {
                rest = &[];
                break Progress::Starved;
            }
            if self.replies.in_flight() >= self.state.limits.queries_per_connection {
                break Progress::Full;
            }
            if self.replies.octets() >= ENOUGH_REPLIES {
                break Progress::Replies;
            }
            rest = after;
            self.has_dispatched = true;
            self.queries = self.queries.saturating_add(1);
            self.awaiting_rest_since = None;
            reply.clear();
            let received = Received { wire: message, peer: &self.peer, clock: &clock };
            match dispatcher.dispatch(received, &mut packets, &mut reply) {
                Dispatch::Reply => self.replies.push(&reply),
                Dispatch::PacketHit(hit) => {
                    self.replies.push(&reply);
                    dispatcher.count(hit, received, &packets, &reply);
                }
                Dispatch::ReplyAndRefresh(pending) => {
                    self.replies.push(&reply);
                    self.state.refresh::<A>(pending, self.peer.client.ip());
                }
                Dispatch::Pending(pending) => match self.admit() {
                    Some(permit) => {
                        let due = PendingReply::new(self.replies.clone());
                        tokio::spawn(answer::<A>(pending, due, permit, self.binding.clone()));
                    }
                    None => {
                        A::refuse(&pending, &mut reply);
                        self.replies.push(&reply);
                    }
                },
                Dispatch::Silence => {}
            }
        };
        drop(packets);
        self.state.give_back_scratch(reply);
        let consumed = self.input.octets.len() - rest.len();
        self.input.octets.drain(..consumed);
        if self.input.octets.is_empty() && self.input.octets.capacity() > KEPT_BUFFER {
            self.input.octets = Vec::new();
        }
        if progress == Progress::Starved && !self.input.octets.is_empty() {
            self.awaiting_rest_since.get_or_insert(now);
        }
        Ok(progress)
    }

    /// As many queries have come as one connection may have.
    fn has_had_all(&self) -> bool {
        self.binding.dispatcher.load().timeouts().max_queries.is_some_and(|most| self.queries >= most.get())
    }

    /// A place for one more query.
    fn admit(&self) -> Option<Permit> {
        if self.is_reserved { None } else { self.state.admit(self.peer.client.ip()) }
    }

    /// Writes the replies that are ready, in one piece; tells whether there were any.
    async fn write<S: ClientStream>(&self, stream: &mut S) -> Result<bool, CloseReason> {
        let octets = self.replies.take();
        if octets.is_empty() {
            return Ok(false);
        }
        let written = match stream.write_at_once(&octets) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        if let Some(rest) = octets.get(written..).filter(|rest| !rest.is_empty()) {
            let patience = self.binding.dispatcher.load().timeouts().write;
            let write = async {
                stream.write_all(rest).await?;
                stream.flush().await
            };
            timeout(patience, write).await.map_err(|_| CloseReason::SlowReader)??;
        }
        self.replies.give_back(octets);
        Ok(true)
    }

    /// When to give up on the client, were nothing to happen until then.
    fn deadline(&self, idle_since: Option<Instant>) -> Option<Instant> {
        let timeouts = self.binding.dispatcher.load().timeouts();
        match self.awaiting_rest_since {
            Some(since) => since.checked_add(timeouts.read),
            None => idle_since?.checked_add(timeouts.idle),
        }
    }
}

/// Runs the slow path. A task of its own: others may wait for the same answer, and a client that does not read, or is
/// gone, must not keep it from them.
async fn answer<A: Dispatcher>(pending: A::Pending, due: PendingReply, permit: Permit, binding: Arc<Binding<A>>) {
    let mut reply = Vec::new();
    if permit.hold(A::run(&pending, &mut reply)).await.is_none() {
        A::refuse(&pending, &mut reply);
    }
    // A directive may say nothing to this client.
    if !reply.is_empty() {
        due.replies.push(&reply);
    }
    drop((due, permit, binding));
}

/// Replies on their way from those who answer to the one who writes.
struct Replies {
    waiting: Mutex<Waiting>,
    /// Octets that are not written yet, those being written included.
    unwritten: AtomicUsize,
    memory: Arc<ConnectionMemory>,
    /// No reply is taken any more: the connection is over, or there was no room.
    is_closed: AtomicBool,
    in_flight: AtomicUsize,
    /// A query has left the flight.
    ready: Notify,
}

struct Waiting {
    /// Each behind its two octets of length (RFC 1035 section 4.2.2).
    octets: Vec<u8>,
    /// For all that is unwritten.
    reservation: Reservation,
}

impl Replies {
    fn new(memory: Arc<ConnectionMemory>) -> Self {
        Self {
            waiting: Mutex::new(Waiting { octets: Vec::new(), reservation: Reservation::new(memory.clone()) }),
            unwritten: AtomicUsize::new(0),
            memory,
            is_closed: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            ready: Notify::new(),
        }
    }

    /// Adds a reply; an empty one is none. A client that takes its replies too slowly for the room that all of them
    /// share gets no more.
    fn push(&self, reply: &[u8]) {
        let Ok(length @ 1..) = u16::try_from(reply.len()) else { return };
        let mut waiting = self.waiting.lock();
        if self.is_closed() {
            return;
        }
        let added = reply.len() + 2;
        if !waiting.reservation.fit((self.unwritten() + added).saturating_sub(ALWAYS_KEPT_REPLIES)) {
            self.is_closed.store(true, Ordering::Release);
            return;
        }
        self.unwritten.fetch_add(added, Ordering::Relaxed);
        self.memory.buffers().replies.fetch_add(added, Ordering::Relaxed);
        waiting.octets.extend_from_slice(&length.to_be_bytes());
        waiting.octets.extend_from_slice(reply);
    }
    /// Counts octets as written, or as never to be.
    fn release(&self, octets: usize, waiting: &mut Waiting) {
        let before = self.unwritten.fetch_sub(octets, Ordering::Relaxed);
        self.memory.buffers().replies.fetch_sub(octets, Ordering::Relaxed);
        waiting.reservation.fit((before - octets).saturating_sub(ALWAYS_KEPT_REPLIES));
    }
    fn close(&self) {
        let mut waiting = self.waiting.lock();
        self.is_closed.store(true, Ordering::Release);
        self.release(self.unwritten(), &mut waiting);
        waiting.octets = Vec::new();
    }
    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.waiting.lock().octets)
    }
    /// Counts what has been written, and keeps a small buffer for the next replies.
    fn give_back(&self, mut written: Vec<u8>) {
        let mut waiting = self.waiting.lock();
        self.release(written.len(), &mut waiting);
        if waiting.octets.capacity() == 0 && written.capacity() <= KEPT_BUFFER {
            written.clear();
            waiting.octets = written;
        }
    }
    /// Some are not written, or could not be taken.
    fn lack_room(&self) -> bool {
        self.is_closed() || self.unwritten() > 0
    }
    fn unwritten(&self) -> usize {
        self.unwritten.load(Ordering::Relaxed)
    }
    fn octets(&self) -> usize {
        self.waiting.lock().octets.len()
    }
    fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }
    /// No query is in flight and no reply waits to be written. In this order: a reply is pushed before its query leaves
    /// the flight.
    fn are_none_due(&self) -> bool {
        self.in_flight() == 0 && self.octets() == 0
    }
}

impl Drop for Replies {
    /// A connection whose task was ended from outside has not been closed.
    fn drop(&mut self) {
        self.close();
    }
}

/// A reply that is due. However its task ends, the writer hears of it.
struct PendingReply {
    replies: Arc<Replies>,
}

impl PendingReply {
    fn new(replies: Arc<Replies>) -> Self {
        replies.in_flight.fetch_add(1, Ordering::AcqRel);
        Self { replies }
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        self.replies.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.replies.ready.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::ClientStream;
    use std::io::{ErrorKind, Read};
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn what_a_client_has_not_read_is_dropped_with_a_reset() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = TcpStream::from_std(stream).unwrap();
        stream.writable().await.unwrap();
        let mut written = 0;
        while let Ok(octets) = stream.try_write(&[0; 65536]) {
            written += octets;
        }
        stream.forget_unread();
        drop(stream);
        let (mut read, mut octets) = (0, vec![0; 65536]);
        let end = loop {
            match client.read(&mut octets) {
                Ok(0) => break None,
                Ok(length) => read += length,
                Err(error) => break Some(error.kind()),
            }
        };
        assert_eq!(end, Some(ErrorKind::ConnectionReset));
        assert!(read < written, "{read} of {written}");
    }
}
