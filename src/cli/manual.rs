//! The manual pages of docs/man, made of the flags: a test compares them, and `MAN=write cargo test --lib cli::manual`
//! writes them anew.

use super::Flags;
use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// What the flags do not say: heading, and pairs of what it is about and what is to be said of it.
type Section = (&'static str, &'static [(&'static str, &'static str)]);

const SECTIONS: &[Section] = &[
    (
        "SIGNALS",
        &[
            (
                "SIGTERM, SIGINT, SIGQUIT",
                "The interception is withdrawn, queries that have come are answered, what was set up on the node is \
                 removed but the fallback, and the program ends with status 0.",
            ),
            ("SIGUSR1", "The Corefile is read again."),
            ("SIGHUP", "Where no server process lives, another one is started at once."),
        ],
    ),
    (
        "FILES",
        &[
            ("/etc/Corefile", "With -localip: the Corefile that the template makes, if -conf names no other place."),
            ("/etc/coredns/Corefile.base", "The template of the Corefile, if -basecorefile names no other."),
            ("/etc/kube-dns", "The kube-dns ConfigMap, if -kubednscm names no other folder."),
        ],
    ),
    (
        "ENVIRONMENT",
        &[(
            "KUBE_DNS_SERVICE_HOST",
            "The address of cluster DNS. Another Service of -upstreamsvc has its name there, as Kubernetes gives it to \
             pods.",
        )],
    ),
    (
        "SEE ALSO",
        &[("https://github.com/nodelocaldns/nodelocaldns", "has the directives of a Corefile, and all else.")],
    ),
];

/// The pages by their files' names: the program's, and one for each command.
fn pages() -> io::Result<BTreeMap<String, String>> {
    let mut program = Flags::command();
    program.build();
    let mut pages = BTreeMap::new();
    let commands = program.get_subcommands();
    let all =
        std::iter::once(&program).chain(commands.flat_map(|one| std::iter::once(one).chain(one.get_subcommands())));
    for command in all {
        let page = Man::new(command.clone()).section("8").source("nodelocaldns").manual("nodelocaldns");
        let mut text = Vec::new();
        page.render_title(&mut text)?;
        page.render_name_section(&mut text)?;
        page.render_synopsis_section(&mut text)?;
        page.render_description_section(&mut text)?;
        page.render_options_section(&mut text)?;
        if command.has_subcommands() {
            page.render_subcommands_section(&mut text)?;
        }
        if command.get_name() == program.get_name() {
            more(SECTIONS).to_writer(&mut text)?;
        } else {
            more(&[("SEE ALSO", &[("nodelocaldns(8)", "")])]).to_writer(&mut text)?;
        }
        pages.insert(page.get_filename(), String::from_utf8(text).map_err(io::Error::other)?);
    }
    Ok(pages)
}

fn more(sections: &[Section]) -> Roff {
    let mut roff = Roff::new();
    for (heading, entries) in sections {
        roff.control("SH", [*heading]);
        for (name, text) in *entries {
            roff.control("TP", []);
            roff.text([bold(*name)]);
            roff.text([roman(*text)]);
        }
    }
    roff
}

#[test]
fn the_pages_are_those_of_the_flags() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man");
    let pages = pages().unwrap();
    assert!(pages.len() > 5 && pages.contains_key("nodelocaldns.8"), "{:?}", pages.keys());
    if std::env::var_os("MAN").is_some_and(|wish| wish == "write") {
        std::fs::create_dir_all(&folder).unwrap();
        pages.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
    }
    let entries = folder.read_dir().unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let written: BTreeMap<String, String> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    for name in pages.keys().chain(written.keys()) {
        let is_up_to_date = pages.get(name) == written.get(name);
        assert!(is_up_to_date, "docs/man/{name} is not what the flags say: MAN=write cargo test --lib cli::manual");
    }
}
