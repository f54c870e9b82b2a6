//! What came of an attack: the cells of a row, and what did not hold.

use crate::polite::QueryCounts;
use crate::sockets::Full;
use crate::starvation::TOO_MUCH;
use crate::target::Target;

pub struct Outcome {
    pub udp: QueryCounts,
    pub tcp: QueryCounts,
    /// Octets.
    pub peak: u64,
    pub before: u64,
    /// 0: not looked at.
    pub after: u64,
    pub files: usize,
    pub replaced: usize,
    /// Processors used while attacked.
    pub processor: f64,
    pub besides: Vec<String>,
    broken: Vec<String>,
    /// False when the machine kept the server from running.
    is_judged: bool,
}

impl Outcome {
    /// Nobody polite may have lost anything, and no server may have been replaced; unless the machine was not there for
    /// that.
    pub fn new(target: &Target, [udp, tcp]: [QueryCounts; 2], full: Full, before: u64, processor: f64) -> Self {
        let mut outcome = Self {
            udp,
            tcp,
            peak: target.peak(),
            before,
            after: 0,
            files: target.files(),
            replaced: target.replaced(),
            processor,
            besides: Vec::new(),
            broken: Vec::new(),
            is_judged: true,
        };
        if full.datagrams > 0 {
            outcome.tell(format!("{} datagrams found the server's sockets full", full.datagrams));
        }
        let log = target.server.output().len() >> 20;
        if log > 0 {
            outcome.tell(format!("a log of {log} MiB"));
        }
        let is_all_well = udp.missed() + tcp.missed() + outcome.replaced == 0;
        if !is_all_well {
            println!("{}", target.server.tail(20));
        }
        outcome.hold(udp.wrong + tcp.wrong == 0, "polite clients get their own answers");
        let waited = target.waited();
        if !is_all_well && waited > TOO_MUCH {
            outcome.is_judged = false;
            outcome.tell(format!(
                "not judged: the server waited for a processor for {:.0} % of some 400 ms",
                waited * 100.0
            ));
            return outcome;
        }
        let lost = udp.lost[0] + udp.lost[1];
        outcome.hold(lost <= full.excuses(udp.sent) && udp.failed == 0, "polite UDP clients lose nothing");
        outcome.hold(tcp.missed() == 0, "polite TCP clients lose nothing");
        outcome.hold(outcome.replaced == 0, "no server is replaced");
        outcome
    }

    /// Notes that something must hold.
    pub fn hold(&mut self, does: bool, what: &str) {
        if !does {
            self.broken.push(what.to_owned());
        }
    }

    /// Notes that something must hold where the server got to run.
    pub fn hold_unless_starved(&mut self, does: bool, what: &str) {
        self.hold(does || !self.is_judged, what);
    }

    /// Notes that something must hold unless one of the server's threads had to wait for a processor for long.
    pub fn hold_unless_waited(&mut self, target: &Target, does: bool, what: &str) {
        if !does {
            println!("{}", target.server.tail(20));
        }
        match !does && self.is_judged && target.waited() > TOO_MUCH {
            true => self.tell(format!("not judged: {what}, for a thread of the server had to wait for a processor")),
            false => self.hold_unless_starved(does, what),
        }
    }

    /// Adds a cell's part.
    pub fn tell(&mut self, what: impl Into<String>) {
        self.besides.push(what.into());
    }

    /// A number that may be so large at most.
    pub fn at_most(&mut self, what: &str, number: u64, most: u64) {
        self.tell(format!("{what} {number}"));
        self.hold(number <= most, &format!("{what} at most {most}, not {number}"));
    }

    /// What the table says: misses over UDP and TCP, memory, descriptors, processors, replaced servers, what else is
    /// worth a word.
    pub fn cells(&self) -> [String; 7] {
        let mebibytes = |octets: u64| format!("{:.0}", octets as f64 / f64::from(1 << 20));
        let after = if self.after == 0 { "–".to_owned() } else { mebibytes(self.after) };
        [
            self.udp.to_string(),
            self.tcp.to_string(),
            format!("{} → {} → {after}", mebibytes(self.before), mebibytes(self.peak)),
            self.files.to_string(),
            format!("{:.2}", self.processor.max(0.0)),
            self.replaced.to_string(),
            self.besides.join("; "),
        ]
    }

    /// What should have held and did not.
    pub fn broken(&self) -> &[String] {
        &self.broken
    }
}
