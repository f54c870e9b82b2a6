//! The program under test, running.

use super::client::loopback;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The program: the one cargo built, or what `NODELOCALDNS_BIN` names, so that the same tests can be held against
/// another implementation.
pub fn binary() -> PathBuf {
    // Cargo tells it to the tests of the program's package alone.
    let built = || match option_env!("CARGO_BIN_EXE_nodelocaldns") {
        Some(path) => OsString::from(path),
        None => panic!("NODELOCALDNS_BIN names the program"),
    };
    std::env::var_os("NODELOCALDNS_BIN").unwrap_or_else(built).into()
}

/// Whether another implementation is under test: not this program, built for another machine say.
pub fn is_reference() -> bool {
    std::env::var_os("NODELOCALDNS_BIN").is_some_and(|program| {
        let said = Command::new(&program).arg("-version").output();
        let said = said.unwrap_or_else(|e| panic!("running {}: {e}", program.display()));
        !said.stdout.starts_with(b"nodelocaldns-")
    })
}

/// The command of a DaemonSet's container, with everything that would touch the machine switched off. The Corefile's
/// neighbour `Corefile.base` is the template that the reference renders to it.
pub fn reference_command(corefile: &Path, metrics_port: u16) -> Command {
    let mut base = corefile.as_os_str().to_owned();
    base.push(".base");
    let mut command = Command::new(binary());
    command.args(["-localip", "127.0.0.1", "-conf"]).arg(corefile).arg("-basecorefile").arg(base);
    command.args(["-setupinterface=false", "-setupiptables=false", "-skipteardown"]);
    command.arg("-metrics-listen-address").arg(format!("127.0.0.1:{metrics_port}"));
    command
}

/// Writes `text` as the Corefile of `folder` and as the template it is rendered from.
pub fn write_corefile(folder: &Path, text: &str) -> PathBuf {
    let corefile = folder.join("Corefile");
    for path in [&corefile, &folder.join("Corefile.base")] {
        std::fs::write(path, text).expect("the scratch folder can be written");
    }
    corefile
}

/// A scratch folder that is gone with its value.
pub fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("nodelocaldns-test-").tempdir().expect("a scratch folder")
}

/// A running program. Killed when dropped; its output is kept in a file beside its Corefile.
pub struct Server {
    process: Child,
    log: PathBuf,
    pub folder: TempDir,
}

impl Server {
    /// Starts `command` in `folder`.
    pub fn spawn(mut command: Command, folder: TempDir) -> Self {
        let log = folder.path().join("log");
        let output = File::create(&log).expect("the scratch folder can be written");
        let errors = output.try_clone().expect("a second handle to the log");
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(output).stderr(errors);
        let mut process = command.spawn();
        // A program that was just copied is busy while a child that another test forked meanwhile, with the copy open,
        // has yet to exec.
        wait_until(Duration::from_secs(5), || {
            let is_busy = |process: &io::Result<Child>| {
                process.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::ExecutableFileBusy)
            };
            if is_busy(&process) {
                process = command.spawn();
            }
            !is_busy(&process)
        });
        let process = process.unwrap_or_else(|e| panic!("starting {command:?}: {e}"));
        Self { process, log, folder }
    }

    /// Starts the program under test on `corefile` and waits until `port` is served.
    pub fn start(corefile: &str, port: u16) -> Self {
        let folder = scratch();
        let path = write_corefile(folder.path(), corefile);
        let mut server = Self::spawn(reference_command(&path, super::ports::free_port()), folder);
        server.wait_ready(port).unwrap_or_else(|e| panic!("{e}"));
        server
    }

    pub fn corefile(&self) -> PathBuf {
        self.folder.path().join("Corefile")
    }
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it has written so far, standard output and error together.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of [`Server::output`].
    pub fn tail(&self, lines: usize) -> String {
        let output = self.output();
        let all: Vec<&str> = output.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Waits until the port takes a TCP connection. The error says why it did not come to that.
    pub fn wait_ready(&mut self, port: u16) -> Result<(), String> {
        let patience = Duration::from_secs(10);
        let ready = wait_until(patience, || {
            TcpStream::connect_timeout(&loopback(port), Duration::from_millis(200)).is_ok()
                || self.exit_status().is_some()
        });
        match self.exit_status() {
            Some(status) => Err(format!("ended before it served, {status}:\n{}", self.tail(12))),
            None if !ready => Err(format!("did not serve port {port} within {patience:?}:\n{}", self.tail(12))),
            None => Ok(()),
        }
    }

    /// Waits until the output holds `text`.
    pub fn wait_output(&self, text: &str, patience: Duration) {
        let said = wait_until(patience, || self.output().contains(text));
        assert!(said, "{text:?} did not appear in the output within {patience:?}:\n{}", self.tail(20));
    }

    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("the process can be asked")
    }

    /// The exit status, if it ends in time.
    pub fn wait_exit(&mut self, patience: Duration) -> Option<ExitStatus> {
        wait_until(patience, || self.exit_status().is_some());
        self.exit_status()
    }

    /// Sends a signal, such as `libc::SIGTERM`.
    pub fn signal(&self, signal: libc::c_int) {
        super::processes::signal(self.process.id().cast_signed(), signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _it_may_have_ended = self.process.kill();
        let _it_is_reaped = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- last lines of the server's output\n{}", self.tail(20));
        }
    }
}

/// Asks `condition` every few milliseconds until it holds; false when it does not in time.
pub fn wait_until(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
