//! What the program's processes hold, over time.

use std::fmt;

/// What a process may hold at the end beyond what it held at the beginning: connections of clients come and go, and the
/// allocator keeps what was once in use.
const MORE: Held = Held { kibibytes: 24 << 10, files: 32, threads: 6 };

/// What a process holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Resident.
    pub kibibytes: u64,
    pub files: u64,
    pub threads: u64,
}

impl Held {
    /// None of a process that has ended meanwhile.
    pub fn by(pid: i32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
        Some(Self { kibibytes: value("VmRSS:")?, files, threads: value("Threads:")? })
    }

    fn most(self, other: Self) -> Self {
        Self {
            kibibytes: self.kibibytes.max(other.kibibytes),
            files: self.files.max(other.files),
            threads: self.threads.max(other.threads),
        }
    }

    fn is_within(self, most: Self) -> bool {
        self.kibibytes <= most.kibibytes + MORE.kibibytes
            && self.files <= most.files + MORE.files
            && self.threads <= most.threads + MORE.threads
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB, {} descriptors, {} threads", self.kibibytes, self.files, self.threads)
    }
}

/// What one of the processes held whenever it was looked at.
#[derive(Default)]
pub struct History(Vec<Held>);

impl History {
    pub fn add(&mut self, held: Held) {
        self.0.push(held);
    }

    /// The most of the first half, and of the second.
    pub fn halves(&self) -> (Held, Held) {
        let most = |part: &[Held]| part.iter().copied().fold(Held::default(), Held::most);
        let (first, second) = self.0.split_at(self.0.len() / 2);
        (most(first), most(second))
    }

    pub fn is_flat(&self) -> bool {
        let (first, second) = self.halves();
        self.0.len() < 2 || second.is_within(first)
    }
}

#[cfg(test)]
mod tests {
    use super::{Held, History};

    #[test]
    fn what_grows_is_not_flat() {
        let held = |files| Held { kibibytes: 50_000, files, threads: 9 };
        let history = |files: &[u64]| History(files.iter().map(|&files| held(files)).collect());
        assert!(history(&[40, 44, 41, 60]).is_flat());
        assert!(!history(&[40, 60, 80, 100]).is_flat());
    }
}
