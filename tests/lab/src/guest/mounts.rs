//! File systems of the machine and of a case.

use rustix::io::Result;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_move};

/// Makes the first root an ordinary mount: the kernel lets nobody exchange the one it unpacked the archive into
/// (pivot_root(2)), which container runtimes do.
///
/// # Errors
///
/// The kernel's.
pub fn leave_first_root() -> Result<()> {
    mount_bind("/", "/sysroot")?;
    rustix::process::chdir("/sysroot")?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")
}

/// The machine's.
///
/// # Errors
///
/// The kernel's, with the place that it was about.
pub fn mount_machine() -> std::result::Result<(), (&'static str, rustix::io::Errno)> {
    for (kind, place) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("devpts", "/dev/pts"),
        ("tmpfs", "/dev/shm"),
        ("bpf", "/sys/fs/bpf"),
        ("debugfs", "/sys/kernel/debug"),
    ] {
        if place.starts_with("/dev/") {
            _ = std::fs::create_dir(place);
        }
        mount_at(kind, place).map_err(|error| (place, error))?;
    }
    Ok(())
}

/// Those that a case in namespaces has of its own: `/sys` shows the links of whoever mounts it.
///
/// # Errors
///
/// The kernel's.
pub fn mount_case() -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount_at("tmpfs", "/run")?;
    mount_at("tmpfs", "/tmp")?;
    mount_at("sysfs", "/sys")?;
    mount_at("cgroup2", "/sys/fs/cgroup")
}

fn mount_at(kind: &str, place: &str) -> Result<()> {
    mount(kind, place, kind, MountFlags::empty(), None)
}
