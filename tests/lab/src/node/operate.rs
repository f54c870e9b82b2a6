//! What an operator does with the program.

use super::SOON;
use super::scene::{Scene, Start, start_agent};
use crate::cluster::{CLUSTER_IPS, LOCALS, program};
use crate::support::server::wait_until;
use crate::support::tools::{everything, run};
use std::process::Command;

impl Scene {
    /// Ends the program as kubelet does, and starts it again.
    pub fn restart(&mut self, start: &Start) {
        self.agent.watchdog.signal(libc::SIGTERM);
        let status = self.agent.watchdog.wait_exit(SOON);
        assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", self.agent.watchdog.tail(30));
        self.agent = start_agent(start);
    }

    /// Asks the doctor, as in the program's own container: [`doctor`].
    pub fn doctor(&self, status: i32) -> String {
        ask_doctor(|| self.program(), status)
    }
}

/// Removes what stays on the node on purpose when the program ends.
pub fn tear_down() {
    run(program().args(["teardown", "-localip", &[LOCALS, CLUSTER_IPS].concat().join(",")]));
}

/// Asks the doctor until it ends with `status`: 0 where pods and programs are answered as they should be. What it says.
pub fn doctor(status: i32) -> String {
    ask_doctor(program, status)
}

fn ask_doctor(program: impl Fn() -> Command, status: i32) -> String {
    let mut last = String::new();
    let agrees = || {
        let mut command = program();
        command.args(["doctor", "-localip", &[LOCALS, CLUSTER_IPS].concat().join(",")]);
        let told = command.output().expect("the program runs");
        last = format!("{}\n{}", told.status, everything(&told));
        told.status.code() == Some(status)
    };
    let is_so = wait_until(SOON, agrees);
    assert!(is_so, "the doctor does not end with {status}: {last}");
    last
}
