//! A container, run by crun.

use crate::cluster::shell;
use crate::support::server::wait_until;
use crate::support::tools::write;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// For crun, under emulation.
const SOON: Duration = Duration::from_secs(60);

/// A container and the `crun run` that waits for its end.
pub struct Container {
    id: String,
    crun: Child,
    first_process: Option<i32>,
}

impl Container {
    /// Starts it; its bundle is made in `folder`, and what it writes goes to `log`. One that cannot be started has
    /// ended, and `log` says why.
    pub fn start(id: &str, spec: &Value, folder: &Path, log: &Path) -> Self {
        let bundle = folder.join(format!("bundle-{id}"));
        std::fs::create_dir(&bundle).expect("the scratch folder can be written");
        write(&bundle, "config.json", &serde_json::to_string_pretty(spec).expect("JSON can be written"));
        let pid = bundle.join("pid");
        let output = File::create(log).expect("the scratch folder can be written");
        let errors = output.try_clone().expect("a second handle to the log");
        let mut command = Command::new("crun");
        command.args(["--cgroup-manager=cgroupfs", "run", "--bundle"]).arg(&bundle).arg("--pid-file").arg(&pid).arg(id);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let mut crun = command.spawn().unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        let mut first_process = None;
        wait_until(SOON, || {
            first_process = std::fs::read_to_string(&pid).ok().and_then(|text| text.trim().parse().ok());
            first_process.is_some() || crun.try_wait().is_ok_and(|status| status.is_some())
        });
        Self { id: id.to_owned(), crun, first_process }
    }

    /// By the number that the machine knows it by.
    pub fn first_process(&self) -> Option<i32> {
        self.first_process
    }

    /// How it ended, if it has; a process that a signal ended has the signal's number above 128.
    pub fn end(&mut self) -> Option<ExitStatus> {
        self.crun.try_wait().expect("the process can be asked")
    }

    /// Ends it if it has not ended: asks, and kills when `grace` is over. How it ended.
    pub fn stop(&mut self, grace: Duration) -> String {
        if let Some(status) = self.end() {
            return status.to_string();
        }
        if let Some(pid) = self.first_process.and_then(Pid::from_raw) {
            let _it_may_have_ended = kill_process(pid, Signal::TERM);
        }
        if wait_until(grace, || self.end().is_some()) {
            return self.end().expect("it has ended").to_string();
        }
        shell(&format!("crun kill --all {} KILL", self.id));
        assert!(wait_until(SOON, || self.end().is_some()), "{} cannot be killed", self.id);
        "killed after the grace period".to_owned()
    }
}
