//! File systems that hang or are full, in a mount namespace of their own. Needs no root where /dev/fuse may be opened:
//! a user namespace gives the rights.

use super::tools::{require, tool};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// User and mount namespaces. They end when this is dropped and the last program in them has ended.
pub struct Mounts {
    holder: Child,
}

/// A folder over which a file system is mounted that never answers (FUSE whose requests nobody reads), as NFS does
/// whose server is gone: whoever opens anything in it hangs until he is killed.
pub struct Hanging<'a> {
    mounts: &'a Mounts,
    folder: PathBuf,
    holder: Child,
}

impl Mounts {
    pub fn new() -> Self {
        require("nsenter");
        let mut command = tool("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", "echo ready; exec sleep infinity"]);
        Self { holder: ready(command) }
    }

    /// A command that runs inside.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = tool("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--user", "--mount", "--preserve-credentials"]);
        command.arg(program.as_ref());
        command
    }

    /// Has a folder hang from now on.
    pub fn hang(&self, folder: &Path) -> Hanging<'_> {
        let script = format!(
            "exec 7<>/dev/fuse && mount -i -t fuse -o fd=7,rootmode=40000,user_id=0,group_id=0 hung '{}' && echo ready && exec sleep infinity",
            folder.display()
        );
        let mut command = self.command("sh");
        command.args(["-c", &script]);
        Hanging { mounts: self, folder: folder.to_owned(), holder: ready(command) }
    }

    /// Mounts a file system without any room over a folder; an empty file is in it for each name.
    pub fn fill(&self, folder: &Path, names: &[&str]) {
        let folder = folder.display();
        let files: String = names.iter().map(|name| format!(" && : > '{folder}/{name}'")).collect();
        let full = format!("dd if=/dev/zero of='{folder}/filler' 2> /dev/null");
        self.run(&format!("mount -t tmpfs -o size=16k none '{folder}'{files}; {full}; test -s '{folder}/filler'"));
    }

    fn run(&self, script: &str) {
        let status = self.command("sh").args(["-c", script]).status().expect("a shell runs");
        assert!(status.success(), "{script}: {status}");
    }
}

impl Hanging<'_> {
    /// It is the folder that it was before.
    pub fn release(self) {
        // Lazily: the kernel asks a file system that hangs before it is taken off.
        self.mounts.run(&format!("umount -i -l '{}'", self.folder.display()));
    }
}

impl Drop for Hanging<'_> {
    /// Whoever hangs gets an error.
    fn drop(&mut self) {
        end(&mut self.holder);
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        end(&mut self.holder);
    }
}

fn end(process: &mut Child) {
    let _it_may_have_ended = process.kill();
    let _it_is_reaped = process.wait();
}

/// A program that has said so.
fn ready(mut command: Command) -> Child {
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("running {command:?}: {e}"));
    let mut line = String::new();
    let output = process.stdout.take().expect("standard output is a pipe");
    BufReader::new(output).read_line(&mut line).expect("the pipe can be read");
    assert_eq!(
        line, "ready\n",
        "{command:?}: are user namespaces allowed (kernel.unprivileged_userns_clone), and may /dev/fuse be opened?"
    );
    process
}
