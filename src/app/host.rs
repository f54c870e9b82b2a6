//! The machine as a configuration is read from it: files, the environment and network interfaces.

use crate::chain::Interfaces;
use crate::corefile::{self, DataFile, FileStamp, Loader, SystemLoader};
use crate::directives::bind::SystemInterfaces;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// All that a configuration is read from.
pub trait ConfigurationSource: Loader + Interfaces {
    /// The text of a file, whatever it holds; what is not UTF-8 is replaced.
    fn text(&self, path: &Path) -> io::Result<String>;
    /// The stamp of a file of data, without a look at what it holds where that can be.
    fn stamp(&self, path: &Path) -> io::Result<FileStamp> {
        self.data(path).map(|file| file.stamp)
    }
}

/// This machine, as this process sees it.
pub struct ThisHost;

impl Loader for ThisHost {
    fn read(&self, path: &Path) -> io::Result<String> {
        SystemLoader.read(path)
    }
    fn data(&self, path: &Path) -> io::Result<DataFile> {
        SystemLoader.data(path)
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

impl Interfaces for ThisHost {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        SystemInterfaces.addresses(name)
    }
    fn index(&self, name: &str) -> Option<u32> {
        SystemInterfaces.index(name)
    }
}

impl ConfigurationSource for ThisHost {
    fn text(&self, path: &Path) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&corefile::read_file(path)?).into_owned())
    }
    fn stamp(&self, path: &Path) -> io::Result<FileStamp> {
        corefile::data_file_stamp(path)
    }
}
