//! The machine's first process.

use super::mounts::{leave_first_root, mount_machine};
use crate::channel::{MAX_FILE, Message, PLAN, Plan, PlannedCase, say};
use rustix::system::{RebootCommand, reboot};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where each case has a folder for what is to be brought out.
pub const CASES: &str = "/lab/cases";
/// Names the folder in its place, for a case that runs elsewhere.
pub const CASES_VARIABLE: &str = "LAB_CASES";
/// What is before lines of a case's output that the user sees while it runs.
pub const NOTE: &str = "lab: ";
/// The same for how many milliseconds the machine is to stand still.
pub const SUSPEND: &str = "lab-suspend: ";
/// To find programs; those of busybox, which are less than the real ones, last.
const SEARCHED: &str = "/usr/local/sbin:/usr/sbin:/usr/bin:/lab:/usr/local/bin";
/// What the process of a case may take beyond its limit, which it minds itself, with the dump.
const GRACE: Duration = Duration::from_secs(45);

/// Does what the plan says, and ends the machine.
pub fn run() -> ! {
    let error = serve().err();
    if let Some(error) = error {
        eprintln!("lab: {error}");
    }
    // Its own end would be a panic of the kernel. qemu ends when the machine restarts.
    _ = reboot(RebootCommand::Restart);
    std::process::exit(1)
}

fn serve() -> io::Result<()> {
    let plan: Plan = serde_json::from_slice(&std::fs::read(PLAN)?)?;
    leave_first_root()?;
    mount_machine().map_err(|(place, error)| io::Error::other(format!("mounting {place}: {error}")))?;
    // With the rights and the environment that every process of the machine inherits.
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    leave_out(&plan.without, &Path::new("/lib/modules").join(&release))?;
    shell(
        "/usr/bin/busybox --install -s /usr/local/bin
        echo 1 >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || :
        hostname node
        ip link set lo up
        for module in virtio_pci virtio_console; do modprobe $module 2>/dev/null || :; done",
    )?;
    if plan.is_shell {
        let mut prompt = Command::new("setsid");
        prompt.args(["cttyhack", "/usr/bin/dash"]);
        environment(&mut prompt).status()?;
        return Ok(());
    }
    let mut port = open_port()?;
    say(&mut port, &Message::Up { release }, &[])?;
    for case in &plan.cases {
        run_case(&mut port, case)?;
    }
    say(&mut port, &Message::Done, &[])
}

/// Removes modules from the index and the disk, so that neither we nor the kernel can load them.
fn leave_out(names: &[String], folder: &Path) -> io::Result<()> {
    for found in std::fs::read_dir(folder)?.flatten() {
        let (path, file) = (found.path(), found.file_name().to_string_lossy().into_owned());
        let is_named = |name: &String| file.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(".ko"));
        if found.file_type()?.is_dir() {
            leave_out(names, &path)?;
        } else if names.iter().any(is_named) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Runs lines of shell, each of which must succeed.
fn shell(script: &str) -> io::Result<()> {
    // Not busybox's, to which its own programs come before all others.
    let status = environment(Command::new("/usr/bin/dash").args(["-euc", script])).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{script}: {status}"))) }
}

fn environment(command: &mut Command) -> &mut Command {
    command.env_clear().envs([
        ("PATH", SEARCHED),
        ("HOME", "/root"),
        ("TERM", "linux"),
        ("RUST_BACKTRACE", "0"),
        ("NODELOCALDNS_BIN", "/lab/nodelocaldns"),
    ])
}

/// The port to the host, which is there once its driver has found it.
fn open_port() -> io::Result<File> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let found = std::fs::read_dir("/dev")?.flatten().find(|entry| {
            entry.file_name().to_string_lossy().strip_prefix("vport").is_some_and(|rest| rest.ends_with("p1"))
        });
        match found {
            Some(entry) => return File::options().read(true).write(true).open(entry.path()),
            None if Instant::now() > until => return Err(io::Error::other("no port to the host (virtio_console)")),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn run_case(port: &mut File, case: &PlannedCase) -> io::Result<()> {
    say(port, &Message::Begin { name: case.name.clone() }, &[])?;
    let folder = Path::new(CASES).join(&case.name);
    std::fs::create_dir_all(&folder)?;
    let began = Instant::now();
    let mut process = start(case)?;
    let output = process.stdout.take().ok_or_else(|| io::Error::other("standard output is a pipe"))?;
    let is_passed = std::thread::scope(|scope| {
        let mut notes = port.try_clone()?;
        let log = File::create(folder.join("output"))?;
        scope.spawn(move || {
            let _the_host_may_be_gone = follow(BufReader::new(output), log, &mut notes);
        });
        let is_passed = wait(&mut process, case.limit + GRACE)?;
        // Nothing that it has left is to hold its output open.
        reap();
        Ok::<_, io::Error>(is_passed)
    })?;
    let took = began.elapsed();
    if !is_passed {
        shell(&format!("dmesg >{0}/dmesg; free >{0}/free; lsmod >{0}/lsmod", folder.display()))?;
    }
    for path in files(&folder)? {
        send(port, case, &folder, &path)?;
    }
    say(port, &Message::End { name: case.name.clone(), is_passed, took }, &[])
}

/// The process of a case, in namespaces of its own unless it wants the machine.
fn start(case: &PlannedCase) -> io::Result<Child> {
    let mut command = Command::new("/usr/bin/unshare");
    if case.is_on_machine {
        command = Command::new("/lab/lab");
    } else {
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "/lab/lab"]);
    }
    command.args(["case", &case.name]).stdin(Stdio::null()).stdout(Stdio::piped());
    // Standard error goes the same way, in the same order.
    let both = ["-c", "exec \"$0\" \"$@\" 2>&1"];
    let mut shell = Command::new("/usr/bin/dash");
    shell.args(both).arg(command.get_program()).args(command.get_args());
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    environment(&mut shell).spawn()
}

/// Writes a case's output down and shows what it wants to be seen.
fn follow(output: impl BufRead, mut log: File, port: &mut File) -> io::Result<()> {
    for line in output.split(b'\n') {
        let line = line?;
        log.write_all(&line)?;
        log.write_all(b"\n")?;
        if let Some(text) = String::from_utf8_lossy(&line).strip_prefix(NOTE) {
            say(port, &Message::Note { text: text.to_owned() }, &[])?;
        }
        if let Some(Ok(time)) = String::from_utf8_lossy(&line).strip_prefix(SUSPEND).map(str::parse) {
            say(port, &Message::Suspend { time: Duration::from_millis(time) }, &[])?;
        }
    }
    Ok(())
}

/// Whether it ended well and in time; it is ended otherwise.
fn wait(process: &mut Child, limit: Duration) -> io::Result<bool> {
    let until = Instant::now() + limit;
    loop {
        if let Some(status) = process.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() > until {
            process.kill()?;
            process.wait()?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ends what a case has left on the machine: in namespaces nothing is left.
fn reap() {
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in processes {
        let name = entry.file_name();
        let is_other = name.to_str().is_some_and(|pid| pid.parse::<u32>().is_ok() && pid != own);
        // A thread of the kernel runs no program.
        if is_other && std::fs::read_link(entry.path().join("exe")).is_ok() {
            let pid = name.to_str().and_then(|pid| pid.parse().ok()).and_then(rustix::process::Pid::from_raw);
            _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        }
    }
    while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
}

/// Everything below a folder that is a file.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else if entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Brings a file out; of one that is too long the end.
fn send(port: &mut File, case: &PlannedCase, folder: &Path, path: &Path) -> io::Result<()> {
    let octets = std::fs::read(path)?;
    let skipped = octets.len().saturating_sub(usize::try_from(MAX_FILE).map_err(io::Error::other)?);
    let path = path.strip_prefix(folder).map_err(io::Error::other)?.display().to_string();
    let octets = &octets[skipped..];
    say(port, &Message::File { name: case.name.clone(), path, octets: octets.len() as u64 }, octets)
}
