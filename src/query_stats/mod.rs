//! What a node is asked: who asks most, for what, what fails and what is slow, over the last minute, ten minutes and
//! hour. Always on; docs/status.md is what users read.
//!
//! A worker writes to a recorder of its own ([`recorder`]), whose memory it shares with nobody until somebody looks.
//! Every ten seconds [`QueryStats::tick`], on another thread, takes what the workers have recorded and sums it up
//! ([`history`]), so that a worker neither looks at the time nor merges anything, and the past is kept once and not
//! for each worker. Who asks for a report takes it in the same way.
//!
//! A worker never waits. A recorder is taken by an exchange for an empty one; what a worker has to record just then is
//! left out, and counted as such.
//!
//! # Cost
//! A miss, a failure and whatever is refused is recorded; of the hits one in [`sampler::MEAN`], for all that it stands
//! for. The others cost a count down.
//!
//! # What it may get wrong
//! - By what is not kept: see [`heavy_hitters`]. A stretch of ten seconds keeps 512 keys of each kind while it is
//!   written and 128 from then on, fewer if they are long.
//! - By chance: of what came `n` times and was answered at once, the count's standard error is √(256 `n`) at most:
//!   16 % of 10,000, 5.1 % of 100,000. It is less where one name has most of the hits, as the gaps between recorded
//!   ones are bounded.

mod heavy_hitters;
mod history;
mod recorder;
mod report;
mod sampler;
mod tally;
#[cfg(test)]
mod tests;

pub(crate) use history::STRETCH;
pub(crate) use recorder::{Miss, is_failure};
pub(crate) use report::{
    ConfigurationReport, FailureReport, InterceptedAddress, Point, Report, Row, VERSION, WatchdogEvent, WatchdogReport,
    WindowReport,
};
pub(crate) use sampler::Sampler;
pub(crate) use tally::{Asked, Route};

use crate::message::{Name, Rcode};
use crate::metrics::{REQUESTS, Registry, UNSERVED_ZONE, UPSTREAM_DURATION, slot};
use heavy_hitters::{Count, HeavyHitters};
use history::{History, Window};
use parking_lot::Mutex;
use recorder::{FAILURES, FailedQuery, Recorder};
use report::{BlockReport, SlowReport, UpstreamLatency, UpstreamReport};
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tally::{SLOWEST, SlowQuery, Tally};

/// Rows of each list.
const ROWS: usize = 50;
/// Server blocks that are told of.
const BLOCKS: usize = 64;
/// Counts of the blocks' queries that are kept: of a minute.
const BLOCK_COUNTS: usize = 7;
/// Points of the timeline: of ten minutes.
const POINTS: usize = 60;
/// Characters of the configuration's warnings that are told, and of why one is refused.
const MOST_TEXT: usize = 16 << 10;

/// A worker's, apart from the others': processors fetch cache lines in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Own {
    recorder: Mutex<Recorder>,
    /// What was left out as the recorder was just being taken.
    left_out: AtomicU64,
}

/// All that a process records.
pub(crate) struct QueryStats {
    /// One for each worker slot.
    recorders: Box<[Own]>,
    past: Mutex<Past>,
    configuration: Mutex<ConfigurationReport>,
    registry: Registry,
}

struct Past {
    history: History,
    /// When the present stretch began.
    since: Instant,
    /// What has been taken of it yet.
    present: Tally,
    /// The newest first.
    failures: Vec<FailedQuery>,
    /// The newest last.
    blocks: VecDeque<(Instant, BTreeMap<Vec<String>, u64>)>,
    /// The newest last, each with when it ended, which its report tells otherwise.
    timeline: VecDeque<(Instant, Point)>,
}

impl QueryStats {
    /// For so many worker slots; what is counted already is read from `registry`.
    pub(crate) fn new(slots: usize, registry: Registry) -> Self {
        let since = Instant::now();
        let (history, present) = (History::default(), Tally::default());
        // Nothing is counted yet.
        let blocks = VecDeque::from([(since, BTreeMap::new())]);
        let past = Past { history, since, present, failures: Vec::new(), blocks, timeline: VecDeque::new() };
        Self {
            recorders: (0..slots.max(1)).map(|_| Own::default()).collect(),
            past: Mutex::new(past),
            configuration: Mutex::default(),
            registry,
        }
    }

    /// What serves from now on. Whether what is configured is refused is as it was said last.
    pub(crate) fn set_configuration(&self, mut configuration: ConfigurationReport) {
        configuration.warnings = configuration.warnings.map(|text| beginning(&text));
        configuration.serves.truncate(BLOCKS);
        let mut last = self.configuration.lock();
        (configuration.is_refused, configuration.refusal) = (last.is_refused, last.refusal.take());
        *last = configuration;
    }

    /// Whether what is configured is not what serves, and why; a reason that is not given is the one before.
    pub(crate) fn set_refused(&self, is_refused: bool, why: Option<String>) {
        let mut configuration = self.configuration.lock();
        configuration.is_refused = is_refused;
        configuration.refusal = configuration.refusal.take().filter(|_| is_refused);
        if let Some(why) = why.filter(|_| is_refused) {
            configuration.refusal = Some(beginning(&why));
        }
    }

    /// Records on the calling thread, which waits for nobody.
    pub(crate) fn record(&self, record: impl FnOnce(&mut Recorder)) {
        if let Some(own) = self.recorders.get(slot()).or_else(|| self.recorders.first()) {
            match own.recorder.try_lock() {
                Some(mut recorder) => record(&mut recorder),
                None => _ = own.left_out.fetch_add(1, Ordering::Relaxed),
            }
        }
    }

    /// Takes what has been recorded since this was done last.
    fn take(&self, past: &mut Past) {
        for own in &self.recorders {
            let mut taken = Recorder::default();
            mem::swap(&mut *own.recorder.lock(), &mut taken);
            taken.tally.not_recorded = own.left_out.swap(0, Ordering::Relaxed);
            past.present.merge(&taken.tally);
            past.failures.extend(taken.failures);
        }
        past.failures.sort_by_key(|failed| Reverse(failed.at));
        past.failures.truncate(FAILURES);
        past.failures.shrink_to(FAILURES);
    }

    /// Ends a stretch. To be called every [`STRETCH`].
    pub(crate) fn tick(&self, now: Instant) {
        let mut past = self.past.lock();
        let past = &mut *past;
        self.take(past);
        let blocks = self.block_counts();
        let took = now.saturating_duration_since(past.since);
        past.since = now;
        if past.timeline.len() == POINTS {
            past.timeline.pop_front();
        }
        past.timeline.push_back((now, point(took, &past.present)));
        past.history.push(took, mem::take(&mut past.present));
        if past.blocks.len() == BLOCK_COUNTS {
            past.blocks.pop_front();
        }
        past.blocks.push_back((now, blocks));
    }

    /// What there is to tell at `now`, which is so long after 1970.
    pub(crate) fn report(&self, now: Instant, time: Duration, shows_names: bool) -> Report {
        let writer = Writer { now, time, shows_names };
        // Held until all is told: a stretch that ended halfway would be told twice, or not.
        let mut past = self.past.lock();
        self.take(&mut past);
        let took = now.saturating_duration_since(past.since);
        let window = |window| {
            let (took, tally) = past.history.sum(window, took, &past.present);
            writer.window(took, &tally)
        };
        let (blocks, unmatched_per_second) = block_reports(past.blocks.front(), now, &self.block_counts());
        Report {
            version: VERSION,
            time_ms: time.as_millis() as u64,
            shows_names,
            sampling_rate: sampler::MEAN,
            minute: window(Window::Minute),
            ten_minutes: window(Window::TenMinutes),
            hour: window(Window::Hour),
            blocks,
            unmatched_per_second,
            upstreams: self.upstream_latencies(),
            failures: past.failures.iter().map(|failure| writer.failure(failure)).collect(),
            timeline: past.timeline.iter().map(|(ended, point)| writer.point(*ended, point)).collect(),
            configuration: writer.configuration(&self.configuration.lock()),
            error: None,
            watchdog: None,
        }
    }

    /// [`QueryStats::report`] as it is now, in JSON.
    pub(crate) fn to_json(&self, shows_names: bool) -> Vec<u8> {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Fails only where a type cannot be written.
        serde_json::to_vec(&self.report(Instant::now(), time, shows_names)).unwrap_or_default()
    }

    /// Queries of each server and zone since this process began.
    fn block_counts(&self) -> BTreeMap<Vec<String>, u64> {
        self.registry.counters_by(REQUESTS, &["server", "zone"])
    }

    fn upstream_latencies(&self) -> Vec<UpstreamLatency> {
        let all = self.registry.histograms_by(UPSTREAM_DURATION, "to");
        let latency = |(upstream, buckets): (String, Vec<(f64, u64)>)| {
            let answers = buckets.last().map_or(0, |(_, answers)| *answers);
            let within = |share: f64| {
                let wanted = (answers as f64 * share).ceil() as u64;
                let bound = buckets.iter().find(|(_, below)| *below >= wanted)?.0;
                bound.is_finite().then_some(bound * 1000.0)
            };
            UpstreamLatency { upstream, answers, p50_ms: within(0.5), p90_ms: within(0.9), p99_ms: within(0.99) }
        };
        all.into_iter().map(latency).filter(|latency| latency.answers > 0).collect()
    }

    /// Octets of memory.
    #[cfg(test)]
    fn memory(&self) -> usize {
        let recorders: usize = self.recorders.iter().map(|own| own.recorder.lock().memory()).sum();
        let past = self.past.lock();
        let failures = past.failures.capacity() * size_of::<FailedQuery>() + recorder::texts(&past.failures);
        recorders + past.present.memory() + past.history.memory() + failures
    }
}

/// The busiest first, and beside them what no block takes.
fn block_reports(
    before: Option<&(Instant, BTreeMap<Vec<String>, u64>)>,
    now: Instant,
    counts: &BTreeMap<Vec<String>, u64>,
) -> (Vec<BlockReport>, f64) {
    let Some((since, before)) = before else { return (Vec::new(), 0.0) };
    let seconds = now.saturating_duration_since(*since).as_secs_f64().max(0.001);
    let block = |(labels, count): (&Vec<String>, &u64)| {
        let [server, zone] = labels.as_slice() else { return None };
        let more = count.saturating_sub(before.get(labels).copied().unwrap_or(0));
        let queries_per_second = more as f64 / seconds;
        Some(BlockReport { server: server.clone(), zone: zone.clone(), queries_per_second })
    };
    let mut blocks: Vec<_> = counts.iter().filter_map(block).collect();
    let unmatched: Vec<_> = blocks.extract_if(.., |block| block.zone == UNSERVED_ZONE).collect();
    blocks.sort_by(|one, other| other.queries_per_second.total_cmp(&one.queries_per_second));
    blocks.truncate(BLOCKS);
    (blocks, unmatched.iter().fold(0.0, |sum, block| sum + block.queries_per_second))
}

/// What was asked in a stretch that took so long.
fn point(took: Duration, tally: &Tally) -> Point {
    let asked: u64 = tally.upstreams.values().map(|upstream| upstream.queries).sum();
    let spent: Duration = tally.upstreams.values().map(|upstream| upstream.took).sum();
    let longest = tally.upstreams.values().map(|upstream| upstream.longest).max();
    Point {
        time_ms: 0,
        seconds: took.as_secs_f64(),
        queries: tally.hits + tally.misses + tally.rejected,
        hits: tally.hits,
        failures: tally.failures,
        mean_ms: (asked > 0).then(|| milliseconds(spent) / asked as f64),
        longest_ms: longest.map(milliseconds),
    }
}

fn beginning(text: &str) -> String {
    text.chars().take(MOST_TEXT).collect()
}

/// Makes text of what was recorded.
struct Writer {
    now: Instant,
    /// Since 1970, at `now`.
    time: Duration,
    shows_names: bool,
}

impl Writer {
    fn window(&self, took: Duration, tally: &Tally) -> WindowReport {
        let rows = |sketch: &HeavyHitters, read: fn(&[u8]) -> Row| -> Vec<Row> {
            let row = |(key, Count { count, error }): (&[u8], Count)| {
                let shown = if self.shows_names { read(key) } else { Row::default() };
                Row { count, error, ..shown }
            };
            sketch.top(ROWS).into_iter().map(row).collect()
        };
        let of_name = |key: &[u8]| Row { name: Some(name(key)), ..Row::default() };
        let of_client = |key: &[u8]| Row { client: address(key), ..Row::default() };
        let of_pair = |key: &[u8]| match Name::read(key, 0) {
            Ok((name, end)) => {
                Row { name: Some(name.to_string()), client: key.get(end..).and_then(address), ..Row::default() }
            }
            Err(_) => Row::default(),
        };
        let rcode = |(rcode, count): (Option<Rcode>, u64)| {
            (rcode.map_or_else(|| "other".to_owned(), |rcode| rcode.to_string()), count)
        };
        let mut slow: Vec<&SlowQuery> = tally.slow.iter().collect();
        slow.sort_by_key(|slow| Reverse(slow.took));
        slow.truncate(SLOWEST);
        let upstreams = tally.upstreams.iter().map(|(address, upstream)| UpstreamReport {
            upstream: address.to_string(),
            queries: upstream.queries,
            failures: upstream.failures,
            mean_ms: milliseconds(upstream.took) / upstream.queries.max(1) as f64,
            longest_ms: milliseconds(upstream.longest),
        });
        WindowReport {
            seconds: took.as_secs_f64(),
            queries: tally.hits + tally.misses + tally.rejected,
            hits: tally.hits,
            misses: tally.misses,
            rejected: tally.rejected,
            malformed: tally.malformed,
            failures: tally.failures,
            not_recorded: tally.not_recorded,
            rcodes: tally.rcodes().map(rcode).collect(),
            names: rows(&tally.names, of_name),
            clients: rows(&tally.clients, of_client),
            clients_and_names: rows(&tally.pairs, of_pair),
            nxdomain_names: rows(&tally.missing, of_name),
            failed_names: rows(&tally.failed, of_name),
            upstreams: upstreams.collect(),
            slowest: slow.into_iter().map(|slow| self.slow(slow)).collect(),
        }
    }

    fn slow(&self, query: &SlowQuery) -> SlowReport {
        SlowReport {
            began_ms: self.milliseconds_at(query.began),
            ms: milliseconds(query.took),
            name: self.shows_names.then(|| name(&query.name)),
            r#type: query.qtype.to_string(),
            client: self.shows_names.then(|| query.client.to_string()),
            rcode: query.rcode.map(|rcode| rcode.to_string()),
            answered_by: query.answered_by.to_owned(),
            upstream: query.route.upstream.map(|upstream| upstream.to_string()),
            transport: query.route.transport.to_owned(),
            tries: query.route.tries,
            stale: query.route.is_stale,
        }
    }

    fn failure(&self, failed: &FailedQuery) -> FailureReport {
        let asked = failed.asked.as_ref();
        FailureReport {
            time_ms: self.milliseconds_at(failed.at),
            name: asked.filter(|_| self.shows_names).map(|(asked, _)| name(asked)),
            r#type: asked.map(|(_, qtype)| qtype.to_string()),
            client: self.shows_names.then(|| failed.client.to_string()),
            rcode: failed.rcode.map(|rcode| rcode.to_string()),
            reason: self.shows_names.then(|| failed.reason.to_string()),
            upstream: failed.upstream.map(|upstream| upstream.to_string()),
        }
    }

    fn point(&self, ended: Instant, point: &Point) -> Point {
        Point { time_ms: self.milliseconds_at(ended), ..point.clone() }
    }

    fn configuration(&self, configuration: &ConfigurationReport) -> ConfigurationReport {
        let mut configuration = configuration.clone();
        if !self.shows_names {
            (configuration.warnings, configuration.refusal) = (None, None);
        }
        configuration
    }

    fn milliseconds_at(&self, at: Instant) -> u64 {
        self.time.saturating_sub(self.now.saturating_duration_since(at)).as_millis() as u64
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// In presentation form, in which nothing is left that a terminal or a page would obey (RFC 1035 section 5.1).
fn name(wire: &[u8]) -> String {
    Name::read(wire, 0).map_or_else(|_| ".".to_owned(), |(name, _)| name.to_string())
}

/// The text of a client's address.
fn address(octets: &[u8]) -> Option<String> {
    let address: IpAddr = match octets.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into(),
    };
    Some(address.to_string())
}
