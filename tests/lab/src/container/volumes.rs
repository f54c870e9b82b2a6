//! What kubelet makes of a pod's volumes on the node.

use crate::cluster::shell;
use crate::objects::Manifest;
use crate::support::tools::write;
use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, EmptyDirVolumeSource, HostPathVolumeSource, Volume};
use std::os::unix::fs::symlink;
use std::path::Path;

/// The version of a ConfigMap's content, in whose folder its files are.
const VERSION: &str = "..2026_01_01_00_00_00.000000001";

/// Has `folder` hold a file or folder for each of the pod's volumes, by its name.
pub fn set_up(manifest: &Manifest, folder: &Path) {
    create(folder);
    for volume in manifest.pod().volumes.iter().flatten() {
        let place = folder.join(&volume.name);
        match volume {
            Volume { config_map: Some(source), .. } => config_map(manifest, source, &place),
            Volume { empty_dir: Some(source), .. } => empty_dir(source, &place),
            Volume { host_path: Some(source), .. } => host_path(source, &place),
            other => panic!("a volume of another kind is another translation: {other:?}"),
        }
    }
}

/// Undoes it. Nobody has the volumes mounted any longer.
pub fn tear_down(manifest: &Manifest, folder: &Path) {
    for volume in manifest.pod().volumes.iter().flatten().filter(|volume| volume.empty_dir.is_some()) {
        shell(&format!("umount {}", folder.join(&volume.name).display()));
    }
}

fn create(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
}

/// The links are exchanged in one step when the ConfigMap changes.
fn config_map(manifest: &Manifest, source: &ConfigMapVolumeSource, place: &Path) {
    create(place);
    if Some(&source.name) != manifest.config_map.metadata.name.as_ref() {
        assert_eq!(source.optional, Some(true), "there is no ConfigMap {}", source.name);
        return;
    }
    let version = place.join(VERSION);
    create(&version);
    symlink(VERSION, place.join("..data")).expect("a new folder takes a link");
    for item in source.items.iter().flatten() {
        let data = manifest.config_map.data.as_ref().and_then(|data| data.get(&item.key));
        write(&version, &item.path, data.unwrap_or_else(|| panic!("the ConfigMap has no {}", item.key)));
        symlink(Path::new("..data").join(&item.path), place.join(&item.path)).expect("a new folder takes a link");
    }
}

fn empty_dir(source: &EmptyDirVolumeSource, place: &Path) {
    assert_eq!(source.medium.as_deref(), Some("Memory"), "an emptyDir on a disk is another translation");
    create(place);
    let size = source.size_limit.as_ref().map(|limit| limit.0.trim_end_matches('i').to_lowercase());
    let options = size.map(|size| format!("-o size={size},mode=1777")).unwrap_or_default();
    shell(&format!("mount -t tmpfs {options} tmpfs {}", place.display()));
}

/// A link to the node's own, which is made where it is missing.
fn host_path(source: &HostPathVolumeSource, place: &Path) {
    let own = Path::new(&source.path);
    match source.type_.as_deref() {
        Some("DirectoryOrCreate") => create(own),
        Some("FileOrCreate") => {
            let opened = std::fs::File::options().append(true).create(true).open(own);
            opened.unwrap_or_else(|error| panic!("{}: {error}", own.display()));
        }
        other => panic!("a path of the host of type {other:?} is another translation"),
    }
    symlink(own, place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
}
