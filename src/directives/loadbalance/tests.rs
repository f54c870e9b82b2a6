use super::parse;
use crate::chain::Arranger;
use crate::chain::testing::{Sample, build, configure, configure_with, process};
use crate::corefile::{DataFile, FileStamp, Loader};
use crate::message::RecordType;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A machine whose only file has these weights.
struct File(&'static str);

impl Loader for File {
    fn read(&self, path: &Path) -> io::Result<String> {
        Err(io::Error::new(io::ErrorKind::NotFound, path.display().to_string()))
    }
    fn data(&self, path: &Path) -> io::Result<DataFile> {
        match path == Path::new("/w") {
            true => Ok(DataFile { text: self.0.to_owned(), stamp: FileStamp::default() }),
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

fn arranger(text: &str) -> Arc<dyn Arranger> {
    let (block, said) = configure_with(&File("multi.example\n192.0.2.1 8\n"), parse, text);
    assert!(!said.contains("error"), "{said}");
    let built = build(&block, &process());
    assert!(built.handler.is_none(), "no query passes through it");
    built.arranger.unwrap()
}

/// How often each order of the last octets of three addresses comes in a thousand replies.
fn orders(arranger: &dyn Arranger, qtype: RecordType) -> BTreeMap<Vec<u8>, usize> {
    let mut sample = Sample::new("multi.example.", qtype);
    let addresses: Vec<[u8; 4]> = (1..=3).map(|last| [192, 0, 2, last]).collect();
    let records: Vec<(u16, &[u8])> = addresses.iter().map(|address| (1, &address[..])).collect();
    sample.answer(0x8180, crate::message::Rcode::NOERROR, &records, &[]);
    let mut orders = BTreeMap::new();
    let prepared = arranger.prepare(&sample.reply);
    for index in 0..1000 {
        let mut reply = sample.reply.clone();
        // Half of them as copies of one, as the packet cache gives them.
        match prepared.filter(|_| index % 2 == 0) {
            Some(addresses) => arranger.arrange_copy(&mut reply, addresses),
            None => arranger.arrange(&mut reply, 0),
        }
        let first = reply.len() - 3 * 16;
        *orders.entry((0..3).map(|index| reply[first + 16 * index + 15]).collect()).or_insert(0) += 1;
    }
    orders
}

#[test]
fn every_order_comes_about_as_often() {
    for text in ["loadbalance", "loadbalance round_robin"] {
        let orders = orders(&*arranger(text), RecordType::A);
        assert_eq!(orders.len(), 6);
        // A thousand throws of a die: fewer than 90 of one face come less than once in a thousand million runs.
        assert!(orders.values().all(|count| *count > 90), "{orders:?}");
    }
}

#[test]
fn preferred_networks_come_first_in_their_order() {
    let orders =
        orders(&*arranger("loadbalance {\n prefer 192.0.2.3/32 2001:db8::/32\n prefer 192.0.2.2/32\n}"), RecordType::A);
    assert_eq!(orders.into_keys().collect::<Vec<_>>(), [[3, 2, 1]]);
}

#[test]
fn the_heaviest_comes_first_most_often_where_addresses_are_asked_for() {
    let arranger = arranger("loadbalance weighted /w");
    let first = |qtype, octet| {
        orders(&*arranger, qtype)
            .into_iter()
            .filter(|(order, _)| order[0] == octet)
            .map(|(_, count)| count)
            .sum::<usize>()
    };
    // 800 are to be expected, and 730 or 870 are more than five standard deviations off.
    assert!((730..870).contains(&first(RecordType::A, 1)), "{:?}", orders(&*arranger, RecordType::A));
    assert_eq!(first(RecordType::MX, 1), 1000, "others stay as they are");
    let mut sample = Sample::new("multi.example.", RecordType::MX);
    let addresses = [(1, &[192, 0, 2, 1][..]), (1, &[192, 0, 2, 2][..])];
    sample.answer(0x8180, crate::message::Rcode::NOERROR, &addresses, &[]);
    assert_eq!(arranger.prepare(&sample.reply), None, "nor are they in copies");
}

#[test]
fn what_is_wrong_is_told() {
    for (text, expected) in [
        ("loadbalance least", "error: unknown policy `least`"),
        ("loadbalance round_robin x", "error: `round_robin` takes no argument"),
        ("loadbalance weighted", "error: `weighted` takes 1 argument"),
        ("loadbalance weighted /w x", "error: `weighted` takes 1 argument"),
        ("loadbalance weighted nosuch", "warning: the file of weights nosuch does not exist"),
        ("loadbalance weighted nosuch {\n reload 0s\n}", "error: the file of weights nosuch does not exist"),
        ("loadbalance weighted nosuch {\n reload\n}", "error: `reload` takes 1 argument"),
        ("loadbalance weighted nosuch {\n prefer 10.0.0.0/8\n}", "error: unknown option `prefer`"),
        ("loadbalance {\n prefer 10.0.0.0/33\n}", "error: `10.0.0.0/33` is no network"),
        ("loadbalance {\n reload 1s\n}", "error: unknown option `reload`"),
        ("loadbalance\nloadbalance", "warning: `loadbalance` stands twice"),
    ] {
        let (_, said) = configure(parse, text);
        assert!(said.contains(expected), "{text}: {said}");
    }
    let (_, said) = configure_with(&File("a.example\n192.0.2.1\n"), parse, "loadbalance weighted /w");
    assert!(said.contains("error: the weights of /w cannot be read: line 2: an address without its weight"), "{said}");
}
