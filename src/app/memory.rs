//! How much memory the caches may take when the user does not say.

use std::fs;
use std::path::Path;

/// Octets all caches together may take: a quarter of the cgroup's memory limit, at least 4 MiB and at most 256 MiB.
pub fn default_cache_memory(cgroup_limit: Option<u64>) -> usize {
    const MOST: u64 = 256 << 20;
    const LEAST: u64 = 4 << 20;
    let quarter = cgroup_limit.map_or(MOST, |limit| limit / 4);
    usize::try_from(quarter.clamp(LEAST, MOST)).unwrap_or(usize::MAX)
}

/// The smallest memory limit of this process's cgroup and those above it, in octets: `memory.max` of cgroup v2, or
/// `memory.limit_in_bytes` of v1. `None` if there is none.
pub fn cgroup_limit() -> Option<u64> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    smallest_limit(&membership, |file| fs::read_to_string(Path::new("/sys/fs/cgroup").join(file)).ok())
}

/// `membership` is /proc/self/cgroup (cgroups(7)); `read` reads a file below the cgroup mount.
fn smallest_limit(membership: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut smallest = None;
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("", "memory.max"),
            "memory" => ("memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // Inside a container's own cgroup namespace the path is `/`; without one the mount shows only the container's part, so
        // that the path may not exist there. Walking up ends at the mount's root either way.
        let mut folder = Some(Path::new(path.trim_start_matches('/')));
        while let Some(here) = folder {
            let limit = read(&Path::new(root).join(here).join(file)).and_then(|text| text.trim().parse::<u64>().ok());
            smallest = smallest.into_iter().chain(limit).min();
            folder = here.parent();
        }
    }
    smallest
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn limit(membership: &str, files: &[(&str, &str)]) -> Option<u64> {
        let files: HashMap<&str, &str> = files.iter().copied().collect();
        smallest_limit(membership, |path| files.get(path.to_str()?).map(|text| (*text).to_owned()))
    }

    #[test]
    fn the_smallest_limit_on_the_way_to_the_root_counts() {
        let files = [
            ("kubepods/pod1/c/memory.max", "max\n"),
            ("kubepods/pod1/memory.max", "134217728\n"),
            ("memory.max", "999999999999\n"),
        ];
        assert_eq!(limit("0::/kubepods/pod1/c\n", &files), Some(128 << 20));
    }

    #[test]
    fn version_1_is_read_too() {
        let files = [("memory/docker/x/memory.limit_in_bytes", "67108864\n")];
        assert_eq!(limit("12:cpu:/docker/x\n5:memory:/docker/x\n", &files), Some(64 << 20));
    }

    #[test]
    fn no_limit_is_no_limit() {
        assert_eq!(limit("0::/\n", &[("memory.max", "max\n")]), None);
        assert_eq!(limit("nonsense", &[]), None);
    }

    #[test]
    fn a_quarter_is_taken_within_bounds() {
        assert_eq!(default_cache_memory(Some(128 << 20)), 32 << 20);
        assert_eq!(default_cache_memory(Some(1 << 20)), 4 << 20);
        assert_eq!(default_cache_memory(None), 256 << 20);
    }
}
