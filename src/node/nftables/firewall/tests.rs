//! What becomes of DNS packets in firewalls as a kernel lists them (`recorded/`).

use super::*;
use crate::node::nftables::Chains;

/// `recorded/NAME.nlmsg`
macro_rules! recorded {
    ($name:literal) => {
        Chains::listed(include_bytes!(concat!("recorded/", $name, ".nlmsg")))
    };
}

const ADDRESSES: [&str; 3] = ["10.96.0.10", "169.254.20.10", "fd00::10"];

fn packets() -> Vec<Packet> {
    let each = ADDRESSES
        .iter()
        .flat_map(|address| [TransportProtocol::Udp, TransportProtocol::Tcp].map(|protocol| (protocol, address)));
    each.map(|(protocol, address)| Packet {
        at: NetfilterHook::Input,
        is_loopback: false,
        protocol,
        end: PacketEnd::Destination,
        address: address.parse().unwrap(),
        port: 53,
    })
    .collect()
}

/// What becomes of pods' queries over IPv4; it must be the same at every address and over both protocols.
fn of_queries(chains: &Chains) -> PacketVerdict {
    let queries: Vec<Packet> = packets().into_iter().filter(|packet| packet.address.is_ipv4()).collect();
    let fates: Vec<PacketVerdict> = queries.iter().map(|packet| packet_verdict(chains, packet)).collect();
    assert!(fates.iter().all(|packet_verdict| *packet_verdict == fates[0]), "{fates:#?}");
    fates[0].clone()
}

fn dropped_by(chains: &Chains) -> String {
    match of_queries(chains) {
        PacketVerdict::Dropped { by } => by.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_policy_that_drops_is_named() {
    assert_eq!(dropped_by(&recorded!("ufw")), "the policy of nftables chain ip filter INPUT");
    let PacketVerdict::Unknown { by } = of_queries(&recorded!("nftables-drop")) else {
        panic!("some sources are let in, which may be the pod's")
    };
    assert_eq!(by.to_string(), "the policy of nftables chain inet filter input");
}

#[test]
fn a_rule_that_rejects_what_no_other_accepts_is_named() {
    let by = dropped_by(&recorded!("rhel"));
    assert!(by.starts_with("the rule with handle ") && by.ends_with(" of nftables chain ip filter INPUT"), "{by}");
    let by = dropped_by(&recorded!("firewalld"));
    assert!(by.ends_with(" of nftables chain inet firewalld filter_INPUT"), "{by}");
}

#[test]
fn firewalld_s_table_drops_packets_of_both_families() {
    let chains = recorded!("firewalld");
    for packet in packets() {
        assert!(
            matches!(packet_verdict(&chains, &packet), PacketVerdict::Dropped { .. }),
            "{packet:?}: {:?}",
            packet_verdict(&chains, &packet)
        );
    }
}

#[test]
fn what_depends_on_the_interface_is_not_known() {
    let PacketVerdict::Unknown { by } = of_queries(&recorded!("calico")) else {
        panic!("{:?}", of_queries(&recorded!("calico")))
    };
    assert!(by.to_string().contains("nftables chain ip filter cali-"), "{by}");
}

#[test]
fn kubernetes_and_docker_s_own_rules_let_us_in() {
    for (name, chains) in [
        ("kubelet", recorded!("kubelet")),
        ("kube-proxy-iptables", recorded!("kube-proxy-iptables")),
        ("kube-proxy-nftables", recorded!("kube-proxy-nftables")),
        ("docker", recorded!("docker")),
        ("nftables-accept", recorded!("nftables-accept")),
    ] {
        assert!(!chains.rules.is_empty(), "{name}");
        for packet in packets() {
            assert_eq!(packet_verdict(&chains, &packet), PacketVerdict::Accepted, "{name}: {packet:?}");
        }
    }
}

#[test]
fn packets_through_lo_pass_a_firewall_that_accepts_them() {
    for chains in [recorded!("ufw"), recorded!("rhel"), recorded!("firewalld"), recorded!("nftables-drop")] {
        for query in packets() {
            for (at, end) in [
                (NetfilterHook::Input, PacketEnd::Source),
                (NetfilterHook::Input, PacketEnd::Destination),
                (NetfilterHook::Output, PacketEnd::Destination),
            ] {
                let packet = Packet { at, end, is_loopback: true, ..query };
                assert_eq!(packet_verdict(&chains, &packet), PacketVerdict::Accepted, "{packet:?}");
            }
        }
    }
}

#[test]
fn answers_leave_through_an_output_hook_that_drops_nothing() {
    for chains in [recorded!("ufw"), recorded!("rhel"), recorded!("firewalld"), recorded!("nftables-drop")] {
        for query in packets() {
            let packet = Packet { at: NetfilterHook::Output, end: PacketEnd::Source, ..query };
            assert_eq!(packet_verdict(&chains, &packet), PacketVerdict::Accepted, "{packet:?}");
        }
    }
}

#[test]
fn other_ports_have_another_fate() {
    let chains = recorded!("nftables-accept");
    for query in packets() {
        assert!(matches!(packet_verdict(&chains, &Packet { port: 54, ..query }), PacketVerdict::Dropped { .. }));
        assert_eq!(packet_verdict(&chains, &Packet { port: 9153, ..query }), PacketVerdict::Accepted);
    }
}

#[test]
fn intervals_and_verdict_maps_are_read() {
    let chains = recorded!("nftables-drop");
    let tcp = |port| {
        let packet = Packet { protocol: TransportProtocol::Tcp, port, ..packets()[0] };
        packet_verdict(&chains, &packet)
    };
    // `ip saddr @allowed accept` may let anybody in; `{ 22, 80-90, 443 }` does.
    for (port, is_let_in) in [
        (21, false),
        (22, true),
        (23, false),
        (79, false),
        (80, true),
        (85, true),
        (90, true),
        (91, false),
        (443, true),
    ] {
        assert_eq!(tcp(port) == PacketVerdict::Accepted, is_let_in, "{port}: {:?}", tcp(port));
    }
    let udp = |port| packet_verdict(&chains, &Packet { protocol: TransportProtocol::Udp, port, ..packets()[0] });
    assert_eq!(udp(68), PacketVerdict::Accepted);
    assert_ne!(udp(5353), PacketVerdict::Accepted, "it is for multicast addresses");
}

#[test]
fn octets_that_are_no_ruleset_do_not_panic() {
    let recordings: [&[u8]; 3] = [
        include_bytes!("recorded/nftables-drop.nlmsg"),
        include_bytes!("recorded/ufw.nlmsg"),
        include_bytes!("recorded/calico.nlmsg"),
    ];
    for recording in recordings {
        for index in (0..recording.len()).step_by(3) {
            for value in [0, 0xff] {
                let mut octets = recording.to_vec();
                octets[index] = value;
                let chains = Chains::listed(&octets);
                let _nothing_panics = packet_verdict(&chains, &packets()[0]);
            }
        }
    }
}
