//! Bounds the files that may be opened: landlock(7). The configuration's are not among them, since the watchdog reads
//! those.

use super::MissingLayer;
use landlock::{
    ABI, Access, AccessFs, BitFlags, LandlockStatus, PathBeneath, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::fs::{Mode, OFlags, open};
use std::os::fd::IntoRawFd;

/// May be read. Links are followed now, so that `/proc/self` is this process for good.
const READABLE: [(&str, BitFlags<AccessFs>); 6] = [
    // Its own figures, for metrics and for the memory that its cgroup has left.
    ("/proc/self", BOTH),
    // When the machine was started.
    ("/proc/stat", FILE),
    // How its other files are to be read.
    ("/proc/sys/kernel/osrelease", FILE),
    // A share of which sockets to upstreams may take.
    ("/proc/sys/net/ipv4/ip_local_port_range", FILE),
    ("/sys/fs/cgroup", BOTH),
    // For a panic's backtrace.
    ("/proc/self/exe", FILE),
];
const FILE: BitFlags<AccessFs> = landlock::make_bitflags!(AccessFs::{ReadFile});
const BOTH: BitFlags<AccessFs> = landlock::make_bitflags!(AccessFs::{ReadFile | ReadDir});

/// The last ABI whose rights on files are asked for. A kernel that has fewer gives what it has.
const FILES: ABI = ABI::V9;
/// The first one with scopes.
const SCOPES: ABI = ABI::V6;

/// Leaves this thread, and those it starts, nothing but [`READABLE`], and no process outside to send a signal or
/// connect to by an abstract name.
pub(super) fn restrict() -> Option<MissingLayer> {
    match apply() {
        Ok(RestrictionStatus { ruleset: RulesetStatus::NotEnforced, landlock, .. }) => {
            Some(MissingLayer::Files(match landlock {
                LandlockStatus::NotEnabled => {
                    "this kernel has it, but it is switched off (its boot parameter lsm=)".to_owned()
                }
                _ => "this kernel does not have it (Linux has since 5.13), or the container's seccomp profile hides it"
                    .to_owned(),
            }))
        }
        Ok(RestrictionStatus { landlock: LandlockStatus::Available { effective_abi, .. }, .. })
            if effective_abi < SCOPES =>
        {
            Some(MissingLayer::Scopes)
        }
        Ok(_) => None,
        Err(error) => Some(MissingLayer::Files(error.to_string())),
    }
}

fn apply() -> Result<RestrictionStatus, RulesetError> {
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(FILES))?.scope(Scope::from_all(SCOPES))?;
    let mut ruleset = ruleset.create()?;
    for (path, access) in READABLE {
        // What is not mounted here needs no rule.
        let Ok(file) = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else { continue };
        ruleset = ruleset.add_rule(PathBeneath::new(&file, access))?;
        // Stays open: a rule is for the kernel's inode, and that of a file in /proc is another one once the kernel has
        // forgotten it.
        _ = file.into_raw_fd();
    }
    ruleset.restrict_self()
}
