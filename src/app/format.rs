//! `nodelocaldns fmt`: Corefiles, laid out.

use super::check::is_manifest;
use crate::cli::FormatMode;
use crate::corefile::{self, read_file};
use anyhow::Context;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

/// Lays each file out. Those that cannot be are told, and the others are done all the same.
///
/// # Errors
/// Standard output or error cannot be written.
pub(super) fn format(files: &[impl AsRef<Path>], how: FormatMode) -> anyhow::Result<ExitCode> {
    let mut status = ExitCode::SUCCESS;
    for path in files {
        let path = path.as_ref();
        match format_file(path, how) {
            Ok(true) => {}
            Ok(false) => status = ExitCode::FAILURE,
            Err(error) => {
                writeln!(io::stderr(), "{}: {error:#}", path.display())?;
                status = ExitCode::FAILURE;
            }
        }
    }
    Ok(status)
}

/// False if it is to be laid out only on paper and is not.
fn format_file(path: &Path, how: FormatMode) -> anyhow::Result<bool> {
    let octets = read_file(path).context("it cannot be read")?;
    let text = String::from_utf8(octets).context("it is not UTF-8")?;
    anyhow::ensure!(!is_manifest(path, &text), "it is a manifest, and only a Corefile by itself is laid out");
    let formatted = corefile::format(&text)?;
    let is_as_before = formatted == text;
    match how {
        FormatMode::Print => io::stdout().write_all(formatted.as_bytes())?,
        FormatMode::Write if !is_as_before => replace(path, &formatted).context("it cannot be written")?,
        FormatMode::Write => {}
        FormatMode::Check => {
            if !is_as_before {
                writeln!(io::stdout(), "{}", path.display())?;
            }
            return Ok(is_as_before);
        }
    }
    Ok(true)
}

/// Puts a text into a file's place at once, so that nobody reads a part of it and a full disk costs nothing. What is
/// known of the file but its text stays; of a link, the file that it leads to is replaced.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = path.canonicalize()?;
    let known = std::fs::metadata(&path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.as_file().set_permissions(known.permissions())?;
    std::os::unix::fs::fchown(new.as_file(), Some(known.uid()), Some(known.gid()))?;
    new.as_file().sync_all()?;
    new.persist(&path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{FormatMode, format_file};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_file_is_replaced_at_once_and_keeps_its_mode_and_its_links() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("Corefile"), folder.path().join("link"));
        fs::write(&file, "a:53   {\nwhoami\n}\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        let before = fs::File::open(&file).unwrap();
        assert!(format_file(&link, FormatMode::Write).unwrap());
        assert_eq!(fs::read_to_string(&link).unwrap(), "a:53 {\n    whoami\n}\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let mut old = String::new();
        std::io::Read::read_to_string(&mut { before }, &mut old).unwrap();
        assert_eq!(old, "a:53   {\nwhoami\n}\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
