//! Real DNS servers of Debian's packages, serving zone files.

use super::server::Server;
use super::tools::{require, write};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A zone: its name and its file's text.
pub type Zone<'a> = (&'a str, &'a str);

/// Where a daemon listens.
#[derive(Clone, Copy)]
pub struct Listen<'a> {
    pub address: &'a str,
    pub port: u16,
    /// False: TCP alone, where the daemon can do that (unbound).
    pub udp: bool,
}

/// Starts unbound as a resolver that takes the zones for the world's. `run` makes the command that runs a program, so
/// that it may run in a namespace.
pub fn start_unbound(
    listen: Listen<'_>,
    zones: &[Zone<'_>],
    folder: TempDir,
    run: impl Fn(PathBuf) -> Command,
) -> Server {
    start_unbound_with("", listen, zones, folder, run)
}

/// The same with more lines in its `server:` section.
pub fn start_unbound_with(
    lines: &str,
    listen: Listen<'_>,
    zones: &[Zone<'_>],
    folder: TempDir,
    run: impl Fn(PathBuf) -> Command,
) -> Server {
    let Listen { address, port, udp } = listen;
    let udp = if udp { "yes" } else { "no" };
    let mut config = format!(
        "server:\n interface: {address}@{port}\n do-udp: {udp}\n do-ip6: no\n username: \"\"\n chroot: \"\"\n pidfile: \"\"\n use-syslog: no\n \
         do-daemonize: no\n num-threads: 1\n module-config: \"iterator\"\n access-control: 127.0.0.0/8 allow\n \
         do-not-query-localhost: no\n qname-minimisation: no\n"
    );
    for (name, _) in zones {
        // Else it answers for test. and private reverse zones itself (RFC 6761).
        config += &format!(" local-zone: \"{name}.\" transparent\n");
    }
    config += lines;
    config += "remote-control:\n control-enable: no\n";
    for (name, text) in zones {
        let file = write(folder.path(), &format!("{name}.zone"), text);
        let file = file.display();
        config +=
            &format!("auth-zone:\n name: \"{name}\"\n zonefile: \"{file}\"\n for-downstream: no\n for-upstream: yes\n");
    }
    let config = write(folder.path(), "unbound.conf", &config);
    let mut command = run(unconfined("unbound", folder.path()));
    command.arg("-dd").arg("-c").arg(config);
    Server::spawn(command, folder)
}

/// Starts BIND with the zones as its own.
pub fn start_bind(listen: Listen<'_>, zones: &[Zone<'_>], folder: TempDir) -> Server {
    let Listen { address, port, udp } = listen;
    assert!(udp, "named always listens on UDP, too");
    let directory = folder.path().display();
    let mut config = format!(
        "options {{ directory \"{directory}\"; listen-on port {port} {{ {address}; }}; listen-on-v6 {{ none; }}; pid-file none; \
         session-keyfile none; recursion yes; dnssec-validation no; allow-query {{ any; }}; }};\ncontrols {{ }};\n"
    );
    for (name, text) in zones {
        write(folder.path(), &format!("{name}.zone"), text);
        config += &format!("zone \"{name}\" {{ type primary; file \"{name}.zone\"; }};\n");
    }
    let config = write(folder.path(), "named.conf", &config);
    let mut command = Command::new(unconfined("named", folder.path()));
    command.args(["-g", "-n", "1", "-c"]).arg(config);
    Server::spawn(command, folder)
}

/// A copy of the program beside its configuration: Debian's AppArmor profiles go by path, and would keep the installed
/// one from reading files here.
fn unconfined(program: &str, folder: &Path) -> PathBuf {
    let copy = folder.join(program);
    std::fs::copy(require(program), &copy).unwrap_or_else(|e| panic!("copying {program}: {e}"));
    copy
}
