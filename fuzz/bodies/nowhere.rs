//! A machine for targets that need none.

use nodelocaldns::chain::Interfaces;
use nodelocaldns::corefile::Loader;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// No files, no environment, no interfaces.
pub struct Nowhere;

impl Loader for Nowhere {
    fn read(&self, _: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn glob(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
    fn environment(&self, _: &str) -> Option<String> {
        None
    }
}

impl Interfaces for Nowhere {
    fn addresses(&self, _: &str) -> Option<Vec<IpAddr>> {
        None
    }
}
