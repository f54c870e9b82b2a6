//! Processes as /proc tells of them, and signals to them.

use rustix::process::{Pid, Signal, kill_process};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Sends a signal, such as `libc::SIGTERM`, to a process of ours.
pub fn signal(pid: i32, signal: libc::c_int) {
    let process = Pid::from_raw(pid).expect("a process ID");
    let named = Signal::from_named_raw(signal).expect("a signal that has a name");
    kill_process(process, named).unwrap_or_else(|error| panic!("sending signal {signal} to {pid}: {error}"));
}

/// The server of a watchdog, which alone is started by its first thread; other programs, such as iptables, are by other
/// threads.
pub fn server(watchdog: u32) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{watchdog}/task/{watchdog}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Kills the server of a watchdog.
pub fn kill_server(watchdog: u32) {
    signal(server(watchdog).expect("the watchdog has a server"), libc::SIGKILL);
}

/// Kills each server of a watchdog within milliseconds after its start, until this is dropped, as a limit on memory
/// does that is too small for it. Other programs that the watchdog starts are left alone.
pub struct ServerKiller {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ServerKiller {
    pub fn start(watchdog: u32) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let of_thread = is_over.clone();
        let thread = std::thread::spawn(move || {
            // What is not seen twice may be the watchdog still, about to become the server's program.
            let mut seen = None;
            while !of_thread.load(Ordering::Relaxed) {
                let found = server(watchdog);
                if let Some(server) = found.filter(|_| found == seen).and_then(Pid::from_raw) {
                    // It may have ended by itself.
                    _ = kill_process(server, Signal::KILL);
                }
                seen = found;
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for ServerKiller {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to panic about.
            _ = thread.join();
        }
    }
}
