//! The container that the DaemonSet describes, made of namespaces: what kubelet and the container runtime would set up,
//! read off the pod's description. Its root has what the image has, the program alone (no shell, no iptables), and this
//! machine's libraries, since the program under test is linked against them.

use crate::objects::Manifest;
use crate::support::namespace::Namespace;
use crate::support::processes::signal;
use crate::support::server::{Server, binary, scratch};
use crate::support::tools::{require, write};
use k8s_openapi::api::core::v1::{SecurityContext, Volume};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// A running container of the DaemonSet's pod. Everything in it ends when this is dropped.
pub struct Container {
    /// `unshare`, whose only child is the container's first process and whose status is that process's.
    process: Server,
    /// What stands for the volumes, by the volume's name.
    volumes: PathBuf,
}

impl Container {
    /// Starts it in the node's network. `environment` is what links to Services and the pod's fields give;
    /// `resolv_conf` is the node's; `host` is where the node has what its pods share.
    pub fn start(
        manifest: &Manifest,
        node: &Namespace,
        environment: &[(&str, &str)],
        resolv_conf: &str,
        host: &Path,
    ) -> Self {
        require("unshare");
        let folder = scratch();
        let volumes = folder.path().join("volumes");
        for volume in manifest.pod().volumes.iter().flatten() {
            fill(manifest, volume, &volumes.join(&volume.name), host);
        }
        write(folder.path(), "resolv.conf", resolv_conf);
        std::fs::create_dir(folder.path().join("root")).expect("the scratch folder can be written");

        let mut command = node.command("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c"]);
        command.arg(script(manifest, folder.path(), environment)).arg("sh");
        command.args(arguments(manifest, environment));
        Self { process: Server::spawn(command, folder), volumes }
    }

    /// What it has written to standard output and error.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// The text of a file of a volume, if it is there.
    pub fn read(&self, volume: &str, file: impl AsRef<OsStr>) -> Option<String> {
        std::fs::read_to_string(self.volumes.join(volume).join(Path::new(file.as_ref()))).ok()
    }

    /// `/proc/PID/status` of the container's first process.
    pub fn first_process_status(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/status", self.first_process())).expect("the first process is there")
    }

    /// Stops it as kubelet does; its exit status, if it ends in time.
    pub fn stop(&mut self, patience: Duration) -> Option<ExitStatus> {
        signal(self.first_process(), libc::SIGTERM);
        self.process.wait_exit(patience)
    }

    fn first_process(&self) -> libc::pid_t {
        let pid = self.process.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.trim().parse().unwrap_or_else(|_| panic!("no container:\n{}", self.process.tail(20)))
    }
}

/// The container's arguments. Kubernetes replaces `$(NAME)` by the variable of this name.
fn arguments(manifest: &Manifest, environment: &[(&str, &str)]) -> Vec<String> {
    let container = manifest.container();
    for variable in container.env.iter().flatten() {
        assert!(environment.iter().any(|(name, _)| *name == variable.name), "{} has no value here", variable.name);
    }
    let expand = |argument: &String| {
        let replace = |text: String, (name, value): &(&str, &str)| text.replace(&format!("$({name})"), value);
        environment.iter().fold(argument.clone(), replace)
    };
    container.args.iter().flatten().map(expand).collect()
}

/// Lays out a volume's content in `folder`, a ConfigMap's with the symbolic links that kubelet makes, a host's path
/// below `host`.
fn fill(manifest: &Manifest, volume: &Volume, folder: &Path, host: &Path) {
    let create =
        |folder: &Path| std::fs::create_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    match (&volume.config_map, &volume.host_path) {
        (Some(source), _) if Some(&source.name) == manifest.config_map.metadata.name.as_ref() => {
            let version = folder.join("..2026_01_01_00_00_00.000000001");
            create(&version);
            let link = |target: &Path, name: &str| {
                std::os::unix::fs::symlink(target, folder.join(name)).expect("the scratch folder can be written");
            };
            link(Path::new("..2026_01_01_00_00_00.000000001"), "..data");
            for item in source.items.iter().flatten() {
                let text = manifest
                    .config_map
                    .data
                    .as_ref()
                    .and_then(|data| data.get(&item.key))
                    .expect("the ConfigMap has the item");
                write(&version, &item.path, text);
                link(&Path::new("..data").join(&item.path), &item.path);
            }
        }
        (Some(source), _) => {
            assert_eq!(source.optional, Some(true), "ConfigMap {} is not in the manifest", source.name);
            create(folder);
        }
        (None, Some(source)) => {
            create(folder.parent().expect("it is below the scratch folder"));
            let place = host.join(&volume.name);
            match source.type_.as_deref() {
                Some("DirectoryOrCreate") => create(&place),
                _ => std::fs::write(&place, "").expect("the scratch folder can be written"),
            }
            std::os::unix::fs::symlink(place, folder).expect("the scratch folder can be written");
        }
        (None, None) => create(folder),
    }
}

/// Sets up the root and becomes the program; the container's arguments are the script's.
fn script(manifest: &Manifest, folder: &Path, environment: &[(&str, &str)]) -> String {
    let (root, volumes) = (folder.join("root"), folder.join("volumes"));
    let (root, volumes) = (root.display(), volumes.display());
    let mut script = format!(
        "set -eu
root='{root}'
mount -t tmpfs -o mode=755 tmpfs \"$root\"
show() {{ # a file or folder in place of another
    if [ -d \"$1\" ]; then mkdir -p \"$root$2\"; else mkdir -p \"$root${{2%/*}}\"; : >\"$root$2\"; fi
    mount --rbind \"$1\" \"$root$2\"
}}
read_only() {{
    mount -o remount,bind,ro \"$root$1\" 2>/dev/null || mount -o remount,bind,ro,nosuid,nodev \"$root$1\"
}}
mkdir \"$root/usr\"
for folder in /usr/lib /usr/lib64 /lib /lib64; do
    if [ -L $folder ]; then cp -P $folder \"$root$folder\"; elif [ -d $folder ]; then show $folder $folder; fi
done
show /sys /sys
for device in null zero urandom; do show /dev/$device /dev/$device; done
mkdir \"$root/proc\" \"$root/tmp\"
mount -t proc proc \"$root/proc\"
show '{binary}' /nodelocaldns
show '{setpriv}' /setpriv
show '{folder}/resolv.conf' /etc/resolv.conf
",
        binary = binary().display(),
        setpriv = require("setpriv").display(),
        folder = folder.display(),
    );
    let container = manifest.container();
    for mount in container.volume_mounts.iter().flatten() {
        let (name, path) = (&mount.name, &mount.mount_path);
        writeln!(script, "show '{volumes}/{name}' '{path}'").expect("a string takes all");
        if mount.read_only == Some(true) {
            // In a user namespace flags that the machine's mount has may not be dropped.
            writeln!(script, "read_only '{path}'").expect("a string takes all");
        }
    }
    let context = container.security_context.as_ref().expect("a security context");
    if context.read_only_root_filesystem == Some(true) {
        script += "mount -o remount,ro \"$root\"\n";
    }
    let variables: String = environment.iter().map(|(name, value)| format!(" {name}='{value}'")).collect();
    let rights = rights(context);
    writeln!(script, "exec env -i PATH=\"$PATH\"{variables} chroot \"$root\" /setpriv {rights} /nodelocaldns \"$@\"")
        .expect("a string takes all");
    script
}

/// What the security context leaves, as options of setpriv. No seccomp filter: a runtime's own profile is in its code.
fn rights(context: &SecurityContext) -> String {
    assert_eq!((context.run_as_user, context.privileged), (Some(0), Some(false)));
    let capabilities = context.capabilities.as_ref().expect("capabilities");
    assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]));
    let kept: String = capabilities.add.iter().flatten().map(|name| format!(",+{}", name.to_lowercase())).collect();
    let no_new_privileges = if context.allow_privilege_escalation == Some(false) { "--no-new-privs" } else { "" };
    format!("{no_new_privileges} --inh-caps=-all --bounding-set=-all{kept}")
}
