//! The archive that the kernel unpacks as its first root: cpio in the format newc (Linux,
//! Documentation/driver-api/early-userspace/buffer-format.rst). No crate in use writes it, and it is a header of 13
//! numbers.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What a path of the archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Folder,
    /// A file's mode and where its octets are.
    File(u32, PathBuf),
    /// A file's mode and its octets.
    Text(u32, Vec<u8>),
    Link(PathBuf),
}

/// A tree of files to be packed. Folders above an entry are made by themselves.
#[derive(Debug, Default)]
pub struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Tree {
    /// Adds a file of this machine under `path`, executable if it is so here.
    ///
    /// # Errors
    ///
    /// When there is no such file.
    pub fn add_file(&mut self, path: impl AsRef<Path>, source: &Path) -> Result<()> {
        let found = source.metadata().with_context(|| format!("reading {}", source.display()))?;
        self.put(path.as_ref(), Entry::File(found.permissions().mode() & 0o7777, source.to_owned()));
        Ok(())
    }

    /// Adds a file with this text.
    pub fn add_text(&mut self, path: impl AsRef<Path>, mode: u32, text: impl Into<Vec<u8>>) {
        self.put(path.as_ref(), Entry::Text(mode, text.into()));
    }

    /// Adds a symbolic link, unless the path is taken.
    pub fn add_link(&mut self, path: impl AsRef<Path>, target: impl Into<PathBuf>) {
        if !self.entries.contains_key(path.as_ref()) {
            self.put(path.as_ref(), Entry::Link(target.into()));
        }
    }

    /// Adds an empty folder.
    pub fn add_folder(&mut self, path: impl AsRef<Path>) {
        self.put(path.as_ref(), Entry::Folder);
    }

    /// Adds everything below `folder`, each under the path that `place` gives it; what it gives none is left out.
    ///
    /// # Errors
    ///
    /// When something cannot be read.
    pub fn add_folder_of(&mut self, folder: &Path, place: &impl Fn(&Path) -> Option<PathBuf>) -> Result<()> {
        self.walk(folder, Path::new(""), place)
    }

    fn walk(&mut self, root: &Path, below: &Path, place: &impl Fn(&Path) -> Option<PathBuf>) -> Result<()> {
        let folder = root.join(below);
        for found in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let found = found?;
            let path = below.join(found.file_name());
            let Some(placed) = place(&path) else { continue };
            let kind = found.file_type()?;
            if kind.is_dir() {
                self.add_folder(&placed);
                self.walk(root, &path, place)?;
            } else if kind.is_symlink() {
                let target = std::fs::read_link(found.path())?;
                self.put(&placed, Entry::Link(target));
            } else {
                self.add_file(&placed, &found.path())?;
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &Path, entry: Entry) {
        for folder in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            self.entries.entry(folder.to_owned()).or_insert(Entry::Folder);
        }
        let is_known_folder = entry == Entry::Folder && self.entries.contains_key(path);
        if !is_known_folder {
            self.entries.insert(path.to_owned(), entry);
        }
    }

    /// Writes the archive. Several may follow one another; the kernel lays them over each other.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or the archive not be written.
    pub fn write(&self, output: &mut impl Write) -> Result<()> {
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            let read;
            let (mode, octets): (u32, &[u8]) = match entry {
                Entry::Folder => (0o040_755, &[]),
                Entry::File(mode, source) => {
                    read = std::fs::read(source).with_context(|| format!("reading {}", source.display()))?;
                    (0o100_000 | mode, &read)
                }
                Entry::Text(mode, text) => (0o100_000 | mode, text),
                Entry::Link(target) => (0o120_777, target.as_os_str().as_bytes()),
            };
            member(output, number, mode, path.as_os_str().as_bytes(), octets)?;
        }
        member(output, 0, 0, b"TRAILER!!!", &[])
    }
}

/// One member: its header, name and octets, each filled up to four octets.
fn member(output: &mut impl Write, number: u32, mode: u32, name: &[u8], octets: &[u8]) -> Result<()> {
    let size = u32::try_from(octets.len()).context("a file of 4 GiB does not fit into the archive")?;
    let name_size = u32::try_from(name.len() + 1)?;
    // Inode, mode, owner, group, links, time, size, device (2), special device (2), length of the name, checksum.
    let fields = [number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    let header: String = fields.iter().map(|field| format!("{field:08X}")).collect();
    write!(output, "070701{header}")?;
    output.write_all(name)?;
    output.write_all(&[0])?;
    fill(output, 110 + name.len() + 1)?;
    output.write_all(octets)?;
    fill(output, octets.len())
}

fn fill(output: &mut impl Write, length: usize) -> Result<()> {
    Ok(output.write_all(&[0; 3][..length.wrapping_neg() % 4])?)
}

#[cfg(test)]
mod tests {
    use super::Tree;

    /// The names of an archive's members with their modes and octets, as the format says they are read.
    fn members(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        loop {
            let number = |field: usize| {
                let text = std::str::from_utf8(&archive[6 + 8 * field..14 + 8 * field]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            assert_eq!(&archive[..6], b"070701");
            let (mode, size, name_size) = (number(1), number(6) as usize, number(11) as usize);
            let name = String::from_utf8(archive[110..110 + name_size - 1].to_vec()).unwrap();
            let start = (110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(archive.len(), start);
                return found;
            }
            found.push((name, mode, archive[start..start + size].to_vec()));
            archive = &archive[(start + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn an_archive_reads_back_with_folders_before_what_is_in_them() {
        let mut tree = Tree::default();
        tree.add_text("usr/bin/a", 0o755, "abc");
        tree.add_link("usr/bin/b", "a");
        tree.add_link("usr/bin/a", "taken");
        tree.add_folder("usr/bin");
        let mut archive = Vec::new();
        tree.write(&mut archive).unwrap();
        let expected = [
            ("usr", 0o040_755, ""),
            ("usr/bin", 0o040_755, ""),
            ("usr/bin/a", 0o100_755, "abc"),
            ("usr/bin/b", 0o120_777, "a"),
        ];
        let expected = expected.map(|(name, mode, octets)| (name.to_owned(), mode, octets.as_bytes().to_vec()));
        assert_eq!(members(&archive), expected);
    }
}
