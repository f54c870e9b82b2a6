//! Remembers the files that belong to a configuration beside its Corefile: certificates, keys, authorities.

use super::host::ConfigurationSource;
use crate::chain::Interfaces;
use crate::corefile::{DataFile, Loader};
use crate::directives::reload::FilePart;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A machine of which is remembered what was read of it by [`Loader::read_part`].
pub(super) struct PartRecorder<'a> {
    machine: &'a dyn ConfigurationSource,
    /// `None` of a file that could not be read.
    parts: RefCell<BTreeMap<PathBuf, Option<String>>>,
}

impl<'a> PartRecorder<'a> {
    pub(super) fn new(machine: &'a dyn ConfigurationSource) -> Self {
        Self { machine, parts: RefCell::default() }
    }

    /// What was read, by path.
    pub(super) fn finish(self) -> Vec<FilePart> {
        let parts = self.parts.into_inner();
        parts.into_iter().map(|(path, text)| FilePart { path, text }).collect()
    }
}

impl Loader for PartRecorder<'_> {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.machine.read(path)
    }
    fn read_part(&self, path: &Path) -> io::Result<String> {
        let outcome = self.machine.read_part(path);
        self.parts.borrow_mut().insert(path.to_owned(), outcome.as_ref().ok().cloned());
        outcome
    }
    fn data(&self, path: &Path) -> io::Result<DataFile> {
        self.machine.data(path)
    }
    fn socket(&self, path: &Path) {
        self.machine.socket(path);
    }
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        self.machine.glob(pattern)
    }
    fn list(&self, folder: &Path) -> io::Result<()> {
        self.machine.list(folder)
    }
    fn environment(&self, name: &str) -> Option<String> {
        self.machine.environment(name)
    }
}

impl Interfaces for PartRecorder<'_> {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.machine.addresses(name)
    }
    fn index(&self, name: &str) -> Option<u32> {
        self.machine.index(name)
    }
}
