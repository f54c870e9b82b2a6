//! Octets that are handed over as a predecessor's cache: what of them is kept stays within the cache's bounds, and goes
//! on to the next.

use nodelocaldns::chain::{Loaders, ProcessContext};
use nodelocaldns::corefile::{SystemLoader, parse};
use nodelocaldns::directives::bind::SystemInterfaces;
use nodelocaldns::directives::cache::{Bounds, ClockReading, TransferCount, export, import};
use nodelocaldns::plan::{Plan, configure};
use std::path::Path;
use std::time::{Duration, Instant};

/// Octets the cache may take.
const CACHE_OCTETS: usize = 16 << 10;

/// Its key is `cache . ["dns://127.0.0.1:53"] . ["", ""] DIGEST`, with the SHA-256 of `"whoami"` in hexadecimal digits.
const COREFILE: &str = ". {\n bind 127.0.0.1\n cache {\n success 8\n denial 8\n }\n whoami\n}\n";

/// A process with one cache.
struct Process {
    services: ProcessContext,
    _plan: Plan,
    reading: ClockReading,
}

impl Process {
    fn new() -> Self {
        let services = ProcessContext::new(1, CACHE_OCTETS);
        let (corefile, _) = parse(Path::new("Corefile"), COREFILE, &SystemLoader);
        let (config, _) = configure(&corefile, 53, Loaders { files: &SystemLoader, interfaces: &SystemInterfaces });
        let plan = config.build(&services).expect("it can be built");
        Self {
            services,
            _plan: plan,
            reading: ClockReading { now: Instant::now(), uptime: Duration::from_secs(1 << 20) },
        }
    }
    fn import(&self, octets: &[u8]) -> TransferCount {
        import(&self.services.reload_state, &mut &octets[..], self.reading, all()).unwrap_or_default()
    }
    fn export(&self) -> (Vec<u8>, TransferCount) {
        let mut out = Vec::new();
        let tally =
            export(&self.services.reload_state, &mut out, self.reading, all()).expect("a vector takes everything");
        (out, tally)
    }
}

fn all() -> Bounds {
    Bounds { octets: usize::MAX, until: Instant::now() + Duration::from_secs(60) }
}

/// Panics if anything the server relies on does not hold.
pub fn run(octets: &[u8]) {
    let first = Process::new();
    first.import(octets);
    assert!(first.services.cache_memory.used() <= CACHE_OCTETS);
    let (out, written) = first.export();
    assert!(written.kept <= 16, "{written:?}");
    let second = Process::new();
    let taken = second.import(&out);
    // One that is as old as a store's clock can tell may be too old a moment later.
    assert_eq!(taken.kept + taken.refused, written.kept, "each is kept again, or refused");
    assert_eq!(second.export().1.kept, taken.kept);
}

#[cfg(test)]
#[test]
fn the_corpus_names_the_cache_that_there_is() {
    assert_eq!(Process::new().import(include_bytes!("../corpus/cache_transfer/basic-answer")).kept, 1);
}
