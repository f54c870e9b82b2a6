//! Passes the content of the caches to the next server, in an anonymous file in memory (memfd_create(2)).

use crate::chain::ReloadState;
use crate::directives::cache::{Bounds, ClockReading, export, import};
use crate::threads;
use rustix::fs::{MemfdFlags, fcntl_get_seals, memfd_create};
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long writing may take. The next server waits for it.
const SAVE_LIMIT: Duration = Duration::from_millis(400);

/// How long a server waits for its caches to be filled before it serves; what is left is filled in while it does. Less
/// than the watchdog leaves the interception to a server that is being replaced (70 ms).
const RESTORE_PATIENCE: Duration = Duration::from_millis(50);

/// How long reading may take, which goes on while this server serves.
const RESTORE_LIMIT: Duration = Duration::from_secs(5);

/// Octets that are read or written at once.
const BUFFER: usize = 64 << 10;

fn reading() -> ClockReading {
    let uptime = clock_gettime(ClockId::Monotonic);
    // Neither is negative.
    let seconds = u64::try_from(uptime.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(uptime.tv_nsec).unwrap_or_default();
    ClockReading { now: Instant::now(), uptime: Duration::new(seconds, nanoseconds) }
}

/// Writes what the caches hold, at most this many octets.
///
/// # Errors
/// Open files or memory are at their limit.
pub(super) fn save(reload_state: &ReloadState, octets: usize) -> io::Result<OwnedFd> {
    let started = Instant::now();
    let file = File::from(memfd_create("cache", MemfdFlags::CLOEXEC)?);
    let mut out = BufWriter::with_capacity(BUFFER, file);
    let tally = export(reload_state, &mut out, reading(), Bounds { octets, until: started + SAVE_LIMIT })?;
    tracing::debug!("{} cached answers written down in {:?}", tally.kept, started.elapsed());
    let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file.into())
}

/// Fills the caches with what [`save`] has written, on a thread of its own, and waits a little for that. No more octets
/// are read than the caches may take, and nothing but a file in memory: whoever passes another may never have anything
/// to say, and the thread would wait for it.
pub(super) fn restore(reload_state: Arc<ReloadState>, cache: OwnedFd, octets: usize) {
    if let Err(error) = fcntl_get_seals(&cache) {
        return tracing::warn!(
            "what was handed over as a predecessor's cache is no file in memory ({error}); this server begins with an empty one"
        );
    }
    let (done, is_done) = mpsc::channel();
    let started = Instant::now();
    let fill = move || {
        let mut input = BufReader::with_capacity(BUFFER, File::from(cache));
        match import(&reload_state, &mut input, reading(), Bounds { octets, until: started + RESTORE_LIMIT }) {
            Ok(tally) => {
                tracing::info!(
                    "{} cached answers taken over in {:?}, {} not",
                    tally.kept,
                    started.elapsed(),
                    tally.refused
                );
            }
            Err(error) => tracing::warn!("{error}"),
        }
        // Nobody waits any longer if it took too long.
        _ = done.send(());
    };
    match threads::spawn("cache-restore", None, fill) {
        Ok(_) => _ = is_done.recv_timeout(RESTORE_PATIENCE),
        Err(error) => tracing::warn!("the caches begin empty: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{reading, restore, save};
    use crate::chain::ReloadState;
    use std::io::Write;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn no_caches_are_written_and_read_and_a_file_that_holds_none_is_let_go() {
        let reload_state = Arc::new(ReloadState::default());
        let file = save(&reload_state, 1000).unwrap();
        restore(reload_state.clone(), file, 1000);
        restore(reload_state, std::fs::File::open("/dev/zero").unwrap().into(), 1000);
    }

    #[test]
    fn a_pipe_that_never_speaks_or_never_ends_is_let_go_before_a_thread_waits_for_it() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        restore(Arc::new(ReloadState::default()), reader.into(), 1000);
        let error = writer.write_all(b"nldc").expect_err("nobody reads it");
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn readings_of_both_clocks_go_on_together() {
        let (first, second) = (reading(), {
            std::thread::sleep(Duration::from_millis(20));
            reading()
        });
        let (here, there) = (second.now - first.now, second.uptime - first.uptime);
        assert!(here.abs_diff(there) < Duration::from_secs(1), "{here:?}, {there:?}");
    }
}
