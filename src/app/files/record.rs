//! What one process has read of the machine, for the other to read again: the same answers to the same questions.

use super::{key, path};
use crate::chain::Interfaces;
use crate::corefile::{self, Loader, SystemLoader};
use crate::directives::bind::SystemInterfaces;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// All that a configuration is read from.
pub trait Machine: Loader + Interfaces {
    /// The text of a file, whatever it holds; what is not UTF-8 is replaced.
    fn text(&self, path: &Path) -> io::Result<String>;
}

/// This machine, as this process sees it.
pub struct System;

impl Loader for System {
    fn read(&self, path: &Path) -> io::Result<String> {
        SystemLoader.read(path)
    }
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        SystemLoader.glob(pattern)
    }
    fn list(&self, folder: &Path) -> io::Result<()> {
        SystemLoader.list(folder)
    }
    fn environment(&self, name: &str) -> Option<String> {
        SystemLoader.environment(name)
    }
}

impl Interfaces for System {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        SystemInterfaces.addresses(name)
    }
    fn index(&self, name: &str) -> Option<u32> {
        SystemInterfaces.index(name)
    }
}

impl Machine for System {
    fn text(&self, path: &Path) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&corefile::read_file(path)?).into_owned())
    }
}

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Failure {
    /// The system's number.
    System(i32),
    Other(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        error.raw_os_error().map_or_else(|| Self::Other(error.to_string()), Self::System)
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::System(number) => Self::from_raw_os_error(number),
            Failure::Other(text) => Self::other(text),
        }
    }
}

type Outcome<T> = Result<T, Failure>;

/// Answers by question. Environment and program are the same in both processes, so the environment is asked where it is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The Corefile is no file that could be read once more, but a pipe, standard input, or in the program.
    pub is_fixed: bool,
    texts: BTreeMap<String, Outcome<String>>,
    files: BTreeMap<String, Outcome<String>>,
    folders: BTreeMap<String, Outcome<()>>,
    globs: BTreeMap<String, Outcome<Vec<String>>>,
    addresses: BTreeMap<String, Option<Vec<IpAddr>>>,
    indices: BTreeMap<String, Option<u32>>,
}

impl Record {
    /// Notes a text that is in no file.
    pub fn set_text(&mut self, path: &Path, text: io::Result<String>) {
        self.texts.insert(key(path), text.map_err(Failure::from));
    }

    /// Whether every file, folder and pattern that `other` was asked for is in this one, whatever came of it.
    pub fn covers(&self, other: &Self) -> bool {
        fn has_all<A, B>(ours: &BTreeMap<String, A>, theirs: &BTreeMap<String, B>) -> bool {
            theirs.keys().all(|asked| ours.contains_key(asked))
        }
        has_all(&self.texts, &other.texts)
            && has_all(&self.files, &other.files)
            && has_all(&self.folders, &other.folders)
            && has_all(&self.globs, &other.globs)
    }
}

/// The answer of `kind` to `asked`.
fn replay<T: Clone>(kind: &BTreeMap<String, Outcome<T>>, asked: &Path) -> io::Result<T> {
    match kind.get(&key(asked)) {
        Some(outcome) => Ok(outcome.clone()?),
        None => {
            Err(io::Error::other("the watchdog has not read it with the rest, which may have changed meanwhile; reload again"))
        }
    }
}

impl Loader for Record {
    fn read(&self, path: &Path) -> io::Result<String> {
        replay(&self.files, path)
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

impl Interfaces for Record {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.addresses.get(name).cloned().flatten()
    }
    fn index(&self, name: &str) -> Option<u32> {
        self.indices.get(name).copied().flatten()
    }
}

impl Machine for Record {
    fn text(&self, path: &Path) -> io::Result<String> {
        replay(&self.texts, path)
    }
}

/// Asks a machine, and writes down what it says. What is asked twice is read once.
pub struct Recorder<'a> {
    machine: &'a dyn Machine,
    record: RefCell<Record>,
}

impl<'a> Recorder<'a> {
    pub fn new(machine: &'a dyn Machine, record: Record) -> Self {
        Self { machine, record: RefCell::new(record) }
    }
    pub fn finish(self) -> Record {
        self.record.into_inner()
    }
}

/// The answer noted in the map that `kind` picks, else what `ask` says now, noted.
fn note<T: Clone>(
    record: &RefCell<Record>,
    kind: impl Fn(&mut Record) -> &mut BTreeMap<String, T>,
    asked: String,
    ask: impl FnOnce() -> T,
) -> T {
    if let Some(known) = kind(&mut record.borrow_mut()).get(&asked) {
        return known.clone();
    }
    let answer = ask();
    kind(&mut record.borrow_mut()).insert(asked, answer.clone());
    answer
}

impl Loader for Recorder<'_> {
    fn read(&self, path: &Path) -> io::Result<String> {
        let read = || self.machine.read(path).map_err(Failure::from);
        Ok(note(&self.record, |record| &mut record.files, key(path), read)?)
    }
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        let glob = || Ok(self.machine.glob(pattern)?.iter().map(|found| key(found)).collect::<Vec<String>>());
        let found = note(&self.record, |record| &mut record.globs, key(pattern), || glob().map_err(|e: io::Error| e.into()))?;
        Ok(found.iter().map(|key| path(key)).collect())
    }
    fn list(&self, folder: &Path) -> io::Result<()> {
        let list = || self.machine.list(folder).map_err(Failure::from);
        Ok(note(&self.record, |record| &mut record.folders, key(folder), list)?)
    }
    fn environment(&self, name: &str) -> Option<String> {
        self.machine.environment(name)
    }
}

impl Interfaces for Recorder<'_> {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        note(&self.record, |record| &mut record.addresses, name.to_owned(), || self.machine.addresses(name))
    }
    fn index(&self, name: &str) -> Option<u32> {
        note(&self.record, |record| &mut record.indices, name.to_owned(), || self.machine.index(name))
    }
}

impl Machine for Recorder<'_> {
    fn text(&self, path: &Path) -> io::Result<String> {
        Ok(note(&self.record, |record| &mut record.texts, key(path), || self.machine.text(path).map_err(Failure::from))?)
    }
}

#[cfg(test)]
mod tests {
    use super::{Machine, Record, Recorder, System};
    use crate::chain::Interfaces;
    use crate::corefile::Loader;
    use std::fs;
    use std::path::Path;

    /// What both say to the same questions.
    fn answers(machine: &dyn Machine, folder: &Path) -> Vec<String> {
        let at = |name: &str| folder.join(name);
        vec![
            format!("{:?}", machine.read(&at("text")).map_err(|e| e.to_string())),
            format!("{:?}", machine.read(&at("absent")).map_err(|e| (e.kind(), e.to_string()))),
            format!("{:?}", machine.read(&at("octets")).map_err(|e| e.to_string())),
            format!("{:?}", machine.text(&at("octets")).map_err(|e| e.to_string())),
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
        let recorder = Recorder::new(&System, Record::default());
        let said = answers(&System, folder.path());
        assert_eq!(answers(&recorder, folder.path()), said);
        let octets = serde_json::to_vec(&recorder.finish()).unwrap();
        let record: Record = serde_json::from_slice(&octets).unwrap();
        fs::remove_file(folder.path().join("text")).unwrap();
        assert_eq!(answers(&record, folder.path()), said);
    }

    #[test]
    fn what_was_not_recorded_is_an_error_that_says_so() {
        let record = Record::default();
        assert!(record.read(Path::new("/etc/hosts")).unwrap_err().to_string().contains("has not read it"));
        assert_eq!(record.addresses("lo"), None);
    }

    #[test]
    fn what_is_asked_twice_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "first").unwrap();
        let recorder = Recorder::new(&System, Record::default());
        assert_eq!(recorder.read(&file).unwrap(), "first");
        fs::write(&file, "second").unwrap();
        assert_eq!(recorder.read(&file).unwrap(), "first");
    }
}
