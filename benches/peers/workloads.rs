//! What is measured.

use crate::message::Expected;
use crate::peers::Service;
use crate::questions::{ClusterMix, Distinct, InTurn, Popular, Question, Questions, denied, long_lived};

/// A kind of work, put to each server in turn.
pub struct Workload {
    pub name: &'static str,
    /// For the table's heading.
    pub about: &'static str,
    pub service: Service,
    /// Numbers of queries outstanding at a time, each a column.
    pub outstanding: &'static [usize],
    /// Whether latency at a fixed rate is measured, too.
    pub at_fixed_rate: bool,
    /// The floor, which answers everything alike, makes sense.
    pub has_floor: bool,
    /// What is asked beforehand, each once.
    pub warm: fn() -> Vec<Question>,
    /// What is asked; the number is another for each run, so that names that must be new are.
    pub questions: fn(u32) -> Box<dyn Questions>,
}

const UDP: Service = Service::Forward { over_tcp: false };

/// Distinct names for each run.
const NAMES_A_RUN: u32 = 1 << 21;

/// All of them, in the order of the report.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "cached",
        about: "cached answers: 1,000 names by Zipf's law",
        service: UDP,
        outstanding: &[1, 64, 160],
        at_fixed_rate: true,
        has_floor: true,
        warm: || long_lived(1000),
        questions: |_| Box::new(Popular::new(long_lived(1000))),
    },
    Workload {
        name: "missed",
        about: "missed: a new name each time, the upstream asked over UDP",
        service: UDP,
        outstanding: &[64],
        at_fixed_rate: false,
        has_floor: false,
        warm: Vec::new,
        questions: |run| Box::new(Distinct::new("m-", "miss.bench.example", run.wrapping_mul(NAMES_A_RUN))),
    },
    Workload {
        name: "missed-tcp",
        about: "missed: a new name each time, the upstream asked over TCP only",
        service: Service::Forward { over_tcp: true },
        outstanding: &[64],
        at_fixed_rate: false,
        has_floor: false,
        warm: Vec::new,
        questions: |run| Box::new(Distinct::new("m-", "miss.bench.example", run.wrapping_mul(NAMES_A_RUN))),
    },
    Workload {
        name: "cluster",
        about: "the stock node-local Corefile under a cluster's mix: search paths (ndots:5), A and AAAA, TTL 5 and 30",
        service: Service::NodeLocal,
        outstanding: &[64],
        at_fixed_rate: false,
        has_floor: false,
        warm: Vec::new,
        questions: |run| Box::new(ClusterMix::new(u64::from(run))),
    },
    Workload {
        name: "nxdomain",
        about: "NXDOMAIN only: 1,000 names that do not exist, cached",
        service: UDP,
        outstanding: &[64],
        at_fixed_rate: false,
        has_floor: false,
        warm: || denied(1000),
        questions: |_| Box::new(Popular::new(denied(1000))),
    },
];

/// The same questions with nothing expected of their answers.
pub struct Unchecked(pub Box<dyn Questions>);

impl Questions for Unchecked {
    fn next(&mut self, out: &mut Question) {
        self.0.next(out);
        out.expected = Expected::Anything;
    }
}

/// Each question of the workload's warm-up in turn.
pub fn warm_up(workload: &Workload) -> Option<(InTurn, u64)> {
    let questions = (workload.warm)();
    let count = questions.len() as u64;
    (count > 0).then(|| (InTurn::new(questions), count))
}
