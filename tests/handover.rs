//! What an old server leaves to its successor while both read the same sockets.

mod support;

use nodelocaldns::message::{Query, Rcode, ReplyShape, Response, TtlRule};
use nodelocaldns::plan::probe;
use nodelocaldns::server::Sockets;
use nodelocaldns::watchdog::handover::Handover;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, accept_with};
use socket2::{SockRef, Type};
use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::client::{PATIENCE, exchange_tcp, exchange_udp, loopback, query, read_tcp, send_tcp};
use support::ports::free_port;
use support::processes::{kill_server, server};
use support::server::{Server, reference_command, scratch, wait_until, write_corefile};
use tokio::runtime::Runtime;

/// For what takes milliseconds on a machine that is not busy with other things.
const SOON: Duration = Duration::from_secs(20);

/// How late the successor's server reads: a worker that is woken with it has long read by then.
const LATE: Duration = Duration::from_millis(1);

/// Queries of a round, and between two of them.
const ROUND: usize = 100;
const INTERVAL: Duration = Duration::from_millis(4);

/// The successor's server as one is that comes second on its processor each time. It answers probes as a server of
/// another generation, and refuses what else it reads.
struct LateServer {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl LateServer {
    fn start(sockets: &Sockets) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let serve = |socket: OwnedFd| {
            let is_over = is_over.clone();
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let timeout = Timespec::try_from(Duration::from_millis(50)).expect("a short time");
                    let woken = poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&timeout)).expect("it is open");
                    if woken > 0 {
                        std::thread::sleep(LATE);
                        // The old server may have been first, or the client may be gone.
                        _ = answer_one(&socket);
                    }
                }
            })
        };
        let threads = sockets.fds().map(|fd| serve(fd.try_clone_to_owned().expect("a descriptor more"))).collect();
        Self { is_over, threads }
    }

    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
    }
}

fn answer_one(socket: &OwnedFd) -> io::Result<()> {
    let kind = SockRef::from(socket).r#type()?;
    if kind == Type::DGRAM {
        let socket = UdpSocket::from(socket.try_clone()?);
        let mut buffer = [0; 512];
        let (length, client) = socket.recv_from(&mut buffer)?;
        socket.send_to(&answer(&buffer[..length]), client)?;
    } else {
        let mut stream = TcpStream::from(accept_with(socket, SocketFlags::CLOEXEC)?);
        stream.set_read_timeout(Some(PATIENCE))?;
        let question = read_tcp(&mut stream)?;
        send_tcp(&mut stream, &answer(&question))?;
    }
    Ok(())
}

fn answer(question: &[u8]) -> Vec<u8> {
    let query = Query::read(question).expect("the watchdog and this test ask");
    let response = match probe::path(&query) {
        Some(_) => probe::answer(&query, question, 1).expect("a probe"),
        None => Response::empty(&query, question, Rcode::REFUSED),
    };
    let mut out = Vec::new();
    response.write(&query, question, ReplyShape { ttl: TtlRule::Keep, limit: 512, udp_size: 1232 }, &mut out);
    out
}

/// Over UDP or TCP.
type Exchange = fn(SocketAddr, &[u8], Duration) -> io::Result<Vec<u8>>;

/// Who answered the queries of a round.
#[derive(Debug, Default)]
struct Round {
    old: usize,
    successor: usize,
    lost: usize,
}

impl Round {
    fn ask(port: u16, exchange: Exchange) -> Self {
        let mut round = Self::default();
        let mut next = Instant::now();
        for _ in 0..ROUND {
            let wire = query("a.example.", "A").to_vec().expect("a query of ours encodes");
            match exchange(loopback(port), &wire, PATIENCE).ok().and_then(|answer| Some(*answer.get(3)? & 0x0f)) {
                Some(0) => round.old += 1,
                Some(_) => round.successor += 1,
                None => round.lost += 1,
            }
            next += INTERVAL;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        round
    }

    fn has_been_shared(&self) -> bool {
        self.old >= ROUND / 5 && self.successor >= ROUND / 5
    }
}

/// Waits until the rounds over UDP and over TCP are as they should be. No query may be lost meanwhile.
fn await_rounds(old: &Server, port: u16, what: &str, is_so: impl Fn(&Round) -> bool) {
    for exchange in [exchange_udp as Exchange, exchange_tcp] {
        let mut last = Round::default();
        let came = wait_until(SOON, || {
            last = Round::ask(port, exchange);
            assert_eq!(last.lost, 0, "{what}: {last:?}\n{}", old.tail(20));
            is_so(&last)
        });
        assert!(came, "{what}: {last:?}\n{}", old.tail(20));
    }
}

fn corefile(port: u16, more: &str) -> String {
    format!(".:{port} {{\n bind 127.0.0.1\n whoami\n{more}}}\n")
}

/// Where it is there for a successor.
fn socket(old: &Server) -> PathBuf {
    old.folder.path().join("handover.sock")
}

/// An old server, and its port.
fn start() -> (Server, u16) {
    let (port, folder) = (free_port(), scratch());
    let path = write_corefile(folder.path(), &corefile(port, ""));
    let mut command = reference_command(&path, free_port());
    command.args(["--handover", "handover.sock"]);
    let mut old = Server::spawn(command, folder);
    old.wait_ready(port).unwrap_or_else(|e| panic!("{e}"));
    assert!(wait_until(SOON, || socket(&old).exists()), "it is there for no successor:\n{}", old.tail(20));
    (old, port)
}

/// The watchdog of the successor, which lives until this is dropped, and its server.
fn succeed(old: &Server) -> ((Handover, Runtime), LateServer) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut handover = Handover::default();
    let inherited = {
        let _entered = runtime.enter();
        handover.take_over(&socket(old)).expect("it gives").expect("it is there")
    };
    let server = LateServer::start(&inherited.sockets);
    ((handover, runtime), server)
}

#[test]
fn a_successor_that_always_comes_second_has_its_share_until_it_is_gone_and_no_query_is_lost() {
    let (old, port) = start();
    let (peer, successor) = succeed(&old);
    await_rounds(&old, port, "beside a successor", Round::has_been_shared);

    let before = server(old.pid());
    kill_server(old.pid());
    assert!(wait_until(SOON, || server(old.pid()).is_some_and(|now| Some(now) != before)), "{}", old.tail(20));
    await_rounds(&old, port, "beside a successor, by the next server", Round::has_been_shared);

    write_corefile(old.folder.path(), &corefile(port, " errors\n"));
    old.signal(libc::SIGUSR1);
    old.wait_output("the changed Corefile serves", SOON);
    await_rounds(&old, port, "beside a successor, after a reload", Round::has_been_shared);

    // It is gone for the watchdog, and comes second still.
    drop(peer);
    old.wait_output("the successor is gone", SOON);
    await_rounds(&old, port, "alone", |round| round.successor < ROUND / 5);
    successor.end();
}

#[test]
fn an_old_server_that_is_told_to_end_beside_a_successor_that_comes_second_loses_no_query() {
    let (mut old, port) = start();
    let (_peer, successor) = succeed(&old);
    await_rounds(&old, port, "beside a successor", Round::has_been_shared);
    let asking =
        [exchange_udp as Exchange, exchange_tcp].map(|exchange| std::thread::spawn(move || Round::ask(port, exchange)));
    std::thread::sleep(INTERVAL * 20);
    old.signal(libc::SIGTERM);
    let status = old.wait_exit(SOON);
    let rounds = asking.map(|round| round.join().expect("it does not panic"));
    assert!(status.is_some_and(|status| status.success()), "{status:?}:\n{}", old.tail(20));
    assert!(rounds.iter().all(|round| round.lost == 0), "{rounds:?}:\n{}", old.tail(20));
    await_rounds(&old, port, "alone", |round| round.successor == ROUND);
    successor.end();
}
