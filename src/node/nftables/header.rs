//! The header of nfnetlink messages.

use netlink_bindings::nftables::Nfgenmsg;

/// `struct nfgenmsg`: the family (`NFPROTO_…`), and the resource (the subsystem, of the messages around a batch).
pub(super) fn header(family: u8, resource: u16) -> Nfgenmsg {
    let mut header = Nfgenmsg::new();
    header.nfgen_family = family;
    header.set_res_id(resource);
    header
}
