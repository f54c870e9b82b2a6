//! The pod of the DaemonSet, as kubelet and a container runtime run it: everything is read off the manifest.

mod image;
mod kubelet;
mod manifest;
mod probe;
mod runtime;
mod seccomp;
mod service_links;
mod spec;
mod volumes;

pub use kubelet::{Kubelet, OomGroup, Pod};
pub use manifest::{Change, OTHER, manifest};
