//! `nodelocaldns render`: the Corefile that an agent would serve.

use super::corefile_template::template_of;
use super::host::ThisHost;
use super::load::CorefileSource;
use crate::cli::Render;
use std::io::{self, Write};
use std::process::ExitCode;

/// Prints it on standard output, and on standard error what is to be said of it.
///
/// # Errors
/// Standard output or error cannot be written.
pub(super) fn render(flags: &Render) -> anyhow::Result<ExitCode> {
    let mut template = template_of(flags);
    let refresh = template.refresh(&ThisHost);
    let mut errors = io::stderr().lock();
    for problem in &refresh.problems {
        writeln!(errors, "{problem}")?;
    }
    let Some(rendered) = refresh.rendered else { return Ok(ExitCode::FAILURE) };
    io::stdout().lock().write_all(rendered.text.as_bytes())?;
    errors.write_all(rendered.warnings.as_bytes())?;
    // Every line of the template stays at its number.
    let source = CorefileSource::Text { path: template.base().to_owned(), text: rendered.text };
    let is_good = match source.load(flags.dns_port, &ThisHost) {
        Ok(loaded) => {
            errors.write_all(loaded.warnings.as_bytes())?;
            refresh.problems.is_empty()
        }
        Err(error) => {
            writeln!(errors, "{error}")?;
            false
        }
    };
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
