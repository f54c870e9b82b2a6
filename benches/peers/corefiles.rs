//! The Corefiles that ours and the reference are started with.

use crate::peers::{Place, Service};
use crate::upstream_tls::{NAME, https_address, tls_address};
use std::net::{Ipv4Addr, SocketAddrV4};

/// An address of a server that has several; the first is its own.
pub fn listen_address(server: SocketAddrV4, number: usize) -> SocketAddrV4 {
    let [a, b, c, d] = server.ip().octets();
    let [.., high, low] = number.to_be_bytes();
    SocketAddrV4::new(if number == 0 { *server.ip() } else { Ipv4Addr::new(a, b, c + d + high, low) }, server.port())
}

/// The Corefile for a service.
pub fn corefile(service: Service, place: &Place<'_>) -> String {
    let Place { address, upstream, .. } = place;
    let (ip, port) = (address.ip(), address.port());
    let forwarding = |zone: &str, bind: &str, entries: usize, to: &str, options: &str| {
        format!(
            "{zone}:{port} {{\n    errors\n    cache {{\n        success {entries} 3600\n        denial {entries} 3600\n    }}\n    \
             bind {bind}\n    forward . {to}{options}\n    prometheus {ip}:9253\n    timeouts {{\n        read 60s\n        idle 120s\n    \
             }}\n}}\n"
        )
    };
    let block = |zone: &str, bind: &str, entries, options: &str| {
        forwarding(zone, bind, entries, &upstream.to_string(), options)
    };
    let own = ip.to_string();
    let over_tls = |scheme: &str, address: SocketAddrV4| {
        let certificate = place.certificate.display();
        let options = format!(" {{\n        tls {certificate}\n        tls_servername {NAME}\n    }}");
        forwarding(".", &own, STOCK_ENTRIES, &format!("{scheme}://{address}"), &options)
    };
    match service {
        Service::Forward { over_tcp: false } | Service::ManyClients => block(".", &own, STOCK_ENTRIES, ""),
        Service::Forward { over_tcp: true } => block(".", &own, STOCK_ENTRIES, " {\n        force_tcp\n    }"),
        Service::ForwardTls => over_tls("tls", tls_address(*upstream)),
        Service::ForwardHttps => over_tls("https", https_address(*upstream)),
        Service::Entries(entries) => block(".", &own, entries, ""),
        Service::Blocks(count) => {
            // The first one has all other names, too.
            let zone = |number| if number == 0 { ".".to_owned() } else { zone(number) };
            (0..count).map(|number| block(&zone(number), &own, STOCK_ENTRIES, "")).collect()
        }
        Service::Addresses(count) => {
            let addresses: Vec<String> =
                (0..count).map(|number| listen_address(*address, number).ip().to_string()).collect();
            block(".", &addresses.join(" "), STOCK_ENTRIES, "")
        }
        Service::NodeLocal => {
            let stock = include_str!("../../config/Corefile.node-local");
            let replacements = [
                (":53 {", format!(":{port} {{")),
                ("bind 169.254.20.10 10.96.0.10", format!("bind {ip}")),
                ("10.96.0.11", upstream.to_string()),
                ("/etc/resolv.conf", upstream.to_string()),
                ("prometheus :9253", format!("prometheus {ip}:9253")),
                ("169.254.20.10:8080", format!("{ip}:8080")),
            ];
            replacements.iter().fold(stock.to_owned(), |text, (from, to)| text.replace(from, to))
        }
    }
}

/// What the stock Corefile gives its cluster zone, and CoreDNS every cache that does not say.
const STOCK_ENTRIES: usize = 9984;

/// The zone of a block where there are many.
pub fn zone(number: usize) -> String {
    format!("z{number}.bench.example")
}
