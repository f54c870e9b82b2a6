//! The emulator.

use super::image::Image;
use crate::channel::CLOCK_OF_INSTRUCTIONS;
use crate::support::tools::{require, tool};
use anyhow::{Context, Result};
use procfs::process::Process;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";

/// Of the machine, in MiB: its root is in it.
const MEMORY: u32 = 1024;

/// At a time: each takes [`MEMORY`] and a processor.
const MOST_MACHINES: usize = 8;

/// How long a kernel may take under KVM until it starts the first process, which is a second or two. Some machines have
/// a `/dev/kvm` under which nothing runs, or a kernel only until it comes to an instruction that is not emulated.
const PROBE: Duration = Duration::from_secs(15);
/// What the kernel says then.
const IS_UP: &str = "Run /init as init process";

/// How instructions are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    /// Translated by qemu, which anybody may. The machine's clock goes by what it has run, so a busy host slows the
    /// machine and nothing in it takes too long; while it waits for a timer, that is skipped.
    Tcg,
}

impl Accelerator {
    /// What works here, tried with the kernel of `image`.
    ///
    /// # Errors
    ///
    /// When qemu cannot be started.
    pub fn found(image: &Image, folder: &Path) -> Result<Self> {
        if File::options().read(true).write(true).open("/dev/kvm").is_err() {
            println!("lab: no KVM here that may be used: qemu translates (TCG), which is slower");
            return Ok(Self::Tcg);
        }
        let log = folder.join("kvm-probe.log");
        let console = format!("file:{}", log.display());
        let mut machine = command(Self::Kvm, image);
        machine.args(["-append", "console=ttyS0 loglevel=8 panic=-1", "-serial", &console]);
        let mut machine = started(Self::Kvm, machine.stdout(Stdio::null()).stderr(Stdio::null()))?;
        let until = Instant::now() + PROBE;
        let mut works = false;
        while !works && Instant::now() < until && machine.process.try_wait()?.is_none() {
            std::thread::sleep(Duration::from_millis(20));
            works = std::fs::read(&log).is_ok_and(|said| String::from_utf8_lossy(&said).contains(IS_UP));
        }
        if !works {
            println!("lab: KVM is here and does not get a kernel up: qemu translates (TCG), which is slower");
        }
        Ok(if works { Self::Kvm } else { Self::Tcg })
    }

    /// How many machines may run at a time. The clock of a translated one does not go by what the host has time for;
    /// that of the others does, and so each has all of it.
    pub fn machines(self) -> usize {
        match self {
            Self::Kvm => 1,
            Self::Tcg => std::thread::available_parallelism().map_or(1, usize::from).min(MOST_MACHINES),
        }
    }
}

/// A machine that runs. It ends when this is dropped.
pub struct Machine {
    process: Child,
    accelerator: Accelerator,
    booted: Instant,
    /// KVM has given up: it came to an instruction that it does not emulate.
    is_given_up: Arc<AtomicBool>,
}

impl Machine {
    /// Boots `image`, its console going to a file.
    ///
    /// # Errors
    ///
    /// When qemu cannot be started.
    pub fn boot(accelerator: Accelerator, image: &Image, console: &Path) -> Result<(Self, BufReader<ChildStdout>)> {
        let mut command = command(accelerator, image);
        command
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(["-append", &arguments(accelerator, "loglevel=6")]);
        // What the guest says comes through a port of its own.
        command.args(["-chardev", "stdio,id=said,signal=off", "-device", "virtio-serial-pci"]);
        command.args(["-device", "virtserialport,chardev=said,nr=1,name=lab"]);
        // An input that is at its end would count as a host that has gone; it is held open until the machine ends.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut machine = started(accelerator, &mut command)?;
        machine.listen_to_errors()?;
        let said = machine.process.stdout.take().context("standard output is a pipe")?;
        Ok((machine, BufReader::new(said)))
    }

    /// Boots `image` with its console here, and waits for its end.
    ///
    /// # Errors
    ///
    /// When qemu cannot be started.
    pub fn shell(accelerator: Accelerator, image: &Image) -> Result<()> {
        let mut command = command(accelerator, image);
        // Keys go to the machine: Ctrl-A X ends it.
        command.args(["-serial", "mon:stdio", "-append", &arguments(accelerator, "quiet loglevel=3")]);
        started(accelerator, &mut command)?.process.wait()?;
        Ok(())
    }

    /// Shows what qemu complains of. A machine that KVM has given up would stand still: it is ended.
    fn listen_to_errors(&mut self) -> Result<()> {
        let errors = self.process.stderr.take().context("standard error is a pipe")?;
        let (process, is_given_up) = (Pid::from_child(&self.process), self.is_given_up.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                if line.starts_with("KVM internal error") {
                    is_given_up.store(true, Ordering::Relaxed);
                    // It has not been reaped, since its standard error is open.
                    _ = kill_process(process, Signal::KILL);
                } else if !is_given_up.load(Ordering::Relaxed) {
                    eprintln!("qemu: {line}");
                }
            }
        });
        Ok(())
    }

    /// Whether KVM has given it up.
    pub fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed)
    }

    /// Has it stand still for a while. Under KVM its clocks go on, as qemu takes them from this machine's.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn suspend(&self, time: Duration) -> Result<()> {
        let process = Pid::from_child(&self.process);
        kill_process(process, Signal::STOP).context("stopping qemu")?;
        std::thread::sleep(time);
        kill_process(process, Signal::CONT).context("letting qemu go on")
    }

    /// How long it has run: processor time where a busy host slows it down, so that a host without time for it is not
    /// taken for a machine that hangs.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn time_run(&self) -> Result<Duration> {
        if self.accelerator == Accelerator::Kvm {
            return Ok(self.booted.elapsed());
        }
        let stat = Process::new(self.process.id().try_into()?).and_then(|process| process.stat());
        let stat = stat.context("asking for the processor time of qemu")?;
        Ok(Duration::from_secs_f64((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64))
    }

    /// Waits for its end, but for `patience` at most; whether it has ended.
    ///
    /// # Errors
    ///
    /// When the process cannot be asked.
    pub fn wait(&mut self, patience: Duration) -> Result<bool> {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if self.process.try_wait()?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(false)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _it_may_have_ended = self.process.kill();
        let _it_is_reaped = self.process.wait();
    }
}

/// What every machine has: no network, and nothing of the user's settings. It ends with the thread that has started it,
/// however that ends.
fn command(accelerator: Accelerator, image: &Image) -> Command {
    let mut command = tool("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(require(QEMU));
    command.args(match accelerator {
        Accelerator::Kvm => &["-accel", "kvm", "-cpu", "host", "-smp", "2"][..],
        // An instruction takes a nanosecond. Processors take turns then, and wait for each other most of the time.
        Accelerator::Tcg => &["-accel", "tcg", "-icount", "shift=0,sleep=off", "-cpu", "max,la57=off", "-smp", "1"],
    });
    command.args(["-m", &MEMORY.to_string(), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-nic", "none", "-kernel"]).arg(&image.kernel).arg("-initrd").arg(&image.archive);
    command
}

/// What the kernel is told. A panic ends the machine; clocks that emulation upsets are left alone.
fn arguments(accelerator: Accelerator, more: &str) -> String {
    // Where chance decides in a case it can be had again.
    let seed = std::env::var("LAB_SEED").map(|seed| format!("lab.seed={seed} ")).unwrap_or_default();
    let clock = match accelerator {
        Accelerator::Kvm => String::new(),
        Accelerator::Tcg => format!("lab.clock={CLOCK_OF_INSTRUCTIONS} "),
    };
    format!("{seed}{clock}console=ttyS0 panic=-1 tsc=reliable random.trust_cpu=on mitigations=off {more}")
}

fn started(accelerator: Accelerator, command: &mut Command) -> Result<Machine> {
    let process = command.spawn().context("starting qemu by way of setpriv")?;
    Ok(Machine { process, accelerator, booted: Instant::now(), is_given_up: Arc::default() })
}
