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
mod record;

pub(crate) use file_server::FileServer;
pub use host_snapshot::{HostSnapshot, SnapshotDigest, SnapshotRecorder};
pub use record::Recorded;

use crate::app::host::ConfigurationSource;
use crate::app::served_record::ServedRecord;
use crate::corefile::{DataFile, FileStamp, SocketRole, read_at_most};
use crate::kube_dns::WriteError;
use crate::kube_dns::watch::PlacedWatches;
use crate::watchdog::channel::{Channel, ChannelError, memory_file};
use crate::watchdog::control::Message;
use rustix::fs::fcntl_get_seals;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
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
    /// Remember for the next server what serves: the record that it was read from is beside this and, if it was
    /// rendered, its text.
    Serving,
    /// Give back what was remembered last.
    LastServed,
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
    /// It is remembered.
    Noted,
    /// The record is beside this and, if it was rendered, the text.
    LastServed,
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

impl FileRequest {
    /// How many descriptors may come with it, besides the socket for the answer.
    fn beside(&self) -> usize {
        match self {
            Self::Serving => 2,
            Self::Write { .. } | Self::Watch { .. } => 1,
            Self::Corefile { .. }
            | Self::LastServed
            | Self::Template { .. }
            | Self::Resolver
            | Self::Data { .. }
            | Self::Socket { .. } => 0,
        }
    }
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

    /// Has what serves remembered for the next server.
    ///
    /// # Errors
    /// See [`FileClient::corefile`]; it is too large to be remembered.
    pub fn note_serving(&self, served: &ServedRecord) -> io::Result<()> {
        let text = served.text().map(|text| file_of(|file| file.write_all(text.as_bytes()))).transpose()?;
        let beside = [served.record()].into_iter().chain(text.as_ref().map(AsFd::as_fd)).collect::<Vec<_>>();
        match self.ask(&FileRequest::Serving, &beside)? {
            (FileReply::Noted, _) => Ok(()),
            (reply, _) => Err(unexpected(reply)),
        }
    }

    /// What served last, as it was when it was loaded, and its text if it stood in no file.
    ///
    /// # Errors
    /// See [`FileClient::corefile`]; nothing is remembered.
    pub fn last_served(&self) -> io::Result<(Recorded, Option<String>)> {
        let (reply, passed) = self.ask(&FileRequest::LastServed, &[])?;
        let mut passed = passed.into_iter();
        match (reply, passed.next()) {
            (FileReply::LastServed, Some(record)) => {
                check_is_in_memory(&record)?;
                let snapshot = read_record(&record)?;
                let digest = snapshot.digest()?;
                Ok((Recorded::new(snapshot, digest, record), passed.next().map(text_of).transpose()?))
            }
            (reply, _) => Err(unexpected(reply)),
        }
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
        let (reply, passed) = self.ask(&FileRequest::Data { path: key(path), unless }, &[])?;
        match (reply, passed.into_iter().next()) {
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
        let (reply, passed) = self.ask(&FileRequest::Socket { path: key(path), role }, &[])?;
        match (reply, passed.into_iter().next()) {
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
        match self.ask(&FileRequest::Watch { reads }, &[inotify])? {
            (FileReply::Watched(placed), _) => Ok(placed),
            (reply, _) => Err(unexpected(reply)),
        }
    }

    fn record(&self, ask: &FileRequest) -> io::Result<Option<Recorded>> {
        let (reply, passed) = self.ask(ask, &[])?;
        match (reply, passed.into_iter().next()) {
            (FileReply::Record { digest }, Some(record)) => {
                Ok(Some(Recorded::new(read_record(&record)?, digest, record)))
            }
            (FileReply::Unchanged, _) => Ok(None),
            (reply, _) => Err(unexpected(reply)),
        }
    }

    fn write_as(&self, is_refused: bool, text: &str) -> Result<(), WriteError> {
        let ask = || {
            let text = file_of(|file| file.write_all(text.as_bytes()))?;
            self.ask(&FileRequest::Write { is_refused }, &[text.as_fd()])
        };
        match ask() {
            Ok((FileReply::Written { error: None }, _)) => Ok(()),
            Ok((FileReply::Written { error: Some(error) }, _)) => Err(WriteError::Told(error)),
            Ok((reply, _)) => Err(WriteError::Told(unexpected(reply).to_string())),
            Err(error) => Err(WriteError::Told(format!("the watchdog does not write the rendered Corefile: {error}"))),
        }
    }

    fn ask(&self, ask: &FileRequest, beside: &[BorrowedFd<'_>]) -> io::Result<(FileReply, Vec<OwnedFd>)> {
        let failed = |error: ChannelError| io::Error::other(format!("the watchdog does not read it: {error}"));
        let (here, there) = Channel::pair()?;
        let there = there.into_fd();
        let descriptors: Vec<BorrowedFd<'_>> = [there.as_fd()].iter().chain(beside).copied().collect();
        self.0.send(ask, &descriptors).map_err(failed)?;
        // So that the end of the other process, or of its thread, is the end of this socket.
        drop(there);
        here.wait(PATIENCE).map_err(failed)
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

/// The text that [`file_of`] has written, at most as long as a Corefile may be.
fn text_of(file: OwnedFd) -> io::Result<String> {
    check_is_in_memory(&file)?;
    let mut file = File::from(file);
    file.rewind()?;
    Ok(String::from_utf8_lossy(&read_at_most(file)?).into_owned())
}

/// A pipe may never have anything to say, and whoever reads it would wait for that.
fn check_is_in_memory(file: &OwnedFd) -> io::Result<()> {
    let not_in_memory = |error| io::Error::other(format!("what is beside it is no file in memory ({error})"));
    fcntl_get_seals(file).map(drop).map_err(not_in_memory)
}

/// What a snapshot was passed in, from its beginning: a server may have read it before.
fn read_record(record: &OwnedFd) -> io::Result<HostSnapshot> {
    let mut file = File::from(record.try_clone()?);
    file.rewind()?;
    // Not `from_reader`, which takes each octet of a hosts file by itself.
    let mut octets = Vec::new();
    file.read_to_end(&mut octets)?;
    Ok(serde_json::from_slice(&octets)?)
}

/// What a path is called in a record: names need not be UTF-8, and JSON is.
fn key(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn path(key: &str) -> PathBuf {
    PathBuf::from(key)
}
