//! Runs a program to its end or its deadline.

use crate::threads;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// How long an iptables program may take: the wait for the xtables lock (5 s), and its work.
pub(super) const LIMIT: Duration = Duration::from_secs(8);

/// How long a program that was killed may take to be gone. One that the kernel holds is left behind.
const REAP: Duration = Duration::from_millis(500);

/// Of a run, for both who waits and who runs.
#[derive(Default)]
struct ProgramRun {
    process: Option<u32>,
    is_over: bool,
}

/// Runs a program with `input` on its standard input to its end, or kills it with all that it has started.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] after `limit`; it cannot be started.
pub(super) fn run(mut command: Command, input: Vec<u8>, limit: Duration) -> io::Result<Output> {
    // A group of its own, since a program may be a script.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let run = Arc::new(Mutex::new(ProgramRun::default()));
    let (done, outcome) = mpsc::sync_channel(1);
    let within = run.clone();
    // To start a program may take as long as its file system takes to answer.
    threads::spawn("program", None, move || {
        let mut to_the_end = || {
            let mut process = command.spawn()?;
            {
                let mut run = within.lock().unwrap_or_else(PoisonError::into_inner);
                run.process = Some(process.id());
                if run.is_over {
                    kill(process.id());
                }
            }
            if let Some(mut stdin) = process.stdin.take() {
                // A program that does not read to the end tells the reason itself.
                let _it_may_have_ended = stdin.write_all(&input);
            }
            process.wait_with_output()
        };
        // Nobody waits any longer, perhaps.
        _ = done.send(to_the_end());
    })?;
    if let Ok(outcome) = outcome.recv_timeout(limit) {
        return outcome;
    }
    {
        let mut run = run.lock().unwrap_or_else(PoisonError::into_inner);
        run.is_over = true;
        run.process.into_iter().for_each(kill);
    }
    _ = outcome.recv_timeout(REAP);
    Err(io::ErrorKind::TimedOut.into())
}

fn kill(process: u32) {
    let group = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    // Fails if it has ended.
    group.into_iter().for_each(|group| _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL));
}

#[cfg(test)]
mod tests {
    use super::run;
    use std::io;
    use std::process::Command;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_gets_its_input_and_gives_its_output_and_status() {
        let output = run(shell("cat; echo bad >&2; exit 3"), b"words".to_vec(), LONG).unwrap();
        assert_eq!(
            (&output.stdout[..], &output.stderr[..], output.status.code()),
            (&b"words"[..], &b"bad\n"[..], Some(3))
        );
        let error = run(Command::new("/no/such/program"), Vec::new(), LONG).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_what_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // The pipe's writing end is held by the program's child until that is killed.
        let mut hanging = shell("sleep 1000 > pipe & exec sleep 1000");
        hanging.current_dir(folder.path());
        let reader = std::thread::spawn(move || std::fs::read(pipe));
        let error = run(hanging, vec![0; 1 << 20], Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(reader.join().unwrap().unwrap(), b"");
    }
}
