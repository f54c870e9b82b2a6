//! How the cost of ours grows with entries, server blocks, listen addresses and misses in flight.

use super::{cpu_per_query, mebibytes, median, microseconds};
use crate::corefiles::{listen_address, zone};
use crate::generator::{End, Generator, Outcome};
use crate::lab::{Lab, Server, Setup};
use crate::message::A;
use crate::peers::{Peer, Service};
use crate::questions::{Distinct, Popular, Question, long_lived};
use crate::report::{Row, Table};
use anyhow::{Context, Result, anyhow, ensure};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Clients that share the misses in flight, since ours lets one client have 4,096 on a worker.
const CLIENTS: usize = 5;
/// A round in which misses are in flight is long enough to reach their number, and to stay there.
const FLIGHT: Duration = Duration::from_secs(3);

pub fn run(lab: &Lab<'_>) -> Result<Vec<Table>> {
    if !lab.options.peers().any(|peer| peer == Peer::Ours) {
        return Ok(Vec::new());
    }
    Ok(vec![entries(lab)?, blocks(lab)?, addresses(lab)?, flights(lab)?])
}

fn ours(lab: &Lab<'_>, service: Service) -> Result<Server> {
    lab.server(Peer::Ours, &Setup::new("scaling", service))?.context("ours can be anything")
}

fn entries(lab: &Lab<'_>) -> Result<Table> {
    let columns = ["CPU µs/query", "resident MiB", "octets an entry"];
    let mut table =
        Table::new("scaling-entries", "cached answers, every entry equally often, by number of entries", &columns);
    let counts: &[usize] = if lab.options.check { &[100, 1000] } else { &[1000, 100_000, 1_000_000] };
    for count in counts {
        // A little room: shards are not filled evenly.
        let mut server = ours(lab, Service::Entries(count + count / 8))?;
        let before = server.process.memory()?.rss_octets;
        let names = long_lived(*count);
        server.ask_each(names.clone())?;
        let grown = server.process.memory()?.rss_octets.saturating_sub(before);
        let cpu = cpu_per_query(lab, &mut server, Box::new(Popular::equally(names)))?;
        let cells = [cpu, mebibytes(before + grown), grown as f64 / *count as f64];
        table.rows.push(Row::new(&format!("{count} entries"), &cells));
    }
    Ok(table)
}

fn blocks(lab: &Lab<'_>) -> Result<Table> {
    let columns = ["CPU µs/query", "resident MiB", "/metrics ms", "/metrics KiB"];
    let mut table =
        Table::new("scaling-blocks", "cached answers from as many zones, by number of server blocks", &columns);
    let counts: &[usize] = if lab.options.check { &[1, 4] } else { &[1, 4, 64, 1000] };
    for count in counts {
        let mut server = ours(lab, Service::Blocks(*count))?;
        let names: Vec<Question> =
            (0..1000).map(|number| Question::new(&format!("host-{number}.{}", zone(number % count)), A)).collect();
        server.ask_each(names.clone())?;
        let cpu = cpu_per_query(lab, &mut server, Box::new(Popular::equally(names)))?;
        let mut scrapes = Vec::new();
        let mut octets = 0;
        for _ in 0..5 {
            let started = Instant::now();
            octets = scrape(SocketAddrV4::new(*server.address.ip(), 9253))?;
            scrapes.push(microseconds(started.elapsed()) / 1e3);
        }
        let resident = mebibytes(server.process.memory()?.rss_octets);
        table
            .rows
            .push(Row::new(&format!("{count} blocks"), &[cpu, resident, median(scrapes), octets as f64 / 1024.0]));
    }
    Ok(table)
}

/// Asks for /metrics; how many octets came.
fn scrape(address: SocketAddrV4) -> Result<usize> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot scrape {address}"))?;
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{address} does not answer /metrics with 200");
    Ok(answer.len())
}

fn addresses(lab: &Lab<'_>) -> Result<Table> {
    let columns = ["one asked, CPU µs/query", "all asked in turn, CPU µs/query"];
    let mut table = Table::new("scaling-addresses", "cached answers, by number of listen addresses", &columns);
    let counts: &[usize] = if lab.options.check { &[1, 8] } else { &[1, 8, 64] };
    for count in counts {
        let mut server = ours(lab, Service::Addresses(*count))?;
        let names = long_lived(1000);
        server.ask_each(names.clone())?;
        let one = cpu_per_query(lab, &mut server, Box::new(Popular::new(names.clone())))?;
        let all = (0..*count).map(|number| listen_address(server.address, number)).collect();
        server.generator = Generator::in_turn(all)?;
        let all = cpu_per_query(lab, &mut server, Box::new(Popular::new(names)))?;
        table.rows.push(Row::new(&format!("{count} addresses"), &[one, all]));
    }
    Ok(table)
}

fn flights(lab: &Lab<'_>) -> Result<Table> {
    let columns = ["CPU µs/query", "queries/s", "lost", "resident MiB"];
    let about = "missed, by number of queries in flight; the upstream takes 250 ms";
    let mut table = Table::new("scaling-flights", about, &columns);
    let counts: &[usize] = if lab.options.check { &[10, 100] } else { &[10, 100, 1000, 10_000] };
    let duration = if lab.options.check { Duration::from_millis(300) } else { FLIGHT };
    let mut first = 0;
    for count in counts {
        let mut server = ours(lab, Service::Forward { over_tcp: false })?;
        let ask = |client: usize, first: u32, address| -> Result<Outcome> {
            let mut generator = Generator::from_address(Ipv4Addr::new(127, 53, 9, u8::try_from(client + 1)?), address)?;
            let mut questions = Distinct::new("m-", "slow.bench.example", first);
            generator.closed_loop(&mut questions, count / CLIENTS, End::After(duration))
        };
        let (outcomes, cpu) = server.cpu_time_of(|server| {
            thread::scope(|scope| {
                let start = |client: usize| {
                    first += 1 << 20;
                    let (first, address) = (first, server.address);
                    scope.spawn(move || ask(client, first, address))
                };
                let threads: Vec<_> = (0..CLIENTS).map(start).collect();
                let join = |thread: thread::ScopedJoinHandle<'_, Result<Outcome>>| {
                    thread.join().map_err(|_| anyhow!("a client panicked"))?
                };
                threads.into_iter().map(join).collect::<Result<Vec<_>>>()
            })
        })?;
        outcomes.iter().try_for_each(|outcome| server.check_answers(outcome))?;
        let sum = |figure: fn(&Outcome) -> u64| outcomes.iter().map(figure).sum::<u64>() as f64;
        let answered = sum(|outcome| outcome.answered);
        let elapsed = outcomes.iter().map(|outcome| outcome.elapsed).max().unwrap_or(duration);
        let cells = [
            microseconds(cpu) / answered,
            answered / elapsed.as_secs_f64(),
            sum(|outcome| outcome.lost),
            mebibytes(server.process.memory()?.rss_octets),
        ];
        table.rows.push(Row::new(&format!("{count} in flight"), &cells));
    }
    Ok(table)
}
