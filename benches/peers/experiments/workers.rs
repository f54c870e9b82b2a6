//! One worker and two, on both cores, under the same load of several clients.

use super::{OUTSTANDING, median, microseconds};
use crate::generator::{End, Generator, Outcome};
use crate::lab::{GENERATOR_CORE, Lab, SERVER_CORE, Setup};
use crate::peers::{Peer, Service};
use crate::questions::{Popular, long_lived};
use crate::report::{Row, Table};
use anyhow::{Result, anyhow};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::Duration;

/// More than workers, since the kernel deals clients out to the workers' sockets by their addresses and ports.
const CLIENTS: usize = 16;

pub fn run(lab: &Lab<'_>) -> Result<Vec<Table>> {
    let columns = ["workers", "CPU µs/query", "queries/s"];
    let about = format!("cached answers, workers on both cores, {CLIENTS} clients on the second one");
    let mut table = Table::new("workers", &about, &columns);
    for peer in lab.options.peers().filter(|peer| matches!(peer, Peer::Ours | Peer::NodeCache)) {
        for workers in [1, 2] {
            let setup = Setup {
                workers,
                cores: &[SERVER_CORE, GENERATOR_CORE],
                ..Setup::new("workers", Service::Forward { over_tcp: false })
            };
            let Some(mut server) = lab.server(peer, &setup)? else { continue };
            server.ask_each(long_lived(1000))?;
            let (mut costs, mut rates) = (Vec::new(), Vec::new());
            // The first one only settles.
            for _ in 0..=lab.options.rounds() {
                let (outcomes, cpu) =
                    server.cpu_time_of(|server| ask_from_many(server.address, lab.options.duration()))?;
                outcomes.iter().try_for_each(|outcome| server.check_answers(outcome))?;
                let answered: u64 = outcomes.iter().map(|outcome| outcome.answered).sum();
                costs.push(microseconds(cpu) / answered as f64);
                rates.push(answered as f64 / lab.options.duration().as_secs_f64());
            }
            let cells = [workers as f64, median(costs.split_off(1)), median(rates.split_off(1))];
            table.rows.push(Row::new(peer.name(), &cells));
        }
    }
    Ok(vec![table])
}

fn ask_from_many(server: SocketAddrV4, duration: Duration) -> Result<Vec<Outcome>> {
    thread::scope(|scope| {
        let ask = |number: usize| -> Result<Outcome> {
            let client = Ipv4Addr::new(127, 53, 9, u8::try_from(number + 1)?);
            let mut generator = Generator::from_address(client, server)?;
            let mut questions = Popular::new(long_lived(1000));
            generator.closed_loop(&mut questions, OUTSTANDING / CLIENTS, End::After(duration))
        };
        let threads: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || ask(number))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?).collect()
    })
}
