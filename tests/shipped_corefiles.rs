//! The Corefiles in `config/` are ones we can read.

use nodelocaldns::corefile::{self, SystemLoader};
use nodelocaldns::directives::{ORDER, Support};
use std::path::Path;

fn read(name: &str) -> corefile::Corefile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    let text = std::fs::read_to_string(&path).expect("the file is shipped");
    let (tree, diagnostics) = corefile::parse(&path, &text, &SystemLoader);
    assert_eq!(diagnostics.render(&tree.sources), "");
    for directive in tree.blocks.iter().flat_map(|block| &block.directives) {
        let keyword = ORDER.iter().find(|keyword| keyword.name == directive.keyword.text);
        assert!(
            matches!(keyword, Some(keyword) if matches!(keyword.support, Support::Here { .. })),
            "{}",
            directive.keyword.text
        );
    }
    tree
}

#[test]
fn the_built_in_corefile_serves_every_name_on_loopback_port_1053() {
    let tree = read("Corefile.local");
    let [block] = tree.blocks.as_slice() else { panic!("one block") };
    let [key] = block.keys.as_slice() else { panic!("one key") };
    assert_eq!((key.zone.is_root(), key.port), (true, Some(1053)));
    // Nothing of it is reachable from elsewhere.
    for keyword in ["bind", "prometheus", "health", "ready"] {
        let directive = block.directives.iter().find(|directive| directive.keyword.text == keyword).expect(keyword);
        assert!(directive.arguments.iter().all(|address| address.text.starts_with("127.0.0.1")), "{keyword}");
        assert!(!directive.arguments.is_empty(), "{keyword}");
    }
}

#[test]
fn the_stock_node_local_corefile_has_its_four_zones() {
    let tree = read("Corefile.node-local");
    let zones: Vec<String> = tree.blocks.iter().flat_map(|block| &block.keys).map(|key| key.zone.to_string()).collect();
    assert_eq!(zones, ["cluster.local.", "in-addr.arpa.", "ip6.arpa.", "."]);
}
