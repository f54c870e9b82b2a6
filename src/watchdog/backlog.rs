//! Packets that the kernel has dropped before any socket was looked for: a processor's backlog of incoming packets was
//! full. What local programs send to each other goes through it too.

use std::io;

/// How many packets were dropped since the machine started, of all its network namespaces
/// (`/proc/net/softnet_stat`).
///
/// # Errors
/// It cannot be read, or is not in the form that is known since Linux 2.6.
pub(super) fn dropped_packets() -> io::Result<u64> {
    sum(&std::fs::read_to_string("/proc/net/softnet_stat")?)
        .ok_or_else(|| io::Error::other("/proc/net/softnet_stat is not in the known form"))
}

/// A line for each processor; the second number of each, in hexadecimal digits, counts what it has dropped.
fn sum(text: &str) -> Option<u64> {
    let dropped = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    text.lines().map(dropped).sum()
}

#[cfg(test)]
mod tests {
    use super::{dropped_packets, sum};

    #[test]
    fn what_all_processors_have_dropped_is_added() {
        let text = "0001c5ba 0000000a 00000000\n000533fb 00000010 00000001\n";
        assert_eq!(sum(text), Some(26));
        assert_eq!(sum("0001c5ba\n"), None);
        assert_eq!(sum("0001c5ba xyz\n"), None);
    }

    #[test]
    fn this_machine_tells() {
        dropped_packets().unwrap();
    }
}
