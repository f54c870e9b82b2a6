//! The `bind` directive says on which addresses a server block listens; see README.md beside this file.

mod interfaces;

pub use interfaces::SystemInterfaces;

use crate::chain::{BlockConfig, Interfaces, ParseContext};
use crate::corefile::{Diagnostics, Directive, Token, value};
use std::net::{IpAddr, Ipv6Addr};

const USAGE: &str = "bind ADDRESS|INTERFACE... { except ADDRESS|INTERFACE... }";

/// Reads one `bind` of a server block; its addresses are added to those of earlier ones.
pub fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let interfaces = context.loaders.interfaces;
    let diagnostics = &mut *context.diagnostics;
    if directive.arguments.is_empty() {
        diagnostics
            .error(directive.keyword.span, "bind needs at least one address or interface name")
            .help(format!("write {USAGE}"));
    }
    let mut except = Vec::new();
    for line in &directive.options {
        if line.name.text != "except" {
            value::unknown_option(line, "bind", &["except"], diagnostics);
            continue;
        }
        if line.arguments.is_empty() {
            diagnostics
                .error(line.name.span, "except needs at least one address or interface name")
                .help(format!("write {USAGE}"));
        }
        // The last one counts, as in the reference.
        except = resolve(&line.arguments, interfaces, diagnostics).unwrap_or_default();
    }
    let Some(named) = resolve(&directive.arguments, interfaces, diagnostics) else { return };
    let kept: Vec<Bound> = named.into_iter().filter(|bound| !except.contains(bound)).collect();
    if kept.is_empty() && !directive.arguments.is_empty() {
        diagnostics
            .error(directive.keyword.span, "bind leaves no address to listen on")
            .help("name an interface that has an address now, an address, or fewer exceptions");
    }
    let bind = block.bind.get_or_insert_default();
    for Bound { address, scope } in kept {
        if !bind.contains(&address) {
            bind.push(address);
        }
        if let (IpAddr::V6(address), Some(index)) = (address, scope)
            && !block.bind_scopes.contains(&(address, index))
        {
            block.bind_scopes.push((address, index));
        }
    }
}

/// An address to listen on and, for a link-local one of an interface, that interface's index.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Bound {
    address: IpAddr,
    scope: Option<u32>,
}

/// The addresses that `tokens` mean, interfaces first, so that one named like an address is the interface; `None` if a
/// token means nothing here.
fn resolve(tokens: &[Token], interfaces: &dyn Interfaces, diagnostics: &mut Diagnostics) -> Option<Vec<Bound>> {
    let mut all = Some(Vec::new());
    for token in tokens {
        let Some(found) = resolve_one(token, interfaces, diagnostics) else {
            all = None;
            continue;
        };
        if let Some(all) = &mut all {
            all.extend(found);
        }
    }
    all
}

fn resolve_one(token: &Token, interfaces: &dyn Interfaces, diagnostics: &mut Diagnostics) -> Option<Vec<Bound>> {
    if let Some(addresses) = interfaces.addresses(&token.text) {
        if addresses.is_empty() {
            diagnostics.warning(token.span, format!("interface {} has no IP address", token.text));
        }
        let index = interfaces.index(&token.text);
        return Some(
            addresses
                .into_iter()
                .map(|address| Bound { address, scope: index.filter(|_| needs_zone(address)) })
                .collect(),
        );
    }
    if let Ok(address) = token.text.parse() {
        return Some(vec![Bound { address, scope: None }]);
    }
    let help = if token.text.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()) {
        "an address is written without a zone; name the interface to listen on its link-local addresses"
    } else {
        "write an IP address such as 169.254.20.10, or the name of an interface of this machine"
    };
    diagnostics
        .error(token.span, format!("{:?} is neither an IP address nor an interface of this machine", token.text))
        .help(help);
    None
}

/// Link-local IPv6 addresses mean something only together with an interface (RFC 4007 section 6).
fn needs_zone(address: IpAddr) -> bool {
    let IpAddr::V6(address) = address else { return false };
    address.is_unicast_link_local() || (address.is_multicast() && address.segments()[0] & 0x0f == 2)
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::{configure, configure_on};
    use crate::chain::{BlockConfig, Interfaces};
    use std::net::{IpAddr, SocketAddr};

    /// `eth0` is interface 2 with three addresses, `eth1` interface 3 with one of them, `empty` has none.
    struct TwoInterfaces;

    impl Interfaces for TwoInterfaces {
        fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
            match name {
                "eth0" => Some(["192.0.2.7", "2001:db8::7", "fe80::7"].map(|text| text.parse().unwrap()).into()),
                "eth1" => Some(vec!["fe80::7".parse().unwrap()]),
                "empty" => Some(Vec::new()),
                _ => None,
            }
        }
        fn index(&self, name: &str) -> Option<u32> {
            ["eth0", "eth1"].iter().zip(2..).find_map(|(known, index)| (*known == name).then_some(index))
        }
    }

    fn bound(block: &BlockConfig) -> Vec<String> {
        block.listen_addresses(53).unwrap_or_default().iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn several_lines_add_up_and_an_address_counts_once() {
        let (block, said) = configure(parse, "bind 127.0.0.1 ::1\nbind 169.254.20.10 127.0.0.1");
        assert_eq!(said, "");
        assert_eq!(bound(&block), ["127.0.0.1:53", "[::1]:53", "169.254.20.10:53"]);
    }

    #[test]
    fn an_interface_means_all_its_addresses_link_local_ones_with_their_zone() {
        let (block, said) = configure_on(&TwoInterfaces, parse, "bind eth0");
        assert_eq!(said, "");
        assert_eq!(bound(&block), ["192.0.2.7:53", "[2001:db8::7]:53", "[fe80::7%2]:53"]);
    }

    #[test]
    fn a_link_local_address_of_two_interfaces_is_bound_on_each() {
        let (block, said) =
            configure_on(&TwoInterfaces, parse, "bind eth1\nbind eth0 {\n except 192.0.2.7 2001:db8::7\n}");
        assert_eq!(said, "");
        assert_eq!(bound(&block), ["[fe80::7%3]:53", "[fe80::7%2]:53"]);
    }

    #[test]
    fn exceptions_are_taken_out_of_their_own_line_only() {
        let (block, said) = configure_on(
            &TwoInterfaces,
            parse,
            "bind eth0 {\n except 192.0.2.7\n}\nbind 192.0.2.7 {\n except 127.0.0.1\n}",
        );
        assert_eq!(said, "");
        assert_eq!(bound(&block), ["[2001:db8::7]:53", "[fe80::7%2]:53", "192.0.2.7:53"]);
    }

    #[test]
    fn exceptions_may_be_interfaces() {
        let (block, said) = configure_on(&TwoInterfaces, parse, "bind 127.0.0.1 192.0.2.7 eth0 {\n except eth0\n}");
        assert_eq!(said, "");
        assert_eq!(bound(&block), ["127.0.0.1:53"]);
    }

    #[test]
    fn what_is_neither_an_address_nor_an_interface_is_refused_by_name() {
        let (_, said) = configure(parse, "bind 127.0.0.1 300.1.1.1 eth7");
        assert!(said.contains("Corefile:2:16") && said.contains("\"300.1.1.1\" is neither"), "{said}");
        assert!(said.contains("\"eth7\" is neither"), "{said}");
        assert!(configure(parse, "bind 127.0.0.1 {\n except 300.1.1.1\n}").1.contains("300.1.1.1"));
        assert!(configure(parse, "bind fe80::1%eth0").1.contains("without a zone"));
    }

    #[test]
    fn a_bind_without_a_result_is_refused() {
        assert!(configure(parse, "bind").1.contains("at least one address"));
        assert!(configure(parse, "bind 127.0.0.1 {\n except\n}").1.contains("at least one address"));
        assert!(configure(parse, "bind 127.0.0.1 {\n except 127.0.0.1\n}").1.contains("no address to listen on"));
        let (_, said) = configure_on(&TwoInterfaces, parse, "bind empty");
        assert!(
            said.contains("interface empty has no IP address") && said.contains("no address to listen on"),
            "{said}"
        );
    }

    #[test]
    fn an_unknown_option_names_its_neighbour() {
        let (_, said) = configure(parse, "bind 127.0.0.1 {\n excpet ::1\n}");
        assert!(said.contains("excpet") && said.contains("except"), "{said}");
    }
}
