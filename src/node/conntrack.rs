//! How full the kernel's connection tracking table is. When it is full the kernel drops the first packet of every new
//! connection, and its log says `nf_conntrack: table full, dropping packet`.

use std::fs;

const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
/// Of all network namespaces together.
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
/// One line for each CPU, in hexadecimal, below a line of names (net/netfilter/nf_conntrack_standalone.c).
const STATISTICS: &str = "/proc/self/net/stat/nf_conntrack";

/// The table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionTable {
    /// Connections in it.
    pub count: u64,
    /// Connections that it holds at most.
    pub max: u64,
    /// Packets dropped since the machine started because there was no room.
    pub dropped: u64,
}

/// The table of this network namespace; none where nothing is tracked.
pub(super) fn read() -> Option<ConnectionTable> {
    let number = |file| fs::read_to_string(file).ok()?.trim().parse().ok();
    let dropped = fs::read_to_string(STATISTICS).map(|statistics| dropped(&statistics)).unwrap_or_default();
    Some(ConnectionTable { count: number(COUNT)?, max: number(MAX)?, dropped })
}

/// The sum of the column `drop` in the kernel's statistics. Pure.
pub fn dropped(statistics: &str) -> u64 {
    let mut lines = statistics.lines();
    let names = lines.next().unwrap_or_default();
    let Some(column) = names.split_whitespace().position(|name| name == "drop") else { return 0 };
    let values = lines.filter_map(|line| u64::from_str_radix(line.split_whitespace().nth(column)?, 16).ok());
    values.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_all_cpus_are_added_whatever_the_columns_order() {
        let statistics = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop\n\
            00000010  00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000000 00000002 0000000a 00000003\n\
            00000010  00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000000 00000002 00000010 00000003\n";
        assert_eq!(dropped(statistics), 26);
        assert_eq!(dropped("drop entries\n0000000f 1\n"), 15);
        for garbage in ["", "entries\n1\n", "drop\nxyz\n", "drop\n\n"] {
            assert_eq!(dropped(garbage), 0, "{garbage:?}");
        }
    }
}
