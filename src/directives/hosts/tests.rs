use super::parse;
use crate::chain::testing::{Question, build, configure_with, process};
use crate::chain::{After, Built, Configured, FastPath, Handler};
use crate::corefile::{DataFile, FileStamp, Loader};
use crate::message::RecordType;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A machine with one file.
struct Folder(&'static str, &'static str);

impl Loader for Folder {
    fn read(&self, path: &Path) -> io::Result<String> {
        Err(io::Error::new(io::ErrorKind::NotFound, path.display().to_string()))
    }
    fn data(&self, path: &Path) -> io::Result<DataFile> {
        match path == Path::new(self.0) {
            true => Ok(DataFile {
                text: self.1.to_owned(),
                stamp: FileStamp { modified: (7, 500_000_000), ..FileStamp::default() },
            }),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }
    fn glob(&self, _pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
    fn environment(&self, _name: &str) -> Option<String> {
        None
    }
}

fn built(file: &Folder, text: &str) -> (Arc<dyn Handler>, Built) {
    let (block, said) = configure_with(file, parse, text);
    assert!(!said.contains("error"), "{said}");
    let mut built = build(&block, &process());
    (built.handler.take().unwrap(), built)
}

fn said(file: &Folder, text: &str) -> String {
    configure_with(file, parse, text).1
}

/// What both paths say: the rcode and the records, or that the next handler is asked.
async fn asked(handler: &Arc<dyn Handler>, name: &str, qtype: RecordType) -> String {
    let question = Question::new(name, qtype);
    let answer = question.ask(handler).await.unwrap();
    let (path, fast) = question.ask_quickly(&**handler);
    if answer.from == "fixed" {
        assert_eq!(path, FastPath::Pass, "{name}");
        return "next".to_owned();
    }
    assert_eq!(fast, question.reply(&answer), "{name}: both paths say the same");
    assert_eq!(path, FastPath::Answered(After::CachePacket { millis: 500, note: 0 }));
    let records: Vec<String> = question
        .records(&answer)
        .iter()
        .map(|record| record.split(' ').skip(2).collect::<Vec<_>>().join(" "))
        .collect();
    format!("{} {}", answer.response.rcode(), records.join(", ")).trim_end().to_owned()
}

const NOTHING: Folder = Folder("", "");

#[tokio::test]
async fn names_have_the_addresses_of_file_and_corefile_and_nothing_of_other_types() {
    let file = Folder("/h", "192.0.2.41 file.example\n2001:db8::41 six.example\n");
    let (handler, _) = built(&file, "hosts /h {\n 192.0.2.40 file.example *.wild.example\n ttl 20\n}");
    for (name, qtype, expected) in [
        ("FILE.example.", RecordType::A, "NOERROR 20 IN A 192.0.2.41, 20 IN A 192.0.2.40"),
        ("six.example.", RecordType::AAAA, "NOERROR 20 IN AAAA 2001:db8::41"),
        ("six.example.", RecordType::A, "NOERROR"),
        ("six.example.", RecordType::TXT, "NOERROR"),
        ("any.wild.example.", RecordType::A, "NOERROR 20 IN A 192.0.2.40"),
        ("41.2.0.192.in-addr.arpa.", RecordType::PTR, "NOERROR 20 IN PTR file.example."),
        ("42.2.0.192.in-addr.arpa.", RecordType::PTR, "next"),
        ("file.example.", RecordType::PTR, "next"),
        ("other.example.", RecordType::A, "SERVFAIL"),
        ("other.example.", RecordType::TXT, "SERVFAIL"),
    ] {
        assert_eq!(asked(&handler, name, qtype).await, expected, "{name} {qtype}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_handed_on_where_it_shall_be() {
    let text = |options: &str| format!("hosts /h a.test b.test {{\n 192.0.2.1 x.a.test\n {options}\n}}");
    let (plain, _) = built(&NOTHING, &text(""));
    let (everywhere, _) = built(&NOTHING, &text("fallthrough"));
    let (some, _) = built(&NOTHING, &text("fallthrough b.test"));
    let (types, _) = built(&NOTHING, &text("fallthrough a.test\n fallthrough_unsupported"));
    for (name, qtype, expected) in [
        ("y.a.test.", RecordType::A, ["SERVFAIL", "next", "SERVFAIL", "next"]),
        ("y.b.test.", RecordType::A, ["SERVFAIL", "next", "next", "SERVFAIL"]),
        ("y.c.test.", RecordType::A, ["next"; 4]),
        ("x.a.test.", RecordType::AAAA, ["NOERROR"; 4]),
        ("x.a.test.", RecordType::TXT, ["NOERROR", "NOERROR", "NOERROR", "next"]),
    ] {
        for (handler, expected) in [&plain, &everywhere, &some, &types].into_iter().zip(expected) {
            assert_eq!(asked(handler, name, qtype).await, expected, "{name} {qtype}");
        }
    }
}

#[test]
fn what_the_reference_does_not_heed_is_a_warning_and_what_it_refuses_an_error() {
    for (text, expected) in [
        ("ttl 30 40", "warning: `40` is ignored"),
        ("no_reverse x", "warning: `x` is ignored"),
        ("nosuch x", "warning: `nosuch` is no IP address, nor an option"),
        ("192.0.2.1", "warning: `192.0.2.1` has no name"),
        ("10.0.0.0/24 net.example", "warning: `10.0.0.0/24` is no IP address"),
        ("192.0.2.1 a..b", "warning: `a..b` is no domain name"),
        ("reload 1ms", "warning: the hosts file is looked at each 100ms"),
        ("fallthrough\n192.0.2.1 late.example", "error: an entry of `hosts` stands after `fallthrough`"),
        ("fallthrough\nno_revers", "error: unknown option `no_revers`"),
        ("ttl", "error: `ttl` of `hosts` has no value"),
        ("ttl 0", "error: `0` is out of range"),
        ("ttl 65536", "error: `65536` is out of range"),
        ("reload", "error: `reload` takes 1 argument"),
        ("reload -1s", "error: `-1s` is negative"),
        ("reload soon", "error: `soon` is not a duration"),
        ("fallthrough_unsupported", "error: `fallthrough_unsupported` of `hosts` needs"),
        ("fallthrough\nfallthrough_unsupported x", "error: `fallthrough_unsupported` takes no argument"),
    ] {
        let said = said(&NOTHING, &format!("hosts {{\n{text}\n}}"));
        assert!(said.contains(expected), "{text}: {said}");
        assert_eq!(said.matches("warning: ").count() + said.matches("error: ").count(), 1, "{text}: {said}");
    }
    assert_eq!(
        said(&NOTHING, "hosts {\n 192.0.2.1 a.example\n ttl 60\n reload 0s\n no_reverse\n fallthrough a b\n}"),
        ""
    );
    assert!(
        said(&NOTHING, "hosts /h a.test {\n 192.0.2.1 bare\n}").contains("warning: `bare` is in none of the zones")
    );
}

#[test]
fn bad_lines_of_the_file_are_named_and_so_is_a_file_that_is_not_there() {
    let file = Folder("/h", "nonsense\n192.0.2.1 good.example\n");
    assert!(
        said(&file, "hosts /h")
            .contains("warning: /h has lines that are no entries: line 1: `nonsense` is no IP address")
    );
    assert!(said(&file, "hosts /other").contains("warning: the hosts file /other does not exist"));
    assert_eq!(said(&file, "hosts"), "", "nobody has asked for the default file");
    let (block, said) = configure_with(&file, parse, "hosts /dev/null {\n 192.0.2.1 a.example\n}");
    assert_eq!((said.as_str(), build(&block, &process()).background.len()), ("", 0), "there is no file");
}

#[test]
fn the_file_is_where_root_says_and_its_entries_are_counted() {
    let file = Folder("/etc/coredns/h", "192.0.2.1 a.example\n");
    let (mut block, said) = configure_with(&file, parse, "hosts /etc/coredns/h {\n reload 0s\n}");
    assert_eq!(said, "");
    let process = process();
    let built = build(&block, &process);
    assert!(built.background.is_empty(), "it is not read again");
    let page = process.registry.encode();
    assert!(page.contains("coredns_hosts_entries{hostsfile=\"/etc/coredns/h\"} 2"), "{page}");
    assert!(page.contains("coredns_hosts_reload_timestamp_seconds 7.5"), "{page}");
    block.parts.clear();
    block.root = Some("/etc/coredns".into());
    let (tree, mut diagnostics) = crate::corefile::parse(Path::new("Corefile"), ".:53 {\nhosts h\n}\n", &file);
    let loaders = crate::chain::Loaders { files: &file, interfaces: &crate::chain::testing::Nowhere };
    let zones = [crate::message::Name::root()];
    let mut context = crate::chain::ParseContext {
        diagnostics: &mut diagnostics,
        loaders,
        zones: &zones,
        patterns: &Default::default(),
    };
    parse(&tree.blocks[0].directives[0], &mut block, &mut context);
    assert!(diagnostics.is_empty(), "the file is found");
    let configured: &dyn Configured = &*block.parts[0].configured;
    let configured: &dyn std::any::Any = configured;
    assert_eq!(configured.downcast_ref::<super::HostsConfig>().unwrap().path, Path::new("/etc/coredns/h"));
}
