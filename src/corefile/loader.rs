//! The machine's files and environment.

use super::{Loader, SystemLoader};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Octets of one file. More is no configuration (`import /dev/zero`), and must not fill the memory.
const FILE_OCTETS: u64 = 16 << 20;

impl Loader for SystemLoader {
    fn read(&self, path: &Path) -> io::Result<String> {
        let mut octets = Vec::new();
        File::open(path)?.take(FILE_OCTETS + 1).read_to_end(&mut octets)?;
        if octets.len() as u64 > FILE_OCTETS {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {FILE_OCTETS} octets")));
        }
        String::from_utf8(octets).map_err(|error| {
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
    fn an_endless_file_is_refused() {
        assert_eq!(SystemLoader.read(Path::new("/dev/zero")).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
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
