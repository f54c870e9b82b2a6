//! The program under test, as it goes into the machine.

use super::debian::run;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The repository.
fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The program without debug information, below `folder`: the optimised build if it is newer than every source, else
/// the one that cargo built beside this one.
///
/// # Errors
///
/// When neither is there, or it cannot be copied.
pub fn program(target: &Path, folder: &Path) -> Result<PathBuf> {
    stripped(&built(target)?, &folder.join("program"))
}

/// The program as cargo built it.
///
/// # Errors
///
/// When it is older than its source.
pub fn built(target: &Path) -> Result<PathBuf> {
    let sources = newest(&repository().join("src"))?;
    let built = ["release", "debug"].map(|profile| target.join(profile).join("nodelocaldns"));
    let is_fresh = |path: &&PathBuf| modified(path).is_ok_and(|time| time >= sources);
    let Some(found) = built.iter().find(is_fresh) else {
        bail!(
            "the program is older than its source: build it first (`cargo build --release --locked`, as make lab does)"
        );
    };
    println!("lab: the program is {}", found.display());
    Ok(found.clone())
}

/// A copy without debug information, which would take memory of the machine; one that is there and newer does.
///
/// # Errors
///
/// When it cannot be copied.
pub fn stripped(path: &Path, folder: &Path) -> Result<PathBuf> {
    let profile = path.parent().and_then(Path::file_name).context("a program stands in a folder")?;
    let copy = folder.join(profile).join(path.file_name().context("a program has a name")?);
    if modified(&copy).is_ok_and(|copied| modified(path).is_ok_and(|built| copied >= built)) {
        return Ok(copy);
    }
    std::fs::create_dir_all(folder.join(profile))?;
    run(Command::new("strip").arg("-o").arg(&copy).arg(path))?;
    Ok(copy)
}

fn modified(path: &Path) -> Result<SystemTime> {
    let found = path.metadata().with_context(|| format!("reading {}", path.display()))?;
    Ok(found.modified()?)
}

/// When the newest file below `folder` was changed.
fn newest(folder: &Path) -> Result<SystemTime> {
    let mut latest = SystemTime::UNIX_EPOCH;
    for found in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let found = found?;
        let time = if found.file_type()?.is_dir() { newest(&found.path())? } else { found.metadata()?.modified()? };
        latest = latest.max(time);
    }
    Ok(latest)
}
