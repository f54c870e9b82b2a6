//! The machine's files and environment.

use super::{Loader, SystemLoader};
use serde::{Deserialize, Serialize};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Octets of one file. More is no configuration (`import /dev/zero`), and must not fill the memory.
const FILE_OCTETS: u64 = 16 << 20;

/// By what a file is known to be as it was: a file that is written or replaced has another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileStamp {
    /// When it was last written: seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    /// When anything of it was last changed, which nobody can set back.
    pub changed: (i64, i64),
    pub octets: u64,
    pub inode: u64,
}

impl FileStamp {
    fn of(metadata: &Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Self { modified, changed, octets: metadata.size(), inode: metadata.ino() }
    }
    /// When the file was last written, in seconds since 1970.
    pub fn modified_seconds(&self) -> f64 {
        self.modified.0 as f64 + self.modified.1 as f64 / 1e9
    }
}

/// What a file of data holds, and its stamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFile {
    /// What is not UTF-8 is replaced.
    pub text: String,
    pub stamp: FileStamp,
}

/// The octets of a regular file, at most 16 MiB. Never waits, so that nobody who puts a named pipe in a file's place
/// stops a reload.
///
/// # Errors
/// As the operating system tells; a file that is not regular, or too large.
pub(crate) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    read_at_most(open(path)?.0)
}

/// What a file of data holds, unless it still has this stamp. Within the bounds of [`read_file`].
///
/// # Errors
/// See [`read_file`].
pub(crate) fn read_data_file(path: &Path, unless: Option<FileStamp>) -> io::Result<Option<DataFile>> {
    let (file, metadata) = open(path)?;
    let stamp = FileStamp::of(&metadata);
    if unless == Some(stamp) {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&read_at_most(file)?).into_owned();
    Ok(Some(DataFile { text, stamp }))
}

/// The stamp of a file of data, which is not read.
///
/// # Errors
/// See [`read_file`].
pub(crate) fn data_file_stamp(path: &Path) -> io::Result<FileStamp> {
    open(path).map(|(_, metadata)| FileStamp::of(&metadata))
}

fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a pipe, a device or a socket where a file is expected",
        ));
    }
    Ok((file, metadata))
}

/// All that `source` gives, at most 16 MiB.
///
/// # Errors
/// As the source tells; more than that.
pub(crate) fn read_at_most(source: impl Read) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    source.take(FILE_OCTETS + 1).read_to_end(&mut octets)?;
    match octets.len() as u64 > FILE_OCTETS {
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {FILE_OCTETS} octets, as no configuration has"),
        )),
        false => Ok(octets),
    }
}

impl Loader for SystemLoader {
    fn read(&self, path: &Path) -> io::Result<String> {
        String::from_utf8(read_file(path)?).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            io::Error::new(io::ErrorKind::InvalidData, format!("it is not UTF-8 text (octet {at})"))
        })
    }

    fn data(&self, path: &Path) -> io::Result<DataFile> {
        read_data_file(path, None)?.ok_or_else(|| io::Error::other("it has no stamp"))
    }

    /// As Go's filepath.Glob: `*` and `?` match no separator but a leading dot, and a folder that does not exist holds
    /// no match. Folders are left out (a mounted ConfigMap holds some, beside its keys).
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidInput, message);
        let pattern = pattern.to_str().ok_or_else(|| invalid("the path is not UTF-8 text".to_owned()))?;
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: false,
        };
        let paths = glob::glob_with(pattern, options).map_err(|error| invalid(error.to_string()))?;
        let mut found = paths.collect::<Result<Vec<PathBuf>, _>>()?;
        found.retain(|path| !path.is_dir());
        found.sort();
        Ok(found)
    }

    fn list(&self, folder: &Path) -> io::Result<()> {
        std::fs::read_dir(folder).map(drop)
    }

    fn environment(&self, name: &str) -> Option<String> {
        // What no variable can be called makes std::env::var_os fail or panic on some systems.
        if name.is_empty() || name.contains(['=', '\0']) {
            return None;
        }
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_lists_files_sorted_with_hidden_ones_and_without_folders() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.conf", "a.conf", ".c.conf", "d.other"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(folder.path().join("e.conf")).unwrap();
        let found = SystemLoader.glob(&folder.path().join("*.conf")).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, [".c.conf", "a.conf", "b.conf"]);
    }

    #[test]
    fn a_glob_in_a_folder_that_does_not_exist_matches_nothing() {
        assert!(SystemLoader.glob(Path::new("/nonexistent-folder/*.conf")).unwrap().is_empty());
    }

    #[test]
    fn an_endless_or_too_large_file_is_refused() {
        assert_eq!(SystemLoader.read(Path::new("/dev/zero")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(read_at_most(io::repeat(b'x')).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(FILE_OCTETS + 1).unwrap();
        assert_eq!(SystemLoader.read(file.path()).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_named_pipe_is_refused_at_once_though_nobody_writes_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(SystemLoader.read(&pipe).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_file_that_is_not_text_is_refused_naming_the_octet() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"ab\xff").unwrap();
        assert!(SystemLoader.read(file.path()).unwrap_err().to_string().contains("octet 2"));
    }

    #[test]
    fn a_file_of_data_is_read_again_only_once_it_is_written_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, b"a\xff").unwrap();
        let first = SystemLoader.data(&path).unwrap();
        assert_eq!((first.text.as_str(), first.stamp.octets), ("a\u{fffd}", 2));
        assert_eq!(read_data_file(&path, Some(first.stamp)).unwrap(), None);
        let other = folder.path().join("other");
        std::fs::write(&other, "bc").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(read_data_file(&path, Some(first.stamp)).unwrap().unwrap().text, "bc");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read_data_file(&path, Some(first.stamp)).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_variable_with_an_impossible_name_is_not_set() {
        assert_eq!(SystemLoader.environment("A=B"), None);
        assert_eq!(SystemLoader.environment(""), None);
    }
}
