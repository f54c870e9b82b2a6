//! What a case is: a name, what it needs of the machine that is booted for it, and what it does there.

use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

/// One of Debian's kernels: of those that its packages offer here the oldest and the newest series, each built for
/// clouds and for all machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kernel {
    OldestCloud,
    NewestCloud,
    Oldest,
    Newest,
}

impl Kernel {
    /// Whether it is the one without drivers for machines that clouds do not have.
    pub fn is_cloud(self) -> bool {
        matches!(self, Self::OldestCloud | Self::NewestCloud)
    }

    /// Whether it is of the oldest series.
    pub fn is_oldest(self) -> bool {
        matches!(self, Self::OldestCloud | Self::Oldest)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OldestCloud => "oldest-cloud",
            Self::NewestCloud => "newest-cloud",
            Self::Oldest => "oldest",
            Self::Newest => "newest",
        })
    }
}

/// Where a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In network, mount and process namespaces of its own, one case after the other on one booted machine. Everything
    /// of it is gone when it has ended.
    Namespace,
    /// On the machine itself, which is booted for it alone: for what changes the kernel or is about all of it.
    Machine,
}

/// A case. `Case { name: "…", body: …, ..CASE }` has the usual needs.
#[derive(Clone, Copy)]
pub struct Case {
    /// `family/what_is_so`, in plain words; `make lab CASE=` takes the beginning of it.
    pub name: &'static str,
    /// What is done. It fails by panicking. What it prints is in its output.
    pub body: fn(),
    /// It runs once on each of these.
    pub kernels: &'static [Kernel],
    pub place: Place,
    /// Modules that the machine is booted without, by name, as `nf_tables`.
    pub without: &'static [&'static str],
    /// Debian's packages that the machine has besides [`crate::host::image::TOOLS`], with the libraries that they need.
    pub packages: &'static [&'static str],
    /// Whether it is among what `make lab-quick` runs.
    pub is_quick: bool,
    /// Whether it takes so long that it is run only when it is named in full.
    pub is_by_name: bool,
    /// After so long it has failed. Under emulation everything takes ten times as long as it should.
    pub limit: Duration,
}

/// A case with the usual needs.
pub const CASE: Case = Case {
    name: "",
    body: || panic!("a case without a body"),
    kernels: &[Kernel::OldestCloud],
    place: Place::Namespace,
    without: &[],
    packages: &[],
    is_quick: false,
    is_by_name: false,
    limit: Duration::from_secs(120),
};

/// A case on one kernel.
#[derive(Clone, Copy)]
pub struct Run {
    pub case: Case,
    pub kernel: Kernel,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.case.name, self.kernel)
    }
}

/// One start of a machine, and what is run on it.
#[derive(Clone)]
pub struct Boot {
    pub kernel: Kernel,
    pub without: &'static [&'static str],
    pub packages: &'static [&'static str],
    pub cases: Vec<Case>,
}

/// The limits of cases that share a machine are no more than this together, unless one alone has more: several machines
/// run at a time, and none is to run on when all others have ended.
const LIMIT: Duration = Duration::from_secs(2400);

impl Boot {
    /// What its cases may take.
    fn limit(&self) -> Duration {
        self.cases.iter().map(|case| case.limit).sum()
    }
}

/// Puts runs together that can share a machine. Those that may take longest come first.
pub fn boots(runs: impl IntoIterator<Item = Run>) -> Vec<Boot> {
    let mut boots: Vec<Boot> = Vec::new();
    for Run { case, kernel } in runs {
        let can_share = |boot: &&mut Boot| {
            let is_alike = (boot.kernel, boot.without, boot.packages) == (kernel, case.without, case.packages);
            is_alike
                && [case, boot.cases[0]].iter().all(|case| case.place == Place::Namespace)
                && boot.limit() + case.limit <= LIMIT
        };
        match boots.iter_mut().find(can_share) {
            Some(boot) => boot.cases.push(case),
            None => boots.push(Boot { kernel, without: case.without, packages: case.packages, cases: vec![case] }),
        }
    }
    boots.sort_by_key(|boot| Reverse(boot.limit()));
    boots
}

#[cfg(test)]
mod tests {
    use super::{CASE, Case, Kernel, LIMIT, Place, Run, boots};

    #[test]
    fn cases_share_a_machine_unless_one_needs_another_or_its_own() {
        let run = |name, case: Case| Run { case: Case { name, ..case }, kernel: case.kernels[0] };
        let made = boots([
            run("a", CASE),
            run("b", Case { kernels: &[Kernel::Newest], ..CASE }),
            run("c", Case { place: Place::Machine, ..CASE }),
            run("d", Case { without: &["dummy"], ..CASE }),
            run("e", CASE),
            run("f", Case { place: Place::Machine, ..CASE }),
        ]);
        let names: Vec<Vec<&str>> = made.iter().map(|boot| boot.cases.iter().map(|case| case.name).collect()).collect();
        assert_eq!(names, [vec!["a", "e"], vec!["b"], vec!["c"], vec!["d"], vec!["f"]]);
    }

    #[test]
    fn what_takes_long_has_a_machine_of_its_own_and_comes_first() {
        let run = |name, limit| Run { case: Case { name, limit, ..CASE }, kernel: CASE.kernels[0] };
        let made = boots([run("a", LIMIT / 2), run("b", LIMIT), run("c", LIMIT / 2), run("d", LIMIT / 4)]);
        let names: Vec<Vec<&str>> = made.iter().map(|boot| boot.cases.iter().map(|case| case.name).collect()).collect();
        assert_eq!(names, [vec!["a", "c"], vec!["b"], vec!["d"]]);
    }
}
