//! The emulator.

use super::image::Image;
use crate::channel::CLOCK_OF_INSTRUCTIONS;
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";

/// Of the machine, in MiB: its root is in it.
const MEMORY: u32 = 1024;

/// How long a kernel may take under KVM until it says its first word, which is some tenths of a second. Some machines
/// have a `/dev/kvm` under which nothing runs.
const PROBE: Duration = Duration::from_secs(2);

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
        machine.args(["-append", "console=ttyS0 earlyprintk=serial panic=-1", "-serial", &console]);
        let mut machine = started(machine.stdout(Stdio::null()).stderr(Stdio::null()))?;
        let until = Instant::now() + PROBE;
        let mut works = false;
        while !works && Instant::now() < until && machine.process.try_wait()?.is_none() {
            std::thread::sleep(Duration::from_millis(20));
            works = log.metadata().is_ok_and(|found| found.len() > 0);
        }
        if !works {
            println!("lab: KVM is here and runs nothing: qemu translates (TCG), which is slower");
        }
        Ok(if works { Self::Kvm } else { Self::Tcg })
    }
}

/// A machine that runs. It ends when this is dropped.
pub struct Machine {
    process: Child,
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
        let mut machine = started(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
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
        started(&mut command)?.process.wait()?;
        Ok(())
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

/// What every machine has: no network, and nothing of the user's settings.
fn command(accelerator: Accelerator, image: &Image) -> Command {
    let mut command = Command::new(QEMU);
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

fn started(command: &mut Command) -> Result<Machine> {
    let process = command
        .spawn()
        .with_context(|| format!("starting {QEMU} (Debian's package qemu-system-x86; scripts/install-test-deps)"))?;
    Ok(Machine { process })
}
