//! The file that holds the watchdog's process ID (`-pidfile`).

use crate::deadline;
use rustix::fs::{FileType, Mode, OFlags, fstat, ftruncate, open};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long its folder's file system may take. The node's DNS does not wait for it any longer.
const LIMIT: Duration = Duration::from_secs(2);

/// Readable by everybody.
const MODE: Mode = Mode::from_raw_mode(0o644);

/// Longer than any process ID.
const MOST_OCTETS: u64 = 32;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum PidfileError {
    #[error("cannot write the process ID to {path}: {cause}; name another file with -pidfile")]
    Write { path: PathBuf, cause: io::Error },
    #[error(
        "{0} is not a regular file, so the process ID is not written there; name another file with -pidfile, or remove what is there"
    )]
    NotRegular(PathBuf),
}

impl PidfileError {
    /// Nobody has to set anything right before the program can be started.
    fn is_passing(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Write { cause, .. } if full.contains(&cause.kind()))
    }
}

/// The file, which this process has written.
pub(super) struct Pidfile {
    path: PathBuf,
    text: String,
}

impl Pidfile {
    /// Writes this process's ID, over whatever regular file is there. A file system that does not answer, or is full,
    /// is told of and is no error.
    ///
    /// # Errors
    /// The path leads to a symbolic link or to what is no regular file, or cannot be written.
    pub(super) fn write(path: PathBuf) -> Result<Self, PidfileError> {
        let pidfile = Self { path, text: format!("{}\n", std::process::id()) };
        let (path, text) = (pidfile.path.clone(), pidfile.text.clone());
        match deadline::within(LIMIT, move || write(&path, &text)) {
            Ok(Err(error)) if error.is_passing() => tracing::warn!("{error}"),
            Ok(outcome) => outcome?,
            Err(cause) => tracing::warn!("the process ID is not in {} yet: {cause}", pidfile.path.display()),
        }
        Ok(pidfile)
    }
}

impl Drop for Pidfile {
    /// Removes it, unless another process has put its own ID there.
    fn drop(&mut self) {
        let (path, text) = (self.path.clone(), self.text.clone());
        match deadline::within(LIMIT, move || remove(&path, &text)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => {
                tracing::warn!("{} stays, with the ID of a process that is gone: {error}", self.path.display());
            }
        }
    }
}

/// Never waits for a reader, as of a pipe, and follows no link.
fn open_with(path: &Path, flags: OFlags) -> Result<Option<File>, io::Error> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match open(path, flags, MODE) {
        // A symbolic link; a pipe that nobody reads, a socket; a folder.
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO | rustix::io::Errno::ISDIR) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(file) => {
            let is_regular = FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::RegularFile;
            Ok(is_regular.then(|| file.into()))
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), PidfileError> {
    let failed = |cause| PidfileError::Write { path: path.to_owned(), cause };
    let file = open_with(path, OFlags::WRONLY | OFlags::CREATE).map_err(failed)?;
    let mut file = file.ok_or_else(|| PidfileError::NotRegular(path.to_owned()))?;
    // Not when it is opened: what is no regular file stays as it is.
    ftruncate(&file, 0).map_err(io::Error::from).and_then(|()| file.write_all(text.as_bytes())).map_err(failed)
}

fn remove(path: &Path, text: &str) -> io::Result<()> {
    let file = match open_with(path, OFlags::RDONLY) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut there = String::new();
    file.take(MOST_OCTETS).read_to_string(&mut there)?;
    if there == text { std::fs::remove_file(path) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::{PidfileError, remove, write};
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn it_is_written_over_what_was_there_and_removed_unless_it_is_anothers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        fs::write(&path, "a longer text than any process ID\n").unwrap();
        write(&path, "12\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "12\n");
        remove(&path, "11\n").unwrap();
        assert!(path.exists());
        remove(&path, "12\n").unwrap();
        assert!(!path.exists());
        remove(&path, "12\n").unwrap();
    }

    #[test]
    fn a_link_a_pipe_and_a_folder_are_refused_and_stay_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "precious").unwrap();
        symlink(at("file"), at("link")).unwrap();
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        fs::create_dir(at("folder")).unwrap();
        for name in ["link", "pipe", "folder"] {
            assert!(matches!(write(&at(name), "12\n"), Err(PidfileError::NotRegular(_))), "{name}");
            remove(&at(name), "12\n").unwrap();
            assert!(at(name).symlink_metadata().is_ok(), "{name}");
        }
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "precious");
        let error = write(&at("nowhere").join("pid"), "12\n").unwrap_err().to_string();
        assert!(error.contains("nowhere/pid") && error.contains("-pidfile"), "{error}");
    }

    #[test]
    fn a_pipe_that_somebody_reads_is_refused_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let _reader = fs::File::options().read(true).write(true).open(&path).unwrap();
        assert!(matches!(write(&path, "12\n"), Err(PidfileError::NotRegular(_))));
    }
}
