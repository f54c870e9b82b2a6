//! Whether IPv6 is switched off on a link: the kernel then refuses addresses of it with the same error as for lack of
//! rights.

use std::fs;
use std::path::Path;

/// Folder of the settings, one folder a link and `all` (Documentation/networking/ip-sysctl.rst).
const SETTINGS: &str = "/proc/sys/net/ipv6/conf";

/// Names of the sysctls that switch IPv6 off on the link of this name; none if it is on, or nobody tells.
pub(super) fn disabled_by(link: &str) -> Vec<String> {
    let is_off = |place: &str| {
        let file = Path::new(SETTINGS).join(place).join("disable_ipv6");
        fs::read_to_string(file).is_ok_and(|value| value.trim() != "0")
    };
    ["all", link].into_iter().filter(|place| is_off(place)).map(sysctl).collect()
}

/// As sysctl(8) takes it: a dot in the link's name is written as a slash.
fn sysctl(place: &str) -> String {
    format!("net.ipv6.conf.{}.disable_ipv6", place.replace('.', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysctl_is_named_as_its_program_takes_it() {
        assert_eq!(sysctl("nodelocaldns"), "net.ipv6.conf.nodelocaldns.disable_ipv6");
        assert_eq!(sysctl("eth0.7"), "net.ipv6.conf.eth0/7.disable_ipv6");
    }

    #[test]
    fn a_link_that_is_not_there_has_nothing_switched_off_of_its_own() {
        assert!(!disabled_by("no-such-link").iter().any(|sysctl| sysctl.contains("no-such-link")));
    }
}
