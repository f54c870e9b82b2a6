//! The `process_*` metrics of Prometheus' client libraries, read from /proc when scraped.

use super::{Gauge, Registry};
use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, WithCurrentSystemInfo};
use std::sync::Arc;

/// Keeps the `process_*` metrics up to date while it is held. What /proc refuses to tell keeps its last value.
pub(crate) struct ProcessCollector {
    _refresh: Arc<dyn Fn() + Send + Sync>,
}

impl ProcessCollector {
    /// Puts the metrics into `registry`.
    pub(crate) fn register(registry: &Registry) -> Self {
        let readings = Readings::register(registry);
        let refresh: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            // Nothing to tell anybody here: without /proc the process serves on, and its metrics stand still.
            Process::myself().and_then(|process| readings.refresh(&process)).ok();
        });
        registry.before_scrape(Arc::downgrade(&refresh));
        Self { _refresh: refresh }
    }
}

struct Readings {
    cpu_seconds: Gauge,
    start_time_seconds: Gauge,
    resident_octets: Gauge,
    virtual_octets: Gauge,
    virtual_octets_limit: Gauge,
    open_descriptors: Gauge,
    open_descriptors_limit: Gauge,
}

impl Readings {
    fn register(registry: &Registry) -> Self {
        let gauge = |name, help| registry.gauge(name, help, &[]);
        Self {
            cpu_seconds: registry.external_counter(
                "process_cpu_seconds_total",
                "CPU time spent in user and system mode, in seconds.",
                &[],
            ),
            start_time_seconds: gauge(
                "process_start_time_seconds",
                "When the process started, in seconds since the Unix epoch.",
            ),
            resident_octets: gauge(
                "process_resident_memory_bytes",
                "Memory of the process that is resident, in bytes.",
            ),
            virtual_octets: gauge("process_virtual_memory_bytes", "Size of the address space in use, in bytes."),
            virtual_octets_limit: gauge("process_virtual_memory_max_bytes", "Limit of the address space, in bytes."),
            open_descriptors: gauge("process_open_fds", "Open file descriptors."),
            open_descriptors_limit: gauge("process_max_fds", "Limit of open file descriptors."),
        }
    }

    fn refresh(&self, process: &Process) -> ProcResult<()> {
        let stat = process.stat()?;
        let ticks_per_second = procfs::ticks_per_second() as f64;
        self.cpu_seconds.set((stat.utime as f64 + stat.stime as f64) / ticks_per_second);
        self.resident_octets.set(stat.rss_bytes().get() as f64);
        self.virtual_octets.set(stat.vsize as f64);
        self.start_time_seconds.set(procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks_per_second);
        self.open_descriptors.set(process.fd_count()? as f64);
        let limits = process.limits()?;
        self.open_descriptors_limit.set(to_f64(limits.max_open_files.soft_limit));
        self.virtual_octets_limit.set(to_f64(limits.max_address_space.soft_limit));
        Ok(())
    }
}

/// Without a limit the largest number stands, as in the reference.
fn to_f64(limit: LimitValue) -> f64 {
    match limit {
        LimitValue::Unlimited => u64::MAX as f64,
        LimitValue::Value(value) => value as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::ProcessCollector;
    use crate::metrics::Registry;

    fn value(text: &str, name: &str) -> f64 {
        let line = text
            .lines()
            .find(|line| line.split(' ').next() == Some(name))
            .unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    #[test]
    fn the_process_is_read_at_each_scrape() {
        let registry = Registry::new(1);
        let collector = ProcessCollector::register(&registry);
        let text = registry.encode();
        let page = procfs::page_size() as f64;
        assert!(value(&text, "process_resident_memory_bytes") > page);
        assert!(value(&text, "process_virtual_memory_bytes") > value(&text, "process_resident_memory_bytes"));
        assert!(value(&text, "process_virtual_memory_max_bytes") >= value(&text, "process_virtual_memory_bytes"));
        assert!(value(&text, "process_open_fds") >= 3.0);
        assert!(value(&text, "process_max_fds") >= value(&text, "process_open_fds"));
        assert!(value(&text, "process_cpu_seconds_total") >= 0.0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value(&text, "process_start_time_seconds");
        assert!((-2.0..86400.0).contains(&age), "started {age} s ago");
        assert!(text.contains("# TYPE process_cpu_seconds_total counter\n"), "{text}");

        let held: Vec<_> = (0..10).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let during = value(&registry.encode(), "process_open_fds");
        assert!(during >= held.len() as f64 + 3.0, "{during}");
        drop(collector);
        drop(held);
        let after: f64 = value(&registry.encode(), "process_open_fds");
        assert_eq!(after, during, "nothing refreshes once the collector is gone");
    }
}
