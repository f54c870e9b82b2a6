//! Processes as /proc tells of them, and signals to them.

use rustix::process::{Pid, Signal, kill_process};

/// The children of a process, whichever of its threads has started them.
pub fn children(pid: u32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let listed = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    listed
        .flat_map(|children| children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

/// Sends a signal, such as `libc::SIGTERM`, to a process of ours.
pub fn signal(pid: i32, signal: libc::c_int) {
    let process = Pid::from_raw(pid).expect("a process ID");
    let named = Signal::from_named_raw(signal).expect("a signal that has a name");
    kill_process(process, named).unwrap_or_else(|error| panic!("sending signal {signal} to {pid}: {error}"));
}
