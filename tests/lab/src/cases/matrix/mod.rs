//! The matrix: each way of intercepting beside each way of making Services. In every cell a pod and a program on the
//! host network ask addresses of both families over UDP and TCP, in health and through the faults of docs/faults.md.

mod faults;

use crate::case::{CASE, Case, Kernel};
use crate::cluster::{Transport, rules, tracked_dns};
use crate::node::{ADDRESSES, Cell, Interception, Services};
use crate::records::{Record, Who};
use std::collections::BTreeSet;
use std::time::Duration;

/// The family's.
pub const CASES: &[Case] = &[
    cell("matrix/nftables_beside_iptables", || run(Interception::Nftables, Services::Iptables)),
    cell("matrix/nftables_beside_nftables", || run(Interception::Nftables, Services::Nftables)),
    cell("matrix/nftables_beside_ipvs", || run(Interception::Nftables, Services::Ipvs)),
    cell("matrix/iptables_nft_beside_iptables", || run(Interception::IptablesNft, Services::Iptables)),
    cell("matrix/iptables_nft_beside_nftables", || run(Interception::IptablesNft, Services::Nftables)),
    cell("matrix/iptables_nft_beside_ipvs", || run(Interception::IptablesNft, Services::Ipvs)),
    cell("matrix/iptables_legacy_beside_iptables", || run(Interception::IptablesLegacy, Services::Iptables)),
    cell("matrix/iptables_legacy_beside_nftables", || run(Interception::IptablesLegacy, Services::Nftables)),
    cell("matrix/iptables_legacy_beside_ipvs", || run(Interception::IptablesLegacy, Services::Ipvs)),
];

const fn cell(name: &'static str, body: fn()) -> Case {
    Case { name, body, kernels: &[Kernel::OldestCloud], limit: Duration::from_secs(300), ..CASE }
}

/// One cell, from its start to the end of the program.
fn run(interception: Interception, services: Services) {
    let mut cell = Cell::start(interception, services);
    in_health(&mut cell);
    for fault in faults::ALL {
        fault(&mut cell);
    }
}

/// The node answers at every address that is the program's, and conntrack knows of none of it.
fn in_health(cell: &mut Cell) {
    let before = tracked_to(cell.services.ours());
    let records = cell.ask_during("in health", |_| std::thread::sleep(Duration::from_millis(700)));
    let is_of = |who, address: &'static str, transport| {
        move |record: &Record| {
            (record.kind.who, record.kind.address, record.kind.transport) == (who, address, transport)
        }
    };
    for who in [Who::Pod, Who::HostNetwork] {
        for &address in ADDRESSES {
            for transport in [Transport::Udp, Transport::Tcp] {
                let asked = records.of(is_of(who, address, transport)).asked();
                assert!(asked > 0, "{who:?} asks {address} over {transport:?}\n{}", records.detail());
            }
        }
    }
    if !cell.is_served(&records) {
        cell.fail(&records, "an answer comes from elsewhere");
    }
    let after = tracked_to(cell.services.ours());
    let tracked: Vec<&String> = after.difference(&before).collect();
    assert!(tracked.is_empty(), "tracked: {tracked:#?}\n{}", rules());
}

/// What conntrack knows of queries to these addresses.
fn tracked_to(addresses: &[&str]) -> BTreeSet<String> {
    // The kernel writes every digit of an address of IPv6.
    let written = addresses.iter().map(|address| match address.parse::<std::net::Ipv6Addr>() {
        Ok(address) => address.segments().map(|segment| format!("{segment:04x}")).join(":"),
        Err(_) => (*address).to_owned(),
    });
    let destinations: Vec<String> = written.map(|address| format!("dst={address}")).collect();
    let is_one = |entry: &String| {
        entry
            .split(' ')
            .find(|word| word.starts_with("dst="))
            .is_some_and(|word| destinations.iter().any(|to| to == word))
    };
    tracked_dns().into_iter().filter(is_one).collect()
}
