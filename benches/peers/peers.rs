//! The servers: how each is told to be a cache in front of the scripted upstream, with one thread that answers.

use crate::corefiles::corefile;
use crate::process::find;
use anyhow::{Context, Result};
use clap::ValueEnum;
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Peer {
    /// A bare loop that receives and answers a constant.
    Floor,
    /// nodelocaldns
    Ours,
    Unbound,
    Dnsdist,
    /// PowerDNS Recursor
    Recursor,
    Dnsmasq,
    /// hickory-server and moka
    Libraries,
    /// The reference, if NODE_CACHE names its binary
    NodeCache,
}

impl Peer {
    /// In the order of tables.
    pub const ALL: [Self; 8] = [
        Self::Floor,
        Self::Ours,
        Self::Unbound,
        Self::Dnsdist,
        Self::Recursor,
        Self::Dnsmasq,
        Self::Libraries,
        Self::NodeCache,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Ours => "nodelocaldns",
            Self::Unbound => "unbound",
            Self::Dnsdist => "dnsdist",
            Self::Recursor => "recursor",
            Self::Dnsmasq => "dnsmasq",
            Self::Libraries => "libraries",
            Self::NodeCache => "node-cache",
        }
    }

    /// Its program and the package that brings it; `None` for those that are not installed.
    fn program(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Unbound => Some(("unbound", "unbound")),
            Self::Dnsdist => Some(("dnsdist", "dnsdist")),
            Self::Recursor => Some(("pdns_recursor", "pdns-recursor")),
            Self::Dnsmasq => Some(("dnsmasq", "dnsmasq-base")),
            Self::Floor | Self::Ours | Self::Libraries | Self::NodeCache => None,
        }
    }
}

/// What a server is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Everything forwarded to the upstream, over UDP or TCP only.
    Forward { over_tcp: bool },
    /// Only of ours: everything forwarded over TLS,
    ForwardTls,
    /// over HTTPS.
    ForwardHttps,
    /// As over UDP, with thousands of TCP clients.
    ManyClients,
    /// What the stock node-local Corefile does: ours and the reference get that file. Its cluster domain is asked for
    /// over TCP; the others have one upstream, over UDP, as they would be set up in its place.
    NodeLocal,
    /// Only of ours and the reference: a cache of so many entries,
    Entries(usize),
    /// so many server blocks with a zone each,
    Blocks(usize),
    /// so many listen addresses.
    Addresses(usize),
}

/// Where a server runs and whom it asks.
pub struct Place<'a> {
    pub address: SocketAddrV4,
    pub upstream: SocketAddrV4,
    /// The upstream's certificate, in PEM.
    pub certificate: &'a Path,
    /// Scratch of its own.
    pub folder: &'a Path,
    /// The program under test.
    pub ours: &'a Path,
    pub node_cache: Option<&'a Path>,
    /// Worker threads of ours and the reference.
    pub workers: usize,
}

/// Names that a cache must hold at most.
const CACHED_NAMES: usize = 10_000;
/// How long TCP connections may be idle, so that idle ones stay while they are looked at.
const IDLE_MILLISECONDS: u64 = 120_000;

impl Peer {
    /// The command that runs it in the foreground; `None` where it cannot be what is wanted.
    #[allow(clippy::too_many_lines, reason = "one arm a program")]
    pub fn command(self, service: Service, place: &Place<'_>) -> Result<Option<Command>> {
        let Place { address, upstream, folder, .. } = place;
        let (ip, port) = (address.ip(), address.port());
        let (upstream_ip, upstream_port) = (upstream.ip(), upstream.port());
        let over_tcp = service == Service::Forward { over_tcp: true };
        let write = |name: &str, text: &str| -> Result<PathBuf> {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        };
        let shown = folder.display();
        let idle_seconds = IDLE_MILLISECONDS / 1000;
        if matches!(service, Service::ForwardTls | Service::ForwardHttps) && self != Self::Ours {
            return Ok(None);
        }
        let is_for_corefiles = matches!(service, Service::Entries(_) | Service::Blocks(_) | Service::Addresses(_));
        if is_for_corefiles && !matches!(self, Self::Ours | Self::NodeCache) {
            return Ok(None);
        }
        let command = match self {
            Self::Floor => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["floor", &address.to_string()]);
                command
            }
            // It asks over UDP alone.
            Self::Libraries if over_tcp => return Ok(None),
            Self::Libraries => {
                let mut command = Command::new(std::env::current_exe()?);
                let entries = CACHED_NAMES.to_string();
                command.args(["libraries", &address.to_string(), &upstream.to_string(), &entries]);
                command
            }
            Self::Ours => {
                let mut command = Command::new(place.ours);
                command.arg("-conf").arg(write("Corefile", &corefile(service, place))?).arg("-quiet");
                command.args(["--workers", &place.workers.to_string()]);
                if let Service::Entries(_) = service {
                    // The entries alone are to be the bound.
                    command.args(["--cache-memory", "4GiB"]);
                }
                command
            }
            Self::NodeCache => {
                let Some(program) = place.node_cache else { return Ok(None) };
                let text = corefile(service, place);
                let (corefile, template) = (write("Corefile", &text)?, write("Corefile.base", &text)?);
                let mut command = Command::new(program);
                command.args(["-localip", &ip.to_string(), "-conf"]).arg(corefile).arg("-basecorefile").arg(template);
                command.args(["-setupinterface=false", "-setupiptables=false", "-skipteardown"]);
                command
                    .args(["-metrics-listen-address", &format!("{ip}:9353")])
                    .env("GOMAXPROCS", place.workers.to_string());
                command
            }
            Self::Unbound => {
                let tcp = if over_tcp { "yes" } else { "no" };
                // Each has a buffer. With half of them in use it would close idle connections early.
                let tcp_clients = if service == Service::ManyClients { 10_000 } else { 100 };
                let config = write(
                    "unbound.conf",
                    &format!(
                        "server:\n interface: {ip}@{port}\n num-threads: 1\n do-ip6: no\n username: \"\"\n chroot: \"\"\n \
                         directory: \"{shown}\"\n pidfile: \"\"\n use-syslog: no\n do-daemonize: no\n module-config: \"iterator\"\n \
                         access-control: 127.0.0.0/8 allow\n do-not-query-localhost: no\n qname-minimisation: no\n \
                         outgoing-range: 8192\n num-queries-per-thread: 4096\n msg-cache-size: 64m\n rrset-cache-size: 128m\n \
                         incoming-num-tcp: {tcp_clients}\n tcp-upstream: {tcp}\n tcp-idle-timeout: {IDLE_MILLISECONDS}\n\
                         remote-control:\n control-enable: no\n\
                         forward-zone:\n name: \".\"\n forward-addr: {upstream_ip}@{upstream_port}\n"
                    ),
                )?;
                let mut command = Command::new(self.unconfined(folder)?);
                command.arg("-dd").arg("-c").arg(config);
                command
            }
            Self::Dnsdist => {
                let config = write(
                    "dnsdist.conf",
                    &format!(
                        "setLocal('{ip}:{port}', {{maxConcurrentTCPConnections=0}})\nsetACL('127.0.0.0/8')\n\
                         setSecurityPollSuffix('')\nsetMaxUDPOutstanding(65535)\nsetMaxTCPClientThreads(1)\nsetTCPRecvTimeout({idle_seconds})\n\
                         newServer({{address='{upstream}', tcpOnly={over_tcp}}}):setUp()\n\
                         getPool(''):setCache(newPacketCache({CACHED_NAMES}, {{maxTTL=86400, minTTL=0, numberOfShards=1}}))\n"
                    ),
                )?;
                let mut command = Command::new(self.unconfined(folder)?);
                command.args(["--supervised", "--disable-syslog", "-C"]).arg(config);
                command
            }
            Self::Recursor if over_tcp => return Ok(None),
            Self::Recursor => {
                write(
                    "recursor.conf",
                    &format!(
                        "local-address={ip}\nlocal-port={port}\nthreads=1\npdns-distributes-queries=no\n\
                         forward-zones-recurse=.={upstream}\ndont-query=\ndnssec=off\nallow-from=127.0.0.0/8\ndaemon=no\n\
                         disable-syslog=yes\nsocket-dir={shown}\nsecurity-poll-suffix=\nsetuid=\nsetgid=\nquiet=yes\n\
                         client-tcp-timeout={idle_seconds}\nmax-tcp-clients=5000\nmax-tcp-per-client=0\nmax-tcp-queries-per-connection=0\n"
                    ),
                )?;
                let mut command = Command::new(self.unconfined(folder)?);
                command.arg(format!("--config-dir={shown}"));
                command
            }
            Self::Dnsmasq if over_tcp => return Ok(None),
            Self::Dnsmasq => {
                let config = write(
                    "dnsmasq.conf",
                    &format!(
                        "no-resolv\nno-hosts\nno-poll\nbind-interfaces\nlisten-address={ip}\nport={port}\n\
                         server={upstream_ip}#{upstream_port}\ncache-size={CACHED_NAMES}\npid-file=\n\
                         user={}\ngroup={}\n",
                        owner("-un")?,
                        owner("-gn")?
                    ),
                )?;
                let mut command = Command::new(self.unconfined(folder)?);
                command.args(["--keep-in-foreground", "--log-facility=-", "--conf-file"]);
                command.arg(format!("--conf-file={}", config.display()));
                command
            }
        };
        Ok(Some(command))
    }

    /// A copy of its program beside its configuration: Debian's AppArmor profiles go by path, and would keep the
    /// installed one from reading files here.
    fn unconfined(self, folder: &Path) -> Result<PathBuf> {
        let (program, package) = self.program().context("no installed program")?;
        let installed = find(program).with_context(|| {
            format!("{program} is not installed: run scripts/install-bench-deps (Debian's package {package}), or leave it out with --peers")
        })?;
        let copy = folder.join(program);
        fs::copy(&installed, &copy)
            .with_context(|| format!("cannot copy {} to {}", installed.display(), copy.display()))?;
        Ok(copy)
    }
}

/// Of the user that runs this.
fn owner(which: &str) -> Result<String> {
    let output = Command::new("id").arg(which).output().context("cannot run id")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
