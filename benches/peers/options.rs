//! The command line.

use crate::hits::Kind;
use crate::peers::Peer;
use clap::{Parser, Subcommand};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

/// Measures nodelocaldns beside other DNS caches and the floor, on two cores of one machine.
#[derive(Debug, Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    pub role: Option<Role>,
    /// Workloads, by name; all of them if none is given
    #[arg(long = "workload", value_name = "NAME", value_delimiter = ',')]
    pub workloads: Vec<String>,
    /// Servers; all of them if none is given
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub peers: Vec<Peer>,
    /// Rounds of each server under each load
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of a round
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
    /// Queries a second where latency is measured; by default half of what the slowest server answers
    #[arg(long, value_name = "N")]
    pub rate: Option<u32>,
    /// Only see that every server answers every workload rightly, for a fraction of a second each, and ours takes
    /// little memory
    #[arg(long)]
    pub check: bool,
    /// The program under test
    #[arg(long, value_name = "FILE", default_value = "target/release/nodelocaldns")]
    pub binary: PathBuf,
    /// Where configurations and logs are written
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    pub folder: PathBuf,
    /// Where all figures are written
    #[arg(long, value_name = "FILE", default_value = "target/bench/results.json")]
    pub json: PathBuf,
    /// Where the plot is written
    #[arg(long, value_name = "FILE", default_value = "target/bench/bench.svg")]
    pub svg: PathBuf,
}

/// What this program does beside comparing servers; the hidden ones are for when it starts itself again.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Count the instructions of a hit with valgrind and hold them against benches/baseline.json
    Instructions {
        /// Make what is counted the baseline
        #[arg(long)]
        update: bool,
        /// Where callgrind's output is written
        #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
        folder: PathBuf,
    },
    #[command(hide = true)]
    HitPath { kind: Kind },
    #[command(hide = true)]
    Floor { address: SocketAddr },
    #[command(hide = true)]
    Libraries { address: SocketAddr, upstream: SocketAddr, entries: u64 },
    #[command(hide = true)]
    Upstream { address: SocketAddrV4, certificate: PathBuf },
}

impl Options {
    pub fn rounds(&self) -> usize {
        if self.check { 1 } else { self.rounds.max(1) }
    }

    pub fn duration(&self) -> Duration {
        if self.check { Duration::from_millis(100) } else { Duration::from_secs_f64(self.seconds) }
    }

    /// A node-cache binary that the environment names; it joins the table.
    pub fn node_cache(&self) -> Option<PathBuf> {
        std::env::var_os("NODE_CACHE").filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// The chosen servers, in the order of tables.
    pub fn peers(&self) -> impl Iterator<Item = Peer> {
        Peer::ALL.into_iter().filter(|peer| self.peers.is_empty() || self.peers.contains(peer))
    }
}
