//! What caches take: the stock four blocks full, bytes an entry, and many more names than a cache holds.

use super::mebibytes;
use crate::lab::{Lab, Setup};
use crate::message::{A, PTR};
use crate::peers::{Peer, Service};
use crate::questions::{Distinct, Question};
use crate::report::{Row, Table};
use anyhow::{Context, Result};

pub fn run(lab: &Lab<'_>) -> Result<Vec<Table>> {
    let divisor = if lab.options.check { 100 } else { 1 };
    let mut four = Table::new(
        "memory",
        "the stock node-local Corefile, each of its four blocks holding 10,000 entries; all processes",
        &["resident MiB at start", "resident MiB full", "proportional MiB full", "octets an entry"],
    );
    let mut many = Table::new(
        "memory-flat",
        "distinct names through a cache of 10,000 entries: resident MiB after so many",
        &["0", "10,000", "100,000", "1,000,000"],
    );
    for peer in lab.options.peers().filter(|peer| matches!(peer, Peer::Ours | Peer::NodeCache)) {
        if let Some(row) =
            four_blocks(lab, peer, 10_000 / divisor).with_context(|| format!("filling {}", peer.name()))?
        {
            four.rows.push(row);
        }
        if let Some(row) = flat(lab, peer, divisor).with_context(|| format!("filling {}", peer.name()))? {
            many.rows.push(row);
        }
    }
    Ok(vec![four, many])
}

fn four_blocks(lab: &Lab<'_>, peer: Peer, entries: usize) -> Result<Option<Row>> {
    let Some(mut server) = lab.server(peer, &Setup::new("memory", Service::NodeLocal))? else { return Ok(None) };
    let before = server.process.memory()?;
    // The cluster's zone last: its answers live 5 seconds.
    let names: [&dyn Fn(usize) -> (String, u16); 4] = [
        &|number| (format!("{}.{}.0.10.in-addr.arpa", number % 256, number / 256), PTR),
        &|number| (format!("{:x}.{:x}.8.b.d.0.1.0.0.2.ip6.arpa", number % 16, number / 16), PTR),
        &|number| (format!("host-{number}.bench.example"), A),
        &|number| (format!("svc-{number}.ns-{}.svc.cluster.local", number % 20), A),
    ];
    for name in names {
        let question = |number| {
            let (name, rtype) = name(number);
            Question::new(&name, rtype)
        };
        server.ask_each((0..entries).map(question).collect())?;
    }
    let full = server.process.memory()?;
    let grown = full.rss_octets.saturating_sub(before.rss_octets);
    let cells = [
        mebibytes(before.rss_octets),
        mebibytes(full.rss_octets),
        mebibytes(full.pss_octets),
        grown as f64 / (4 * entries) as f64,
    ];
    Ok(Some(Row::new(peer.name(), &cells)))
}

fn flat(lab: &Lab<'_>, peer: Peer, divisor: usize) -> Result<Option<Row>> {
    let Some(mut server) = lab.server(peer, &Setup::new("memory-flat", Service::Entries(10_000)))? else {
        return Ok(None);
    };
    let mut cells = vec![mebibytes(server.process.memory()?.rss_octets)];
    let mut asked = 0;
    for count in [10_000, 100_000, 1_000_000] {
        let count = count / divisor;
        let names = Distinct::new("m-", "miss.bench.example", u32::try_from(asked)?);
        server.ask(Box::new(names), (count - asked) as u64)?;
        asked = count;
        cells.push(mebibytes(server.process.memory()?.rss_octets));
    }
    Ok(Some(Row::new(peer.name(), &cells)))
}
