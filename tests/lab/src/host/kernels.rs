//! Debian's kernels: which there are, and what of them the guest needs.

use super::debian::{Apt, run, unpack};
use super::newc::Tree;
use crate::case::Kernel;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher};
use std::ffi::OsStr;
use std::hash::{Hash, Hasher};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders of modules that a node may need, below `kernel/`. What those depend on comes along.
const FOLDERS: &[&str] = &[
    // Nobody names them: libcrc32c, which nf_tables, ip_vs and others need, asks for one by the name of the sum.
    "arch/x86/crypto/crc32c-intel",
    "crypto/crc32c_generic",
    "drivers/block/virtio_blk",
    "drivers/char/hw_random",
    "drivers/char/virtio_console",
    "drivers/net/bonding",
    "drivers/net/dummy",
    "drivers/net/geneve",
    "drivers/net/ifb",
    "drivers/net/ipvlan",
    "drivers/net/macvlan",
    "drivers/net/tun",
    "drivers/net/veth",
    "drivers/net/virtio_net",
    "drivers/net/vrf",
    "drivers/net/vxlan",
    "drivers/virtio",
    "fs/fuse",
    "fs/overlayfs",
    "net/802",
    "net/8021q",
    "net/bridge",
    "net/core",
    "net/ipv4",
    "net/ipv6",
    "net/netfilter",
    "net/packet",
    "net/sched",
    "net/unix",
    "net/xfrm",
];

/// An unpacked kernel.
pub struct Unpacked {
    /// `uname -r`.
    pub release: String,
    pub image: PathBuf,
    /// Its modules and their index, packed.
    pub modules: PathBuf,
}

/// Fetches and unpacks `kernel` below `folder`, and packs its modules, unless that is done. `tools` is the unpacked
/// root that has `kmod`.
///
/// # Errors
///
/// When apt has no such kernel, or anything that is run fails.
pub fn unpacked(apt: &mut Apt, kernel: Kernel, folder: &Path, tools: &Path) -> Result<Unpacked> {
    let (name, files) = apt.with(|apt| {
        let names = apt.names("^linux-image-[0-9].*-amd64$")?;
        let name = chosen(&names, kernel).with_context(|| format!("apt knows no kernel for {kernel}"))?;
        Ok((name.to_owned(), apt.fetch(&[name.to_owned()])?))
    })?;
    let release = name.trim_start_matches("linux-image-").to_owned();
    let package = files[0].file_stem().and_then(OsStr::to_str).context("a package has a plain name")?;
    let kernels = folder.join("kernels");
    let root = kernels.join(package);
    if !root.exists() {
        println!("lab: unpacking {name}");
        unpack(&files, &root)?;
    }
    // Another list of folders is another archive.
    let mut hasher = DefaultHasher::new();
    FOLDERS.hash(&mut hasher);
    let modules = kernels.join(format!("{package}-{:016x}.newc", hasher.finish()));
    if !modules.exists() {
        println!("lab: packing the modules of {release}");
        pack_modules(&root, &release, tools, &modules)?;
    }
    let image = root.join(format!("boot/vmlinuz-{release}"));
    Ok(Unpacked { release, image, modules })
}

/// The newest package of the oldest or newest series.
fn chosen(names: &[String], kernel: Kernel) -> Option<&str> {
    let is_of_kind = |name: &&str| {
        let release = name.trim_start_matches("linux-image-");
        let is_variant = release.contains("-rt-") || release.contains("-dbg") || release.contains("-unsigned");
        !is_variant && release.contains("-cloud-") == kernel.is_cloud()
    };
    let found = names.iter().map(String::as_str).filter(is_of_kind);
    let numbered: BTreeSet<(Vec<u32>, &str)> = found.map(|name| (numbers(name), name)).collect();
    let series = |numbers: &[u32]| numbers.get(..2).map(<[u32]>::to_vec);
    let wanted = match kernel.is_oldest() {
        true => series(&numbered.first()?.0),
        false => series(&numbered.last()?.0),
    };
    numbered.iter().rev().find(|(numbers, _)| series(numbers) == wanted).map(|(_, name)| *name)
}

/// The numbers in a name.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|character: char| !character.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Writes an archive of the modules in [`FOLDERS`], of those that they need, and of the index.
fn pack_modules(root: &Path, release: &str, tools: &Path, archive: &Path) -> Result<()> {
    depmod(root, release, tools)?;
    let folder = root.join("lib/modules").join(release);
    let index = std::fs::read_to_string(folder.join("modules.dep"))?;
    let mut tree = Tree::default();
    let place = |path: &str| format!("usr/lib/modules/{release}/{path}");
    for path in needed(&index) {
        tree.add_file(place(path), &folder.join(path))?;
    }
    for found in std::fs::read_dir(&folder)? {
        let found = found?;
        let name = found.file_name().into_string().ok().context("a module index has a plain name")?;
        if name.starts_with("modules.") {
            tree.add_file(place(&name), &found.path())?;
        }
    }
    tree.add_file(format!("boot/config-{release}"), &root.join(format!("boot/config-{release}")))?;
    write_whole(archive, |output| tree.write(output))
}

/// Writes `path` with what `write` writes; it is there only when that has ended well.
///
/// # Errors
///
/// Those of `write`, and when nothing can be written there.
pub fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut std::io::BufWriter<&mut tempfile::NamedTempFile>) -> Result<()>,
) -> Result<()> {
    let above = path.parent().context("a file has a folder")?;
    std::fs::create_dir_all(above)?;
    let mut file = tempfile::NamedTempFile::new_in(above)?;
    let mut output = std::io::BufWriter::new(&mut file);
    write(&mut output)?;
    output.into_inner().map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    file.persist(path)?;
    Ok(())
}

/// Makes the index of modules, which a package leaves to its installation.
fn depmod(root: &Path, release: &str, tools: &Path) -> Result<()> {
    let libraries = ["lib", "usr/lib"].map(|lib| tools.join(lib).join("x86_64-linux-gnu").display().to_string());
    let kmod = ["bin/kmod", "usr/bin/kmod"].map(|path| tools.join(path)).into_iter().find(|path| path.exists());
    let mut command = Command::new(kmod.context("the package kmod has no kmod")?);
    command.arg0("depmod").arg("-b").arg(root).arg(release).env("LD_LIBRARY_PATH", libraries.join(":"));
    run(&mut command)?;
    Ok(())
}

/// The paths of modules in [`FOLDERS`] and of all that they need, of an index of lines `path: needed needed`.
fn needed(index: &str) -> BTreeSet<&str> {
    let lines = index.lines().filter_map(|line| line.split_once(':'));
    let needs: BTreeMap<&str, Vec<&str>> =
        lines.map(|(path, needs)| (path, needs.split_whitespace().collect())).collect();
    let is_wanted = |path: &&&str| {
        let path = path.trim_start_matches("kernel/");
        FOLDERS.iter().any(|folder| {
            path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/') || rest.starts_with(".ko"))
        })
    };
    // depmod writes out all that a module needs, however far.
    let wanted = needs.keys().filter(is_wanted);
    wanted.flat_map(|path| needs[path].iter().chain([path])).copied().collect()
}

/// Fails, and says why, when the machine is not one that the lab's kernels are for.
///
/// # Errors
///
/// On another architecture than x86-64.
pub fn check_machine() -> Result<()> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(()),
        other => bail!("the lab boots Debian's kernels for amd64 with a program of this machine, which is {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{chosen, needed};
    use crate::case::Kernel;

    #[test]
    fn the_newest_of_the_oldest_and_of_the_newest_series_are_chosen() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-57-cloud-amd64",
            "linux-image-6.1.0-57-amd64",
            "linux-image-6.1.0-58-rt-amd64",
            "linux-image-6.1.0-58-cloud-amd64-unsigned",
            "linux-image-6.12.9+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-amd64",
        ];
        let names = names.map(str::to_owned);
        let found = [Kernel::OldestCloud, Kernel::NewestCloud, Kernel::Oldest, Kernel::Newest]
            .map(|kernel| chosen(&names, kernel).unwrap());
        assert_eq!(found, [names[1].as_str(), &names[6], &names[2], &names[7]]);
    }

    #[test]
    fn modules_come_with_what_they_need() {
        let index = "kernel/drivers/net/veth.ko.xz:\nkernel/drivers/net/veth2.ko:\n\
                     kernel/drivers/net/vxlan/vxlan.ko: kernel/net/udp.ko kernel/lib/x.ko\n\
                     kernel/net/udp.ko:\nkernel/lib/x.ko:\nkernel/fs/xfs/xfs.ko:\n";
        let found: Vec<&str> = needed(index).into_iter().collect();
        let expected = ["drivers/net/veth.ko.xz", "drivers/net/vxlan/vxlan.ko", "lib/x.ko", "net/udp.ko"];
        assert_eq!(found, expected.map(|path| format!("kernel/{path}")));
    }
}
