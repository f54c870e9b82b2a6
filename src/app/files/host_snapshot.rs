//! What one process has read of the machine. The other process gets the same answers to the same questions from it.

use super::{key, path};
use crate::app::host::ConfigurationSource;
use crate::chain::Interfaces;
use crate::corefile::{DataFile, Loader, SystemLoader};
use crate::kube_dns::watch::WatchedPaths;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha512};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum ReadFailure {
    /// The system's number.
    Os(i32),
    Other(String),
}

impl From<io::Error> for ReadFailure {
    fn from(error: io::Error) -> Self {
        error.raw_os_error().map_or_else(|| Self::Other(error.to_string()), Self::Os)
    }
}

impl From<ReadFailure> for io::Error {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Os(number) => Self::from_raw_os_error(number),
            ReadFailure::Other(text) => Self::other(text),
        }
    }
}

type ReadResult<T> = Result<T, ReadFailure>;

/// Configurations of two snapshots that have the same are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotDigest {
    /// Of all answers but those about files of data.
    configuration: String,
    /// Of what is known of files of data without reading them; `None` if that makes no difference.
    data: Option<String>,
}

impl SnapshotDigest {
    /// That of a good configuration: who serves it reads its files of data again by itself. A refused one may lack one.
    #[must_use]
    pub fn without_data(&self) -> Self {
        Self { configuration: self.configuration.clone(), data: None }
    }

    /// Whether a snapshot that has this digest, which is that of the machine as it is, says the same as the one that
    /// had `seen`.
    pub fn is_unchanged_since(&self, seen: &Self) -> bool {
        self.configuration == seen.configuration && (seen.data.is_none() || self.data == seen.data)
    }

    /// No machine has this digest: what was read is read again at the next look.
    #[must_use]
    pub fn of_the_past(self) -> Self {
        Self { data: Some(String::new()), ..self }
    }
}

fn digest_of(answers: &impl Serialize) -> io::Result<String> {
    let mut hash = Sha512::new();
    serde_json::to_writer(&mut hash, answers)?;
    Ok(HEXLOWER.encode(&hash.finalize()))
}

/// Answers by question. Environment and program are the same in both processes, so the environment is asked where it is
/// wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSnapshot {
    /// The Corefile is no file that could be read once more, but a pipe, standard input, or in the program.
    pub is_fixed: bool,
    texts: BTreeMap<String, ReadResult<String>>,
    files: BTreeMap<String, ReadResult<String>>,
    data: BTreeMap<String, ReadResult<DataFile>>,
    sockets: BTreeSet<String>,
    folders: BTreeMap<String, ReadResult<()>>,
    globs: BTreeMap<String, ReadResult<Vec<String>>>,
    addresses: BTreeMap<String, Option<Vec<IpAddr>>>,
    indices: BTreeMap<String, Option<u32>>,
}

impl HostSnapshot {
    /// Notes a text that is in no file.
    pub fn set_text(&mut self, path: &Path, text: io::Result<String>) {
        self.texts.insert(key(path), text.map_err(ReadFailure::from));
    }

    /// The digest of all answers; of those about files of data as they are before [`HostSnapshot::read_data`].
    ///
    /// # Errors
    /// None that is known.
    pub fn digest(&self) -> io::Result<SnapshotDigest> {
        let Self { is_fixed, texts, files, data, sockets, folders, globs, addresses, indices } = self;
        Ok(SnapshotDigest {
            configuration: digest_of(&(is_fixed, texts, files, sockets, folders, globs, addresses, indices))?,
            data: Some(digest_of(data)?),
        })
    }

    /// Reads what the files of data hold of which the stamps alone are known. False if one cannot be read after all:
    /// the digest does not tell.
    pub fn read_data(&mut self, machine: &dyn ConfigurationSource) -> bool {
        let mut is_read = true;
        for (asked, outcome) in self.data.iter_mut().filter(|(_, outcome)| outcome.is_ok()) {
            *outcome = machine.data(&path(asked)).map_err(ReadFailure::from);
            is_read &= outcome.is_ok();
        }
        is_read
    }

    /// What another answer may come of: the files that were read or looked for, and the folders that were searched.
    /// Files of data are read again by whoever has them.
    pub(crate) fn watched_paths(&self) -> WatchedPaths {
        let mut paths = WatchedPaths::default();
        let texts = self.texts.keys().filter(|_| !self.is_fixed);
        texts.chain(self.files.keys()).for_each(|asked| paths.add_file(&path(asked)));
        let found = self.globs.values().flatten().flatten();
        let folders = self.globs.keys().chain(found).map(|asked| path(asked));
        folders.filter_map(|path| Some(path.parent()?.to_owned())).for_each(|folder| paths.add_folder(&folder));
        self.folders.keys().for_each(|folder| paths.add_folder(&path(folder)));
        paths
    }

    /// Whether every file, socket, folder and pattern that `other` was asked for is in this one, whatever came of it.
    pub fn covers(&self, other: &Self) -> bool {
        fn has_all<A, B>(ours: &BTreeMap<String, A>, theirs: &BTreeMap<String, B>) -> bool {
            theirs.keys().all(|asked| ours.contains_key(asked))
        }
        has_all(&self.texts, &other.texts)
            && has_all(&self.files, &other.files)
            && has_all(&self.data, &other.data)
            && self.sockets.is_superset(&other.sockets)
            && has_all(&self.folders, &other.folders)
            && has_all(&self.globs, &other.globs)
    }
}

/// The answer of `kind` to `asked`.
fn replay<T: Clone>(kind: &BTreeMap<String, ReadResult<T>>, asked: &Path) -> io::Result<T> {
    match kind.get(&key(asked)) {
        Some(outcome) => Ok(outcome.clone()?),
        None => Err(not_read()),
    }
}

fn not_read() -> io::Error {
    io::Error::other("the watchdog has not read it with the rest, which may have changed meanwhile; reload again")
}

impl Loader for HostSnapshot {
    fn read(&self, path: &Path) -> io::Result<String> {
        replay(&self.files, path)
    }
    fn data(&self, path: &Path) -> io::Result<DataFile> {
        replay(&self.data, path)
    }
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(replay(&self.globs, pattern)?.iter().map(|key| path(key)).collect())
    }
    fn list(&self, folder: &Path) -> io::Result<()> {
        replay(&self.folders, folder)
    }
    fn environment(&self, name: &str) -> Option<String> {
        SystemLoader.environment(name)
    }
}

impl Interfaces for HostSnapshot {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.addresses.get(name).cloned().flatten()
    }
    fn index(&self, name: &str) -> Option<u32> {
        self.indices.get(name).copied().flatten()
    }
}

impl ConfigurationSource for HostSnapshot {
    fn text(&self, path: &Path) -> io::Result<String> {
        replay(&self.texts, path)
    }
}

/// Asks a machine, and writes down what it says. What is asked twice is read once.
pub struct SnapshotRecorder<'a> {
    machine: &'a dyn ConfigurationSource,
    snapshot: RefCell<HostSnapshot>,
}

impl<'a> SnapshotRecorder<'a> {
    pub fn new(machine: &'a dyn ConfigurationSource, snapshot: HostSnapshot) -> Self {
        Self { machine, snapshot: RefCell::new(snapshot) }
    }
    /// The files of data that were asked for until now, as a record calls them.
    pub fn data_files(&self) -> Vec<String> {
        self.snapshot.borrow().data.keys().cloned().collect()
    }
    /// The sockets that were named until now.
    pub fn sockets(&self) -> Vec<String> {
        self.snapshot.borrow().sockets.iter().cloned().collect()
    }
    pub fn finish(self) -> HostSnapshot {
        self.snapshot.into_inner()
    }
}

/// The answer noted in the map that `kind` picks, else what `ask` says now, noted.
fn note<T: Clone>(
    snapshot: &RefCell<HostSnapshot>,
    kind: impl Fn(&mut HostSnapshot) -> &mut BTreeMap<String, T>,
    asked: String,
    ask: impl FnOnce() -> T,
) -> T {
    if let Some(known) = kind(&mut snapshot.borrow_mut()).get(&asked) {
        return known.clone();
    }
    let answer = ask();
    kind(&mut snapshot.borrow_mut()).insert(asked, answer.clone());
    answer
}

impl Loader for SnapshotRecorder<'_> {
    fn read(&self, path: &Path) -> io::Result<String> {
        let read = || self.machine.read(path).map_err(ReadFailure::from);
        Ok(note(&self.snapshot, |snapshot| &mut snapshot.files, key(path), read)?)
    }
    /// Without its text, which whoever gets the snapshot needs, and only if it has changed
    /// ([`HostSnapshot::read_data`]): to read it, and to make a table of it here too, takes its time and its memory.
    fn data(&self, path: &Path) -> io::Result<DataFile> {
        let asked = key(path);
        if !self.snapshot.borrow().data.contains_key(&asked) {
            let file = self.machine.stamp(path).map(|stamp| DataFile { text: String::new(), stamp });
            self.snapshot.borrow_mut().data.insert(asked, file.map_err(ReadFailure::from));
        }
        replay(&self.snapshot.borrow().data, path)
    }
    fn socket(&self, path: &Path) {
        self.snapshot.borrow_mut().sockets.insert(key(path));
    }
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        let glob = || Ok(self.machine.glob(pattern)?.iter().map(|found| key(found)).collect::<Vec<String>>());
        let found = note(
            &self.snapshot,
            |snapshot| &mut snapshot.globs,
            key(pattern),
            || glob().map_err(|e: io::Error| e.into()),
        )?;
        Ok(found.iter().map(|key| path(key)).collect())
    }
    fn list(&self, folder: &Path) -> io::Result<()> {
        let list = || self.machine.list(folder).map_err(ReadFailure::from);
        Ok(note(&self.snapshot, |snapshot| &mut snapshot.folders, key(folder), list)?)
    }
    fn environment(&self, name: &str) -> Option<String> {
        self.machine.environment(name)
    }
}

impl Interfaces for SnapshotRecorder<'_> {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        note(&self.snapshot, |snapshot| &mut snapshot.addresses, name.to_owned(), || self.machine.addresses(name))
    }
    fn index(&self, name: &str) -> Option<u32> {
        note(&self.snapshot, |snapshot| &mut snapshot.indices, name.to_owned(), || self.machine.index(name))
    }
}

impl ConfigurationSource for SnapshotRecorder<'_> {
    fn text(&self, path: &Path) -> io::Result<String> {
        Ok(note(
            &self.snapshot,
            |snapshot| &mut snapshot.texts,
            key(path),
            || self.machine.text(path).map_err(ReadFailure::from),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::{ConfigurationSource, HostSnapshot, SnapshotRecorder};
    use crate::app::host::ThisHost;
    use crate::chain::Interfaces;
    use crate::corefile::{DataFile, Loader};
    use std::fs;
    use std::path::Path;

    /// What both say to the same questions.
    fn answers(machine: &dyn ConfigurationSource, folder: &Path) -> Vec<String> {
        let at = |name: &str| folder.join(name);
        vec![
            format!("{:?}", machine.read(&at("text")).map_err(|e| e.to_string())),
            format!("{:?}", machine.read(&at("absent")).map_err(|e| (e.kind(), e.to_string()))),
            format!("{:?}", machine.read(&at("octets")).map_err(|e| e.to_string())),
            format!("{:?}", machine.text(&at("octets")).map_err(|e| e.to_string())),
            format!("{:?}", machine.data(&at("octets")).map(|file| file.stamp).map_err(|e| e.to_string())),
            format!("{:?}", machine.data(&at("absent")).map_err(|e| (e.kind(), e.to_string()))),
            format!("{:?}", machine.glob(&at("*")).map_err(|e| e.to_string())),
            format!("{:?}", machine.glob(&at("[")).map_err(|e| e.to_string())),
            format!("{:?}", machine.list(folder).map_err(|e| e.to_string())),
            format!("{:?}", machine.list(&at("absent")).map_err(|e| e.to_string())),
            format!("{:?} {:?}", machine.addresses("lo"), machine.index("lo")),
            format!("{:?} {:?}", machine.addresses("no/such"), machine.index("no/such")),
            format!("{:?}", machine.environment("PATH")),
        ]
    }

    #[test]
    fn a_record_answers_as_the_machine_did_also_after_its_way_as_octets() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("text"), "ü").unwrap();
        fs::write(folder.path().join("octets"), b"a\xff").unwrap();
        let recorder = SnapshotRecorder::new(&ThisHost, HostSnapshot::default());
        let said = answers(&ThisHost, folder.path());
        assert_eq!(answers(&recorder, folder.path()), said);
        let mut snapshot = recorder.finish();
        snapshot.read_data(&ThisHost);
        let octets = serde_json::to_vec(&snapshot).unwrap();
        let snapshot: HostSnapshot = serde_json::from_slice(&octets).unwrap();
        fs::remove_file(folder.path().join("text")).unwrap();
        assert_eq!(answers(&snapshot, folder.path()), said);
    }

    #[test]
    fn what_files_of_data_hold_is_for_who_gets_the_record_and_not_for_who_makes_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hosts");
        fs::write(&file, b"192.0.2.1 a\xff\n").unwrap();
        let recorder = SnapshotRecorder::new(&ThisHost, HostSnapshot::default());
        let (text, stamp) = recorder.data(&file).map(|data| (data.text, data.stamp)).unwrap();
        assert_eq!((text.as_str(), recorder.data(&file).unwrap().stamp), ("", stamp));
        let mut given = recorder.finish();
        given.read_data(&ThisHost);
        assert_eq!(given.data(&file).unwrap(), DataFile { text: "192.0.2.1 a\u{fffd}\n".to_owned(), stamp });
    }

    #[test]
    fn what_was_not_recorded_is_an_error_that_says_so() {
        let snapshot = HostSnapshot::default();
        assert!(snapshot.read(Path::new("/etc/hosts")).unwrap_err().to_string().contains("has not read it"));
        assert_eq!(snapshot.addresses("lo"), None);
    }

    #[test]
    fn what_is_asked_twice_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "first").unwrap();
        let recorder = SnapshotRecorder::new(&ThisHost, HostSnapshot::default());
        assert_eq!(recorder.read(&file).unwrap(), "first");
        fs::write(&file, "second").unwrap();
        assert_eq!(recorder.read(&file).unwrap(), "first");
    }
}
