//! The privileges of this process, from /proc.

use crate::doctor::findings::Privileges;
use procfs::process::Process;

/// Bits of `CapEff` (linux/capability.h).
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;

/// Nothing, where /proc does not tell.
pub(super) fn privileges() -> Privileges {
    let status = Process::myself().and_then(|process| process.status());
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    status.map_or_else(|_| Privileges::default(), |status| of(status.euid, status.capeff, &map))
}

/// What a user with these capabilities may, in a user namespace with this map of users (/proc/PID/uid_map). Pure.
pub fn of(user: u32, capabilities: u64, map: &str) -> Privileges {
    Privileges {
        is_root: user == 0,
        has_net_admin: capabilities & NET_ADMIN != 0,
        has_net_raw: capabilities & NET_RAW != 0,
        is_in_a_user_namespace: !map.split_whitespace().eq(["0", "0", "4294967295"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_told_apart_and_a_map_of_users_tells_a_namespace() {
        let own = "         0          0 4294967295\n";
        let privileges = of(0, 0x1000, own);
        assert_eq!(
            privileges,
            Privileges { is_root: true, has_net_admin: true, has_net_raw: false, is_in_a_user_namespace: false }
        );
        assert!(of(0, 0x2000, own).has_net_raw && !of(0, 0x2000, own).has_net_admin);
        assert!(of(0, u64::MAX, "0 1000 1\n").is_in_a_user_namespace);
        assert!(!of(1000, 0, own).is_root);
    }
}
