//! What to do when the doctor lacks privileges.

use crate::doctor::findings::Privileges;

const IN_THE_AGENTS_CONTAINER: &str =
    "run it where the agent's rights are: `kubectl exec -n kube-system POD -- /nodelocaldns doctor`";

/// For whoever has `privileges` and was refused something.
pub(super) fn advice(privileges: Privileges) -> String {
    match privileges {
        Privileges { is_root: false, has_net_admin: false, .. } => format!("{IN_THE_AGENTS_CONTAINER}, or as root on the node"),
        Privileges { has_net_admin: false, .. } => format!(
            "this is root without the capability NET_ADMIN, as in a container that was not given it: add it (securityContext.capabilities.add), \
             or {IN_THE_AGENTS_CONTAINER}"
        ),
        Privileges { is_in_a_user_namespace: true, .. } => format!(
            "this has the capability NET_ADMIN in a user namespace of its own only, which the network is not of: {IN_THE_AGENTS_CONTAINER}, or as \
             root on the node, outside of any container"
        ),
        Privileges { has_net_raw: false, .. } => "this has the capability NET_ADMIN, so it is not for lack of that; iptables-legacy needs NET_RAW too, \
                                              which is missing: add it, or run doctor as root on the node"
            .to_owned(),
        _ => "this has the capabilities NET_ADMIN and NET_RAW, so it is not for lack of rights: what the error says is to be mended".to_owned(),
    }
}
