//! The server's end: a thread with a runtime of its own, a bounded number of connections, and a deadline for each step.

use super::command::{AdminCommand, COMMAND_PATIENCE, Commands, ask, carry_out};
use super::explain::{MOST_ASKED, explain};
use super::lines::{read_line, write};
use super::protocol::{AdminReply, CacheTask, LONGEST_REQUEST, Task, line, read_request};
use super::queries;
use super::socket::SocketPeer;
use crate::chain::{MemoryBudget, ReloadState};
use crate::directives::cache;
use crate::fairness::LogThrottle;
use crate::metrics::{Counter, Registry};
use crate::query_tap::QueryTaps;
use crate::threads;
use serde::Serialize;
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Connections at a time; others are told so and let go.
const CONNECTIONS: usize = 16;

/// How long who connects may take to say what he wants, and to read each part of the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// After a connection that is not let in: a flood of them takes a few hundredths of a processor and no more.
const PAUSE: Duration = Duration::from_millis(1);

/// After an accept that failed for want of files or memory.
const LONG_PAUSE: Duration = Duration::from_millis(100);

/// What is asked about.
pub(crate) struct AdminContext {
    pub reload_state: Arc<ReloadState>,
    pub cache_memory: Arc<MemoryBudget>,
    pub query_taps: Arc<QueryTaps>,
    pub registry: Registry,
    pub commands: Commands,
}

/// Everything that a connection needs.
struct AdminServer {
    context: AdminContext,
    flushes: Counter,
    /// For questions that are asked for real.
    asks: Arc<Semaphore>,
    /// The user that has opened the socket.
    owner: u32,
    strangers: LogThrottle,
}

/// Serves whoever connects to `listener`, on a thread of its own, to the end of the process.
///
/// # Errors
/// Threads, memory or open files are at their limit, or `listener` is no such socket.
pub(crate) fn serve(listener: OwnedFd, context: AdminContext) -> io::Result<()> {
    let owner = SocketPeer::of(&listener)?.user;
    let listener = StdListener::from(listener);
    listener.set_nonblocking(true)?;
    let name = "nodelocaldns_cache_flushes_total";
    let flushes = context.registry.counter(name, "Times that answers were let go of at a user's wish.", &[]);
    let server = AdminServer::new(context, flushes, owner);
    let make = || tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let work = move |runtime: tokio::runtime::Runtime| {
        let Err(error) = runtime.block_on(accept(listener, Arc::new(server)));
        tracing::warn!("the admin socket is not served: {error}");
    };
    threads::spawn_with_runtime("admin", None, make, work)?;
    Ok(())
}

async fn accept(listener: StdListener, server: Arc<AdminServer>) -> io::Result<Infallible> {
    let listener = UnixListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            sleep(LONG_PAUSE).await;
            continue;
        };
        let Some(user) = server.admitted(&stream) else {
            drop(stream);
            sleep(PAUSE).await;
            continue;
        };
        match places.clone().try_acquire_owned() {
            Ok(place) => {
                let server = server.clone();
                tokio::spawn(async move {
                    // Who asks may be gone before he has his answer.
                    _ = server.answer(&mut stream, user).await;
                    drop(place);
                });
            }
            Err(_) => {
                let busy = AdminReply::Failed(format!("{CONNECTIONS} others ask already: try again"));
                _ = line(&busy).map(|line| stream.try_write(&line));
                sleep(PAUSE).await;
            }
        }
    }
}

impl AdminServer {
    fn new(context: AdminContext, flushes: Counter, owner: u32) -> Self {
        let asks = Arc::new(Semaphore::new(MOST_ASKED));
        Self { context, flushes, asks, owner, strangers: LogThrottle::new(Instant::now()) }
    }

    /// The user at the other end, if it is one that may ask.
    fn admitted(&self, stream: &UnixStream) -> Option<u32> {
        let peer = SocketPeer::of(stream).ok()?;
        let is_trusted = peer.is_trusted(self.owner);
        if !is_trusted && self.strangers.is_due(Instant::now()) {
            tracing::warn!(
                "user {} has connected to the admin socket, which is root's, and is not listened to (told once a minute at most)",
                peer.user
            );
        }
        is_trusted.then_some(peer.user)
    }

    /// Reads a request, and answers it.
    async fn answer(&self, stream: &mut UnixStream, user: u32) -> io::Result<()> {
        let reply = match timeout(PATIENCE, read_line(stream)).await {
            Ok(request) => match request?.map(|request| read_request(&request)) {
                Some(Ok(Task::Cache(task))) => self.perform(task, user).await,
                Some(Ok(Task::Explain(task))) => match explain(&task, &self.context.commands, &self.asks).await {
                    Ok(report) => done(&report),
                    Err(error) => AdminReply::Failed(error.to_string()),
                },
                Some(Ok(Task::Queries(wanted))) => {
                    let AdminContext { query_taps, commands, .. } = &self.context;
                    return queries::show(stream, wanted, query_taps, commands, user).await;
                }
                Some(Ok(Task::LogLevel(request))) => {
                    let command = |tell| AdminCommand::LogLevel { request, user, tell };
                    match ask(&self.context.commands, command).await {
                        Some(levels) => done(&levels),
                        None => AdminReply::Failed(format!(
                            "the server has not done so within {} s: it hangs or is ending, so try again",
                            COMMAND_PATIENCE.as_secs()
                        )),
                    }
                }
                Some(Err(error)) => AdminReply::Failed(error.to_string()),
                None => AdminReply::Failed(format!("the request is too long: it may have {LONGEST_REQUEST} octets")),
            },
            Err(_late) => AdminReply::Failed(format!("no request has come within {} s", PATIENCE.as_secs())),
        };
        write(stream, &line(&reply)?, PATIENCE).await
    }

    async fn perform(&self, task: CacheTask, user: u32) -> AdminReply {
        let AdminContext { reload_state, cache_memory, .. } = &self.context;
        match task {
            CacheTask::Stats => done(&cache::stats(reload_state, cache_memory)),
            CacheTask::List { selection, limit, has_records } => {
                done(&cache::list(reload_state, Instant::now(), &selection, limit, has_records))
            }
            CacheTask::Flush { selection, called } => {
                let flushed = cache::flush(reload_state, &selection);
                self.flushes.increment();
                tracing::info!("plugin/cache: user {user} has flushed {called}: {flushed} were kept");
                // After what the handlers keep is gone: from then on a worker puts none of it into its packet cache.
                match carry_out(&self.context.commands, AdminCommand::FlushPackets).await {
                    Some(()) => done(&Flushed { flushed }),
                    None => AdminReply::Failed(format!(
                        "{flushed} answers were flushed, but a worker has not said within {} s that it gives none of them: it may \
                         for a second more",
                        COMMAND_PATIENCE.as_secs()
                    )),
                }
            }
        }
    }
}

/// What a flush has done.
#[derive(Serialize)]
struct Flushed {
    /// Answers that are gone.
    flushed: usize,
}

fn done(answer: &impl Serialize) -> AdminReply {
    match serde_json::to_value(answer) {
        Ok(answer) => AdminReply::Done(answer),
        Err(error) => AdminReply::Failed(format!("the answer cannot be written: {error}; please report this")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::sync::mpsc;

    fn server(owner: u32) -> (AdminServer, mpsc::UnboundedReceiver<AdminCommand>) {
        let (commands, told) = mpsc::unbounded_channel();
        let registry = Registry::new(1);
        let context = AdminContext {
            reload_state: Arc::default(),
            cache_memory: Arc::new(MemoryBudget::new(1 << 20)),
            query_taps: Arc::default(),
            registry: registry.clone(),
            commands,
        };
        let flushes = registry.counter("nodelocaldns_cache_flushes_total", "Help.", &[]);
        (AdminServer::new(context, flushes, owner), told)
    }

    /// What is answered to octets, and the end.
    async fn answered(octets: &[u8]) -> Option<AdminReply> {
        let (here, mut there) = UnixStream::pair().unwrap();
        let (server, _told) = server(0);
        // As much as there is room for, as the server may not read all.
        _ = there.try_write(octets);
        let serve = async {
            let mut here = here;
            _ = server.answer(&mut here, 0).await;
        };
        let read = async {
            let mut text = Vec::new();
            // Reset where something has not been read.
            _ = there.read_to_end(&mut text).await;
            text
        };
        let (text, ()) = tokio::join!(read, serve);
        (!text.is_empty()).then(|| serde_json::from_slice(&text).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_answered_one_that_is_none_is_refused_and_an_endless_one_is_not_read() {
        assert!(matches!(answered(b"{\"cache\":\"stats\"}\n").await, Some(AdminReply::Done(_))));
        assert!(matches!(answered(b"nonsense\n").await, Some(AdminReply::Failed(_))));
        let Some(AdminReply::Failed(long)) = answered(&[b'x'; 100_000]).await else { panic!("it is too long") };
        assert!(long.starts_with("the request is too long"), "{long}");
        let Some(AdminReply::Failed(late)) = answered(b"{\"cache\":\"stats\"}").await else { panic!("it is late") };
        assert!(late.contains("within 2 s"), "{late}");
    }

    #[tokio::test]
    async fn who_is_neither_root_nor_the_owner_is_a_stranger() {
        let (here, _there) = UnixStream::pair().unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(server(own).0.admitted(&here), Some(own));
        assert_eq!(server(own + 1).0.admitted(&here).is_some(), own == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_is_done_when_all_workers_have_let_go_and_is_said_to_be_half_done_if_one_does_not() {
        let (server, mut told) = server(0);
        let task = || match read_request(br#"{"cache":{"flush":"all"}}"#).unwrap() {
            Task::Cache(task) => task,
            other => panic!("{other:?}"),
        };
        let worker = async {
            let Some(AdminCommand::FlushPackets(tell)) = told.recv().await else { panic!("it is a flush") };
            let (flushing, flushed) = mpsc::channel(1);
            tell.send(flushed).unwrap();
            sleep(Duration::from_secs(1)).await;
            drop(flushing);
        };
        let began = tokio::time::Instant::now();
        let (reply, ()) = tokio::join!(server.perform(task(), 0), worker);
        assert_eq!(reply, AdminReply::Done(serde_json::json!({ "flushed": 0 })));
        assert_eq!((began.elapsed(), server.flushes.value()), (Duration::from_secs(1), 1));
        let AdminReply::Failed(why) = server.perform(task(), 0).await else { panic!("nobody has done it") };
        assert!(why.contains("a worker has not said"), "{why}");
    }
}
