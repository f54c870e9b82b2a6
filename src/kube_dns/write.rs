//! Writes the rendered Corefile.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Readable by everybody: it holds no secrets, and people look at it.
const MODE: u32 = 0o644;

/// Why the rendered Corefile is not on disk.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(
        "the rendered Corefile is not written: -conf names the template itself, {0}, which must stay as it is; give -conf another path"
    )]
    IsTemplate(PathBuf),
    #[error(
        "cannot write the rendered Corefile to {path}: {cause}; name a path in a folder that can be written with -conf"
    )]
    Write { path: PathBuf, cause: io::Error },
    /// As whoever was asked to write it says.
    #[error("{0}")]
    Told(String),
}

/// Where `-conf` wants the rendered Corefile.
#[derive(Clone, Debug)]
pub(crate) struct CorefileOutput {
    path: PathBuf,
    template: PathBuf,
}

impl CorefileOutput {
    /// `path`, rendered from `template`.
    pub(crate) fn new(path: PathBuf, template: PathBuf) -> Self {
        Self { path, template }
    }
    /// The path as given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
    /// Beside it: the last text that was refused, for whoever looks for the lines its diagnostics name.
    pub(crate) fn refused_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".refused");
        path.into()
    }

    /// Writes what is served now. Whoever reads the file meanwhile sees the one before or this one, never a part.
    pub(crate) fn write(&self, text: &str) -> Result<(), WriteError> {
        self.replace(&self.path, text)?;
        // It was there only if the text before was refused.
        let _ = fs::remove_file(self.refused_path());
        Ok(())
    }
    /// Writes what is refused, and says where.
    pub(crate) fn write_refused(&self, text: &str) -> Result<PathBuf, WriteError> {
        let path = self.refused_path();
        self.replace(&path, text)?;
        Ok(path)
    }

    fn replace(&self, path: &Path, text: &str) -> Result<(), WriteError> {
        // The file a symbolic link stands for is replaced, not the link.
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let (target, template) = (real(path), real(&self.template));
        if target == template {
            return Err(WriteError::IsTemplate(self.template.clone()));
        }
        replace(&target, text).map_err(|cause| WriteError::Write { path: path.to_owned(), cause })
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Hidden, so that an import of everything in the folder does not meet it.
    let mut file =
        tempfile::Builder::new().prefix(".Corefile-").permissions(Permissions::from_mode(MODE)).tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{CorefileOutput, WriteError};
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn the_file_is_replaced_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let target = CorefileOutput::new(folder.path().join("Corefile"), folder.path().join("Corefile.base"));
        target.write("first").unwrap();
        let inode = || fs::metadata(target.path()).unwrap().ino();
        let first = inode();
        let reader = fs::File::open(target.path()).unwrap();
        target.write("second").unwrap();
        assert_ne!(inode(), first, "it was written in place");
        assert_eq!(std::io::read_to_string(reader).unwrap(), "first", "who has the old one open reads it to its end");
        assert_eq!(fs::read_to_string(target.path()).unwrap(), "second");
        assert_eq!(fs::metadata(target.path()).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_refused_text_stands_beside_it_until_the_next_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let target = CorefileOutput::new(folder.path().join("Corefile"), folder.path().join("Corefile.base"));
        let refused = target.write_refused("bad").unwrap();
        assert_eq!(refused, folder.path().join("Corefile.refused"));
        assert_eq!(fs::read_to_string(&refused).unwrap(), "bad");
        assert!(!target.path().exists());
        target.write("good").unwrap();
        assert!(!refused.exists());
    }

    #[test]
    fn the_template_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let template = folder.path().join("Corefile.base");
        fs::write(&template, "template").unwrap();
        symlink("Corefile.base", folder.path().join("Corefile")).unwrap();
        for path in [template.clone(), folder.path().join("Corefile"), folder.path().join(".").join("Corefile.base")] {
            let target = CorefileOutput::new(path, template.clone());
            assert!(matches!(target.write("rendered"), Err(WriteError::IsTemplate(_))));
        }
        assert_eq!(fs::read_to_string(&template).unwrap(), "template");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let target = CorefileOutput::new("/proc/self/Corefile".into(), "/no/such/base".into());
        let said = target.write("text").unwrap_err().to_string();
        assert!(said.contains("/proc/self/Corefile") && said.contains("-conf"), "{said}");
    }
}
