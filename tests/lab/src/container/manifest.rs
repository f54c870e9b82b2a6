//! The manifest, filled in for the lab's node, and what operators change of it.

use crate::cluster::{CLUSTER_IPS, LOCAL};
use crate::objects::Manifest;

const TEXT: &str = include_str!("../../../../manifests/nodelocaldns.yaml");

/// What an operator has changed before applying it: a piece of the text and what stands in its place.
pub type Change<'a> = (&'a str, &'a str);

/// The manifest's objects after the `sed` of docs/kubernetes.md and these changes.
pub fn manifest(changes: &[Change]) -> Manifest {
    let filled_in = [
        ("__PILLAR__LOCAL__DNS__", LOCAL),
        ("__PILLAR__DNS__SERVER__", CLUSTER_IPS[0]),
        ("__PILLAR__DNS__DOMAIN__", "cluster.local"),
    ];
    let mut text = TEXT.to_owned();
    for (old, new) in filled_in.iter().chain(changes) {
        assert!(text.contains(old), "the manifest has no {old:?} to change");
        text = text.replace(old, new);
    }
    Manifest::decode(&text).unwrap_or_else(|error| panic!("the manifest: {error}"))
}
