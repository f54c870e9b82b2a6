//! The machine's files and environment.

use super::{Loader, SystemLoader};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Octets of one file. More is no configuration (`import /dev/zero`), and must not fill the memory.
const FILE_OCTETS: u64 = 16 << 20;

/// The octets of a regular file, at most 16 MiB. Never waits, so that nobody who puts a named pipe in a file's place stops a reload.
///
/// # Errors
/// As the operating system tells; a file that is not regular, or too large.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a pipe, a device or a socket where a file is expected"));
    }
    read_at_most(file)
}

/// All that `source` gives, at most 16 MiB.
///
/// # Errors
/// As the source tells; more than that.
pub fn read_at_most(source: impl Read) -> io::Result<Vec<u8>> {
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

    /// As Go's filepath.Glob: `*` and `?` match no separator but a leading dot, and a folder that does not exist holds no match.
    /// Folders are left out (a mounted ConfigMap holds some, beside its keys).
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidInput, message);
        let pattern = pattern.to_str().ok_or_else(|| invalid("the path is not UTF-8 text".to_owned()))?;
        let options =
            glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };
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
    fn a_variable_with_an_impossible_name_is_not_set() {
        assert_eq!(SystemLoader.environment("A=B"), None);
        assert_eq!(SystemLoader.environment(""), None);
    }
}
