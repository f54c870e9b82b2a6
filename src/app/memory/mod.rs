//! Bounds the memory of clients and caches, so that the kernel never kills the server for its cgroup's limit. The
//! bounds follow what the cgroup holds, all the while. Clients' share ([`clients`]) is given up first.

mod clients;

use crate::chain::MemoryBudget;
use crate::platform::release_free_memory;
use crate::server::{Capacity, Limits};
use clients::{Peak, client_share, limits_for};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often the cgroup is looked at. In that time a flood of misses brings in a few MiB.
const INTERVAL: Duration = Duration::from_millis(250);

/// Octets that the caches are left with, however little there is.
const LEAST: u64 = 1 << 20;

/// Octets all caches together may take: a quarter of the cgroup's memory limit, at least 4 MiB and at most 256 MiB.
pub(super) fn default_cache_memory(cgroup_limit: Option<u64>) -> usize {
    const MOST: u64 = 256 << 20;
    const LEAST: u64 = 4 << 20;
    let quarter = cgroup_limit.map_or(MOST, |limit| limit / 4);
    usize::try_from(quarter.clamp(LEAST, MOST)).unwrap_or(usize::MAX)
}

/// The smallest memory limit of this process's cgroup and those above it, in octets; `None` if there is none.
pub(super) fn cgroup_limit() -> Option<u64> {
    levels(&membership()?, read_below_mount, |_| false).map(|level| level.limit).min()
}

/// What clients may take in a cgroup with this limit, of a process with so many workers that may open so many files.
pub(super) fn client_limits(cgroup_limit: Option<u64>, workers: usize, open_files: u64) -> Limits {
    limits_for(cgroup_limit, workers, open_files, clients::ALL)
}

/// Has clients, then the caches, give up memory before the cgroup's limit is reached, and take it again when there is
/// room; and has what a peak of clients took given back to the kernel when it is over. Never ends.
pub(super) async fn watch(budget: Arc<MemoryBudget>, capacity: Capacity, workers: usize, open_files: u64) {
    let configured = budget.limit();
    let (mut is_scarce, mut peak) = (false, Peak::default());
    let mut limits = client_limits(cgroup_limit(), workers, open_files);
    loop {
        tokio::time::sleep(INTERVAL).await;
        let used = budget.used();
        // Read anew each time: a container's limit may be changed while it runs.
        let levels = membership()
            .map(|membership| limited_cgroups(&membership, read_below_mount, used, configured))
            .unwrap_or_default();
        let places = levels.iter().map(client_share).min().unwrap_or(clients::ALL);
        let new = limits_for(levels.iter().map(|level| level.limit).min(), workers, open_files, places);
        if new != limits {
            limits = new;
            capacity.set(limits);
        }
        let tightest = tightest(&levels, used, configured);
        let limit = tightest.map_or(configured, |(_, limit)| limit);
        let is_shrinking = limit < used;
        budget.set_limit(limit);
        if let Some((CgroupLevel { limit, held }, _)) = tightest.filter(|_| is_shrinking != is_scarce) {
            is_scarce = is_shrinking;
            let change = if is_scarce { "the caches give up some" } else { "the caches keep what they have" };
            tracing::warn!("memory: the container holds {} of {} KiB, so {change}", held >> 10, limit >> 10);
        }
        let load = capacity.load();
        let is_peak_over = peak.is_over(load.queries + load.connections);
        if is_shrinking || is_peak_over {
            // The caches' turn.
            tokio::task::yield_now().await;
            release_free_memory();
        }
    }
}

/// A cgroup with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CgroupLevel {
    /// Octets it may hold.
    limit: u64,
    /// Octets it holds without cached files that nobody has used lately, as kubelet counts its working set. Files in
    /// use count: they are this program's own text, and a busy process without room for that reads it from the disk
    /// time and again.
    held: u64,
}

impl CgroupLevel {
    /// Octets of which what is to be left free is a part: the limit, or 4 GiB if it is more. A part of a large node's
    /// memory would be far more than clients and caches could ever fill, and mostly other pods hold it.
    fn reckoned(&self) -> u64 {
        self.limit.min(4 << 30)
    }
}

/// The cgroups with a limit. Files are told apart where that may matter to caches, which hold `used` octets of what is
/// `configured`, or to clients.
fn limited_cgroups(
    membership: &str,
    read: impl Fn(&Path) -> Option<String>,
    used: usize,
    configured: usize,
) -> Vec<CgroupLevel> {
    let matters =
        |level: &CgroupLevel| cache_limit(level, used, configured) < configured || client_share(level) < clients::ALL;
    levels(membership, read, matters).collect()
}

/// The cgroup that lets the caches have least, and how much that is.
fn tightest(levels: &[CgroupLevel], used: usize, configured: usize) -> Option<(CgroupLevel, usize)> {
    let caps = levels.iter().map(|level| (*level, cache_limit(level, used, configured)));
    caps.min_by_key(|(_, cap)| *cap)
}

/// What the caches, which hold `used` octets, may hold at most, of what is `configured`: where less than an eighth of
/// the limit is free (512 MiB of a limit of 4 GiB or more) so much less that a quarter is (1 GiB); up to a quarter no
/// more; beyond that as much as there is.
fn cache_limit(level: &CgroupLevel, used: usize, configured: usize) -> usize {
    let goal = level.limit - level.reckoned() / 4;
    let used = used as u64;
    let limit = if level.held > level.limit - level.reckoned() / 8 {
        used.saturating_sub(level.held - goal)
    } else {
        used.saturating_add(goal.saturating_sub(level.held))
    };
    usize::try_from(limit.max(LEAST)).unwrap_or(usize::MAX).min(configured)
}

/// /proc/self/cgroup (cgroups(7)).
fn membership() -> Option<String> {
    read_small(Path::new("/proc/self/cgroup"))
}

fn read_below_mount(file: &Path) -> Option<String> {
    read_small(&Path::new("/sys/fs/cgroup").join(file))
}

/// A file whose size the kernel does not tell beforehand: into one piece of memory, in one go.
fn read_small(path: &Path) -> Option<String> {
    let mut text = String::with_capacity(4096);
    File::open(path).and_then(|mut file| file.read_to_string(&mut text)).ok()?;
    Some(text)
}

/// The cgroups of `membership` that have a limit, each and those above it: `memory.max` or `memory.high`, whichever is
/// smaller, of cgroup v2, or `memory.limit_in_bytes` of v1. `read` reads a file below the cgroup mount. Cached files
/// are only told apart where it `matters`, given all that is held: the kernel adds up the counts of all processors for
/// that, which takes longer than everything else here.
fn levels(
    membership: &str,
    read: impl Fn(&Path) -> Option<String>,
    matters: impl Fn(&CgroupLevel) -> bool,
) -> impl Iterator<Item = CgroupLevel> {
    let mut levels = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let version = match controllers {
            "" => &VERSION_2,
            "memory" => &VERSION_1,
            _ => continue,
        };
        // Inside a container's own cgroup namespace the path is `/`; without one the mount shows only the container's
        // part, so that the path may not exist there. Walking up ends at the mount's root either way.
        let mut folder = Some(Path::new(path.trim_start_matches('/')));
        while let Some(here) = folder {
            levels.extend(version.read(&Path::new(version.root).join(here), &read, &matters));
            folder = here.parent();
        }
    }
    levels.into_iter()
}

/// Version 1 has no word for no limit, but the largest number of octets in whole pages, whatever their size.
const NO_LIMIT: u64 = 1 << 62;

/// How a version of cgroups tells.
struct CgroupVersion {
    /// Below the mount.
    root: &'static str,
    limits: &'static [&'static str],
    usage: &'static str,
    /// Entry of `memory.stat`: octets of cached files that were not used lately.
    idle_files: &'static str,
}

const VERSION_2: CgroupVersion = CgroupVersion {
    root: "",
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    idle_files: "inactive_file",
};
const VERSION_1: CgroupVersion = CgroupVersion {
    root: "memory",
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    idle_files: "total_inactive_file",
};

impl CgroupVersion {
    fn read(
        &self,
        folder: &Path,
        read: &impl Fn(&Path) -> Option<String>,
        matters: &impl Fn(&CgroupLevel) -> bool,
    ) -> Option<CgroupLevel> {
        let number = |file: &str| read(&folder.join(file)).and_then(|text| text.trim().parse::<u64>().ok());
        let limit = self.limits.iter().filter_map(|file| number(file)).min().filter(|limit| *limit < NO_LIMIT)?;
        let all = CgroupLevel { limit, held: number(self.usage).unwrap_or(0) };
        if !matters(&all) {
            return Some(all);
        }
        let stat = read(&folder.join("memory.stat")).unwrap_or_default();
        let idle =
            stat.lines().find_map(|line| line.strip_prefix(self.idle_files)?.strip_prefix(' ')?.trim().parse().ok());
        Some(CgroupLevel { held: all.held.saturating_sub(idle.unwrap_or(0)), ..all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn limit(membership: &str, files: &[(&str, &str)]) -> Option<u64> {
        let files: HashMap<&str, &str> = files.iter().copied().collect();
        levels(membership, |path| files.get(path.to_str()?).map(|text| (*text).to_owned()), |_| true)
            .map(|level| level.limit)
            .min()
    }

    #[test]
    fn what_a_cgroup_holds_is_told_without_files_that_nobody_uses() {
        let files = |path: &Path| {
            let text = match path.to_str()? {
                "a/memory.max" => "1000\n",
                "a/memory.high" => "800\n",
                "a/memory.current" => "700\n",
                "a/memory.stat" => "anon 300\ninactive_file 100\nactive_file 20\n",
                "memory/b/memory.limit_in_bytes" => "500\n",
                "memory/b/memory.usage_in_bytes" => "400\n",
                "memory/b/memory.stat" => "cache 90\ntotal_inactive_file 30\ntotal_active_file 5\ninactive_file 1\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        let found: Vec<CgroupLevel> = levels("0::/a\n3:memory:/b\n", files, |_| true).collect();
        assert_eq!(found, [CgroupLevel { limit: 800, held: 600 }, CgroupLevel { limit: 500, held: 370 }]);
    }

    #[test]
    fn cached_files_are_only_told_apart_when_memory_may_be_short() {
        const MIB: usize = 1 << 20;
        let of = |held: usize, idle: usize| {
            let asked = std::cell::Cell::new(false);
            let files = |path: &Path| match path.to_str()? {
                "memory.max" => Some((100 * MIB).to_string()),
                "memory.current" => Some((held * MIB).to_string()),
                "memory.stat" => {
                    asked.set(true);
                    Some(format!("inactive_file {}\n", idle * MIB))
                }
                _ => None,
            };
            let (used, configured) = (10 * MIB, 50 * MIB);
            let (_, cap) = tightest(&limited_cgroups("0::/\n", files, used, configured), used, configured).unwrap();
            (cap / MIB, asked.get())
        };
        assert_eq!(of(30, 0), (50, false), "45 MiB are left, 10 are in use: room for the 50 that are configured");
        assert_eq!(of(90, 60), (50, true), "most of it is cached files");
        assert_eq!(of(90, 0), (1, true));
    }

    #[test]
    fn the_cgroup_that_leaves_least_decides() {
        let files = |path: &Path| {
            let text = match path.to_str()? {
                "pod/c/memory.max" => "1000",
                "pod/c/memory.current" => "500",
                "pod/memory.max" => "100000000",
                "pod/memory.current" => "95000000",
                _ => return None,
            };
            Some(text.to_owned())
        };
        let levels = limited_cgroups("0::/pod/c\n", files, 50_000_000, 60_000_000);
        let (level, _) = tightest(&levels, 50_000_000, 60_000_000).unwrap();
        assert_eq!(level.limit, 100_000_000, "half of the other is free");
    }

    #[test]
    fn caches_shrink_before_the_limit_and_grow_into_what_is_left() {
        const MIB: usize = 1 << 20;
        let level = |held: usize| CgroupLevel { limit: 100 << 20, held: (held * MIB) as u64 };
        let limit = |held, used: usize| cache_limit(&level(held), used * MIB, 60 * MIB) / MIB;
        assert_eq!(limit(20, 10), 60, "as configured, when that fits");
        assert_eq!(limit(50, 10), 35, "no more than leads to three quarters");
        assert_eq!(limit(75, 35), 35);
        assert_eq!(limit(87, 35), 35);
        assert_eq!(limit(88, 35), 22);
        assert_eq!(limit(130, 35), 1, "some is always left");
        assert_eq!(limit(88, 0), 1);
    }

    #[test]
    fn a_large_cgroup_that_others_fill_costs_the_caches_nothing_while_a_gib_is_free() {
        let limit = |free: u64| {
            cache_limit(&CgroupLevel { limit: 64 << 30, held: (64 << 30) - (free << 20) }, 100 << 20, 256 << 20) >> 20
        };
        assert_eq!([9000, 1180, 1024, 513, 500].map(limit), [256, 256, 100, 100, 1]);
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
        assert_eq!(
            limit("5:memory:/\n", &[("memory/memory.limit_in_bytes", "9223372036854771712\n")]),
            None,
            "4 KiB pages"
        );
        assert_eq!(
            limit("5:memory:/\n", &[("memory/memory.limit_in_bytes", "9223372036854710272\n")]),
            None,
            "64 KiB pages"
        );
    }

    #[test]
    fn a_quarter_is_taken_within_bounds() {
        assert_eq!(default_cache_memory(Some(128 << 20)), 32 << 20);
        assert_eq!(default_cache_memory(Some(1 << 20)), 4 << 20);
        assert_eq!(default_cache_memory(None), 256 << 20);
    }
}
