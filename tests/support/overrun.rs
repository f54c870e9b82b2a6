//! What the machine itself loses: datagrams for which a program, not run for too long, had no room left.

/// How many UDP datagrams the kernel has dropped in the calling thread's network namespace since the receive buffer of
/// their socket was full.
pub fn udp_overruns() -> usize {
    let read =
        |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("the kernel counts datagrams");
    overruns_of_ipv4(&read("snmp")) + overruns_of_ipv6(&read("snmp6"))
}

/// Two lines, names and values.
fn overruns_of_ipv4(snmp: &str) -> usize {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Udp: ")).map(str::split_whitespace);
    let (names, values) = (lines.next().expect("names of UDP counters"), lines.next().expect("their values"));
    let counter = names.zip(values).find(|(name, _)| *name == "RcvbufErrors");
    counter.and_then(|(_, value)| value.parse().ok()).expect("a counter of full buffers")
}

/// A line for each counter.
fn overruns_of_ipv6(snmp6: &str) -> usize {
    let counter = snmp6.lines().find_map(|line| line.strip_prefix("Udp6RcvbufErrors"));
    counter.and_then(|value| value.trim().parse().ok()).expect("a counter of full buffers")
}
