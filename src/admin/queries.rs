//! Queries, shown as they are answered to who has asked for them.

use super::command::{AdminCommand, Commands, carry_out};
use super::lines::write;
use super::protocol::{QueriesLine, QueriesSummary, QueriesTask, line};
use crate::query_tap::{MOST_TAPS, QueryReport, QueryTaps, TapReader, WallClock};
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};

/// From one look at what the workers have left there to the next.
const LOOK: Duration = Duration::from_millis(25);

/// How long a reader may take nothing of what there is for it. Long, as somebody may be turning its pages: meanwhile he
/// loses queries, and nobody else does.
pub(super) const READER_PATIENCE: Duration = Duration::from_secs(60);

/// Octets of lines that are written at a time. Few, as whoever else asks waits that long: all share one thread.
const CHUNK: usize = 16 << 10;

/// A tap that the workers know of until this is dropped.
struct OpenTap<'a> {
    reader: TapReader,
    commands: &'a Commands,
}

impl OpenTap<'_> {
    /// How many will not be shown, as nobody reads them: those that wait, and those that there was no room for.
    fn abandon(&mut self) -> u64 {
        self.reader.close();
        let mut lost = self.reader.take_lost();
        while self.reader.next().is_some() {
            lost += 1;
        }
        lost
    }

    /// The workers show no more to it.
    fn close(&self) {
        self.reader.close();
        // Who stops is not waited for.
        _ = self.commands.send(AdminCommand::FollowTaps(oneshot::channel().0));
    }
}

impl Drop for OpenTap<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Shows queries until the limit, or until who has asked has closed his side, or takes no more.
pub(super) async fn show(
    stream: &mut UnixStream,
    wanted: QueriesTask,
    taps: &Arc<QueryTaps>,
    commands: &Commands,
    user: u32,
) -> io::Result<()> {
    let QueriesTask { filter, called, limit, has_messages } = wanted;
    let Some(reader) = taps.open(filter, has_messages) else {
        let busy = format!("{MOST_TAPS} others are shown queries already: try again when one of them has ended");
        return say(stream, &QueriesLine::Failed(busy)).await;
    };
    let mut tap = OpenTap { reader, commands };
    if carry_out(commands, AdminCommand::FollowTaps).await.is_none() {
        let late = "not all workers have begun to show queries: the server hangs or is ending, so try again";
        return say(stream, &QueriesLine::Failed(late.to_owned())).await;
    }
    tracing::info!("user {user} is shown queries{called}");
    let mut summary = QueriesSummary::default();
    let outcome = show_all(stream, &mut tap, limit, &mut summary).await;
    if outcome.is_err() {
        summary.lost += tap.abandon();
    }
    drop(tap);
    let QueriesSummary { shown, lost } = summary;
    let why = match &outcome {
        Ok(()) => String::new(),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            format!(", as the reader has taken nothing for {} s", READER_PATIENCE.as_secs())
        }
        Err(_) => ", as the reader is gone".to_owned(),
    };
    tracing::info!("user {user} is shown no more queries{called}{why}: {shown} were shown, {lost} lost");
    outcome?;
    say(stream, &QueriesLine::Done(summary)).await
}

async fn show_all(
    stream: &mut UnixStream,
    tap: &mut OpenTap<'_>,
    limit: u64,
    summary: &mut QueriesSummary,
) -> io::Result<()> {
    say(stream, &QueriesLine::Begun {}).await?;
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut is_behind, mut is_ending) = (false, false);
    loop {
        tokio::select! {
            biased;
            () = left(stream), if !is_ending => {
                is_ending = true;
                tap.close();
            }
            () = ready(()), if is_behind || is_ending => {}
            _ = look.tick() => {}
        }
        let (lines, clock) = (&mut Vec::new(), WallClock::read());
        let mut taken = 0;
        while lines.len() < CHUNK
            && summary.shown + taken < limit
            && let Some(query) = tap.reader.next()
        {
            lines.extend(line(&QueriesLine::Query(Box::new(QueryReport::of(&query, &clock))))?);
            taken += 1;
        }
        is_behind = lines.len() >= CHUNK;
        let lost = tap.reader.take_lost();
        if lost > 0 {
            summary.lost += lost;
            lines.extend(line(&QueriesLine::Lost(lost))?);
        }
        if let Err(error) = write(stream, lines, READER_PATIENCE).await {
            summary.lost += taken;
            return Err(error);
        }
        summary.shown += taken;
        if summary.shown >= limit || is_ending && lines.is_empty() {
            return Ok(());
        }
        // While the reader keeps up nothing above may have to wait, and others would not have their turn.
        yield_now().await;
    }
}

async fn say(stream: &mut UnixStream, said: &QueriesLine) -> io::Result<()> {
    write(stream, &line(said)?, READER_PATIENCE).await
}

/// Resolves when the other side is closed. What it says is not heard. May be dropped and called again at any time.
async fn left(stream: &mut UnixStream) {
    while stream.read(&mut [0; 256]).await.is_ok_and(|octets| octets > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query_tap::tests::with_sample;
    use crate::query_tap::{FilterText, TapFilter};
    use std::cell::RefCell;
    use std::io::Read as _;
    use std::rc::Rc;
    use tokio::sync::mpsc;
    use tokio::task::LocalSet;
    use tokio::time::sleep;

    fn everything() -> TapFilter {
        TapFilter::read(&FilterText::default()).unwrap()
    }

    #[tokio::test]
    async fn others_have_their_turn_after_each_part_though_the_reader_keeps_up() {
        let (here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        there.set_nonblocking(true).unwrap();
        let mut here = UnixStream::from_std(here).unwrap();
        let (commands, _told) = mpsc::unbounded_channel();
        let taps = Arc::new(QueryTaps::default());
        let mut tap = OpenTap { reader: taps.open(everything(), false).unwrap(), commands: &commands };
        // As much as a socket holds.
        const QUERIES: u64 = 300;
        with_sample(|sample| (0..QUERIES).for_each(|_| taps.show(&sample)));
        // What is written from one turn of another task to its next.
        let parts = Rc::new(RefCell::new(Vec::new()));
        let seen = parts.clone();
        let others = LocalSet::new();
        others.spawn_local(async move {
            let mut octets = vec![0; 1 << 20];
            loop {
                seen.borrow_mut().extend(there.read(&mut octets));
                yield_now().await;
            }
        });
        let mut summary = QueriesSummary::default();
        others.run_until(show_all(&mut here, &mut tap, QUERIES, &mut summary)).await.unwrap();
        let parts = parts.borrow();
        assert!(parts.iter().all(|part| *part < 2 * CHUNK), "{parts:?}");
        assert!(parts.iter().sum::<usize>() > 2 * CHUNK, "{parts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_reader_that_is_let_go_has_not_been_shown_is_counted_as_lost() {
        let (mut here, _there) = UnixStream::pair().unwrap();
        let (commands, _told) = mpsc::unbounded_channel();
        let taps = Arc::new(QueryTaps::default());
        let mut tap = OpenTap { reader: taps.open(everything(), false).unwrap(), commands: &commands };
        // More than a socket holds, and more than may wait.
        const QUERIES: u64 = 20_000;
        with_sample(|sample| (0..QUERIES).for_each(|_| taps.show(&sample)));
        let mut summary = QueriesSummary::default();
        let error = show_all(&mut here, &mut tap, u64::MAX, &mut summary).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        with_sample(|sample| taps.show(&sample));
        let (left, QueriesSummary { shown, lost }) = (tap.abandon(), summary);
        assert!(shown > 0 && left > 0, "{shown} shown, {left} left");
        assert_eq!(shown + lost + left, QUERIES + 1);
        assert!(!taps.is_on());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_let_go_and_leaves_no_tap() {
        let (mut here, _there) = UnixStream::pair().unwrap();
        let (commands, mut told) = mpsc::unbounded_channel();
        let taps = Arc::new(QueryTaps::default());
        let wanted = QueriesTask { filter: everything(), called: String::new(), limit: u64::MAX, has_messages: true };
        let workers = async {
            let mut followed = 0;
            while let Some(AdminCommand::FollowTaps(tell)) = told.recv().await {
                followed += 1;
                // Closed, as all workers have done it.
                _ = tell.send(mpsc::channel(1).1);
            }
            followed
        };
        let shown = async {
            let feeding = async {
                loop {
                    with_sample(|sample| (0..50).for_each(|_| taps.show(&sample)));
                    sleep(LOOK).await;
                }
            };
            let outcome = tokio::select! {
                outcome = show(&mut here, wanted, &taps, &commands, 0) => outcome,
                () = feeding => Ok(()),
            };
            drop(commands);
            outcome
        };
        let (outcome, followed) = tokio::join!(shown, workers);
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!((taps.is_on(), followed), (false, 2));
    }
}
