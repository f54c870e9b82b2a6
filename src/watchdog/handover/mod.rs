//! Hands the listening sockets and the caches' content from one watchdog to the next (`--handover`). Both servers then
//! read the same queues, so that no query in them is lost. The messages are JSON packets as on the control socket
//! ([`super::control`]), over a Unix socket in a folder that both see.
//!
//! The new watchdog connects, asks, and gets everything within [`PATIENCE`], or begins afresh. The connection stays
//! open: over it the new one tells when it has proved itself, and its end tells each that the other is gone. Whatever
//! the other side says or fails to say ends the connection at worst.

use super::channel::{Channel, ChannelError};
use super::control::Message;
use crate::deadline;
use crate::server::Sockets;
use serde::{Deserialize, Serialize};
use std::future::pending;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout, timeout_at};

mod listener;

use listener::{BoundSocket, HandoverListener};

/// Of the messages below. Who speaks another one is refused.
const VERSION: u32 = 1;

/// How long a hand-over may take, from the connection to the last packet, whoever is slow.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// After a message that says nothing new the successor is not listened to for so long.
const REPETITION_PAUSE: Duration = Duration::from_millis(100);

/// How long the socket's folder may take before a predecessor is told all the same that queries come here, and before
/// the process ends.
const FOLDER_PATIENCE: Duration = Duration::from_secs(1);

/// From the new watchdog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "the variant says what its fields are")]
pub enum SuccessorMessage {
    /// The first thing said.
    TakeOver { version: u32 },
    /// Its server has proved itself, and queries come to it.
    Proven,
    /// A successor of its own has: its end is no reason to serve again.
    PassedOn,
}

/// From the old one, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "the variant says what its fields are")]
pub enum PredecessorMessage {
    /// Listening sockets are beside it; with `more` others follow.
    Sockets { more: bool },
    /// What the caches hold is beside it, if anything is. The last packet.
    Cache,
    /// Nothing comes.
    Refused { reason: String },
}

impl Message for SuccessorMessage {
    fn shortened(&self) -> Self {
        self.clone()
    }
}

impl Message for PredecessorMessage {
    fn shortened(&self) -> Self {
        self.clone()
    }
}

/// Why nothing was taken over.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says it")]
pub enum HandoverError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("whoever listens there is user {0}, neither root nor the user of this process")]
    ForeignUser(u32),
    #[error("it says no: {0}")]
    Refused(String),
    #[error("{0}")]
    Channel(#[from] ChannelError),
    #[error("what it passes cannot be served: {0}")]
    Sockets(#[from] crate::server::SocketError),
    #[error("what it passes belongs to another network namespace; both must be on the host's network")]
    OtherNetworkNamespace,
    #[error("it did not keep to the order of messages")]
    OutOfOrder,
}

/// What a predecessor has passed.
pub struct InheritedState {
    /// Those that it listens on.
    pub sockets: Sockets,
    /// What its caches hold, in a file in memory.
    pub cache: Option<OwnedFd>,
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverEvent {
    /// A successor asks for everything: [`Handover::offer`] or [`Handover::refuse`].
    TakeoverRequested,
    /// The successor serves, and queries come to it.
    SuccessorProven,
    /// The successor is gone, and nobody in its place.
    SuccessorGone,
    /// The predecessor has ended.
    PredecessorGone,
}

/// Another watchdog, connected.
struct PeerWatchdog {
    channel: Channel,
    readable: AsyncFd<OwnedFd>,
}

impl PeerWatchdog {
    fn new(channel: Channel) -> io::Result<Self> {
        let readable = channel.watch()?;
        Ok(Self { channel, readable })
    }

    /// The next message. May be dropped and called again at any time.
    async fn listen<M: Message>(&self) -> Result<M, ChannelError> {
        loop {
            if let Some((message, unasked)) = self.channel.receive()? {
                drop::<Vec<OwnedFd>>(unasked);
                return Ok(message);
            }
            self.readable.readable().await.map_err(ChannelError::Socket)?.clear_ready();
        }
    }
}

struct PendingListener {
    bound: oneshot::Receiver<io::Result<BoundSocket>>,
    path: PathBuf,
    /// When it is late; none once that has been told.
    limit: Option<Instant>,
}

impl PendingListener {
    /// What has come of it; `None` if it is late. May be dropped and called again at any time.
    async fn outcome(pending: &mut Option<Self>) -> Option<io::Result<BoundSocket>> {
        let Some(Self { bound, limit, .. }) = pending else { return std::future::pending().await };
        tokio::select! {
            bound = bound => Some(bound.unwrap_or_else(|_panicked| Err(io::Error::other("it ended before its time: please report this")))),
            () = at(*limit) => None,
        }
    }
}

/// This watchdog's side of both hand-overs: the one that it began with and the one that it ends with.
#[derive(Default)]
pub struct Handover {
    listener: Option<HandoverListener>,
    /// A socket that is being put into its folder, on a thread of its own.
    pending: Option<PendingListener>,
    /// One that is being taken away.
    closing: Option<oneshot::Receiver<()>>,
    predecessor: Option<PeerWatchdog>,
    /// Has connected, and has this long to ask.
    caller: Option<(PeerWatchdog, Instant)>,
    successor: Option<PeerWatchdog>,
    /// The successor has proved itself.
    is_successor_proven: bool,
    /// The successor has one of its own, which has proved itself.
    has_passed_on: bool,
    /// Until then the successor is not listened to.
    ignored_until: Option<Instant>,
}

impl Handover {
    /// Asks whoever listens at `path` for everything; nothing if nobody is there. Blocks for twice [`PATIENCE`] at
    /// most, once for the path's file system. To be called in a runtime.
    ///
    /// # Errors
    /// Somebody is there, and nothing comes of it.
    pub fn take_over(&mut self, path: &Path) -> Result<Option<InheritedState>, HandoverError> {
        let whoever = path.to_owned();
        let connected =
            deadline::within(PATIENCE, move || listener::connect(&whoever)).map_err(HandoverError::Connect)?;
        let Some(channel) = connected? else { return Ok(None) };
        let until = Instant::now() + PATIENCE;
        channel.send(&SuccessorMessage::TakeOver { version: VERSION }, &[])?;
        let mut descriptors = Vec::new();
        let mut has_all = false;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Whoever talks on without an end has always said something, and would be listened to for ever.
                return Err(ChannelError::TimedOut(PATIENCE).into());
            }
            let (offer, passed) = channel.wait(left).map_err(|error| match error {
                ChannelError::TimedOut(_) => ChannelError::TimedOut(PATIENCE),
                error => error,
            })?;
            match offer {
                PredecessorMessage::Sockets { more } if !has_all => {
                    descriptors.extend(passed);
                    has_all = !more;
                }
                PredecessorMessage::Cache if has_all => {
                    if !listener::belong_to_this_network_namespace(&descriptors) {
                        return Err(HandoverError::OtherNetworkNamespace);
                    }
                    let sockets = Sockets::from_fds(descriptors)?;
                    self.predecessor = Some(PeerWatchdog::new(channel).map_err(ChannelError::Socket)?);
                    return Ok(Some(InheritedState { sockets, cache: passed.into_iter().next() }));
                }
                PredecessorMessage::Refused { reason } => return Err(HandoverError::Refused(reason)),
                PredecessorMessage::Sockets { .. } | PredecessorMessage::Cache => {
                    return Err(HandoverError::OutOfOrder);
                }
            }
        }
    }

    /// Is there for a successor soon, and then tells a predecessor that queries come here: told first, it would remove
    /// its socket while ours takes the place, and might remove ours. Both are [`Handover::next`]'s work.
    pub fn announce(&mut self, path: Option<&Path>) {
        let Some(path) = path.filter(|_| self.listener.is_none()) else { return self.tell_proven() };
        if self.pending.is_some() {
            return;
        }
        let own = path.to_owned();
        match deadline::begin(move || BoundSocket::take(&own)) {
            Ok(bound) => {
                self.pending = Some(PendingListener {
                    bound,
                    path: path.to_owned(),
                    limit: Some(Instant::now() + FOLDER_PATIENCE),
                });
            }
            Err(error) => {
                warn_no_successor_can_come(path, &error);
                self.tell_proven();
            }
        }
    }

    fn take_opened(&mut self, outcome: Option<io::Result<BoundSocket>>) {
        let Some(mut pending) = self.pending.take() else { return };
        let Some(bound) = outcome else {
            warn_no_successor_can_come(&pending.path, &deadline::late(FOLDER_PATIENCE));
            pending.limit = None;
            self.pending = Some(pending);
            return self.tell_proven();
        };
        match bound.and_then(HandoverListener::open) {
            Ok(listener) => self.listener = Some(listener),
            Err(error) => warn_no_successor_can_come(&pending.path, &error),
        }
        if pending.limit.is_some() {
            self.tell_proven();
        }
    }

    fn tell_proven(&self) {
        if let Some(Err(error)) =
            self.predecessor.as_ref().map(|peer| peer.channel.send(&SuccessorMessage::Proven, &[]))
        {
            tracing::warn!("watchdog: the predecessor was not told that its time is over: {error}");
        }
    }

    /// Is there for no successor any longer. One that has been given everything keeps it.
    pub fn stop_offering(&mut self) {
        // What is being opened is removed again by its thread.
        self.pending = None;
        if let Some(closing) = self.listener.take().map(HandoverListener::close) {
            self.closing =
                closing.inspect_err(|error| tracing::debug!("watchdog: the hand-over's socket stays: {error}")).ok();
        }
        self.caller = None;
    }

    /// Waits a little until the socket's file is gone, if one is being taken away.
    pub async fn closed(&mut self) {
        if let Some(closing) = self.closing.take() {
            // The file of a folder that hangs stays: a successor finds nobody there.
            _ = timeout(FOLDER_PATIENCE, closing).await;
        }
    }

    /// Whether another watchdog lives whose server may read the same sockets.
    pub fn is_shared(&self) -> bool {
        self.predecessor.is_some() || self.successor.is_some()
    }

    /// Passes everything to the successor that asked. False if it is gone.
    pub fn offer(&mut self, sockets: &Sockets, cache: Option<BorrowedFd<'_>>) -> bool {
        let Some(peer) = &self.successor else { return false };
        let descriptors: Vec<BorrowedFd<'_>> = sockets.fds().collect();
        let sent = peer
            .channel
            .send_in_packets(&descriptors, |more| PredecessorMessage::Sockets { more })
            .and_then(|()| peer.channel.send(&PredecessorMessage::Cache, cache.as_slice()));
        if let Err(error) = &sent {
            tracing::warn!("watchdog: the successor could not be given the sockets: {error}");
            self.successor = None;
        }
        sent.is_ok()
    }

    /// Sends the successor that asked away.
    pub fn refuse(&mut self, reason: &str) {
        if let Some(peer) = self.successor.take() {
            send_refusal(&peer, reason);
        }
    }

    /// What is heard next. May be dropped and called again at any time.
    pub async fn next(&mut self) -> HandoverEvent {
        loop {
            // Whoever comes, or speaks, again and again keeps nothing else of this process waiting.
            tokio::task::consume_budget().await;
            let Self { listener, pending, predecessor, caller, successor, ignored_until, .. } = self;
            let is_free = caller.is_none();
            tokio::select! {
                outcome = PendingListener::outcome(pending) => self.take_opened(outcome),
                peer = next_caller(listener.as_ref()), if is_free => {
                    *caller = peer.map(|peer| (peer, Instant::now() + PATIENCE));
                }
                request = first_message(caller.as_ref()) => {
                    let peer = caller.take().map(|(peer, _)| peer);
                    if self.accept_caller(peer, request) {
                        return HandoverEvent::TakeoverRequested;
                    }
                }
                request = next_message_after::<SuccessorMessage>(*ignored_until, successor.as_ref()) => {
                    if let Some(event) = self.take_request(request) {
                        return event;
                    }
                }
                // It has nothing to say any more.
                _ = next_message::<PredecessorMessage>(predecessor.as_ref()) => {
                    *predecessor = None;
                    return HandoverEvent::PredecessorGone;
                }
            }
        }
    }

    /// Whether the caller is the successor from now on.
    fn accept_caller(&mut self, caller: Option<PeerWatchdog>, request: Result<SuccessorMessage, ChannelError>) -> bool {
        let Some(peer) = caller else { return false };
        match request {
            Ok(SuccessorMessage::TakeOver { version: VERSION }) if self.successor.is_none() => {
                self.successor = Some(peer);
                (self.is_successor_proven, self.has_passed_on, self.ignored_until) = (false, false, None);
                return true;
            }
            Ok(SuccessorMessage::TakeOver { version: VERSION }) => send_refusal(&peer, "another one is taking over"),
            Ok(SuccessorMessage::TakeOver { version }) => {
                send_refusal(&peer, &format!("it speaks version {VERSION} of the hand-over, we {version}"));
                tracing::warn!(
                    "watchdog: a successor speaks version {version} of the hand-over, we {VERSION}: it begins afresh"
                );
            }
            Ok(_) => tracing::warn!("watchdog: a successor did not begin by asking, and is not listened to"),
            // Who only looks whether somebody is there.
            Err(ChannelError::Closed) => {}
            Err(error) => tracing::warn!("watchdog: a successor cannot be understood, and is not listened to: {error}"),
        }
        false
    }

    fn take_request(&mut self, request: Result<SuccessorMessage, ChannelError>) -> Option<HandoverEvent> {
        match request {
            Ok(SuccessorMessage::Proven) if self.is_successor_proven => self.pause(),
            Ok(SuccessorMessage::PassedOn) if self.has_passed_on => self.pause(),
            Ok(SuccessorMessage::Proven) => {
                self.is_successor_proven = true;
                // Whatever becomes of us, the predecessor is needed no longer.
                if let Some(Err(error)) =
                    self.predecessor.as_ref().map(|peer| peer.channel.send(&SuccessorMessage::PassedOn, &[]))
                {
                    tracing::debug!("watchdog: the predecessor was not told of our successor: {error}");
                }
                Some(HandoverEvent::SuccessorProven)
            }
            Ok(SuccessorMessage::PassedOn) => {
                self.has_passed_on = true;
                None
            }
            Ok(SuccessorMessage::TakeOver { .. }) => self.lose_successor("it asks twice"),
            Err(ChannelError::Closed) => self.lose_successor("it has ended"),
            Err(error) => self.lose_successor(&error.to_string()),
        }
    }

    /// Nothing new was said.
    fn pause(&mut self) -> Option<HandoverEvent> {
        self.ignored_until = Some(Instant::now() + REPETITION_PAUSE);
        None
    }

    fn lose_successor(&mut self, why: &str) -> Option<HandoverEvent> {
        self.successor = None;
        tracing::info!("watchdog: the successor is gone: {why}");
        (!self.has_passed_on).then_some(HandoverEvent::SuccessorGone)
    }
}

fn warn_no_successor_can_come(path: &Path, error: &io::Error) {
    let path = path.display();
    tracing::warn!(
        "watchdog: a successor cannot take over, since there is no listening at {path}: {error}; does its folder exist, and may it be written?"
    );
}

fn send_refusal(peer: &PeerWatchdog, reason: &str) {
    // It learns as much from the end of the connection.
    _ = peer.channel.send(&PredecessorMessage::Refused { reason: reason.to_owned() }, &[]);
}

async fn next_caller(listener: Option<&HandoverListener>) -> Option<PeerWatchdog> {
    match listener {
        Some(listener) => listener.accept().await.map(PeerWatchdog::new)?.ok(),
        None => pending().await,
    }
}

async fn first_message(caller: Option<&(PeerWatchdog, Instant)>) -> Result<SuccessorMessage, ChannelError> {
    match caller {
        Some((peer, until)) => {
            timeout_at((*until).into(), peer.listen()).await.unwrap_or(Err(ChannelError::TimedOut(PATIENCE)))
        }
        None => pending().await,
    }
}

async fn next_message<M: Message>(peer: Option<&PeerWatchdog>) -> Result<M, ChannelError> {
    match peer {
        Some(peer) => peer.listen().await,
        None => pending().await,
    }
}

async fn next_message_after<M: Message>(time: Option<Instant>, peer: Option<&PeerWatchdog>) -> Result<M, ChannelError> {
    if time.is_some() {
        at(time).await;
    }
    next_message(peer).await
}

/// Resolves at that time, if there is one.
pub async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
