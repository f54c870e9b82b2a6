//! `nodelocaldns fmt`: Corefiles, laid out.

use super::check::is_manifest;
use crate::cli::FormatMode;
use crate::corefile::{self, read_file};
use anyhow::Context;
use std::io::{self, Write};
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
        FormatMode::Write if !is_as_before => std::fs::write(path, formatted).context("it cannot be written")?,
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
