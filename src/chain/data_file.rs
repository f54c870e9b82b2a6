//! Files of data that a directive reads again while it serves, such as a hosts file.

use crate::corefile::{DataFile, FileStamp};
use crate::deadline;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Gives what a file of data holds, unless it still has this stamp. It may take as long as a file system does.
pub(crate) type ReadDataFile = Arc<dyn Fn(&Path, Option<FileStamp>) -> io::Result<Option<DataFile>> + Send + Sync>;

/// After how long it is told that a file's file system seems to hang.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many files are read at a time: half of what the watchdog reads for one server, so that the Corefile can be read
/// while these hang.
const MOST_AT_A_TIME: usize = 8;

/// How files of data are read that directives have asked their [`super::Loaders`] for and read again while they serve.
/// Cloning shares the bound of how many are read at a time.
#[derive(Clone)]
pub struct DataFiles {
    read: ReadDataFile,
    turns: Arc<Semaphore>,
}

impl DataFiles {
    /// Reads them so.
    pub fn new(read: ReadDataFile) -> Self {
        Self { read, turns: Arc::new(Semaphore::new(MOST_AT_A_TIME)) }
    }
}

/// Looks at a file at intervals, on a thread of its own, because its file system may hang: then no second thread is
/// begun.
pub(crate) struct DataFilePoll {
    /// Keyword of who reads it.
    pub directive: &'static str,
    pub path: PathBuf,
    /// More than zero.
    pub interval: Duration,
    /// Of what is known of it; `None` if it could not be read.
    pub known: Option<FileStamp>,
    pub files: DataFiles,
    /// Takes what it holds now, on that thread.
    pub changed: Arc<dyn Fn(&DataFile) + Send + Sync>,
}

impl DataFilePoll {
    /// Goes on until it is dropped. What was read last holds while the file cannot be read, which is told once.
    pub(crate) async fn run(mut self) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first is due at once.
        ticks.tick().await;
        let mut is_readable = self.known.is_some();
        loop {
            ticks.tick().await;
            match self.look().await {
                Ok(stamp) => {
                    self.known = Some(stamp);
                    if !is_readable {
                        tracing::info!("{}: {} can be read again", self.directive, self.path.display());
                    }
                    is_readable = true;
                }
                Err(error) => {
                    if is_readable {
                        tracing::warn!(
                            "{}: {} cannot be read: {error}; what it said last is served until it can",
                            self.directive,
                            self.path.display()
                        );
                    }
                    is_readable = false;
                }
            }
        }
    }

    /// The stamp of what is known now.
    async fn look(&self) -> io::Result<FileStamp> {
        let DataFiles { read, turns } = self.files.clone();
        let (changed, path, known) = (self.changed.clone(), self.path.clone(), self.known);
        let turn = turns.acquire_owned().await.map_err(io::Error::other)?;
        let mut looking = deadline::begin(move || {
            // Also while nobody waits any longer.
            let _turn = turn;
            let Some(file) = read(&path, known)? else { return Ok(known.unwrap_or_default()) };
            changed(&file);
            Ok(file.stamp)
        })?;
        loop {
            match timeout(PATIENCE, &mut looking).await {
                Ok(outcome) => {
                    return outcome.unwrap_or_else(|_| {
                        Err(io::Error::other("reading it ended before its time: please report this"))
                    });
                }
                Err(_) => tracing::warn!(
                    "{}: still waiting for {}; does its file system hang? What it said last is served",
                    self.directive,
                    self.path.display()
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::read_data_file;
    use parking_lot::Mutex;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn a_file_is_taken_when_it_comes_and_when_it_changes_and_what_was_taken_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let (tell, mut taken) = mpsc::unbounded_channel();
        let looks = Arc::new(Mutex::new(0));
        let (counted, (looked, mut look)) = (looks.clone(), mpsc::unbounded_channel());
        let poll = DataFilePoll {
            directive: "test",
            path: path.clone(),
            interval: Duration::from_millis(1),
            known: None,
            files: DataFiles::new(Arc::new(move |path, unless| {
                *counted.lock() += 1;
                _ = looked.send(());
                read_data_file(path, unless)
            })),
            changed: Arc::new(move |file| _ = tell.send(file.text.clone())),
        };
        let running = tokio::spawn(poll.run());
        for text in ["first", "second, which is longer"] {
            let before = folder.path().join("new");
            std::fs::write(&before, text).unwrap();
            std::fs::rename(&before, &path).unwrap();
            assert_eq!(taken.recv().await.as_deref(), Some(text));
        }
        std::fs::remove_file(&path).unwrap();
        let so_far = *looks.lock();
        while *looks.lock() < so_far + 3 {
            look.recv().await;
        }
        assert!(taken.try_recv().is_err(), "nothing is taken while nothing is there");
        std::fs::write(folder.path().join("new"), "third").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(taken.recv().await.as_deref(), Some("third"));
        running.abort();
    }
    #[tokio::test]
    async fn files_that_hang_take_no_more_than_their_threads() {
        let (begun, mut begins) = mpsc::unbounded_channel();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Mutex::new(held);
        let files = DataFiles::new(Arc::new(move |_, _| {
            _ = begun.send(());
            _ = held.lock().recv();
            Ok(None)
        }));
        let polls: Vec<_> = (0..=MOST_AT_A_TIME)
            .map(|_| {
                let poll = DataFilePoll {
                    directive: "test",
                    path: PathBuf::new(),
                    interval: Duration::from_millis(1),
                    known: None,
                    files: files.clone(),
                    changed: Arc::new(|_| {}),
                };
                tokio::spawn(poll.run())
            })
            .collect();
        for _ in 0..MOST_AT_A_TIME {
            begins.recv().await.unwrap();
        }
        assert_eq!(files.turns.available_permits(), 0);
        // The plan that polls is gone, and the threads hang on.
        polls.iter().for_each(tokio::task::JoinHandle::abort);
        for poll in polls {
            assert!(poll.await.unwrap_err().is_cancelled());
        }
        assert_eq!((files.turns.available_permits(), begins.try_recv().is_err()), (0, true));
        drop(release);
        let all = u32::try_from(MOST_AT_A_TIME).unwrap();
        files.turns.acquire_many(all).await.unwrap().forget();
    }
}
