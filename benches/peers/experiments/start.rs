//! From exec to the first answer, and what is resident then.

use super::{mebibytes, median, microseconds};
use crate::generator::PATIENCE;
use crate::lab::{Lab, Setup};
use crate::message::{A, Expected};
use crate::peers::{Peer, Service};
use crate::questions::Question;
use crate::report::{Row, Table};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// How often the server that starts is asked: what is lost before its socket is there costs at most this.
const ASK_INTERVAL: Duration = Duration::from_micros(500);
/// Octets of ours, both processes together, that `--check` lets pass: 13.6 million were measured, of which 10.4 are
/// pages of the program's file, as many as the kernel maps around those that are asked for. From machine to machine it
/// is some 0.3 million more or less.
const MOST_PROPORTIONAL: u64 = 14_400_000;

pub fn run(lab: &Lab<'_>) -> Result<Vec<Table>> {
    let columns = ["ms to the first answer", "slowest", "resident MiB", "proportional MiB"];
    let mut table = Table::new("start", "from exec to the first answer, forwarded; all processes", &columns);
    let starts = if lab.options.check { 1 } else { 11 };
    let services = [("", Service::Forward { over_tcp: false }), (", stock node-local Corefile", Service::NodeLocal)];
    for (label, service) in services {
        for peer in lab.options.peers() {
            // The others are set up alike for both.
            let has_corefile = matches!(peer, Peer::Ours | Peer::NodeCache);
            if peer == Peer::Floor || service == Service::NodeLocal && !has_corefile {
                continue;
            }
            let mut times = Vec::new();
            let mut memory = None;
            for _ in 0..starts {
                let started = Instant::now();
                let Some(mut server) = lab.start_server(peer, &Setup::new("start", service))? else { break };
                let question = Question { expected: Expected::Records, ..Question::new("first.bench.example", A) };
                let answered = server.generator.wait_for(&question, 20 * PATIENCE, ASK_INTERVAL);
                times.push(microseconds(started.elapsed()) / 1e3);
                server.process.check().and(answered).with_context(|| format!("{} does not start", peer.name()))?;
                memory = Some(server.process.memory()?);
            }
            if let Some(memory) = memory {
                let is_small = memory.pss_octets < MOST_PROPORTIONAL || peer != Peer::Ours || !lab.options.check;
                let taken = memory.pss_octets;
                ensure!(
                    is_small,
                    "ours takes {taken} octets after its start, not below {MOST_PROPORTIONAL}: see which pages are resident (/proc/PID/smaps)"
                );
                let slowest = times.iter().copied().fold(0.0, f64::max);
                let cells = [median(times), slowest, mebibytes(memory.rss_octets), mebibytes(memory.pss_octets)];
                table.rows.push(Row::new(&format!("{}{label}", peer.name()), &cells));
            }
        }
    }
    Ok(vec![table])
}
