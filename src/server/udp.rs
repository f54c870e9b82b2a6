//! Queries over UDP: a batch is received, each of its datagrams dispatched, and what could be answered at once sent in
//! one call. The others are answered by a second task, which sends in one call what it has answered in one turn of the
//! runtime.

use super::dispatcher::Dispatcher;
use super::worker::{Binding, WorkerState};
use crate::backoff::Backoff;
use crate::chain::{BatchClock, Peer, Received, Transport};
use crate::datagrams::{BATCH, Inbox, MAX_QUERY, Outbox, Outgoing, Route, allow_fragments, send};
use crate::fairness::Permit;
use crate::plan::{Dispatch, PacketHit};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::unconstrained;

/// Full batches in a row before the worker's other tasks have their turn.
const BATCHES_IN_A_ROW: usize = 8;

/// Datagrams of a batch after which the next is tried at once, before epoll is asked. Under load there mostly is one,
/// and to ask costs as much as half a dozen hits; after a lone query there is none, and to try costs as much as to ask.
const BUSY: usize = 8;

/// Batches that are at most read once the socket is to stop. More than its receive buffer holds, so that only a flood
/// is cut off.
const REMAINING_BATCHES: usize = 1024;

/// After the last batches, until what the kernel was about to put into the socket when it stopped receiving is there.
const LAST_LOOK: Duration = Duration::from_millis(5);

/// How long a reply that the socket does not take is kept. The client asks again by then.
const SEND_PATIENCE: Duration = Duration::from_secs(2);

/// Serves one socket until its binding stops, and returns when all that came before is answered or handed on.
pub(super) async fn serve<A: Dispatcher>(
    socket: AsyncFd<UdpSocket>,
    binding: Arc<Binding<A>>,
    state: Arc<WorkerState>,
) {
    let socket = Arc::new(socket);
    // Polled once, it wakes this task. From then on to look is enough, which costs a tenth of a poll: one query at a
    // time, that is felt.
    let mut stopped = pin!(unconstrained(binding.stopped()));
    let mut is_registered = false;
    let mut udp_loop = UdpLoop::new(socket.clone(), binding.clone(), state);
    loop {
        // Not `readable`, which enters itself into a list each time: this task alone reads.
        let ready = poll_fn(|context| {
            if (!is_registered || binding.is_stopped()) && stopped.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            is_registered = true;
            socket.poll_read_ready(context).map(Some)
        });
        let mut ready = match ready.await {
            Some(Ok(ready)) => ready,
            // The runtime is going down.
            Some(Err(_)) => return,
            None => break,
        };
        udp_loop.state.shared.yielding.give_way().await;
        let mut is_empty = false;
        for _ in 0..BATCHES_IN_A_ROW {
            match udp_loop.serve_batch() {
                Ok(BUSY..) => continue,
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
    udp_loop.serve_remaining().await;
    tokio::time::sleep(LAST_LOOK).await;
    udp_loop.serve_remaining().await;
}

/// A hit of the packet cache, to be counted when its reply has been sent: one query at a time, that is 0.4 µs less for
/// its client to wait.
struct UncountedHit {
    /// Number of its query in the batch.
    datagram: usize,
    peer: Peer,
    /// Its number among the replies.
    reply: usize,
    hit: PacketHit,
}

/// Buffers and surroundings of one socket's turns.
struct UdpLoop<A: Dispatcher> {
    socket: Arc<AsyncFd<UdpSocket>>,
    binding: Arc<Binding<A>>,
    state: Arc<WorkerState>,
    inbox: Inbox,
    outbox: Outbox,
    uncounted: Vec<UncountedHit>,
    /// To the task that runs the slow path.
    slow: mpsc::UnboundedSender<SlowQuery<A>>,
}

impl<A: Dispatcher> UdpLoop<A> {
    fn new(socket: Arc<AsyncFd<UdpSocket>>, binding: Arc<Binding<A>>, state: Arc<WorkerState>) -> Self {
        let wants_local = socket.get_ref().local_addr().is_ok_and(|address| address.ip().is_unspecified());
        let (slow, queries) = mpsc::unbounded_channel();
        tokio::spawn(run_slow_path(socket.clone(), state.clone(), queries));
        let (inbox, outbox, uncounted) =
            (Inbox::new(MAX_QUERY, wants_local), Outbox::default(), Vec::with_capacity(BATCH));
        Self { socket, binding, state, inbox, outbox, uncounted, slow }
    }

    /// Receives and answers what is there.
    async fn serve_remaining(&mut self) {
        for _ in 0..REMAINING_BATCHES {
            if !matches!(self.serve_batch(), Ok(BATCH)) {
                break;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Receives a batch and answers it; tells how many datagrams it had.
    fn serve_batch(&mut self) -> io::Result<usize> {
        let count = self.inbox.receive(self.socket.as_fd())?;
        let clock = BatchClock::start(Instant::now());
        let dispatcher = self.binding.dispatcher.load();
        let mut packets = self.state.packets();
        for (index, datagram) in self.inbox.datagrams().enumerate() {
            if datagram.is_cut {
                self.state.metrics().dropped.oversize.increment();
                continue;
            }
            let route = Route { to: datagram.client, from: datagram.local };
            let local = datagram.local.map_or(self.binding.address.ip(), |ip| ip.to_canonical());
            let peer = Peer {
                client: SocketAddr::new(datagram.client.ip().to_canonical(), datagram.client.port()),
                local: SocketAddr::new(local, self.binding.address.port()),
                transport: Transport::Udp,
            };
            let reply = self.outbox.buffer();
            let received = Received { wire: datagram.octets, peer: &peer, clock: &clock };
            match dispatcher.dispatch(received, &mut packets, reply) {
                Dispatch::Reply => self.outbox.keep(Some(route)),
                Dispatch::PacketHit(hit) => {
                    self.uncounted.push(UncountedHit { datagram: index, peer, reply: self.outbox.kept().len(), hit });
                    self.outbox.keep(Some(route));
                }
                Dispatch::ReplyAndRefresh(pending) => {
                    self.outbox.keep(Some(route));
                    self.state.refresh::<A>(pending, peer.client.ip());
                }
                Dispatch::Pending(pending) => match self.state.admit(peer.client.ip()) {
                    Some(permit) => {
                        let held = QueryPermit { permit, _binding: self.binding.clone() };
                        // Fails only when the runtime goes.
                        _ = self.slow.send(SlowQuery { pending, route, held });
                    }
                    None => {
                        A::refuse(&pending, reply);
                        self.outbox.keep(Some(route));
                    }
                },
                Dispatch::Silence => {}
            }
        }
        let sent = send_now(&self.socket, self.outbox.kept(), &self.state);
        for UncountedHit { datagram, peer, reply, hit } in self.uncounted.drain(..) {
            if let Some(reply) = self.outbox.kept().get(reply) {
                let received = Received { wire: self.inbox.octets(datagram), peer: &peer, clock: &clock };
                dispatcher.count(hit, received, &packets, &reply.octets);
            }
        }
        drop((dispatcher, packets));
        let unsent = self.outbox.clear(sent);
        let keep = |reply: Outgoing| {
            let permit = self.state.admit(reply.route?.to.ip().to_canonical())?;
            Some((reply, QueryPermit { permit, _binding: self.binding.clone() }))
        };
        let unsent: Vec<_> = unsent.into_iter().filter_map(keep).collect();
        if !unsent.is_empty() {
            tokio::spawn(send_patiently(self.socket.clone(), self.state.clone(), unsent));
        }
        Ok(count)
    }
}

/// Sends until the socket takes no more; tells how many replies are done with. One that can never be sent is counted
/// and passed over: its destination must not cost the others their answers.
fn send_now(socket: &AsyncFd<UdpSocket>, replies: &[Outgoing], state: &WorkerState) -> usize {
    let mut done = 0;
    let mut too_long = None;
    while let Some(rest) = replies.get(done..).filter(|rest| !rest.is_empty()) {
        match send(socket.as_fd(), rest) {
            Ok(sent) => done += sent.max(1),
            Err(error) if is_full(&error) => break,
            // Once more, then, with fragments. They stay allowed: where there is one such reply there are more, and
            // during a hand-over another process sends from the socket too.
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) && too_long != Some(done) => {
                too_long = Some(done);
                _ = allow_fragments(socket.as_fd());
            }
            Err(error) => {
                state.metrics().dropped.unsendable.increment();
                let to = rest[0].route.map(|route| route.to);
                tracing::debug!("reply of {} octets to {to:?} not sent: {error}", rest[0].octets.len());
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

/// What a query holds until its reply is sent: its place among those in flight, and its listen address.
struct QueryPermit<B> {
    permit: Permit,
    _binding: B,
}

/// A query for the slow path.
struct SlowQuery<A: Dispatcher> {
    pending: A::Pending,
    route: Route,
    held: QueryPermit<Arc<Binding<A>>>,
}

impl<A: Dispatcher> SlowQuery<A> {
    async fn answer(self) -> (Outgoing, QueryPermit<Arc<Binding<A>>>) {
        let mut octets = Vec::new();
        if self.held.permit.hold(A::run(&self.pending, &mut octets)).await.is_none() {
            A::refuse(&self.pending, &mut octets);
        }
        (Outgoing { route: Some(self.route), octets }, self.held)
    }
}

/// Answers a socket's queries that need the slow path, all in one task: replies that are ready in the same turn of the
/// runtime leave in one call, and a query costs no task of its own (measured: benches/README.md).
async fn run_slow_path<A: Dispatcher>(
    socket: Arc<AsyncFd<UdpSocket>>,
    state: Arc<WorkerState>,
    mut queries: mpsc::UnboundedReceiver<SlowQuery<A>>,
) {
    let mut running = FuturesUnordered::new();
    let (mut replies, mut held) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    let mut is_open = true;
    let turns = poll_fn(move |context| {
        while is_open {
            match queries.poll_recv(context) {
                Poll::Ready(Some(query)) => running.push(query.answer()),
                Poll::Ready(None) => is_open = false,
                Poll::Pending => break,
            }
        }
        let mut is_over = false;
        while replies.len() < BATCH {
            match running.poll_next_unpin(context) {
                Poll::Ready(Some((reply, holds))) if !reply.octets.is_empty() => {
                    replies.push(reply);
                    held.push(holds);
                }
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => {
                    is_over = !is_open;
                    break;
                }
                Poll::Pending => break,
            }
        }
        let is_full = replies.len() == BATCH;
        let sent = send_now(&socket, &replies, &state);
        if sent < replies.len() {
            let unsent = replies.drain(sent..).zip(held.drain(sent..)).collect();
            tokio::spawn(send_patiently(socket.clone(), state.clone(), unsent));
        }
        replies.clear();
        held.clear();
        if is_over {
            return Poll::Ready(());
        }
        if is_full {
            // There may be more; the worker's other tasks come first.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    });
    // The runtime's budget is one task's, not that of the thousands of queries in this one; it gives way by itself,
    // above.
    unconstrained(turns).await;
}

/// Sends replies that the socket did not take at once, of those whose places are not taken away meanwhile.
async fn send_patiently<B>(
    socket: Arc<AsyncFd<UdpSocket>>,
    state: Arc<WorkerState>,
    unsent: Vec<(Outgoing, QueryPermit<B>)>,
) {
    let (mut replies, mut held): (Vec<Outgoing>, Vec<QueryPermit<B>>) = unsent.into_iter().unzip();
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(32));
    let give_up = Instant::now() + SEND_PATIENCE;
    while !replies.is_empty() && Instant::now() < give_up {
        // Not by waiting until the socket is writable: the queue that is full may be one below it.
        tokio::time::sleep(backoff.next_pause()).await;
        (replies, held) = replies.into_iter().zip(held).filter(|(_, held)| held.permit.is_valid()).unzip();
        let done = send_now(&socket, &replies, &state);
        replies.drain(..done);
        held.drain(..done);
    }
    state.metrics().dropped.unsendable.add(replies.len() as u64);
}

#[cfg(test)]
mod tests {

    use super::super::connections::Connections;
    use super::super::metrics::ServerMetrics;
    use super::super::worker::Shared;
    use super::*;
    use crate::datagrams::register;
    use crate::metrics::Registry;

    #[tokio::test]
    async fn a_destination_that_fails_does_not_cost_the_others_their_replies() {
        let shared = Arc::new(Shared::new(ServerMetrics::new(&Registry::new(1)), Arc::default()));
        let connections = Arc::new(Connections::new(1, 0, Instant::now()));
        let state = WorkerState::new(super::super::Limits::default(), shared, connections);
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_nonblocking(true).unwrap();
        let server = register(server).unwrap();
        let good = client.local_addr().unwrap();
        // EINVAL, and ENETUNREACH or EINVAL: an IPv4 socket has no way to an IPv6 address.
        let bad = ["127.0.0.1:0".parse().unwrap(), "[::1]:53".parse().unwrap()];
        let mut outbox = Outbox::default();
        for (number, to) in [bad[0], good, bad[0], bad[1], good, good, bad[1]].into_iter().enumerate() {
            outbox.buffer().push(number as u8);
            outbox.keep(Some(Route { to, from: None }));
        }
        outbox.buffer();
        outbox.keep(Some(Route { to: good, from: None }));
        // EMSGSIZE whatever the socket allows.
        outbox.buffer().resize(70_000, 9);
        outbox.keep(Some(Route { to: good, from: None }));
        assert_eq!(send_now(&server, outbox.kept(), &state), 8, "the empty one was not kept");
        let mut buffer = [0; 8];
        let received = std::iter::from_fn(|| client.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()));
        assert_eq!(received.collect::<Vec<_>>(), [[1], [4], [5]]);
        assert_eq!(state.metrics().dropped.unsendable.value(), 5);
    }

    #[tokio::test]
    async fn unsent_replies_of_one_who_gives_way_are_dropped() {
        let shared = Arc::new(Shared::new(ServerMetrics::new(&Registry::new(1)), Arc::default()));
        let connections = Arc::new(Connections::new(1, 0, Instant::now()));
        let limits = super::super::Limits { queries_per_worker: 3, ..super::super::Limits::default() };
        let state = Arc::new(WorkerState::new(limits, shared, connections));
        let server = Arc::new(register(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap());
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_nonblocking(true).unwrap();
        let route = Route { to: client.local_addr().unwrap(), from: None };
        let admit = |ip: [u8; 4]| state.admit(ip.into()).map(|permit| QueryPermit { permit, _binding: () });
        let unsent = (0..3)
            .map(|number| (Outgoing { route: Some(route), octets: vec![number] }, admit([127, 0, 0, 1]).unwrap()));
        let unsent = unsent.collect();
        let other = admit([127, 0, 0, 2]);
        assert!(other.is_some(), "the other client took the first reply's place");
        send_patiently(server, state.clone(), unsent).await;
        let mut buffer = [0; 8];
        let received = std::iter::from_fn(|| client.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()));
        assert_eq!(received.collect::<Vec<_>>(), [[1], [2]]);
        assert_eq!((state.in_flight(), state.metrics().dropped.unsendable.value()), (1, 0));
    }
}
