//! The watchdog's end: it reads and writes the configuration's files. A file system may hang, so each request has a
//! thread of its own. Which files those are follows from the command line and from what they name, never from what the
//! server says.

use super::host_snapshot::{HostSnapshot, SnapshotDigest, SnapshotRecorder};
use super::{FileReply, FileRequest, file_of, path, text_of};
use crate::app::corefile_template::{target, template};
use crate::app::host::{ConfigurationSource, ThisHost};
use crate::app::load::{CorefileSource, LoadError};
use crate::cli::{CorefileArgument, Mode};
use crate::corefile::{DataFile, FileStamp, SocketRole, read_data_file, unix_socket};
use crate::deadline;
use crate::kube_dns::watch::{WatchedPaths, Watcher};
use crate::kube_dns::{CorefileOutput, CorefileTemplate};
use crate::watchdog::channel::{Channel, ChannelError};
use parking_lot::Mutex;
use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals, fstat};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Threads that may hang at the same time for one server. It has no more at work itself.
const MOST_THREADS: usize = 16;
/// The same of all servers, those included that are gone.
const MOST_THREADS_OF_ALL: usize = 64;

/// Names of files of data, and of sockets, that are remembered from one configuration to the next.
const MOST_NAMES: usize = 4096;

/// Of a file in memory that nobody changes any more (fcntl(2)).
const SEALS: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Octets of a Corefile, with its imports and files of data, that are remembered from one server to the next.
const MOST_SERVED_OCTETS: u64 = 64 << 20;

/// What host names of upstreams are resolved with.
const OF_RESOLVER: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Knows where the configuration is.
pub(crate) struct FileServer {
    mode: Mode,
    default_port: u16,
    /// Where the Corefile is that the command line names, once that is known: one that can be read but once (standard
    /// input, a pipe) is kept.
    plain: Mutex<Option<CorefileSource>>,
    rendering: OnceLock<(CorefileTemplate, CorefileOutput)>,
    /// What was read or looked for at the last look, good or bad: for the Corefile as it stands, and for the one that
    /// is rendered.
    of_corefile: Mutex<WatchedPaths>,
    of_template: Mutex<WatchedPaths>,
    /// What a server has served last, as that has it. It is never read here: the next server takes it as input.
    served: Mutex<Option<ServedFiles>>,
    /// The files of data that good configurations have named. A server may serve one that is not the last, so none is
    /// forgotten while there are few.
    data: Mutex<BTreeSet<String>>,
    /// The same of sockets.
    sockets: Mutex<BTreeSet<String>>,
    /// Of each thread, for whichever server.
    threads: Arc<()>,
}

impl FileServer {
    /// For servers that are started with this mode and port. `input` is all that standard input had, if that is the
    /// Corefile.
    pub(crate) fn new(mode: Mode, default_port: u16, input: Option<Vec<u8>>) -> Self {
        let plain = Mutex::new(input.as_deref().map(CorefileSource::stdin));
        Self {
            mode,
            default_port,
            plain,
            rendering: OnceLock::new(),
            of_corefile: Mutex::default(),
            of_template: Mutex::default(),
            served: Mutex::default(),
            data: Mutex::default(),
            sockets: Mutex::default(),
            threads: Arc::default(),
        }
    }

    /// Answers a server in the present runtime until it is gone.
    pub(crate) fn serve(self: &Arc<Self>, channel: Channel) {
        let file_server = self.clone();
        tokio::spawn(async move {
            let threads = Arc::new(());
            let Ok(readable) = channel.watch() else { return };
            loop {
                match channel.receive::<FileRequest>() {
                    Ok(Some((ask, passed))) => {
                        if !file_server.begin(ask, passed, threads.clone()) {
                            tracing::error!(
                                "watchdog: the server is read no files any longer, since it asks without a socket for the answer"
                            );
                            return;
                        }
                        // Who asks without end keeps nothing else of this runtime waiting.
                        tokio::task::yield_now().await;
                    }
                    Ok(None) => match readable.readable().await {
                        Ok(mut ready) => ready.clear_ready(),
                        Err(_) => return,
                    },
                    Err(ChannelError::Closed) => return,
                    Err(error) => {
                        tracing::error!(
                            "watchdog: the server is read no files any longer, since it cannot be understood: {error}"
                        );
                        return;
                    }
                }
            }
        });
    }

    /// Whoever asks too much at a time gets no answer. False if there is no socket for it, or more beside the question
    /// than belongs there.
    fn begin(self: &Arc<Self>, ask: FileRequest, passed: Vec<OwnedFd>, threads: Arc<()>) -> bool {
        let mut passed = passed.into_iter();
        let Some(reply_to) = passed.next() else { return false };
        let beside: Vec<OwnedFd> = passed.collect();
        if beside.len() > ask.beside() {
            return false;
        }
        if Arc::strong_count(&threads) > MOST_THREADS || Arc::strong_count(&self.threads) > MOST_THREADS_OF_ALL {
            return true;
        }
        let (file_server, of_all) = (self.clone(), self.threads.clone());
        let work = move || {
            let _thread = (threads, of_all);
            // Fails where nobody waits any longer.
            _ = Channel::from_fd(reply_to).map(|channel| file_server.answer(&ask, beside, &channel));
        };
        if let Err(error) = deadline::begin(work) {
            tracing::warn!("watchdog: the server's files are not read: {error}");
        }
        true
    }

    fn answer(&self, ask: &FileRequest, beside: Vec<OwnedFd>, reply_to: &Channel) -> Result<(), ChannelError> {
        let mut beside = beside.into_iter();
        let nothing_beside = || io::Error::other("nothing is beside it");
        let reply = match ask {
            FileRequest::Corefile { unless } => {
                let snapshot = self.read_corefile();
                *self.of_corefile.lock() = snapshot.watched_paths();
                return send(snapshot, unless.as_ref(), reply_to);
            }
            FileRequest::Serving => match ServedFiles::new(beside) {
                Ok(served) => {
                    *self.served.lock() = Some(served);
                    FileReply::Noted
                }
                Err(error) => {
                    // One that served before is not what serves.
                    *self.served.lock() = None;
                    FileReply::Failed { error: error.to_string() }
                }
            },
            FileRequest::LastServed => match self.served.lock().as_ref().map(ServedFiles::copies) {
                Some(Ok(files)) => {
                    let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
                    return reply_to.send(&FileReply::LastServed, &files);
                }
                Some(Err(error)) => FileReply::Failed { error: error.to_string() },
                None => FileReply::Failed { error: "no Corefile has been served yet".to_owned() },
            },
            FileRequest::Template { unless } => {
                let snapshot = self.read_template();
                *self.of_template.lock() = snapshot.watched_paths();
                return send(snapshot, unless.as_ref(), reply_to);
            }
            FileRequest::Resolver => return send(read_resolver(), None, reply_to),
            FileRequest::Data { path, unless } => match self.read_data(path, *unless) {
                Ok(Some((text, stamp))) => {
                    return reply_to.send(&FileReply::Data { changed: Some(stamp) }, &[text.as_fd()]);
                }
                Ok(None) => FileReply::Data { changed: None },
                Err(error) => FileReply::Failed { error: error.to_string() },
            },
            FileRequest::Socket { path, role } => match self.socket(path, *role) {
                Ok(socket) => return reply_to.send(&FileReply::Socket, &[socket.as_fd()]),
                Err(error) => FileReply::Failed { error: error.to_string() },
            },
            FileRequest::Write { is_refused } => {
                let text = beside.next().ok_or_else(nothing_beside).and_then(text_of);
                let written = text.map_err(|error| error.to_string()).and_then(|text| self.write(*is_refused, &text));
                FileReply::Written { error: written.err() }
            }
            FileRequest::Watch { reads } => match beside.next() {
                Some(inotify) => FileReply::Watched(Watcher::new(inotify).place(self.subjects(*reads))),
                None => FileReply::Failed { error: nothing_beside().to_string() },
            },
        };
        reply_to.send(&reply, &[])
    }

    fn rendering(&self) -> Option<&(CorefileTemplate, CorefileOutput)> {
        let Mode::Agent(agent) = &self.mode else { return None };
        Some(self.rendering.get_or_init(|| (template(agent, self.default_port), target(agent))))
    }

    /// The Corefile, and its path if it could not be had.
    fn source(&self) -> Result<CorefileSource, LoadError> {
        let corefile = match &self.mode {
            Mode::Agent(agent) => return Ok(CorefileSource::File(agent.conf.clone())),
            Mode::Plain(corefile) => corefile,
        };
        let mut plain = self.plain.lock();
        if let Some(source) = &*plain {
            return Ok(source.clone());
        }
        let source = match corefile {
            CorefileArgument::BuiltIn => Ok(CorefileSource::built_in()),
            // Only where nothing was given for it.
            CorefileArgument::Stdin => Ok(CorefileSource::stdin(&[])),
            CorefileArgument::File(path) => CorefileSource::file(path),
        }?;
        // Also of a file: a pipe that takes its place later is not waited for, but refused.
        *plain = Some(source.clone());
        Ok(source)
    }

    fn read_corefile(&self) -> HostSnapshot {
        let mut snapshot = HostSnapshot::default();
        let source = match self.source() {
            Ok(source) => source,
            Err(LoadError::Read { path, cause }) => {
                snapshot.set_text(&path, Err(cause));
                return snapshot;
            }
            Err(_) => return snapshot,
        };
        if let CorefileSource::Text { path, text } = &source {
            snapshot.is_fixed = true;
            snapshot.set_text(path, Ok(text.clone()));
        }
        let recorder = SnapshotRecorder::new(&ThisHost, snapshot);
        self.load(&source, &recorder);
        recorder.finish()
    }

    fn read_template(&self) -> HostSnapshot {
        let recorder = SnapshotRecorder::new(&ThisHost, HostSnapshot::default());
        if let Some((template, target)) = self.rendering() {
            // With the ConfigMap as it is, and without: what the server renders with the last good one reads no more
            // than both.
            let with = template.clone().refresh(&recorder).rendered;
            let without = template.render_without_config(&recorder).ok();
            for rendered in without.into_iter().chain(with) {
                let source = CorefileSource::Text { path: target.path().to_owned(), text: rendered.text };
                self.load(&source, &recorder);
            }
        }
        recorder.finish()
    }

    /// Only for what it reads; the server judges.
    fn load(&self, source: &CorefileSource, recorder: &SnapshotRecorder<'_>) {
        if source.load(self.default_port, recorder).is_ok() {
            remember(&self.data, recorder.data_files());
            remember(&self.sockets, recorder.sockets());
        }
    }

    /// A socket, if it may be had.
    fn socket(&self, named: &str, role: SocketRole) -> io::Result<OwnedFd> {
        if !self.sockets.lock().contains(named) {
            return Err(not_named());
        }
        unix_socket(&path(named), role)
    }

    /// A file of data, if it may be read and has changed.
    fn read_data(&self, named: &str, unless: Option<FileStamp>) -> io::Result<Option<(OwnedFd, FileStamp)>> {
        if !self.data.lock().contains(named) {
            return Err(not_named());
        }
        let Some(DataFile { text, stamp }) = read_data_file(&path(named), unless)? else { return Ok(None) };
        Ok(Some((file_of(|file| file.write_all(text.as_bytes()))?, stamp)))
    }

    fn write(&self, is_refused: bool, text: &str) -> Result<(), String> {
        let Some((_, target)) = self.rendering() else { return Err("no Corefile is rendered here".to_owned()) };
        if !self.follows_from_template(target, is_refused, text) {
            return Err(format!(
                "the rendered Corefile is not written to {}: it names files that the template does not, as the template is now; reload if \
                 that has just been changed",
                target.path().display()
            ));
        }
        let written = if is_refused { target.write_refused(text).map(drop) } else { target.write(text) };
        written.map_err(|error| error.to_string())
    }

    /// Whether `text` names no file beyond those that the template names as it stands. Else whoever commands the server
    /// could have any file read by an `import` in what it writes, which is read as this machine's Corefile next. Names
    /// are compared, since what cannot be read may be but a warning; and unless it is refused the text is good, so that
    /// none stands behind an error that ends the reading now and is gone then.
    fn follows_from_template(&self, target: &CorefileOutput, is_refused: bool, text: &str) -> bool {
        let template = self.read_template();
        let asked = SnapshotRecorder::new(&template, HostSnapshot::default());
        let source = CorefileSource::Text { path: target.path().to_owned(), text: text.to_owned() };
        let is_good = source.load(self.default_port, &asked).is_ok();
        (is_good || is_refused) && template.covers(&asked.finish())
    }

    /// What is to be watched for a Corefile that `reads` its files again. All by name, since a folder may hold what
    /// changes all the time; the swap of a mounted ConfigMap's or Secret's link is noticed with each name.
    fn subjects(&self, reads: bool) -> WatchedPaths {
        let mut subjects = self.of_template.lock().clone();
        if let Some((template, _)) = self.rendering() {
            subjects.add_file(template.base());
            if let Some(folder) = template.kube_dns() {
                subjects.add_folder(folder);
            }
        }
        if reads {
            if let Ok(CorefileSource::File(path)) = self.source() {
                subjects.add_file(&path);
            }
            subjects.extend(&self.of_corefile.lock());
        }
        subjects
    }
}

fn not_named() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "no good configuration has named it")
}

fn remember(known: &Mutex<BTreeSet<String>>, named: Vec<String>) {
    let mut known = known.lock();
    if known.len() > MOST_NAMES {
        known.clear();
    }
    known.extend(named);
}

fn read_resolver() -> HostSnapshot {
    let recorder = SnapshotRecorder::new(&ThisHost, HostSnapshot::default());
    for path in OF_RESOLVER {
        // Noted, whatever comes of it.
        _ = recorder.text(Path::new(path));
    }
    recorder.finish()
}

/// Files in memory that are kept for the next server.
struct ServedFiles(Vec<OwnedFd>);

impl ServedFiles {
    /// A record, and a text beside it or not.
    ///
    /// # Errors
    /// They are nothing of the kind, can be changed still, or are too large.
    fn new(files: impl Iterator<Item = OwnedFd>) -> io::Result<Self> {
        let files: Vec<OwnedFd> = files.collect();
        let mut octets = 0_u64;
        for file in &files {
            // Else the server could have it grow afterwards. What is sealed already cannot be sealed again.
            _ = fcntl_add_seals(file, SEALS);
            if !fcntl_get_seals(file)?.contains(SEALS) {
                return Err(io::Error::other("what is to be remembered can be changed still"));
            }
            octets = octets.saturating_add(u64::try_from(fstat(file)?.st_size).unwrap_or(u64::MAX));
        }
        if files.is_empty() || octets > MOST_SERVED_OCTETS {
            return Err(io::Error::other(format!(
                "a Corefile with all that it names has {octets} octets: it is not remembered"
            )));
        }
        Ok(Self(files))
    }

    fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        self.0.iter().map(OwnedFd::try_clone).collect()
    }
}

/// Passes a snapshot on, unless it has this digest: then no file of data is read, whatever its size.
fn send(mut snapshot: HostSnapshot, unless: Option<&SnapshotDigest>, reply_to: &Channel) -> Result<(), ChannelError> {
    let mut record = || {
        let mut digest = snapshot.digest()?;
        if unless.is_some_and(|seen| digest.is_unchanged_since(seen)) {
            return Ok(None);
        }
        if !snapshot.read_data(&ThisHost) {
            digest = digest.of_the_past();
        }
        io::Result::Ok(Some((digest, file_of(|file| Ok(serde_json::to_writer(file, &snapshot)?))?)))
    };
    match record() {
        Ok(Some((digest, file))) => reply_to.send(&FileReply::Record { digest }, &[file.as_fd()]),
        Ok(None) => reply_to.send(&FileReply::Unchanged, &[]),
        Err(error) => reply_to.send(&FileReply::Failed { error: error.to_string() }, &[]),
    }
}

#[cfg(test)]
mod tests;
