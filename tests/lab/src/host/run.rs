//! Runs cases and shows what becomes of them.

use super::image::Images;
use super::program::built;
use super::qemu::{Accelerator, Machine};
use crate::Subject;
use crate::case::{Boot, Case, Run, boots};
use crate::cases;
use crate::channel::{Message, hear};
use crate::guest::init::CASES_VARIABLE;
use anyhow::{Context, Result, bail};
use std::io::BufRead;
use std::panic::resume_unwind;
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard};
use std::thread::{scope, spawn};
use std::time::{Duration, Instant};

/// From the start of qemu until the guest says that it is up: seconds. As all bounds here, of the time that the machine
/// runs ([`Machine::time_run`]).
const BOOT: Duration = Duration::from_secs(300);

/// What a case may take beyond its limit, until the guest has ended it and brought out what it left. The guest's clock
/// may be much slower than this one (see [`Accelerator::Tcg`]).
const GRACE: Duration = Duration::from_secs(600);

/// How often the machine is looked at while it says nothing.
const LOOK: Duration = Duration::from_secs(2);

/// Runs the cases whose names begin with one of `beginnings` with `subject`; whether all passed.
///
/// # Errors
///
/// When no such case is there, or the machine cannot be booted.
pub fn run(beginnings: &[String], only_quick: bool, subject: Subject) -> Result<bool> {
    let is_wanted = |case: &Case| match case.is_by_name {
        true => beginnings.iter().any(|begin| begin == case.name),
        false => beginnings.is_empty() || beginnings.iter().any(|begin| case.name.starts_with(begin)),
    };
    let cases = cases::all().into_iter().filter(|case| is_wanted(case) && (case.is_quick || !only_quick));
    // A quick run is on the first kernel alone.
    let kernels = if only_quick { 1 } else { usize::MAX };
    let runs: Vec<Run> =
        cases.flat_map(|case| case.kernels.iter().take(kernels).map(move |&kernel| Run { case, kernel })).collect();
    if runs.is_empty() {
        bail!("no case begins with {}; `make lab-list` says which there are", beginnings.join(" or "));
    }
    let started = Instant::now();
    let (count, boots) = (runs.len(), boots(runs));
    let mut images = Images::new(&target()?, subject)?;
    let accelerator = Accelerator::found(&images.image(&boots[0], false, 0)?, images.folder())?;
    let machines = accelerator.machines().min(boots.len());
    let lab = Lab { images: Mutex::new(images), accelerator: Mutex::new(accelerator), outcome: Mutex::default() };
    let queue = Mutex::new(boots.into_iter());
    let run_boots = |slot| {
        loop {
            // Not in the condition of a `while let`: the queue would be locked as long as the boot runs.
            let boot = locked(&queue).next();
            match boot {
                Some(boot) => lab.run_boot(&boot, slot)?,
                None => return Ok(()),
            }
        }
    };
    scope(|scope| -> Result<()> {
        let run_boots = &run_boots;
        let threads: Vec<_> = (0..machines).map(|slot| scope.spawn(move || run_boots(slot))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })?;
    println!("lab: {count} cases in {} s", started.elapsed().as_secs());
    let outcome = locked(&lab.outcome);
    let Outcome { passed, failed } = &*outcome;
    for (name, folder) in failed {
        println!("lab: FAILED {name}: see {}", folder.display());
    }
    println!("{passed} passed, {} failed", failed.len());
    Ok(failed.is_empty())
}

/// A prompt on the machine of the first case whose name begins so.
///
/// # Errors
///
/// When no such case is there, or the machine cannot be booted.
pub fn shell(beginning: &str) -> Result<bool> {
    let found = cases::all().into_iter().find(|case| case.name.starts_with(beginning));
    let case = found.with_context(|| format!("no case begins with {beginning}"))?;
    let runs = cases::all().into_iter().map(|case| Run { case, kernel: case.kernels[0] });
    let boot = boots(runs).into_iter().find(|boot| boot.cases.iter().any(|other| other.name == case.name));
    let mut images = Images::new(&target()?, Subject { program: None, manifest: None })?;
    let image = images.image(&boot.context("each case has a boot")?, true, 0)?;
    let accelerator = Accelerator::found(&image, images.folder())?;
    println!("lab: {}; `lab case NAME` runs a case, Ctrl-A X ends the machine", image.release);
    Machine::shell(accelerator, &image)?;
    Ok(true)
}

/// Runs a case on this machine's kernel, in namespaces; whether it passed.
///
/// # Errors
///
/// When it cannot be started.
pub fn here(name: &str) -> Result<bool> {
    let target = target()?;
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(std::env::current_exe()?).args(["case", name]);
    let path = format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    command.env("NODELOCALDNS_BIN", built(&target)?).env(CASES_VARIABLE, target.join("lab/cases/here"));
    Ok(command.env("PATH", path).status().context("starting unshare (Debian's package util-linux)")?.success())
}

/// Where cargo builds, as this program is in it.
fn target() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    Ok(this.ancestors().nth(2).context("cargo builds into a folder of a folder")?.to_owned())
}

/// What became of the cases.
#[derive(Default)]
struct Outcome {
    passed: usize,
    /// Names and where the dump is.
    failed: Vec<(String, PathBuf)>,
}

/// What the threads share that run boots.
struct Lab {
    images: Mutex<Images>,
    accelerator: Mutex<Accelerator>,
    outcome: Mutex<Outcome>,
}

impl Lab {
    /// Runs a boot's cases. No two boots at a time have the same `slot`.
    fn run_boot(&self, boot: &Boot, slot: usize) -> Result<()> {
        let accelerator = *locked(&self.accelerator);
        let (image, folder) = {
            let mut images = locked(&self.images);
            (images.image(boot, false, slot)?, images.folder().to_owned())
        };
        let without =
            if boot.without.is_empty() { String::new() } else { format!(" without {}", boot.without.join(", ")) };
        println!("lab: booting {} for {} cases{without}", image.release, boot.cases.len());
        let console = folder.join(format!("console-{slot}.log"));
        let (mut machine, port) = Machine::boot(accelerator, &image, &console)?;
        let mut sight =
            Sight { boot, folder: &folder, console: &console, begun: None, ended: Vec::new(), outcome: &self.outcome };
        let verdict = sight.watch(&machine, &listen(port));
        // A machine that has said all goes by itself.
        machine.wait(if verdict.is_ok() { Duration::from_secs(10) } else { Duration::ZERO })?;
        let is_given_up = machine.is_given_up();
        drop(machine);
        if is_given_up {
            println!("lab: KVM has given the machine up: qemu translates (TCG) from now on, which is slower");
            *locked(&self.accelerator) = Accelerator::Tcg;
            let ended = sight.ended;
            let rest = boot.cases.iter().filter(|case| !ended.iter().any(|name| name == case.name)).copied().collect();
            return self.run_boot(&Boot { cases: rest, ..boot.clone() }, slot);
        }
        if let Err(error) = verdict {
            println!("lab: {error:#}");
            sight.fail_rest()?;
        }
        Ok(())
    }
}

/// A thread that panics while it holds one ends the whole run.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds this")
}

/// What comes through the port, read by a thread.
fn listen(mut port: impl BufRead + Send + 'static) -> Receiver<std::io::Result<(Message, Vec<u8>)>> {
    let (sender, receiver) = channel();
    spawn(move || {
        while let Some(heard) = hear(&mut port).transpose() {
            let is_over = heard.is_err();
            if sender.send(heard).is_err() || is_over {
                return;
            }
        }
    });
    receiver
}

/// What is seen of a boot's cases.
struct Sight<'a> {
    boot: &'a Boot,
    folder: &'a Path,
    console: &'a Path,
    begun: Option<String>,
    ended: Vec<String>,
    outcome: &'a Mutex<Outcome>,
}

impl Sight<'_> {
    /// Follows the guest to its end. An error is for a guest that did not come to it.
    fn watch(&mut self, machine: &Machine, said: &Receiver<std::io::Result<(Message, Vec<u8>)>>) -> Result<()> {
        let started = Instant::now();
        let mut patience = BOOT;
        let mut heard_last = Duration::ZERO;
        loop {
            let (message, octets) = match said.recv_timeout(LOOK) {
                Ok(heard) => heard.context("the guest says what nobody understands")?,
                Err(RecvTimeoutError::Timeout) if machine.time_run()?.saturating_sub(heard_last) < patience => continue,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("nothing was heard from the guest while it ran for {} s", patience.as_secs())
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the machine ended by itself"),
            };
            // One that has ended has said all.
            heard_last = machine.time_run().unwrap_or(heard_last);
            match message {
                Message::Up { release } => {
                    println!("lab: Linux {release} is up after {:.1} s", started.elapsed().as_secs_f64());
                }
                Message::Begin { name } => {
                    let limit = self.boot.cases.iter().find(|case| case.name == name).map(|case| case.limit);
                    patience = limit.unwrap_or(BOOT) + GRACE;
                    let folder = self.place(&name);
                    _ = std::fs::remove_dir_all(&folder);
                    self.begun = Some(name);
                }
                Message::Suspend { time } => machine.suspend(time)?,
                // Several machines' cases may tell at a time.
                Message::Note { text } => println!("       {}: {text}", self.begun.as_deref().unwrap_or_default()),
                Message::File { name, path, .. } => self.keep(&name, &path, &octets)?,
                Message::End { name, is_passed, took } => {
                    self.end(&name, is_passed, took)?;
                    patience = GRACE;
                }
                Message::Done => {
                    let (count, kernel) = (self.boot.cases.len(), self.boot.kernel);
                    println!("lab: {count} cases on {kernel} done, the machine ran for {} s", heard_last.as_secs());
                    return Ok(());
                }
            }
        }
    }

    /// The folder for what a case leaves.
    fn place(&self, name: &str) -> PathBuf {
        self.folder.join("cases").join(self.boot.kernel.to_string()).join(name)
    }

    fn keep(&self, name: &str, path: &str, octets: &[u8]) -> Result<()> {
        let is_inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        let is_known = self.boot.cases.iter().any(|case| case.name == name);
        if !is_inside || !is_known {
            bail!("the guest sends a file {path:?} of {name:?}, which is no place for one");
        }
        let place = self.place(name).join(path);
        std::fs::create_dir_all(place.parent().context("a file has a folder")?)?;
        Ok(std::fs::write(place, octets)?)
    }

    fn end(&mut self, name: &str, is_passed: bool, took: Duration) -> Result<()> {
        self.begun = None;
        self.ended.push(name.to_owned());
        let verdict = if is_passed { "passed" } else { "FAILED" };
        println!("{verdict} {:6.1} s  {name} on {}", took.as_secs_f64(), self.boot.kernel);
        if is_passed {
            locked(self.outcome).passed += 1;
        } else {
            let folder = self.place(name);
            let output = std::fs::read_to_string(folder.join("output")).unwrap_or_default();
            let lines: Vec<&str> = output.lines().collect();
            println!("{}", lines[lines.len().saturating_sub(40)..].join("\n"));
            std::fs::create_dir_all(&folder)?;
            std::fs::copy(self.console, folder.join("console"))?;
            locked(self.outcome).failed.push((format!("{name} on {}", self.boot.kernel), folder));
        }
        Ok(())
    }

    /// The machine is gone: what has not ended has failed.
    fn fail_rest(&mut self) -> Result<()> {
        let text =
            std::fs::read(self.console).map(|octets| String::from_utf8_lossy(&octets).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        println!("lab: the console's last lines:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        for case in self.boot.cases.iter().filter(|case| !self.ended.iter().any(|name| name == case.name)) {
            let name = format!("{} on {}", case.name, self.boot.kernel);
            let is_begun = self.begun.as_deref() == Some(case.name);
            println!("FAILED           {name}{}", if is_begun { "" } else { " (never begun)" });
            let folder = self.place(case.name);
            std::fs::create_dir_all(&folder)?;
            std::fs::copy(self.console, folder.join("console"))?;
            locked(self.outcome).failed.push((name, folder));
        }
        Ok(())
    }
}
