//! What the machine is booted with: a kernel, and one archive that holds tools, modules, the program, this program, and
//! what it is to do.

use super::debian::{Apt, unpack};
use super::kernels::{self, Unpacked, write_whole};
use super::newc::Tree;
use super::program::{program, stripped};
use crate::Subject;
use crate::case::{Boot, Kernel};
use crate::channel::{PLAN, Plan, PlannedCase};
use crate::container::OTHER;
use anyhow::{Context, Result};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Component, Path, PathBuf};

/// Debian's packages that every machine has, with the libraries that they need. Of what is in no other of them busybox
/// is `cp`, `cat` and so on.
pub const TOOLS: &[&str] = &[
    "busybox-static",
    "conntrack",
    "crun",
    "dash",
    "ethtool",
    "iproute2",
    "ipset",
    "iptables",
    "ipvsadm",
    "kmod",
    "netbase",
    "nfacct",
    "nftables",
    "strace",
    "tcpdump",
    "util-linux",
    "util-linux-extra",
];

/// Of packages nobody reads this inside.
const LEFT_OUT: &[&str] = &[
    "etc/cron.daily",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
];

/// Programs whose plain name stands for one of several; Debian makes these links when a package is installed.
const ALTERNATIVES: &[&str] =
    &["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"];

/// What `qemu` is started with.
pub struct Image {
    /// `uname -r`.
    pub release: String,
    pub kernel: PathBuf,
    pub archive: PathBuf,
}

/// Makes images below a folder, and keeps what can be used again.
pub struct Images {
    folder: PathBuf,
    apt: Apt,
    program: PathBuf,
    /// In place of the checkout's.
    manifest: Option<String>,
}

impl Images {
    /// For the program in `target`, or what `subject` says.
    ///
    /// # Errors
    ///
    /// When this machine or the program is not fit, or a file cannot be read.
    pub fn new(target: &Path, subject: Subject) -> Result<Self> {
        kernels::check_machine()?;
        let folder = target.join("lab");
        std::fs::create_dir_all(&folder)?;
        let program = match subject.program {
            Some(program) => program,
            None => program(target, &folder)?,
        };
        let read = |path: PathBuf| {
            std::fs::read_to_string(&path).with_context(|| format!("reading the manifest {}", path.display()))
        };
        let manifest = subject.manifest.map(read).transpose()?;
        Ok(Self { apt: Apt::new(&folder), folder, program, manifest })
    }

    /// That of a boot; `is_shell` gives a prompt instead of running its cases. It is written anew for each boot of a
    /// `slot`.
    ///
    /// # Errors
    ///
    /// When something cannot be fetched, unpacked or packed.
    pub fn image(&mut self, boot: &Boot, is_shell: bool, slot: usize) -> Result<Image> {
        let (tools, tools_archive) = self.packages(TOOLS)?;
        let mut archives = vec![tools_archive];
        if !boot.packages.is_empty() {
            archives.push(self.packages(boot.packages)?.1);
        }
        let Unpacked { release, image, modules } = self.kernel(boot.kernel, &tools)?;
        archives.push(modules);
        let plan = Plan {
            without: boot.without.iter().map(|&name| name.to_owned()).collect(),
            cases: boot.cases.iter().map(PlannedCase::of).collect(),
            is_shell,
        };
        let archive = self.folder.join(format!("initrd-{slot}"));
        let ours = self.ours(&plan)?;
        write_whole(&archive, |output| {
            for path in &archives {
                let mut part = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
                std::io::copy(&mut part, output)?;
            }
            ours.write(output)?;
            Ok(output.flush()?)
        })?;
        Ok(Image { release, kernel: image, archive })
    }

    fn kernel(&mut self, kernel: Kernel, tools: &Path) -> Result<Unpacked> {
        kernels::unpacked(&mut self.apt, kernel, &self.folder, tools)
    }

    /// Packages with their libraries, unpacked and packed: the folder and the archive.
    fn packages(&mut self, names: &[&str]) -> Result<(PathBuf, PathBuf)> {
        let files = self.apt.with(|apt| apt.fetch(&apt.with_libraries(names)?))?;
        let mut hasher = DefaultHasher::new();
        files.hash(&mut hasher);
        let root = self.folder.join("roots").join(format!("{:016x}", hasher.finish()));
        if !root.exists() {
            println!("lab: unpacking {} packages", files.len());
            unpack(&files, &root)?;
        }
        let archive = root.with_extension("newc");
        if !archive.exists() {
            let mut tree = Tree::default();
            tree.add_folder_of(&root, &place)?;
            for name in ALTERNATIVES.iter().filter(|_| root.join("usr/sbin/xtables-nft-multi").exists()) {
                tree.add_link(format!("usr/sbin/{name}"), "xtables-nft-multi");
            }
            write_whole(&archive, |output| tree.write(output))?;
        }
        Ok((root, archive))
    }

    /// What no package has.
    fn ours(&self, plan: &Plan) -> Result<Tree> {
        let mut tree = Tree::default();
        for folder in ["bin", "lib", "lib64", "sbin"] {
            tree.add_link(folder, format!("usr/{folder}"));
        }
        for folder in [
            "dev",
            "etc",
            "lab/cases",
            "proc",
            "root",
            "run",
            "sys",
            "sysroot",
            "tmp",
            "usr/local/bin",
            "var/lib",
            "var/log",
        ] {
            tree.add_folder(folder);
        }
        tree.add_link("var/run", "/run");
        let this = std::env::current_exe().context("this program has a path")?;
        tree.add_file("lab/lab", &stripped(&this, &self.folder.join("program"))?)?;
        tree.add_link("init", "/lab/lab");
        tree.add_file("lab/nodelocaldns", &self.program)?;
        tree.add_text(PLAN.trim_start_matches('/'), 0o644, serde_json::to_vec(plan)?);
        if let Some(manifest) = &self.manifest {
            tree.add_text(OTHER.trim_start_matches('/'), 0o644, manifest.as_bytes());
        }
        let root = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
        for (path, text) in [
            ("etc/passwd", root),
            ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
            ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
            ("etc/hostname", "node\n"),
            ("etc/resolv.conf", "nameserver 192.168.9.254\n"),
        ] {
            tree.add_text(path, 0o644, text);
        }
        Ok(tree)
    }

    /// Where cases leave what is to be looked at.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Where a package's file goes, on a machine whose `/bin`, `/sbin` and `/lib` are links into `/usr`.
fn place(path: &Path) -> Option<PathBuf> {
    if LEFT_OUT.iter().any(|folder| path.starts_with(folder)) {
        return None;
    }
    match path.components().next() {
        Some(Component::Normal(first)) if ["bin", "lib", "lib64", "sbin"].iter().any(|folder| first == *folder) => {
            Some(Path::new("usr").join(path))
        }
        _ => Some(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::place;
    use std::path::{Path, PathBuf};

    #[test]
    fn files_go_where_links_lead() {
        for (path, expected) in [
            ("bin/kmod", Some("usr/bin/kmod")),
            ("lib", Some("usr/lib")),
            ("usr/bin/kmod", Some("usr/bin/kmod")),
            ("library", Some("library")),
            ("usr/share/doc/kmod/copyright", None),
        ] {
            assert_eq!(place(Path::new(path)), expected.map(PathBuf::from), "{path}");
        }
    }
}
