//! Thousands of TCP connections on which nothing happens.

use super::{cpu_per_query, mebibytes};
use crate::lab::{Lab, Server, Setup};
use crate::peers::{Peer, Service};
use crate::questions::{Popular, long_lived};
use crate::report::{Row, Table};
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long nothing happens.
const QUIET: Duration = Duration::from_secs(3);

pub fn run(lab: &Lab<'_>) -> Result<Vec<Table>> {
    let count = if lab.options.check { 50 } else { 4000 };
    let columns = [
        "resident MiB before",
        "resident MiB with",
        "KiB a connection",
        "CPU ms/s, nothing asked",
        "UDP µs/query before",
        "UDP µs/query with",
        "open at the end",
    ];
    let mut table = Table::new("idle", &format!("{count} idle TCP connections"), &columns);
    for peer in lab.options.peers() {
        // dnsmasq makes a process for each connection, 20 at most.
        if matches!(peer, Peer::Floor | Peer::Dnsmasq) {
            continue;
        }
        let setup = Setup::new("idle", Service::ManyClients);
        let Some(mut server) = lab.server(peer, &setup)? else { continue };
        table
            .rows
            .push(row(lab, &mut server, count).with_context(|| format!("{} with {count} connections", peer.name()))?);
    }
    Ok(vec![table])
}

fn row(lab: &Lab<'_>, server: &mut Server, count: usize) -> Result<Row> {
    let names = long_lived(1000);
    server.ask_each(names.clone())?;
    let udp_before = cpu_per_query(lab, server, Box::new(Popular::new(names.clone())))?;
    let before = server.process.memory()?;
    let connections = (0..count).map(|_| open(server, &names[0].octets)).collect::<Result<Vec<_>>>()?;
    let with = server.process.memory()?;
    let quiet = if lab.options.check { Duration::from_millis(50) } else { QUIET };
    let ((), cpu) = server.cpu_time_of(|_| {
        std::thread::sleep(quiet);
        Ok(())
    })?;
    let udp_with = cpu_per_query(lab, server, Box::new(Popular::new(names)))?;
    let cells = [
        mebibytes(before.rss_octets),
        mebibytes(with.rss_octets),
        with.rss_octets.saturating_sub(before.rss_octets) as f64 / 1024.0 / count as f64,
        cpu.as_secs_f64() * 1e3 / quiet.as_secs_f64(),
        udp_before,
        udp_with,
        connections.iter().filter(|connection| is_open(connection)).count() as f64,
    ];
    Ok(Row::new(server.peer.name(), &cells))
}

/// A connection on which one query was asked and answered.
fn open(server: &Server, query: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(server.address).context("cannot connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let length = u16::try_from(query.len())?.to_be_bytes();
    stream.write_all(&[&length, query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).context("no answer over TCP")?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply)?;
    Ok(stream)
}

/// Nothing to read yet, not even an end.
fn is_open(stream: &TcpStream) -> bool {
    let would_block = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    stream.set_nonblocking(true).is_ok() && stream.peek(&mut [0]).is_err_and(would_block)
}
