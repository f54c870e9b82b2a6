//! Each of the two processes serves the metrics of both, as the reference does, which is one process: at each scrape it
//! asks the other for what that counts. One that does not say so in time, or says nonsense, is left out.

use super::channel::{Channel, ChannelError, memory_file};
use super::control::Message;
use crate::chain::AskMetrics;
use crate::metrics::Registry;
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

/// Octets of an exposition that is taken from the other process; a longer one is left out.
const MOST_OCTETS: u64 = 2 << 20;

/// After it has said what it counts a process says nothing for so many times as long as that took: a fifth of a
/// processor at most, whatever the other asks.
const REST: u32 = 4;

/// What one process says to the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum MetricsMessage {
    /// Say what you count.
    Ask { number: u64 },
    /// It is in a file beside this packet; none could be made if there is none.
    Counts { number: u64 },
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
    /// The number of the last question. Held by whoever waits for its answer: one is asked at a time.
    turn: tokio::sync::Mutex<u64>,
    answer: Mutex<Option<(u64, oneshot::Sender<Option<String>>)>>,
}

impl MetricsExchange {
    /// Answers the other process from `registry`, in the present runtime.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(crate) fn start(channel: Channel, registry: Registry) -> io::Result<Self> {
        let readable = channel.watch()?;
        let shared =
            Arc::new(Shared { channel, registry, turn: tokio::sync::Mutex::default(), answer: Mutex::default() });
        let serving = shared.clone();
        let serve = async move {
            let Err(error) = serving.serve(&readable).await else { return };
            if !matches!(error, ChannelError::Closed) {
                tracing::warn!("the other process is not asked for its metrics any longer: {error}");
            }
            // Whoever waits need not wait longer.
            serving.answer.lock().take();
        };
        Ok(Self { shared, task: tokio::spawn(serve).abort_handle() })
    }

    /// What the other process counts, in text format; `None` if it does not say in time.
    pub(crate) async fn ask(&self) -> Option<String> {
        timeout(PATIENCE, self.shared.ask()).await.ok().flatten()
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
    async fn ask(&self) -> Option<String> {
        let mut turn = self.turn.lock().await;
        *turn += 1;
        let (tell, told) = oneshot::channel();
        *self.answer.lock() = Some((*turn, tell));
        self.channel.send(&MetricsMessage::Ask { number: *turn }, &[]).ok()?;
        told.await.ok().flatten()
    }

    /// Answers questions, of several that come at once the last, and takes answers. Ends with the other process.
    async fn serve(&self, readable: &tokio::io::unix::AsyncFd<OwnedFd>) -> Result<(), ChannelError> {
        let mut asked = None;
        let mut rest_until = Instant::now();
        loop {
            match self.channel.receive::<MetricsMessage>()? {
                Some((MetricsMessage::Ask { number }, _)) => asked = Some(number),
                Some((MetricsMessage::Counts { number }, passed)) => {
                    let waiting = self.answer.lock().take_if(|(wanted, _)| *wanted == number);
                    if let Some((_, waiting)) = waiting {
                        // Who waited may have given up.
                        _ = waiting.send(passed.into_iter().next().and_then(|file| read(file).ok()));
                    }
                }
                None => {
                    if asked.is_some() && rest_until <= Instant::now() {
                        rest_until = self.tell(&mut asked)?;
                    }
                    tokio::select! {
                        ready = readable.readable() => ready?.clear_ready(),
                        () = rested(asked.is_some(), rest_until) => {}
                    }
                }
            }
        }
    }

    /// Says what this process counts; until when it is then not said again.
    fn tell(&self, asked: &mut Option<u64>) -> Result<Instant, ChannelError> {
        let began = std::time::Instant::now();
        if let Some(number) = asked.take() {
            let text = self.registry.encode();
            let file = memory_file("metrics", |file| file.write_all(text.as_bytes()));
            let file = file.inspect_err(|error| tracing::debug!("metrics cannot be passed on: {error}")).ok();
            let beside: Vec<_> = file.iter().map(AsFd::as_fd).collect();
            match self.channel.send(&MetricsMessage::Counts { number }, &beside) {
                // Questions that nobody reads fill it: the other process does not run, and asks again when it does.
                Err(ChannelError::Socket(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => sent?,
            }
        }
        Ok(Instant::now() + began.elapsed() * REST)
    }
}

async fn rested(is_asked: bool, until: Instant) {
    match is_asked {
        true => sleep_until(until).await,
        false => pending().await,
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
    use super::{MOST_OCTETS, MetricsExchange, MetricsMessage};
    use crate::metrics::Registry;
    use crate::watchdog::channel::{Channel, memory_file};
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::time::Duration;

    fn registry(name: &'static str) -> Registry {
        let registry = Registry::new(1);
        registry.counter(name, "Counts.", &[]).increment();
        registry
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_for_which_there_is_no_room_is_left_out_and_the_next_is_given() {
        let (here, there) = Channel::pair().unwrap();
        let here = MetricsExchange::start(here, registry("here_total")).unwrap();
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
        let here = MetricsExchange::start(here, registry("here_total")).unwrap();
        let there = MetricsExchange::start(there, registry("there_total")).unwrap();
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
    async fn who_says_nothing_is_not_waited_for_longer_than_that() {
        let (here, _there) = Channel::pair().unwrap();
        let here = MetricsExchange::start(here, registry("here_total")).unwrap();
        assert_eq!(here.ask().await, None);
    }

    /// What is taken of an answer with this text, or without one.
    async fn taken(text: Option<&str>, number: u64) -> Option<String> {
        let (here, there) = Channel::pair().unwrap();
        let here = MetricsExchange::start(here, registry("here_total")).unwrap();
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
        let _here = MetricsExchange::start(here, registry("here_total")).unwrap();
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
