//! What is measured.

use crate::peers::Service;
use crate::questions::{ClusterMix, Distinct, Popular, Question, Questions, denied, long_lived};

/// A kind of work, put to each server in turn.
pub struct Workload {
    pub name: &'static str,
    /// For the table's heading.
    pub about: &'static str,
    pub service: Service,
    pub over: Over,
    /// Numbers of queries outstanding at a time, each a column.
    pub outstanding: &'static [usize],
    /// Whether latency at a fixed rate is measured, too.
    pub at_fixed_rate: bool,
    /// Seconds under load before the first round, for what takes time to be steady.
    pub settle: f64,
    /// The floor, which answers everything alike, makes sense.
    pub has_floor: bool,
    /// What is asked beforehand, each once.
    pub warm: fn() -> Vec<Question>,
    /// What is asked; the number is another for each run, so that names that must be new are.
    pub questions: fn(u32) -> Box<dyn Questions>,
}

/// How clients ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Udp,
    /// So many connections, which share what is outstanding.
    Tcp {
        connections: usize,
    },
}

const UDP: Service = Service::Forward { over_tcp: false };

/// Pages are touched, frequencies rise, connections open.
const SETTLE: f64 = 0.3;

/// Distinct names for each run.
const NAMES_A_RUN: u32 = 1 << 21;

/// All of them, in the order of the report.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "cached",
        about: "cached answers: 1,000 names by Zipf's law",
        service: UDP,
        over: Over::Udp,
        outstanding: &[1, 64, 160],
        at_fixed_rate: true,
        settle: SETTLE,
        has_floor: true,
        warm: || long_lived(1000),
        questions: |_| Box::new(Popular::new(long_lived(1000))),
    },
    Workload {
        name: "missed",
        about: "missed: a new name each time, the upstream asked over UDP",
        service: UDP,
        over: Over::Udp,
        outstanding: &[64],
        at_fixed_rate: false,
        settle: SETTLE,
        has_floor: false,
        warm: Vec::new,
        questions: |run| Box::new(Distinct::new("m-", "miss.bench.example", run.wrapping_mul(NAMES_A_RUN))),
    },
    Workload {
        name: "missed-tcp",
        about: "missed: a new name each time, the upstream asked over TCP only",
        service: Service::Forward { over_tcp: true },
        over: Over::Udp,
        outstanding: &[64],
        at_fixed_rate: false,
        settle: SETTLE,
        has_floor: false,
        warm: Vec::new,
        questions: |run| Box::new(Distinct::new("m-", "miss.bench.example", run.wrapping_mul(NAMES_A_RUN))),
    },
    Workload {
        name: "missed-tls",
        about: "missed: a new name each time, the upstream asked over TLS",
        service: Service::ForwardTls,
        over: Over::Udp,
        outstanding: &[64],
        at_fixed_rate: false,
        settle: SETTLE,
        has_floor: false,
        warm: Vec::new,
        questions: |run| Box::new(Distinct::new("m-", "miss.bench.example", run.wrapping_mul(NAMES_A_RUN))),
    },
    Workload {
        name: "missed-https",
        about: "missed: a new name each time, the upstream asked over HTTPS",
        service: Service::ForwardHttps,
        over: Over::Udp,
        outstanding: &[64],
        at_fixed_rate: false,
        settle: SETTLE,
        has_floor: false,
        warm: Vec::new,
        questions: |run| Box::new(Distinct::new("m-", "miss.bench.example", run.wrapping_mul(NAMES_A_RUN))),
    },
    Workload {
        name: "cluster",
        about: "the stock node-local Corefile under a cluster's mix: search paths (ndots:5), A and AAAA, TTL 5 and 30",
        service: Service::NodeLocal,
        over: Over::Udp,
        outstanding: &[64],
        at_fixed_rate: false,
        settle: 6.0,
        has_floor: false,
        warm: Vec::new,
        questions: |run| Box::new(ClusterMix::new(u64::from(run))),
    },
    Workload {
        name: "tcp",
        about: "cached answers to TCP clients: 16 connections with many queries on each",
        service: UDP,
        over: Over::Tcp { connections: 16 },
        outstanding: &[16, 64],
        at_fixed_rate: false,
        settle: SETTLE,
        has_floor: false,
        warm: || long_lived(1000),
        questions: |_| Box::new(Popular::new(long_lived(1000))),
    },
    Workload {
        name: "nxdomain",
        about: "NXDOMAIN only: 1,000 names that do not exist, cached",
        service: UDP,
        over: Over::Udp,
        outstanding: &[64],
        at_fixed_rate: false,
        settle: SETTLE,
        has_floor: false,
        warm: || denied(1000),
        questions: |_| Box::new(Popular::new(denied(1000))),
    },
];
