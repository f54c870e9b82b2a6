//! The process of a case.

use super::dump::dump;
use super::init::{CASES, CASES_VARIABLE};
use super::mounts::mount_case;
use crate::cases;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::sync::Once;

/// Runs a case to its end; whether it passed. When it panics or takes too long everything there is to see is written
/// down before anything is taken down.
///
/// # Errors
///
/// When there is no such case, or no place for it.
pub fn run(name: &str) -> Result<bool> {
    let case = cases::all().into_iter().find(|case| case.name == name).context("there is no such case")?;
    let folder = std::env::var_os(CASES_VARIABLE).map_or_else(|| CASES.into(), PathBuf::from).join(name);
    std::fs::create_dir_all(&folder)?;
    if std::process::id() == 1 {
        mount_case().context("the file systems of a case")?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    }
    crate::cluster::shell("ip link set lo up");
    static DUMPED: Once = Once::new();
    let dump = move || DUMPED.call_once(|| dump(&folder));
    let dump_late = dump.clone();
    let (limit, told) = (case.limit, std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        told(panic);
        dump();
    }));
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        println!("The case is not over after {} s.", limit.as_secs());
        dump_late();
        std::process::exit(1);
    });
    // As the body's panic does, so that of a thread of its; the hook has told either.
    let is_passed = std::thread::spawn(case.body).join().is_ok();
    // The limit's thread may be writing its dump.
    Ok(is_passed && !DUMPED.is_completed())
}

/// Shows the user a line while the case runs: a figure that was measured, or what comes next.
pub fn note(text: impl std::fmt::Display) {
    println!("{}{text}", super::init::NOTE);
}

/// What the kernel's command line has after `name` and `=`.
pub fn kernel_argument(name: &str) -> Option<String> {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let mut words = line.split_whitespace().filter_map(|word| word.split_once('='));
    words.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

/// Has the machine stand still, as one does that is moved to another host, some moments from now. Its clocks go on.
pub fn suspend(time: std::time::Duration) {
    println!("{}{}", super::init::SUSPEND, time.as_millis());
}
