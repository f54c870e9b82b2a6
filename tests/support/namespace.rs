//! A network of its own for tests that need port 53, fixed ports, or another resolv.conf. Needs no root: a user
//! namespace gives the rights.

use super::tools::{require, tool};
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// User, network and mount namespaces with loopback up. They end when this is dropped and the last program in them has
/// ended.
pub struct Namespace {
    holder: Child,
}

impl Namespace {
    /// Files are pairs of (what to show, in place of what), such as a resolv.conf for /etc/resolv.conf.
    pub fn new(files: &[(&Path, &str)]) -> Self {
        require("ip");
        require("nsenter");
        let mounts: String =
            files.iter().map(|(shown, place)| format!("mount --bind '{}' '{place}'\n", shown.display())).collect();
        // glibc asks for addresses of a family only when the machine has one that is not loopback's (AI_ADDRCONFIG).
        let addresses = "ip address add 10.244.0.5/32 dev lo\nip address add fd00::5/128 dev lo\n";
        let script = format!("set -e\nip link set lo up\n{addresses}{mounts}echo ready\nexec sleep infinity");
        let mut command = tool("unshare");
        command.args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", &script]);
        let mut holder = command.stdout(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("running {command:?}: {e}"));
        let mut line = String::new();
        let output = holder.stdout.take().expect("standard output is a pipe");
        BufReader::new(output).read_line(&mut line).expect("the pipe can be read");
        let namespace = Self { holder };
        assert_eq!(
            line, "ready\n",
            "no network namespace here: are user namespaces allowed (kernel.unprivileged_userns_clone)?"
        );
        namespace
    }

    /// Gives loopback more addresses.
    pub fn add_addresses(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let lines = addresses.into_iter().filter(|address| !address.is_loopback() && !address.is_unspecified());
        let script: String = lines.map(|address| format!("ip address replace {address} dev lo\n")).collect();
        let status = self.command("sh").args(["-ec", &script]).status().expect("a shell runs");
        assert!(status.success(), "{script}: {status}");
    }

    /// A command that runs inside, in `folder`.
    pub fn command_in(&self, folder: &Path, program: impl AsRef<Path>) -> Command {
        let mut command = self.command("sh");
        command.args(["-c", "cd \"$0\" && exec \"$@\""]).arg(folder).arg(program.as_ref());
        command
    }

    /// A command that runs inside.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = tool("nsenter");
        command.args([
            "--target",
            &self.holder.id().to_string(),
            "--user",
            "--net",
            "--mount",
            "--preserve-credentials",
        ]);
        command.arg(program.as_ref());
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _it_may_have_ended = self.holder.kill();
        let _it_is_reaped = self.holder.wait();
    }
}
