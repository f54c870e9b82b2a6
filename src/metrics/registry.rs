//! Families and their series. Asking for a series that exists returns it, so that counters go on over a reload.

use super::cells::Arena;
use super::exposition::FamilyWriter;
use super::family::{Family, MetricKind, Series};
use super::series::{Counter, Gauge, Histogram, HistogramBuckets};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Series that are written before others have their turn at the registry: some ten microseconds.
const SERIES_AT_ONCE: usize = 64;

/// Label names and values of one series, in the family's order.
pub(crate) type Labels<'a> = &'a [(&'static str, &'a str)];

/// All families of a process. Cloning shares it.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    families: Mutex<Families>,
    refreshes: Mutex<Vec<Weak<dyn Fn() + Send + Sync>>>,
    /// Octets of the last exposition, so that the next one has room from the beginning.
    last_length: AtomicUsize,
}

struct Families {
    by_name: BTreeMap<&'static str, Family>,
    arena: Arena,
}

impl Registry {
    /// `slots` is the number of workers plus one.
    pub fn new(slots: usize) -> Self {
        let families = Families { by_name: BTreeMap::new(), arena: Arena::new(slots) };
        Self(Arc::new(Inner {
            families: Mutex::new(families),
            refreshes: Mutex::default(),
            last_length: AtomicUsize::new(0),
        }))
    }
    /// The counter of these labels; its family is made when first asked for.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Counter {
        match self.series(name, help, MetricKind::Counter, labels) {
            Series::Counter(counter) => counter,
            _ => unreachable!("a series is of the kind asked for"),
        }
    }
    /// A counter whose count is kept elsewhere (by the kernel, by a library) and copied with [`Gauge::set`] before a
    /// scrape.
    pub fn external_counter(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Gauge {
        match self.series(name, help, MetricKind::ExternalCounter, labels) {
            Series::Gauge(gauge) => gauge,
            _ => unreachable!("a series is of the kind asked for"),
        }
    }
    /// The gauge of these labels.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Gauge {
        match self.series(name, help, MetricKind::Gauge, labels) {
            Series::Gauge(gauge) => gauge,
            _ => unreachable!("a series is of the kind asked for"),
        }
    }
    /// The histogram of these labels.
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        buckets: HistogramBuckets,
        labels: Labels<'_>,
    ) -> Histogram {
        match self.series(name, help, MetricKind::Histogram(buckets), labels) {
            Series::Histogram(histogram) => histogram,
            _ => unreachable!("a series is of the kind asked for"),
        }
    }

    fn series(&self, name: &'static str, help: &'static str, kind: MetricKind, labels: Labels<'_>) -> Series {
        let mut families = self.0.families.lock();
        let Families { by_name, arena } = &mut *families;
        let label_names = || labels.iter().map(|(name, _)| *name);
        let family = by_name.entry(name).or_insert_with(|| Family::new(help, kind, label_names().collect()));
        let is_same =
            family.kind == kind && family.help == help && family.label_names.iter().copied().eq(label_names());
        debug_assert!(is_same, "{name} is asked for with another type, help, buckets or label names than before");
        if !is_same {
            // Two families cannot share a name. This one counts, unseen, rather than spoil the exposition of the other.
            return Series::new(kind, arena);
        }
        let values = family.order.iter().map(|index| labels[*index].1.to_owned()).collect();
        family.series.entry(values).or_insert_with(|| Series::new(kind, arena)).clone()
    }

    /// Drops the series of a family for which `keep` is false, given its label values in the order that they are asked
    /// for in. Handles that are still held count on, unseen.
    pub fn retain(&self, name: &str, keep: impl Fn(&[&str]) -> bool) {
        if let Some(Family { order, series, .. }) = self.0.families.lock().by_name.get_mut(name) {
            series.retain(|values, _| {
                let mut asked = vec![""; values.len()];
                order.iter().zip(values).for_each(|(index, value)| asked[*index] = value);
                keep(&asked)
            });
        }
    }

    /// Calls `refresh` before each exposition, to set gauges from state held elsewhere. Kept until its `Weak` is dead.
    pub fn before_scrape(&self, refresh: Weak<dyn Fn() + Send + Sync>) {
        let mut refreshes = self.0.refreshes.lock();
        refreshes.retain(|refresh| refresh.strong_count() > 0);
        refreshes.push(refresh);
    }

    /// The whole registry in text format 0.0.4, families sorted by name, series by labels.
    pub fn encode(&self) -> String {
        // Called without the locks: a refresh may ask for series.
        let refreshes: Vec<_> = self.0.refreshes.lock().iter().filter_map(Weak::upgrade).collect();
        for refresh in refreshes {
            refresh();
        }
        let names: Vec<_> = self.0.families.lock().by_name.keys().copied().collect();
        let last_length = self.0.last_length.load(Ordering::Relaxed);
        let mut text = String::with_capacity(last_length + last_length / 8);
        for name in names {
            self.append(name, &mut text);
        }
        self.0.last_length.store(text.len(), Ordering::Relaxed);
        text
    }

    /// Appends a family, if it has series.
    fn append(&self, name: &'static str, text: &mut String) {
        let mut writer = FamilyWriter::new(name);
        self.for_each(name, |family, values, series| writer.append(family, values, series, text));
    }

    /// The counts of a family of counters, summed up by these labels; empty if there is none.
    pub(crate) fn counters_by(&self, name: &str, labels: &[&str]) -> BTreeMap<Vec<String>, u64> {
        let mut sums = BTreeMap::new();
        self.for_each(name, |family, values, series| {
            let value = |label: &&str| family.value(values, label);
            if let (Series::Counter(counter), Some(key)) = (series, labels.iter().map(value).collect()) {
                *sums.entry(key).or_default() += counter.value();
            }
        });
        sums
    }

    /// The buckets of a family of histograms, each with its bound and what lies within, summed up by one label. The
    /// last has no bound.
    pub(crate) fn histograms_by(&self, name: &str, label: &str) -> BTreeMap<String, Vec<(f64, u64)>> {
        let mut sums = BTreeMap::<String, Vec<(f64, u64)>>::new();
        self.for_each(name, |family, values, series| {
            let (Series::Histogram(histogram), Some(key)) = (series, family.value(values, label)) else { return };
            let buckets = histogram.cumulative().chain([(f64::INFINITY, histogram.count())]);
            match sums.get_mut(&key) {
                Some(sum) => sum.iter_mut().zip(buckets).for_each(|((_, sum), (_, more))| *sum += more),
                None => _ = sums.insert(key, buckets.collect()),
            }
        });
        sums
    }

    /// Shows the series of a family with their label values. Locked for some series at a time only: a worker may be
    /// asking for a new one.
    fn for_each(&self, name: &str, mut each: impl FnMut(&Family, &[String], &Series)) {
        let mut last: Option<Vec<String>> = None;
        loop {
            let families = self.0.families.lock();
            let Some(family) = families.by_name.get(name) else { return };
            let after = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut shown = None;
            for (values, series) in
                family.series.range::<Vec<String>, _>((after, Bound::Unbounded)).take(SERIES_AT_ONCE)
            {
                each(family, values, series);
                shown = Some(values);
            }
            let Some(shown) = shown.cloned() else { return };
            last = Some(shown);
        }
    }
}
