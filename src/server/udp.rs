//! Queries over UDP: a batch is received, each of its datagrams dispatched, and what could be answered at once sent in one call.

use super::answerer::Answerer;
use super::batch::{BATCH, Inbox, Outgoing, Route, send};
use super::worker::{Binding, Permit, Share};
use crate::chain::{Peer, Transport};
use crate::plan::Dispatch;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

/// Full batches in a row before the worker's other tasks have their turn.
const BATCHES_IN_A_ROW: usize = 4;

/// Batches that are at most read once the socket is to stop. More than its receive buffer holds, so that only a flood is cut off.
const LAST_BATCHES: usize = 1024;

/// After the last batches, until what the kernel was about to put into the socket when it stopped receiving is there.
const LAST_LOOK: Duration = Duration::from_millis(5);

/// Octets a reply buffer keeps for the next query.
const KEPT_REPLY: usize = 4096;

/// How long a reply that the socket does not take is kept. The client asks again by then.
const SEND_PATIENCE: Duration = Duration::from_secs(2);

/// Serves one socket until its binding stops, and returns when all that came before is answered or handed on.
pub(super) async fn serve<A: Answerer>(socket: AsyncFd<UdpSocket>, binding: Arc<Binding<A>>, share: Arc<Share>) {
    let socket = Arc::new(socket);
    let mut stopped = pin!(binding.stopped());
    let mut turns = Turns::new(socket.clone(), binding.clone(), share);
    loop {
        let mut ready = tokio::select! {
            biased;
            () = &mut stopped => break,
            ready = socket.readable() => match ready {
                Ok(ready) => ready,
                // The runtime is going down.
                Err(_) => return,
            },
        };
        let mut is_empty = false;
        for _ in 0..BATCHES_IN_A_ROW {
            match turns.take() {
                Ok(BATCH) => continue,
                // Fewer than asked for: the socket was empty, and what comes from now on makes it ready again.
                Ok(_) => is_empty = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => is_empty = true,
                Err(error) => {
                    // Out of memory, most likely. It stays ready; not to spin is all there is to do.
                    tracing::warn!("receiving on {} failed: {error}", binding.address);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            break;
        }
        if is_empty {
            ready.clear_ready();
        } else {
            drop(ready);
            tokio::task::yield_now().await;
        }
    }
    turns.take_last().await;
    tokio::time::sleep(LAST_LOOK).await;
    turns.take_last().await;
}

/// Buffers and surroundings of one socket's turns.
struct Turns<A> {
    socket: Arc<AsyncFd<UdpSocket>>,
    binding: Arc<Binding<A>>,
    share: Arc<Share>,
    inbox: Inbox,
    outbox: Outbox,
}

impl<A: Answerer> Turns<A> {
    fn new(socket: Arc<AsyncFd<UdpSocket>>, binding: Arc<Binding<A>>, share: Arc<Share>) -> Self {
        let wants_local = socket.get_ref().local_addr().is_ok_and(|address| address.ip().is_unspecified());
        Self { socket, binding, share, inbox: Inbox::new(wants_local), outbox: Outbox::default() }
    }

    /// Receives and answers what is there.
    async fn take_last(&mut self) {
        for _ in 0..LAST_BATCHES {
            if !matches!(self.take(), Ok(BATCH)) {
                break;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Receives a batch and answers it; tells how many datagrams it had.
    fn take(&mut self) -> io::Result<usize> {
        let count = self.inbox.receive(self.socket.as_fd())?;
        let now = Instant::now();
        let answerer = self.binding.answerer.load();
        for datagram in self.inbox.datagrams() {
            if datagram.is_cut {
                self.share.meters.dropped.oversize.increment();
                continue;
            }
            let route = Route { to: datagram.client, from: datagram.local };
            let local = datagram.local.map_or(self.binding.address.ip(), |ip| ip.to_canonical());
            let peer = Peer {
                client: SocketAddr::new(datagram.client.ip().to_canonical(), datagram.client.port()),
                local: SocketAddr::new(local, self.binding.address.port()),
                transport: Transport::Udp,
            };
            let reply = self.outbox.next();
            match answerer.dispatch(datagram.octets, &peer, now, reply) {
                Dispatch::Reply => self.outbox.keep(route),
                Dispatch::ReplyAndRefresh(pending) => {
                    self.outbox.keep(route);
                    self.share.refresh::<A>(pending);
                }
                Dispatch::Pending(pending) => {
                    if let Some(permit) = self.share.admit(Some(peer.client.ip())) {
                        let later = Later { socket: self.socket.clone(), share: self.share.clone(), permit };
                        tokio::spawn(later.answer(pending, route, self.binding.clone()));
                    }
                }
                Dispatch::Silence => {}
            }
        }
        drop(answerer);
        let unsent = self.outbox.send(&self.socket, &self.share);
        if !unsent.is_empty()
            && let Some(permit) = self.share.admit(None)
        {
            let later = Later { socket: self.socket.clone(), share: self.share.clone(), permit };
            tokio::spawn(later.send(unsent, self.binding.clone()));
        }
        Ok(count)
    }
}

/// Replies of a batch, in buffers that are used again.
#[derive(Default)]
struct Outbox {
    replies: Vec<Outgoing>,
    used: usize,
}

impl Outbox {
    /// The buffer for the next reply, empty.
    fn next(&mut self) -> &mut Vec<u8> {
        if self.used == self.replies.len() {
            let nowhere = Route { to: SocketAddr::from(([0, 0, 0, 0], 0)), from: None };
            self.replies.push(Outgoing { route: nowhere, octets: Vec::with_capacity(512) });
        }
        let octets = &mut self.replies[self.used].octets;
        octets.clear();
        octets
    }

    /// Keeps what was written to the buffer; an empty reply is none.
    fn keep(&mut self, route: Route) {
        if let Some(reply) = self.replies.get_mut(self.used)
            && !reply.octets.is_empty()
        {
            reply.route = route;
            self.used += 1;
        }
    }

    /// Sends all; gives back what the socket does not take now.
    fn send(&mut self, socket: &AsyncFd<UdpSocket>, share: &Share) -> Vec<Outgoing> {
        let sent = send_now(socket, &self.replies[..self.used], share);
        let unsent = self.replies[sent..self.used].iter_mut();
        let unsent = unsent.map(|reply| Outgoing { route: reply.route, octets: std::mem::take(&mut reply.octets) }).collect();
        for reply in &mut self.replies[..self.used] {
            if reply.octets.capacity() > KEPT_REPLY {
                reply.octets = Vec::new();
            }
        }
        self.used = 0;
        unsent
    }
}

/// Sends until the socket takes no more; tells how many replies are done with. One that can never be sent is counted and passed
/// over: its destination must not cost the others their answers.
fn send_now(socket: &AsyncFd<UdpSocket>, replies: &[Outgoing], share: &Share) -> usize {
    let mut done = 0;
    while let Some(rest) = replies.get(done..).filter(|rest| !rest.is_empty()) {
        match send(socket.as_fd(), rest) {
            Ok(sent) => done += sent.max(1),
            Err(error) if is_full(&error) => break,
            Err(error) => {
                share.meters.dropped.unsendable.increment();
                tracing::debug!("reply of {} octets to {} not sent: {error}", rest[0].octets.len(), rest[0].route.to);
                done += 1;
            }
        }
    }
    done
}

/// The socket's send buffer or a queue below it is full: later it may do.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

/// What it takes to reply after the batch is done with.
struct Later {
    socket: Arc<AsyncFd<UdpSocket>>,
    share: Arc<Share>,
    permit: Permit,
}

impl Later {
    /// Runs the slow gear and sends its reply.
    async fn answer<A: Answerer>(self, pending: A::Pending, route: Route, binding: Arc<Binding<A>>) {
        let mut octets = Vec::new();
        A::run(pending, &mut octets).await;
        if !octets.is_empty() {
            let reply = [Outgoing { route, octets }];
            if send_now(&self.socket, &reply, &self.share) == 0 {
                self.send(reply.into(), binding).await;
            }
        }
    }

    /// Sends replies that the socket did not take at once.
    async fn send<A>(self, replies: Vec<Outgoing>, binding: Arc<Binding<A>>) {
        let mut done = 0;
        let mut pause = Duration::from_millis(1);
        let give_up = Instant::now() + SEND_PATIENCE;
        while done < replies.len() && Instant::now() < give_up {
            // Not by waiting until the socket is writable: the queue that is full may be one below it.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(32));
            done += send_now(&self.socket, &replies[done..], &self.share);
        }
        self.share.meters.dropped.unsendable.add((replies.len() - done) as u64);
        drop((self.permit, binding));
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::register;
    use super::super::connections::Connections;
    use super::super::meters::Meters;
    use super::*;
    use crate::metrics::Registry;

    #[tokio::test]
    async fn a_destination_that_fails_does_not_cost_the_others_their_replies() {
        let meters = Arc::new(Meters::new(&Registry::new(1)));
        let connections = Arc::new(Connections::new(1, 0, Instant::now()));
        let share = Share::new(super::super::Limits::default(), meters.clone(), connections);
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_nonblocking(true).unwrap();
        let server = register(server).unwrap();
        let good = client.local_addr().unwrap();
        // EINVAL, and ENETUNREACH or EINVAL: an IPv4 socket has no way to an IPv6 address.
        let bad = ["127.0.0.1:0".parse().unwrap(), "[::1]:53".parse().unwrap()];
        let mut outbox = Outbox::default();
        for (number, to) in [bad[0], good, bad[0], bad[1], good, good, bad[1]].into_iter().enumerate() {
            outbox.next().push(number as u8);
            outbox.keep(Route { to, from: None });
        }
        outbox.next();
        outbox.keep(Route { to: good, from: None });
        assert!(outbox.send(&server, &share).is_empty());
        let mut buffer = [0; 8];
        let received = std::iter::from_fn(|| client.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()));
        assert_eq!(received.collect::<Vec<_>>(), [[1], [4], [5]]);
        assert_eq!(meters.dropped.unsendable.value(), 4);
    }
}
