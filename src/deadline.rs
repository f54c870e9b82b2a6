//! Work that may hang, on a thread that nobody waits for longer than a deadline: files on a file system that does not
//! answer (NFS, FUSE), a program. A thread that hangs is left behind; whoever begins such work again and again has to
//! bound how many there are.

use crate::threads;
use std::io;
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What such a thread needs: files are read, written and parsed on it.
const STACK: usize = 2 << 20;

/// Does `work` on a thread of its own, and waits for it. Work that is late goes on.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] after `limit`; no thread can be started.
pub(crate) fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (done, outcome) = mpsc::sync_channel(1);
    thread(move || _ = done.send(work()))?;
    outcome.recv_timeout(limit).map_err(|_| late(limit))
}

/// Begins `work` on a thread of its own. The outcome is lost if it panics.
///
/// # Errors
/// No thread can be started.
pub(crate) fn begin<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<oneshot::Receiver<T>> {
    let (done, outcome) = oneshot::channel();
    // Nobody waits any longer, perhaps.
    thread(move || _ = done.send(work()))?;
    Ok(outcome)
}

/// The error of what was not done in time.
pub(crate) fn late(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}; does its file system hang?"))
}

fn thread(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Ok(threads::spawn("may-hang", Some(STACK), work).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::{begin, within};
    use std::io::ErrorKind;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn work_that_is_late_goes_on_without_whoever_waited() {
        let (release, held) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let error = within(Duration::from_millis(10), move || {
            _ = held.recv();
            tell.send(7)
        });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::TimedOut);
        drop(release);
        assert_eq!(told.recv_timeout(Duration::from_secs(30)), Ok(7));
        assert_eq!(within(Duration::from_secs(30), || 8).unwrap(), 8);
    }

    #[tokio::test]
    async fn work_that_was_begun_is_awaited_and_lost_if_it_panics() {
        assert_eq!(begin(|| 9).unwrap().await, Ok(9));
        assert!(begin(|| std::panic::resume_unwind(Box::new(()))).unwrap().await.is_err());
    }
}
