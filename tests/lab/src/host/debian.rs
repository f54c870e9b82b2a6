//! Debian's packages: found and fetched with apt, unpacked and never installed.

use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// apt with the machine's sources, and either its lists of packages or, where those are missing or old, lists of our
/// own.
pub struct Apt {
    folder: PathBuf,
    is_own: bool,
}

impl Apt {
    /// Keeps what it fetches below `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), is_own: false }
    }

    /// What `work` gives with the machine's lists, or else with lists fetched now.
    ///
    /// # Errors
    ///
    /// Those of the second try, or when the lists cannot be fetched.
    pub fn with<T>(&mut self, work: impl Fn(&Self) -> Result<T>) -> Result<T> {
        work(self).or_else(|error| {
            if self.is_own {
                return Err(error);
            }
            println!("lab: the lists of packages do not do ({error:#}); fetching new ones");
            for folder in ["state/lists/partial", "cache/archives/partial"] {
                std::fs::create_dir_all(self.folder.join(folder))?;
            }
            self.is_own = true;
            self.run("apt-get", &["update"])?;
            work(self)
        })
    }

    /// The names of packages that match a regular expression.
    ///
    /// # Errors
    ///
    /// When apt cannot be run.
    pub fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let listing = self.run("apt-cache", &["search", "--names-only", pattern])?;
        Ok(listing.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    }

    /// The packages and all libraries that they need, and the libraries that those need. Programs that a package
    /// depends on are not among them: what is wanted is named.
    ///
    /// # Errors
    ///
    /// When apt cannot be run or does not know a package.
    pub fn with_libraries(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut all: BTreeSet<String> = packages.iter().map(|name| (*name).to_owned()).collect();
        let mut new: Vec<String> = all.iter().cloned().collect();
        let quiet = ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"];
        while !new.is_empty() {
            let mut arguments = vec!["depends".to_owned()];
            arguments.extend(quiet.iter().map(|kind| format!("--no-{kind}")));
            arguments.append(&mut new);
            let listing = self.run("apt-cache", &arguments)?;
            new = libraries(&listing).filter(|name| all.insert(name.clone())).collect();
        }
        Ok(all.into_iter().collect())
    }

    /// Fetches packages, unless they are there; their files.
    ///
    /// # Errors
    ///
    /// When one cannot be found or fetched.
    pub fn fetch(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join("packages");
        std::fs::create_dir_all(&folder)?;
        // It is silent of what is in its folder.
        let elsewhere = tempfile::tempdir_in(&self.folder)?;
        let mut command = self.command("apt-get");
        let listing = run(command.args(["download", "--print-uris"]).args(packages).current_dir(elsewhere.path()))?;
        // 'ADDRESS' FILE OCTETS CHECKSUM
        let names: Vec<&str> = listing.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        let file_of = |package: &String| {
            let found = names.iter().find(|name| name.split_once('_').is_some_and(|(name, _)| name == package));
            let name = found.with_context(|| format!("apt-get says nothing of where the package {package} is"))?;
            Ok(folder.join(name))
        };
        let files: Vec<PathBuf> = packages.iter().map(file_of).collect::<Result<_>>()?;
        let is_missing = |(_, file): &(&String, &PathBuf)| !file.exists();
        let missing: Vec<&String> = packages.iter().zip(&files).filter(is_missing).map(|(name, _)| name).collect();
        if !missing.is_empty() {
            println!("lab: fetching {} of Debian's packages", missing.len());
            // A folder aside, so that a file under its name is a whole one.
            let aside = tempfile::tempdir_in(&self.folder)?;
            let mut command = self.command("apt-get");
            run(command.arg("download").args(missing).current_dir(aside.path()))?;
            for found in std::fs::read_dir(aside.path())? {
                let found = found?;
                std::fs::rename(found.path(), folder.join(found.file_name()))?;
            }
        }
        match files.iter().find(|file| !file.exists()) {
            Some(file) => bail!("apt-get did not fetch {}", file.display()),
            None => Ok(files),
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Root may write where the user that apt has for fetching may not.
        command.args(["-q=2", "-o", "APT::Sandbox::User=root"]).stdin(Stdio::null());
        // apt makes an index of its lists, for a second each time where it may not keep it: in containers, or not as
        // root.
        for index in ["pkgcache", "srcpkgcache"] {
            command.arg("-o").arg(format!("Dir::Cache::{index}={}", self.folder.join(index).display()));
        }
        if self.is_own {
            for (option, folder) in [("Dir::State", "state"), ("Dir::Cache", "cache")] {
                command.arg("-o").arg(format!("{option}={}", self.folder.join(folder).display()));
            }
        }
        command
    }

    fn run(&self, program: &str, arguments: &[impl AsRef<str>]) -> Result<String> {
        run(self.command(program).args(arguments.iter().map(AsRef::as_ref)))
    }
}

/// Unpacks packages into `folder`, which is there only when all of them are.
///
/// # Errors
///
/// When `dpkg` cannot be run or does not like a file.
pub fn unpack(files: &[PathBuf], folder: &Path) -> Result<()> {
    let above = folder.parent().context("a folder has one above it")?;
    std::fs::create_dir_all(above)?;
    let aside = tempfile::tempdir_in(above)?;
    for file in files {
        run(Command::new("dpkg").arg("-x").arg(file).arg(aside.path()))?;
    }
    Ok(std::fs::rename(aside.keep(), folder)?)
}

/// Runs a program to its end; what it printed.
///
/// # Errors
///
/// When it cannot be started or its status is not 0, with what it wrote.
pub fn run(command: &mut Command) -> Result<String> {
    let told = command.output().with_context(|| {
        format!("running {command:?}: the lab needs a Debian-like machine's apt and dpkg (scripts/install-test-deps)")
    })?;
    if !told.status.success() {
        bail!("{command:?} failed, {}:\n{}", told.status, String::from_utf8_lossy(&told.stderr));
    }
    Ok(String::from_utf8_lossy(&told.stdout).into_owned())
}

/// The libraries among what `apt-cache depends` prints; of alternatives the first.
fn libraries(listing: &str) -> impl Iterator<Item = String> {
    let mut follows_alternative = false;
    listing.lines().filter_map(move |line| {
        let is_alternative = line.starts_with(" |");
        let is_second = std::mem::replace(&mut follows_alternative, is_alternative);
        let (kind, name) = line.trim_start_matches([' ', '|']).split_once(": ")?;
        let is_needed = matches!(kind, "Depends" | "PreDepends") && !is_second;
        (is_needed && (name.starts_with("lib") || name == "zlib1g")).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::libraries;

    #[test]
    fn libraries_are_followed_and_programs_are_not() {
        let listing = "crun\n  Depends: libc6\n |Depends: libfirst\n  Depends: libsecond\n  PreDepends: libpre\n  \
                       Depends: perl\n  Depends: <virtual>\n    libprovides\n";
        assert_eq!(libraries(listing).collect::<Vec<_>>(), ["libc6", "libfirst", "libpre"]);
    }
}
