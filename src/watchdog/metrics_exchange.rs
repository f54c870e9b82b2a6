//! Each of the two processes serves the metrics of both, as the reference does, which is one process: at each scrape it
//! asks the other for what that counts. One that does not say so in time, or says nonsense, is left out. In the same
//! way the watchdog asks the server for its status (`/status.json`).

use super::channel::{Channel, ChannelError, memory_file};
use super::control::Message;
use crate::chain::{AskMetrics, NoStatus};
use crate::metrics::Registry;
use crate::query_stats::QueryStats;
use parking_lot::Mutex;
use rustix::fs::fcntl_get_seals;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::future::pending;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

/// How long the other process may take to say what it counts.
const PATIENCE: Duration = Duration::from_millis(200);

/// The same for its status, for which it may have to look at more.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// Octets of an exposition that is taken from the other process; a longer one is left out.
const MOST_OCTETS: u64 = 2 << 20;

/// After it has said what it counts a process does not say it again for so many times as long as that took: a fifth of
/// a processor at most, whatever the other asks. The same of its status.
const REST: u32 = 4;

/// What one process says to the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum MetricsMessage {
    /// Say what you count.
    Ask { number: u64 },
    /// Say your status, with names and clients or without.
    AskStatus { number: u64, shows_names: bool },
    /// What it counts is in a file beside this packet; none could be made if there is none.
    Counts { number: u64 },
    /// The same of its status.
    Status { number: u64 },
}

impl Message for MetricsMessage {
    fn shortened(&self) -> Self {
        self.clone()
    }
}

/// A process's end. Dropped, it is closed.
pub(crate) struct MetricsExchange {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    channel: Channel,
    registry: Registry,
    /// What the server's status is made of; the watchdog has none.
    stats: Option<Arc<QueryStats>>,
    counts: Line,
    status: Line,
}

/// Those who ask for one thing. They stand apart from those who ask for another, and wait for none of them.
#[derive(Default)]
struct Line {
    /// The number of the last question. Held by whoever waits for its answer: one is asked at a time.
    turn: tokio::sync::Mutex<u64>,
    answer: Mutex<Option<(u64, oneshot::Sender<Option<String>>)>>,
}

impl Line {
    /// Gives an answer to who waits for it.
    fn answer(&self, number: u64, passed: Vec<OwnedFd>) {
        let waiting = self.answer.lock().take_if(|(wanted, _)| *wanted == number);
        if let Some((_, waiting)) = waiting {
            // Who waited may have given up.
            _ = waiting.send(passed.into_iter().next().and_then(|file| read(file).ok()));
        }
    }
}

/// A question for one thing that is not answered yet.
struct Due {
    question: Option<MetricsMessage>,
    rest_until: Instant,
}

impl Due {
    fn new() -> Self {
        Self { question: None, rest_until: Instant::now() }
    }

    /// The question, if it is to be answered now.
    fn take(&mut self) -> Option<MetricsMessage> {
        self.question.take_if(|_| self.rest_until <= Instant::now())
    }

    async fn wait(&self) {
        match self.question {
            Some(_) => sleep_until(self.rest_until).await,
            None => pending().await,
        }
    }
}

impl MetricsExchange {
    /// Answers the other process from `registry` and `stats`, in the present runtime.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(crate) fn start(channel: Channel, registry: Registry, stats: Option<Arc<QueryStats>>) -> io::Result<Self> {
        let readable = channel.watch()?;
        let (counts, status) = (Line::default(), Line::default());
        let shared = Arc::new(Shared { channel, registry, stats, counts, status });
        let serving = shared.clone();
        let serve = async move {
            let Err(error) = serving.serve(&readable).await else { return };
            if !matches!(error, ChannelError::Closed) {
                tracing::warn!("the other process is not asked for its metrics any longer: {error}");
            }
            // Whoever waits need not wait longer.
            serving.counts.answer.lock().take();
            serving.status.answer.lock().take();
        };
        Ok(Self { shared, task: tokio::spawn(serve).abort_handle() })
    }

    /// What the other process counts, in text format; `None` if it does not say in time.
    pub(crate) async fn ask(&self) -> Option<String> {
        let ask = self.shared.ask(&self.shared.counts, |number| MetricsMessage::Ask { number });
        timeout(PATIENCE, ask).await.ok()?.ok().flatten()
    }

    /// The server's status, in JSON.
    ///
    /// # Errors
    /// The other process does not say it in time, is gone, or has none.
    pub(crate) async fn ask_status(&self, shows_names: bool) -> Result<String, NoStatus> {
        let ask = self.shared.ask(&self.shared.status, |number| MetricsMessage::AskStatus { number, shows_names });
        let late = NoStatus::Late(STATUS_PATIENCE);
        match timeout(STATUS_PATIENCE, ask).await.map_err(|_| late)? {
            Ok(told) => told.ok_or(NoStatus::Unreadable),
            // What it has not read yet fills the channel.
            Err(ChannelError::Socket(error)) if error.kind() == io::ErrorKind::WouldBlock => Err(late),
            Err(_) => Err(NoStatus::NotRunning),
        }
    }

    /// [`MetricsExchange::ask`], for who makes expositions.
    pub(crate) fn into_ask(self) -> AskMetrics {
        let exchange = Arc::new(self);
        Arc::new(move || {
            let exchange = exchange.clone();
            Box::pin(async move { exchange.ask().await })
        })
    }
}

impl Drop for MetricsExchange {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// `None`: the other process could not say it.
    async fn ask(
        &self,
        line: &Line,
        question: impl FnOnce(u64) -> MetricsMessage,
    ) -> Result<Option<String>, ChannelError> {
        let mut turn = line.turn.lock().await;
        *turn += 1;
        let (tell, told) = oneshot::channel();
        *line.answer.lock() = Some((*turn, tell));
        self.channel.send(&question(*turn), &[])?;
        told.await.map_err(|_| ChannelError::Closed)
    }

    /// Answers questions, of several for one thing that come at once the last, and takes answers. Ends with the other
    /// process.
    async fn serve(&self, readable: &tokio::io::unix::AsyncFd<OwnedFd>) -> Result<(), ChannelError> {
        let (mut counts, mut status) = (Due::new(), Due::new());
        loop {
            match self.channel.receive::<MetricsMessage>()? {
                Some((question @ MetricsMessage::Ask { .. }, _)) => counts.question = Some(question),
                Some((question @ MetricsMessage::AskStatus { .. }, _)) => status.question = Some(question),
                Some((MetricsMessage::Counts { number }, passed)) => self.counts.answer(number, passed),
                Some((MetricsMessage::Status { number }, passed)) => self.status.answer(number, passed),
                None => {
                    for due in [&mut counts, &mut status] {
                        if let Some(question) = due.take() {
                            due.rest_until = self.tell(&question)?;
                        }
                    }
                    tokio::select! {
                        ready = readable.readable() => ready?.clear_ready(),
                        () = counts.wait() => {}
                        () = status.wait() => {}
                    }
                }
            }
        }
    }

    /// Says what is asked for; until when it is then not said again.
    fn tell(&self, question: &MetricsMessage) -> Result<Instant, ChannelError> {
        let began = std::time::Instant::now();
        let (message, text) = match *question {
            MetricsMessage::Ask { number } => {
                (MetricsMessage::Counts { number }, Some(self.registry.encode().into_bytes()))
            }
            MetricsMessage::AskStatus { number, shows_names } => {
                (MetricsMessage::Status { number }, self.stats.as_ref().map(|stats| stats.to_json(shows_names)))
            }
            MetricsMessage::Counts { .. } | MetricsMessage::Status { .. } => return Ok(Instant::now()),
        };
        let file = text.map(|text| memory_file("metrics", |file| file.write_all(&text))).transpose();
        let file = file.inspect_err(|error| tracing::debug!("metrics cannot be passed on: {error}")).ok().flatten();
        let beside: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        match self.channel.send(&message, &beside) {
            // Questions that nobody reads fill it: the other process does not run, and asks again when it does.
            Err(ChannelError::Socket(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => sent?,
        }
        Ok(Instant::now() + began.elapsed() * REST)
    }
}

/// The text in a file. Of nothing but one in memory, which does not hang.
fn read(file: OwnedFd) -> io::Result<String> {
    fcntl_get_seals(&file)?;
    let mut text = String::new();
    let octets = File::from(file).take(MOST_OCTETS + 1).read_to_string(&mut text)?;
    match octets as u64 <= MOST_OCTETS {
        true => Ok(text),
        false => Err(io::Error::other("it is longer than what is taken")),
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST_OCTETS, MetricsExchange, MetricsMessage, STATUS_PATIENCE};
    use crate::chain::NoStatus;
    use crate::metrics::Registry;
    use crate::query_stats::QueryStats;
    use crate::watchdog::channel::{Channel, memory_file};
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::time::Duration;

    fn registry(name: &'static str) -> Registry {
        let registry = Registry::new(1);
        registry.counter(name, "Counts.", &[]).increment();
        registry
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_for_which_there_is_no_room_is_left_out_and_the_next_is_given() {
        let (here, there) = Channel::pair().unwrap();
        let here = MetricsExchange::start(here, registry("here_total"), None).unwrap();
        while here.shared.channel.send(&MetricsMessage::Ask { number: 0 }, &[]).is_ok() {}
        there.send(&MetricsMessage::Ask { number: 1 }, &[]).unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        while there.receive::<MetricsMessage>().unwrap().is_some() {}
        there.send(&MetricsMessage::Ask { number: 2 }, &[]).unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let told = there.receive::<MetricsMessage>().unwrap();
        assert!(matches!(told, Some((MetricsMessage::Counts { number: 2 }, _))));
    }

    #[tokio::test(start_paused = true)]
    async fn each_end_is_told_what_the_other_counts() {
        let (here, there) = Channel::pair().unwrap();
        let here = MetricsExchange::start(here, registry("here_total"), None).unwrap();
        let there = MetricsExchange::start(there, registry("there_total"), None).unwrap();
        for _ in 0..3 {
            let (theirs, ours) = tokio::join!(here.ask(), there.ask());
            assert!(theirs.unwrap().ends_with("there_total 1\n"));
            assert!(ours.unwrap().ends_with("here_total 1\n"));
        }
        let (one, other) = tokio::join!(here.ask(), here.ask());
        assert!(one.is_some() && other.is_some(), "one after the other");
        drop(there);
        assert_eq!(here.ask().await, None, "it is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn the_server_tells_what_it_is_asked_and_the_watchdog_has_nothing_to_tell() {
        let (here, there) = Channel::pair().unwrap();
        let stats = Arc::new(QueryStats::new(1, registry("here_total")));
        let here = MetricsExchange::start(here, registry("here_total"), Some(stats)).unwrap();
        let there = MetricsExchange::start(there, registry("there_total"), None).unwrap();
        for shows_names in [false, true] {
            let told = there.ask_status(shows_names).await.unwrap();
            assert!(told.contains(&format!("\"shows_names\":{shows_names}")), "{told}");
        }
        assert_eq!(here.ask_status(true).await, Err(NoStatus::Unreadable));
        assert!(there.ask().await.is_some(), "counts are told as before");
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_not_waited_for_longer_than_that() {
        let (here, _there) = Channel::pair().unwrap();
        let here = MetricsExchange::start(here, registry("here_total"), None).unwrap();
        assert_eq!(here.ask().await, None);
        assert_eq!(here.ask_status(true).await, Err(NoStatus::Late(STATUS_PATIENCE)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_gone_is_not_waited_for() {
        let (here, there) = Channel::pair().unwrap();
        let here = MetricsExchange::start(here, registry("here_total"), None).unwrap();
        let began = tokio::time::Instant::now();
        let goes = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(there);
        };
        let (told, ()) = tokio::join!(here.ask_status(true), goes);
        assert_eq!(told, Err(NoStatus::NotRunning), "it went while it was asked");
        assert_eq!(here.ask_status(true).await, Err(NoStatus::NotRunning));
        assert!(began.elapsed() < STATUS_PATIENCE, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_the_status_without_end_keeps_nobody_from_the_counts() {
        let (here, there) = Channel::pair().unwrap();
        let stats = Arc::new(QueryStats::new(1, registry("here_total")));
        let _here = MetricsExchange::start(here, registry("here_total"), Some(stats)).unwrap();
        there.send(&MetricsMessage::Ask { number: 1 }, &[]).unwrap();
        for number in 1..=10 {
            there.send(&MetricsMessage::AskStatus { number, shows_names: true }, &[]).unwrap();
        }
        let readable = there.watch().unwrap();
        let mut told = Vec::new();
        while told.len() < 2 {
            let next = tokio::time::timeout(Duration::from_secs(1), readable.readable()).await;
            next.unwrap_or_else(|_| panic!("both are told, not only {told:?}")).unwrap().clear_ready();
            while let Some((message, _)) = there.receive::<MetricsMessage>().unwrap() {
                told.push(message);
            }
        }
        assert_eq!(told, [MetricsMessage::Counts { number: 1 }, MetricsMessage::Status { number: 10 }]);
    }

    #[tokio::test]
    async fn who_waits_for_a_status_that_does_not_come_has_his_counts_at_once() {
        let (here, there) = Channel::pair().unwrap();
        let here = MetricsExchange::start(here, registry("here_total"), None).unwrap();
        let answer = async {
            let readable = there.watch().unwrap();
            loop {
                readable.readable().await.unwrap().clear_ready();
                while let Some((message, _)) = there.receive::<MetricsMessage>().unwrap() {
                    if let MetricsMessage::Ask { number } = message {
                        let file = memory_file("test", |file| file.write_all(b"text")).unwrap();
                        there.send(&MetricsMessage::Counts { number }, &[file.as_fd()]).unwrap();
                        return;
                    }
                }
            }
        };
        let asked = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            here.ask().await
        };
        tokio::select! {
            (told, ()) = async { tokio::join!(asked, answer) } => assert_eq!(told.as_deref(), Some("text")),
            told = here.ask_status(true) => panic!("nobody tells it: {told:?}"),
        }
    }

    /// What is taken of an answer with this text, or without one.
    async fn taken(text: Option<&str>, number: u64) -> Option<String> {
        let (here, there) = Channel::pair().unwrap();
        let here = MetricsExchange::start(here, registry("here_total"), None).unwrap();
        let answer = async {
            let readable = there.watch().unwrap();
            readable.readable().await.unwrap().retain_ready();
            let (message, _) = there.receive::<MetricsMessage>().unwrap().unwrap();
            assert_eq!(message, MetricsMessage::Ask { number: 1 });
            let file = text.map(|text| memory_file("test", |file| file.write_all(text.as_bytes())).unwrap());
            let beside: Vec<_> = file.iter().map(AsFd::as_fd).collect();
            there.send(&MetricsMessage::Counts { number }, &beside).unwrap();
            // Not closed before it is heard.
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        tokio::join!(here.ask(), answer).0
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_bounded_and_is_the_one_to_the_question() {
        assert_eq!(taken(Some("text"), 1).await.as_deref(), Some("text"));
        assert_eq!(taken(None, 1).await, None);
        assert_eq!(taken(Some("text"), 2).await, None, "to another question");
        let longest = "x".repeat(MOST_OCTETS as usize);
        assert_eq!(taken(Some(&longest), 1).await.map(|text| text.len()), Some(longest.len()));
        assert_eq!(taken(Some(&format!("{longest}x")), 1).await, None);
    }

    #[tokio::test]
    async fn questions_that_come_at_once_are_answered_once() {
        let (here, there) = Channel::pair().unwrap();
        let _here = MetricsExchange::start(here, registry("here_total"), None).unwrap();
        for number in 1..=100 {
            there.send(&MetricsMessage::Ask { number }, &[]).unwrap();
        }
        let readable = there.watch().unwrap();
        readable.readable().await.unwrap().retain_ready();
        let (message, passed) = there.receive::<MetricsMessage>().unwrap().unwrap();
        assert_eq!((message, passed.len()), (MetricsMessage::Counts { number: 100 }, 1));
        assert!(there.receive::<MetricsMessage>().unwrap().is_none());
    }
}
