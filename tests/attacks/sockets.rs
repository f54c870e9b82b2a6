//! Sockets of this network namespace, as /proc/net tells of them.

use std::ops::Sub;

/// Datagrams that came to a port, and found its sockets' buffers full: the program did not get to run, or they were too
/// many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Full {
    pub datagrams: u64,
    /// All that the namespace's sockets have received.
    pub received: u64,
}

impl Full {
    pub fn since(&self, before: &Self) -> Self {
        Self {
            datagrams: self.datagrams.saturating_sub(before.datagrams),
            received: self.received.sub(before.received),
        }
    }

    /// How many of `sent` may have been lost by that: three times their share.
    pub fn excuses(&self, sent: usize) -> usize {
        if self.datagrams == 0 {
            return 0;
        }
        let share = self.datagrams as f64 / (self.datagrams + self.received) as f64;
        3 + (3.0 * share * sent as f64) as usize
    }
}

/// Of a port until now.
pub fn found_full(port: u16) -> Full {
    let datagrams = udp_sockets().filter(|socket| socket.local == port).map(|socket| socket.drops).sum();
    let snmp = std::fs::read_to_string("/proc/thread-self/net/snmp").expect("the kernel counts datagrams");
    let mut lines = snmp.lines().filter(|line| line.starts_with("Udp: ")).map(str::split_whitespace);
    let (names, values) = (lines.next().expect("names of UDP counters"), lines.next().expect("their values"));
    let received = names.zip(values).find(|(name, _)| *name == "InDatagrams").and_then(|(_, value)| value.parse().ok());
    Full { datagrams, received: received.expect("a counter of datagrams") }
}

/// Local ports of UDP sockets that are connected to this port.
pub fn connected_to(port: u16) -> Vec<u16> {
    udp_sockets().filter(|socket| socket.remote == port).map(|socket| socket.local).collect()
}

/// Local ports of UDP sockets that are connected to nobody, other than `known`.
pub fn unconnected(known: &[u16]) -> Vec<u16> {
    udp_sockets()
        .filter(|socket| socket.remote == 0 && !known.contains(&socket.local))
        .map(|socket| socket.local)
        .collect()
}

/// A line of /proc/net/udp or udp6.
struct Socket {
    local: u16,
    remote: u16,
    drops: u64,
}

fn udp_sockets() -> impl Iterator<Item = Socket> {
    let read = |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
    let text = read("udp") + &read("udp6");
    let sockets: Vec<Socket> = text.lines().filter_map(socket).collect();
    sockets.into_iter()
}

fn socket(line: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let port = |place: usize| u16::from_str_radix(fields.get(place)?.rsplit_once(':')?.1, 16).ok();
    Some(Socket { local: port(1)?, remote: port(2)?, drops: fields.last()?.parse().ok()? })
}

#[test]
fn a_line_of_the_kernel_is_read() {
    let line = "  1: 0100007F:0035 0900007F:1518 07 00000000:00000000 00:00000000 00000000     0        0 1234 2 0000000000000000 42";
    let read = socket(line).expect("a socket");
    assert_eq!((read.local, read.remote, read.drops), (53, 5400, 42));
    assert!(
        socket(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops"
        )
        .is_none()
    );
}

#[test]
fn only_what_was_full_excuses() {
    assert_eq!(Full { datagrams: 0, received: 1000 }.excuses(1000), 0);
    assert_eq!(Full { datagrams: 100, received: 900 }.excuses(100), 33);
}
