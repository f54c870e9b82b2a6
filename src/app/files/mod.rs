//! The configuration's files. The server may open none of them ([`crate::sandbox`]), so the watchdog reads and writes
//! them for it.
//!
//! The server asks for all files of one kind at once, and gets a [`HostSnapshot`]. It cannot name a path: the watchdog
//! finds out by itself which files belong to the configuration ([`file_server`]). Only of files of data, which
//! directives read again while they serve, one is asked for by name, and read if a good configuration has named it. The
//! same holds for sockets with a path, which directives connect to.
//!
//! Each question carries a socket for its answer, so that one whose file system hangs holds up no other.

mod file_server;
mod host_snapshot;

pub(crate) use file_server::FileServer;
pub use host_snapshot::{HostSnapshot, SnapshotDigest, SnapshotRecorder};

use crate::app::host::ConfigurationSource;
use crate::corefile::{DataFile, FileStamp, SocketRole, read_at_most};
use crate::kube_dns::WriteError;
use crate::kube_dns::watch::PlacedWatches;
use crate::watchdog::channel::{Channel, ChannelError, memory_file};
use crate::watchdog::control::Message;
use rustix::fs::fcntl_get_seals;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a thread waits at most for an answer. Whoever needs it sooner waits for that thread no longer
/// ([`crate::deadline`]).
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// What the server asks. Beside it is a socket for the answer and, where that is said, one thing more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FileRequest {
    /// Read the Corefile as it stands, and what it names, unless all of that still has this digest.
    Corefile { unless: Option<SnapshotDigest> },
    /// Read the template and the kube-dns ConfigMap, and what the Corefile rendered from them names, unless all of that
    /// still has this digest.
    Template { unless: Option<SnapshotDigest> },
    /// Read what host names of upstreams are resolved with.
    Resolver,
    /// Read a file of data again that a good configuration has named (`hosts`), unless it still has this stamp.
    Data { path: String, unless: Option<FileStamp> },
    /// Connect to a socket that a good configuration has named (`dnstap`), or listen there.
    Socket { path: String, role: SocketRole },
    /// Write the rendered Corefile, whose text is beside this; one that is refused beside it.
    Write { is_refused: bool },
    /// Watch the files that are read, in the inotify instance beside this. Of those of the Corefile itself only if it
    /// `reads` it.
    Watch { reads: bool },
}

/// What the watchdog answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FileReply {
    /// The record is beside this.
    Record {
        digest: SnapshotDigest,
    },
    /// It still has the digest that was asked with.
    Unchanged,
    /// The text is beside this if it has changed.
    Data {
        changed: Option<FileStamp>,
    },
    /// The socket is beside this.
    Socket,
    /// Or why not.
    Written {
        error: Option<String>,
    },
    Watched(PlacedWatches),
    Failed {
        error: String,
    },
}

impl Message for FileRequest {
    fn shortened(&self) -> Self {
        self.clone()
    }
}

impl Message for FileReply {
    fn shortened(&self) -> Self {
        self.clone()
    }
}

/// What the watchdog has read.
pub struct Recorded {
    pub snapshot: HostSnapshot,
    pub digest: SnapshotDigest,
}

/// The server's end. Whatever it is asked may take as long as the file system takes.
pub struct FileClient(Channel);

impl FileClient {
    /// `end` is what the watchdog has passed.
    ///
    /// # Errors
    /// It is no such socket.
    pub fn new(end: OwnedFd) -> io::Result<Self> {
        Channel::from_fd(end).map(Self)
    }

    /// The Corefile as it stands, and what it names.
    ///
    /// # Errors
    /// As of each of these: the watchdog does not answer. What could not be read is in the record.
    pub fn corefile(&self) -> io::Result<Recorded> {
        self.record(&FileRequest::Corefile { unless: None })?.ok_or_else(another_build)
    }

    /// The same if anything of it has changed since it had the digest `seen`.
    ///
    /// # Errors
    /// See [`FileClient::corefile`].
    pub fn corefile_unless(&self, seen: Option<&SnapshotDigest>) -> io::Result<Option<Recorded>> {
        self.record(&FileRequest::Corefile { unless: seen.cloned() })
    }

    /// The template and the ConfigMap, and what the Corefile rendered from them names.
    ///
    /// # Errors
    /// See [`FileClient::corefile`].
    pub fn template(&self) -> io::Result<Recorded> {
        self.record(&FileRequest::Template { unless: None })?.ok_or_else(another_build)
    }

    /// The same if anything of it has changed since it had the digest `seen`.
    ///
    /// # Errors
    /// See [`FileClient::corefile`].
    pub fn template_unless(&self, seen: Option<&SnapshotDigest>) -> io::Result<Option<Recorded>> {
        self.record(&FileRequest::Template { unless: seen.cloned() })
    }

    /// /etc/resolv.conf or /etc/hosts as it stands now.
    ///
    /// # Errors
    /// See [`FileClient::corefile`]; that of the file.
    pub fn of_resolver(&self, path: &Path) -> io::Result<String> {
        self.record(&FileRequest::Resolver)?.ok_or_else(another_build)?.snapshot.text(path)
    }

    /// What a file of data holds that the configuration has named, unless it still has this stamp.
    ///
    /// # Errors
    /// See [`FileClient::corefile`]; that of the file; no good configuration has named it.
    pub fn data(&self, path: &Path, unless: Option<FileStamp>) -> io::Result<Option<DataFile>> {
        match self.ask(&FileRequest::Data { path: key(path), unless }, None)? {
            (FileReply::Data { changed: None }, _) => Ok(None),
            (FileReply::Data { changed: Some(stamp) }, Some(text)) => {
                Ok(Some(DataFile { text: text_of(text)?, stamp }))
            }
            (reply, _) => Err(unexpected(reply)),
        }
    }

    /// A socket with a path that the configuration has named.
    ///
    /// # Errors
    /// See [`FileClient::corefile`]; those of connect(2) and bind(2); no good configuration has named it.
    pub fn socket(&self, path: &Path, role: SocketRole) -> io::Result<OwnedFd> {
        match self.ask(&FileRequest::Socket { path: key(path), role }, None)? {
            (FileReply::Socket, Some(socket)) => Ok(socket),
            (reply, _) => Err(unexpected(reply)),
        }
    }

    /// Writes the rendered Corefile.
    ///
    /// # Errors
    /// It could not be written.
    pub fn write(&self, text: &str) -> Result<(), WriteError> {
        self.write_as(false, text)
    }

    /// Writes what is refused beside it.
    ///
    /// # Errors
    /// It could not be written.
    pub fn write_refused(&self, text: &str) -> Result<(), WriteError> {
        self.write_as(true, text)
    }

    /// Has the files that are read watched in this inotify instance.
    ///
    /// # Errors
    /// See [`FileClient::corefile`].
    pub fn watch(&self, reads: bool, inotify: BorrowedFd<'_>) -> io::Result<PlacedWatches> {
        match self.ask(&FileRequest::Watch { reads }, Some(inotify))? {
            (FileReply::Watched(placed), _) => Ok(placed),
            (reply, _) => Err(unexpected(reply)),
        }
    }

    fn record(&self, ask: &FileRequest) -> io::Result<Option<Recorded>> {
        match self.ask(ask, None)? {
            (FileReply::Record { digest }, Some(snapshot)) => {
                // Not `from_reader`, which takes each octet of a hosts file by itself.
                let mut octets = Vec::new();
                File::from(snapshot).read_to_end(&mut octets)?;
                Ok(Some(Recorded { snapshot: serde_json::from_slice(&octets)?, digest }))
            }
            (FileReply::Unchanged, _) => Ok(None),
            (reply, _) => Err(unexpected(reply)),
        }
    }

    fn write_as(&self, is_refused: bool, text: &str) -> Result<(), WriteError> {
        let ask = || {
            let text = file_of(|file| file.write_all(text.as_bytes()))?;
            self.ask(&FileRequest::Write { is_refused }, Some(text.as_fd()))
        };
        match ask() {
            Ok((FileReply::Written { error: None }, _)) => Ok(()),
            Ok((FileReply::Written { error: Some(error) }, _)) => Err(WriteError::Told(error)),
            Ok((reply, _)) => Err(WriteError::Told(unexpected(reply).to_string())),
            Err(error) => Err(WriteError::Told(format!("the watchdog does not write the rendered Corefile: {error}"))),
        }
    }

    fn ask(&self, ask: &FileRequest, beside: Option<BorrowedFd<'_>>) -> io::Result<(FileReply, Option<OwnedFd>)> {
        let failed = |error: ChannelError| io::Error::other(format!("the watchdog does not read it: {error}"));
        let (here, there) = Channel::pair()?;
        let there = there.into_fd();
        let descriptors: Vec<BorrowedFd<'_>> = [there.as_fd()].into_iter().chain(beside).collect();
        self.0.send(ask, &descriptors).map_err(failed)?;
        // So that the end of the other process, or of its thread, is the end of this socket.
        drop(there);
        let (reply, passed) = here.wait(PATIENCE).map_err(failed)?;
        Ok((reply, passed.into_iter().next()))
    }
}

fn unexpected(reply: FileReply) -> io::Error {
    match reply {
        FileReply::Failed { error } => io::Error::other(error),
        _ => another_build(),
    }
}

fn another_build() -> io::Error {
    io::Error::other("the watchdog answers something else; both processes must be of the same build")
}

/// A file without a name, to be read from its beginning.
fn file_of(fill: impl FnOnce(&mut io::BufWriter<File>) -> io::Result<()>) -> io::Result<OwnedFd> {
    memory_file("configuration", fill)
}

/// The text that [`file_of`] has written, at most as long as a Corefile may be. Of nothing but a file in memory: a pipe
/// may never have anything to say, and the thread would wait for it.
fn text_of(file: OwnedFd) -> io::Result<String> {
    fcntl_get_seals(&file)
        .map_err(|error| io::Error::other(format!("what is beside it is no file in memory ({error})")))?;
    Ok(String::from_utf8_lossy(&read_at_most(File::from(file))?).into_owned())
}

/// What a path is called in a record: names need not be UTF-8, and JSON is.
fn key(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn path(key: &str) -> PathBuf {
    PathBuf::from(key)
}
