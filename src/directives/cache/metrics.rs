//! Counters of the directive, and the gauges of its store.

use super::entry::{Kind, Payload};
use super::store::{EvictionCounts, Store};
use crate::chain::HitCounter;
use crate::metrics::{Counter, Gauge, Histogram, HistogramBuckets, Registry};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Labels of a cache's series beside `server`.
#[derive(Clone, Copy)]
pub(super) struct Labels<'a> {
    /// The zones, separated by commas.
    pub zones: &'a str,
    /// Name of the block's view; empty without one.
    pub view: &'a str,
}

/// Seconds: a moment, in which upstreams are slow, to the longest times that operators let answers be stale for.
const STALE_BUCKETS: HistogramBuckets =
    HistogramBuckets(&[1.0, 5.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0]);

/// Why an answer that has expired is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StaleCause {
    /// It may be, while a newer one is asked for.
    Immediate,
    /// Upstreams did not give a newer one in time.
    Late,
    /// What upstreams said renews nothing, or they said nothing, a moment ago at the latest.
    Failed,
}

impl StaleCause {
    const ALL: [Self; 3] = [Self::Immediate, Self::Late, Self::Failed];

    /// Value of the label `cause`.
    fn label(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::Late => "timeout",
            Self::Failed => "failure",
        }
    }
}

/// Of one listen address.
pub(super) struct Metrics {
    misses: Arc<Lookups>,
    pub prefetches: Counter,
    pub drops: Counter,
    served_stale: Counter,
    /// By [`StaleCause`], where answers may be stale.
    stale_ages: Option<[Histogram; 3]>,
    hits: [Arc<Lookups>; 2],
    evictions: [Counter; 2],
}

/// Counts lookups that had one outcome.
pub(super) struct Lookups {
    requests: Counter,
    of_outcome: Counter,
}

impl Lookups {
    fn increment(&self) {
        self.requests.increment();
        self.of_outcome.increment();
    }
}

impl HitCounter for Lookups {
    fn count(&self, _request: usize, _reply: usize, _elapsed: Duration) {
        self.increment();
    }
}

impl Metrics {
    pub(super) fn new(
        registry: &Registry,
        server: &str,
        Labels { zones, view }: Labels<'_>,
        serves_stale: bool,
    ) -> Self {
        let labels = [("server", server), ("zones", zones), ("view", view)];
        let counter = |name, help| registry.counter(name, help, &labels);
        let of_kinds = |name, help| {
            Kind::ALL.map(|kind| {
                registry.counter(
                    name,
                    help,
                    &[("server", server), ("type", kind.label()), ("zones", zones), ("view", view)],
                )
            })
        };
        let requests = counter("coredns_cache_requests_total", "Queries looked up in the cache.");
        let hits = of_kinds("coredns_cache_hits_total", "Queries answered from the cache.");
        let lookups = |of_outcome| Arc::new(Lookups { requests: requests.clone(), of_outcome });
        let misses = counter("coredns_cache_misses_total", "Queries that the cache had no answer for.");
        Self {
            hits: hits.map(lookups),
            misses: lookups(misses),
            prefetches: counter("coredns_cache_prefetch_total", "Answers asked for anew before or after they expired."),
            drops: counter("coredns_cache_drops_total", "Answers not kept because they belong to another question."),
            served_stale: counter("coredns_cache_served_stale_total", "Queries answered with an expired answer."),
            stale_ages: serves_stale.then(|| {
                StaleCause::ALL.map(|cause| {
                    registry.histogram(
                        "nodelocaldns_cache_stale_age_seconds",
                        "How long answers had been expired when they were served, in seconds, by why they were.",
                        STALE_BUCKETS,
                        &[("server", server), ("zones", zones), ("view", view), ("cause", cause.label())],
                    )
                })
            }),
            evictions: of_kinds("coredns_cache_evictions_total", "Answers evicted to make room for others."),
        }
    }

    /// An answer is served that expired so many seconds ago.
    pub(super) fn stale(&self, cause: StaleCause, seconds: u32) {
        self.served_stale.increment();
        if let Some(ages) = &self.stale_ages {
            ages[cause as usize].observe(f64::from(seconds));
        }
    }

    /// A query that was looked up in vain.
    pub(super) fn miss(&self) {
        self.misses.increment();
    }

    /// What counts queries that are looked up in vain.
    pub(super) fn misses(&self) -> &Arc<Lookups> {
        &self.misses
    }

    pub(super) fn hit(&self, kind: Kind) {
        self.hits[kind.index()].increment();
    }

    /// What counts hits of a kind.
    pub(super) fn hits(&self, kind: Kind) -> &Arc<Lookups> {
        &self.hits[kind.index()]
    }

    pub(super) fn evicted(&self, evicted: EvictionCounts) {
        for kind in Kind::ALL {
            if evicted.of(kind) > 0 {
                self.evictions[kind.index()].add(evicted.of(kind));
            }
        }
    }
}

/// A store and its gauges, one for each listen address it serves.
///
/// A reload may bring a second store with the same labels before the first has gone, so each adds to the gauges what
/// has changed since it last did, and takes its part out again when it goes.
pub(super) struct Gauges<T: Payload> {
    store: Arc<Store<T>>,
    series: Vec<KindGauges>,
}

struct KindGauges {
    kind: Kind,
    entries: Gauge,
    octets: Gauge,
    /// This store's part of the two.
    published: Mutex<(f64, f64)>,
}

impl<T: Payload> Gauges<T> {
    pub(super) fn new(
        store: Arc<Store<T>>,
        registry: &Registry,
        servers: &[String],
        Labels { zones, view }: Labels<'_>,
    ) -> Self {
        let gauge = |server, kind: Kind, name, help| {
            registry.gauge(name, help, &[("server", server), ("type", kind.label()), ("zones", zones), ("view", view)])
        };
        let series = |server, kind| KindGauges {
            kind,
            entries: gauge(server, kind, "coredns_cache_entries", "Answers in the cache."),
            octets: gauge(
                server,
                kind,
                "nodelocaldns_cache_bytes",
                "Memory that the answers in the cache take, in bytes.",
            ),
            published: Mutex::default(),
        };
        let series = servers.iter().flat_map(|server| Kind::ALL.map(|kind| series(server.as_str(), kind))).collect();
        Self { store, series }
    }

    /// Brings the gauges up to date.
    pub(super) fn refresh(&self) {
        for series in &self.series {
            series.tell(self.store.entries(series.kind) as f64, self.store.octets(series.kind) as f64);
        }
    }
}

impl KindGauges {
    fn tell(&self, entries: f64, octets: f64) {
        let mut published = self.published.lock();
        self.entries.add(entries - published.0);
        self.octets.add(octets - published.1);
        *published = (entries, octets);
    }
}

impl<T: Payload> Drop for Gauges<T> {
    fn drop(&mut self) {
        self.series.iter().for_each(|series| series.tell(0.0, 0.0));
    }
}
