//! Changes the user, and gives up capabilities (capabilities(7)).

use super::{MissingLayer, USER};
use rustix::fs::{Gid, Uid};
use rustix::io::{Errno, Result};
use rustix::process::{DumpableBehavior, getegid, geteuid, getgid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitiesSecureBits as SecureBits, CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// What the watchdog must have for a server with a user of its own. This process has the same still.
const NEEDED: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::SETUID, "SETUID"),
    (CapabilitySet::SETGID, "SETGID"),
    // Else the watchdog could not end a server that hangs, nor would the kernel end the server with its watchdog.
    (CapabilitySet::KILL, "KILL"),
];

/// Becomes [`USER`], without any other group.
pub(super) fn change() -> std::result::Result<(), MissingLayer> {
    if !geteuid().is_root() {
        return Err(MissingLayer::NotRoot);
    }
    let own = capabilities(None).map_err(|error| MissingLayer::User(error.into()))?.effective;
    let missing: Vec<&str> =
        NEEDED.into_iter().filter(|(needed, _)| !own.contains(*needed)).map(|(_, name)| name).collect();
    if !missing.is_empty() {
        return Err(MissingLayer::Rights(missing.join(", ")));
    }
    if own.contains(CapabilitySet::SETPCAP) {
        lock();
    }
    become_user().map_err(|error| MissingLayer::User(error.into()))
}

fn become_user() -> Result<()> {
    let (real, effective) = (getgid(), getegid());
    let group = Gid::from_raw(USER);
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    let user = Uid::from_raw(USER);
    if let Err(error) = set_thread_res_uid(user, user, user) {
        // A group that exists without the user would be neither one thing nor the other.
        set_thread_res_gid(real, effective, effective)?;
        return Err(error);
    }
    // The kernel has done that already, unless fs.suid_dumpable says otherwise. Its files in /proc are root's then: the
    // watchdog may write its score for the out-of-memory killer, and it may not. A process that keeps its user stays as
    // it is, since its watchdog may be no root.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Closes the ways in which a program that is executed, or a user that is changed, could bring capabilities. None of
/// either happens; so it is no matter if the kernel does not know one of these.
fn lock() {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => _ = remove_capability_from_bounding_set(capability),
            Ok(false) => {}
            // Past the last one.
            Err(_) => break,
        }
    }
    let bits = SecureBits::NO_ROOT
        | SecureBits::NO_ROOT_LOCKED
        | SecureBits::NO_SETUID_FIXUP_LOCKED
        | SecureBits::KEEP_CAPS_LOCKED
        | SecureBits::NO_CAP_AMBIENT_RAISE
        | SecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    _ = set_capabilities_secure_bits(bits);
}

/// Leaves this thread, and those it starts, without any capability.
pub(super) fn give_up_capabilities() -> Result<()> {
    match clear_ambient_capability_set() {
        // Before Linux 4.3 there is no such set.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}
