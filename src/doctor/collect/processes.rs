//! Processes, from /proc: the agents, and who holds which socket.

use crate::doctor::findings::{AgentProcess, SocketHolder};
use procfs::process::{FDTarget, Process, all_processes};
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What an agent is called: ours, and the reference.
const PROGRAMS: [&str; 2] = ["nodelocaldns", "node-cache"];
/// Netlink sockets of the reader's network namespace.
const NETLINK: &str = "/proc/self/net/netlink";

/// The agents in this network namespace whose processes can be seen: those of the same container, or, where the process
/// namespace is the host's, all of the node.
pub(crate) fn agents() -> Vec<AgentProcess> {
    let listing = std::fs::read_to_string(NETLINK).unwrap_or_default();
    let netfilter = netfilter_sockets(&listing);
    let found: Vec<(AgentProcess, i32)> = processes().filter_map(|process| agent(&process, &netfilter)).collect();
    let pids: HashSet<i32> = found.iter().map(|(agent, _)| agent.pid).collect();
    found.into_iter().map(|(agent, parent)| AgentProcess { is_server: pids.contains(&parent), ..agent }).collect()
}

/// Processes of agents that are in another network namespace than this one.
pub(super) fn elsewhere() -> Vec<i32> {
    let of_agents = processes().filter(|process| is_agent(process) && !is_of_this_network(process.pid()));
    of_agents.map(|process| process.pid()).collect()
}

/// Processes by the inodes of the sockets that they hold, of `wanted`, as far as their descriptors can be read.
pub(super) fn holders(wanted: &HashSet<u64>) -> HashMap<u64, Vec<SocketHolder>> {
    let mut holders: HashMap<u64, Vec<SocketHolder>> = HashMap::new();
    for process in processes() {
        let held: HashSet<u64> = sockets(&process).filter(|inode| wanted.contains(inode)).collect();
        for inode in held {
            holders.entry(inode).or_default().push(SocketHolder { pid: process.pid(), program: program(&process) });
        }
    }
    holders
}

fn processes() -> impl Iterator<Item = Process> {
    all_processes().into_iter().flatten().filter_map(Result::ok)
}

/// The agent that `process` is, if it is one, and its parent.
fn agent(process: &Process, netfilter: &HashMap<u64, u32>) -> Option<(AgentProcess, i32)> {
    if !is_agent(process) || !is_of_this_network(process.pid()) {
        return None;
    }
    let (program, arguments) = (program(process), process.cmdline().ok()?);
    let stat = process.stat().ok()?;
    let port_ids = sockets(process).filter_map(|inode| netfilter.get(&inode).copied()).collect();
    let is_stopped = matches!(stat.state, 'T' | 't');
    Some((AgentProcess { pid: process.pid(), program, arguments, is_stopped, is_server: false, port_ids }, stat.ppid))
}

fn is_agent(process: &Process) -> bool {
    let Ok(arguments) = process.cmdline() else { return false };
    PROGRAMS.contains(&program(process).as_str())
        && arguments.iter().skip(1).any(|argument| argument.trim_start_matches('-').starts_with("localip"))
        && !arguments.get(1).is_some_and(|command| ["doctor", "teardown"].contains(&command.as_str()))
}

/// Whether the process sees the same sockets and rules as this one. The link ns/net says so too, but not to whoever has
/// fewer rights than the process; these lists are a file of their own for each network namespace, whose number anybody
/// may see.
fn is_of_this_network(pid: i32) -> bool {
    let list = |pid: &str| std::fs::metadata(Path::new("/proc").join(pid).join("net/unix")).map(|list| list.ino());
    matches!((list(&pid.to_string()), list("self")), (Ok(theirs), Ok(ours)) if theirs == ours)
}

/// The program's name without its folder; where that may not be read, what the process calls itself.
fn program(process: &Process) -> String {
    let path = process.exe().ok().or_else(|| process.cmdline().ok()?.first().map(Into::into));
    let name = path.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let name = name.or_else(|| process.stat().ok().map(|stat| stat.comm)).unwrap_or_default();
    name.strip_suffix(" (deleted)").unwrap_or(&name).to_owned()
}

/// Inodes of the sockets that the process holds; none where that may not be seen.
fn sockets(process: &Process) -> impl Iterator<Item = u64> {
    let descriptors = process.fd().into_iter().flatten().filter_map(Result::ok);
    descriptors.filter_map(|descriptor| match descriptor.target {
        FDTarget::Socket(inode) => Some(inode),
        _ => None,
    })
}

/// Port IDs of netfilter's netlink sockets by inode, from a listing as the kernel writes it: pointer, protocol, port
/// ID, …, inode. Pure.
pub fn netfilter_sockets(listing: &str) -> HashMap<u64, u32> {
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_netfilter = fields.get(1)?.parse() == Ok(libc::NETLINK_NETFILTER);
        is_netfilter.then_some(())?;
        Some((fields.last()?.parse().ok()?, fields.get(2)?.parse().ok()?))
    };
    listing.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netlink_sockets_of_netfilter_are_told_from_others() {
        let listing = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
            0000000000000000 0   4151       00000111 0        0        0     2        0        11\n\
            0000000000000000 12  4151       00000000 0        0        0     2        0        12\n\
            0000000000000000 12  3221225472 00000040 0        0        0     2        0        13\n";
        assert_eq!(netfilter_sockets(listing), HashMap::from([(12, 4151), (13, 3_221_225_472)]));
        assert_eq!(netfilter_sockets("short\n12 12\n"), HashMap::new());
    }

    #[test]
    fn a_process_is_known_by_the_socket_it_holds() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let link = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&socket))).unwrap();
        let inode = link.to_string_lossy().trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let holders = holders(&HashSet::from([inode]));
        assert!(holders[&inode].iter().any(|holder| holder.pid == own), "{holders:?}");
    }
}
