//! The manifest, filled in for the lab's node, and what operators change of it.

use crate::cluster::{CLUSTER_IPS, LOCAL};
use crate::objects::Manifest;

const TEXT: &str = include_str!("../../../../manifests/base/nodelocaldns.yaml");

/// Where the machine has another one, if it has.
pub const OTHER: &str = "/lab/manifest.yaml";

/// What an operator has changed before applying it: a piece of the text and what stands in its place.
pub type Change<'a> = (&'a str, &'a str);

/// The manifest's objects after these changes.
pub fn manifest(changes: &[Change]) -> Manifest {
    let addresses = [("169.254.20.10", LOCAL), ("10.96.0.10", CLUSTER_IPS[0])];
    let mut text = std::fs::read_to_string(OTHER).unwrap_or_else(|_| TEXT.to_owned());
    for (old, new) in addresses.iter().chain(changes) {
        assert!(text.contains(old), "the manifest has no {old:?} to change");
        text = text.replace(old, new);
    }
    Manifest::decode(&text).unwrap_or_else(|error| panic!("the manifest: {error}"))
}
