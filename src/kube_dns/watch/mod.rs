//! Watches files with inotify, and tells of a change once it is over. Something may go unseen, so files are read at
//! intervals too ([`FileWatch::poll_period`]).

use futures_util::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchMask};
use rustix::fs::inotify::{CreateFlags, init, remove_watch};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A kubelet's swap of a ConfigMap is half a dozen events within a few milliseconds.
const QUIET: Duration = Duration::from_millis(100);
/// However busy a folder is, a change is told within this time.
const LONGEST_UNREST: Duration = Duration::from_millis(500);
/// As often as the reference looks.
const WATCHED_POLL: Duration = Duration::from_secs(10);
/// What cannot be watched is looked at as often as `reload` may be told to.
const UNWATCHED_POLL: Duration = Duration::from_secs(2);

/// For some dozens of events; more are read in turns.
const BUFFER_OCTETS: usize = 4096;

/// Turns a burst of events into one.
#[derive(Debug)]
pub(crate) struct Debounce {
    quiet: Duration,
    longest: Duration,
    /// When the burst began, and its last event.
    burst: Option<(Instant, Instant)>,
}

impl Debounce {
    /// A burst ends once nothing happened for `quiet`, or `longest` after it began.
    pub(crate) fn new(quiet: Duration, longest: Duration) -> Self {
        Self { quiet, longest, burst: None }
    }
    /// Something happened.
    pub(crate) fn note(&mut self, now: Instant) {
        self.burst = Some((self.burst.map_or(now, |(first, _)| first), now));
    }
    /// When the burst ends, if nothing more happens; `None` outside a burst.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.burst.map(|(first, last)| (last + self.quiet).min(first + self.longest))
    }
    /// True, once, when the burst has ended.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let is_due = self.due().is_some_and(|due| now >= due);
        if is_due {
            self.burst = None;
        }
        is_due
    }
}

/// What of a folder concerns us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FolderInterest {
    Everything,
    /// These names, and those of a mounted ConfigMap's links and folders (`..data`).
    Names(BTreeSet<OsString>),
}

impl FolderInterest {
    /// Whether an event on `name` concerns us; without a name it is the folder's own.
    fn includes(&self, name: Option<&OsStr>) -> bool {
        match (self, name) {
            (Self::Everything, _) | (_, None) => true,
            (Self::Names(names), Some(name)) => names.contains(name) || name.as_encoded_bytes().starts_with(b".."),
        }
    }
    fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Names(names), Self::Names(more)) => names.extend(more),
            _ => *self = Self::Everything,
        }
    }
}

/// Files and folders to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WatchedPaths(BTreeMap<PathBuf, FolderInterest>);

impl WatchedPaths {
    /// A file: its name in its folder and, if that is a symbolic link, what it stands for.
    pub(crate) fn add_file(&mut self, path: &Path) {
        self.add_name(path);
        if let Ok(real) = fs::canonicalize(path) {
            self.add_name(&real);
        }
    }
    /// All files of a folder.
    pub(crate) fn add_folder(&mut self, path: &Path) {
        self.add(or_here(path), FolderInterest::Everything);
    }
    /// All that another one has.
    pub(crate) fn extend(&mut self, other: &Self) {
        other.0.iter().for_each(|(folder, interest)| self.add(folder, interest.clone()));
    }
    fn add_name(&mut self, path: &Path) {
        if let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
            self.add(or_here(folder), FolderInterest::Names(BTreeSet::from([name.to_owned()])));
        }
    }
    fn add(&mut self, folder: &Path, interest: FolderInterest) {
        match self.0.get_mut(folder) {
            Some(known) => known.merge(interest),
            None => drop(self.0.insert(folder.to_owned(), interest)),
        }
    }
}

/// The folder of a path without one.
fn or_here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

/// Why files are polled rather than watched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    #[error(
        "cannot watch files: {0}; they are read every {UNWATCHED_POLL:?} instead. If fs.inotify.max_user_instances is used up, raise it \
         (sysctl)"
    )]
    Start(io::Error),
    #[error(
        "cannot watch {folder}: {cause}; its files are read every {UNWATCHED_POLL:?} instead. If fs.inotify.max_user_watches is used up, \
         raise it (sysctl)"
    )]
    Folder { folder: String, cause: String },
    #[error("files are watched no longer: {0}; they are read every {UNWATCHED_POLL:?} instead")]
    Lost(io::Error),
}

/// Places watches for a [`FileWatch`], in whichever process may see the folders.
pub(crate) struct Watcher(Inotify);

/// Watches that were placed, by the kernel's numbers, and folders where that failed, with why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacedWatches {
    watched: HashMap<i32, FolderInterest>,
    /// Folders as they are shown: a path need not be UTF-8, as what one process passes to another has to be.
    failed: Vec<(String, String)>,
}

impl Watcher {
    /// `inotify` is that of the [`FileWatch`], or another descriptor of the same.
    pub(crate) fn new(inotify: OwnedFd) -> Self {
        Self(inotify.into())
    }

    /// Places watches on these. May wait for their file systems.
    pub(crate) fn place(self, subjects: WatchedPaths) -> PlacedWatches {
        let mut placed = PlacedWatches::default();
        for (folder, interest) in subjects.0 {
            match watch_nearest(&mut self.0.watches(), &folder, interest) {
                Ok((descriptor, interest)) => match placed.watched.get_mut(&descriptor) {
                    Some(known) => known.merge(interest),
                    None => drop(placed.watched.insert(descriptor, interest)),
                },
                Err(cause) => placed.failed.push((folder.display().to_string(), cause.to_string())),
            }
        }
        placed
    }
}

/// Tells when watched files may have changed. Whatever cannot be watched is said once, in the log.
pub(crate) struct FileWatch {
    events: Option<(EventStream<[u8; BUFFER_OCTETS]>, OwnedFd)>,
    watched: HashMap<i32, FolderInterest>,
    debounce: Debounce,
    unwatched: BTreeSet<String>,
}

impl FileWatch {
    /// With nothing to watch yet. To be called within a tokio runtime.
    pub(crate) fn start() -> Self {
        let start = || {
            let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            io::Result::Ok((Inotify::from(inotify.try_clone()?).into_event_stream([0; BUFFER_OCTETS])?, inotify))
        };
        let events = start().map_err(|cause| tracing::warn!("{}", WatchError::Start(cause))).ok();
        Self {
            events,
            watched: HashMap::new(),
            debounce: Debounce::new(QUIET, LONGEST_UNREST),
            unwatched: BTreeSet::new(),
        }
    }

    /// What a [`Watcher`] is made of; none where nothing can be watched.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.events.as_ref().map(|(_, inotify)| inotify.as_fd())
    }

    /// Watches what was placed, and nothing else. To be called after each look: a folder may be another one by now,
    /// though its path is the same. What was not watched before may have changed since that look, so something is told
    /// of it.
    pub(crate) fn adopt(&mut self, placed: PlacedWatches) {
        let Some((_, inotify)) = &self.events else { return };
        let PlacedWatches { watched, failed } = placed;
        let mut unwatched = BTreeSet::new();
        for (folder, cause) in failed {
            if !self.unwatched.contains(&folder) {
                tracing::warn!("{}", WatchError::Folder { folder: folder.clone(), cause });
            }
            unwatched.insert(folder);
        }
        if watched.keys().any(|descriptor| !self.watched.contains_key(descriptor)) {
            self.debounce.note(Instant::now());
        }
        for descriptor in self.watched.keys().filter(|descriptor| !watched.contains_key(descriptor)) {
            // Fails when the folder is gone, and the watch with it.
            let _ = remove_watch(inotify, *descriptor);
        }
        (self.watched, self.unwatched) = (watched, unwatched);
    }

    /// How often to look though nothing was told: some file systems tell nothing.
    pub(crate) fn poll_period(&self) -> Duration {
        if self.events.is_some() && self.unwatched.is_empty() { WATCHED_POLL } else { UNWATCHED_POLL }
    }

    /// Resolves when something watched may have changed and is at rest. May be dropped and called again.
    pub(crate) async fn changed(&mut self) {
        loop {
            if self.debounce.take(Instant::now()) {
                return;
            }
            let due = self.debounce.due();
            let rest = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            let Some((events, _)) = &mut self.events else { return rest.await };
            tokio::select! {
                () = rest => {}
                event = events.next() => match event {
                    Some(Ok(event)) if concerns_us(&event, &self.watched) => self.debounce.note(Instant::now()),
                    Some(Ok(_)) => {}
                    Some(Err(cause)) => self.give_up(cause),
                    None => self.give_up(io::ErrorKind::UnexpectedEof.into()),
                },
            }
        }
    }

    fn give_up(&mut self, cause: io::Error) {
        tracing::warn!("{}", WatchError::Lost(cause));
        self.events = None;
        // For what has happened and will not be told.
        self.debounce.note(Instant::now());
    }
}

fn concerns_us(event: &EventOwned, watched: &HashMap<i32, FolderInterest>) -> bool {
    let is_included = || {
        watched
            .get(&event.wd.get_watch_descriptor_id())
            .is_some_and(|interest| interest.includes(event.name.as_deref()))
    };
    // Events were lost, and who knows which.
    event.mask.contains(EventMask::Q_OVERFLOW) || !event.mask.contains(EventMask::IGNORED) && is_included()
}

/// Watches a folder or, as long as that is not there, the nearest one above it for what leads to it.
fn watch_nearest(
    watches: &mut inotify::Watches,
    folder: &Path,
    interest: FolderInterest,
) -> io::Result<(i32, FolderInterest)> {
    let mask = WatchMask::CREATE
        | WatchMask::CLOSE_WRITE
        | WatchMask::DELETE
        | WatchMask::MOVED_FROM
        | WatchMask::MOVED_TO
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR;
    let (mut folder, mut interest) = (folder, interest);
    loop {
        match watches.add(folder, mask) {
            Ok(descriptor) => return Ok((descriptor.get_watch_descriptor_id(), interest)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                let (Some(above), Some(name)) = (folder.parent(), folder.file_name()) else { return Err(cause) };
                interest = FolderInterest::Names(BTreeSet::from([name.to_owned()]));
                folder = or_here(above);
            }
            Err(cause) => return Err(cause),
        }
    }
}

#[cfg(test)]
mod tests;
