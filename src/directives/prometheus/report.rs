//! Counts exchanges. A series is made when its first exchange comes, as in the reference. From then on all that an
//! exchange is counted in is found at once, side by side.

use crate::chain::{Exchange, HitCounter, Observer, PacketHits, Request, Transport};
use crate::message::{Rcode, RecordType};
use crate::metrics::{Counter, Histogram, REQUESTS, Registry, SIZE_BUCKETS, TIME_BUCKETS};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Query types that have a `type` of their own (CoreDNS plugin/metrics/vars/monitor.go), the frequent ones first.
pub(super) const MONITORED_TYPES: [(u16, &str); 19] = [
    (1, "A"),
    (28, "AAAA"),
    (33, "SRV"),
    (12, "PTR"),
    (65, "HTTPS"),
    (5, "CNAME"),
    (15, "MX"),
    (16, "TXT"),
    (2, "NS"),
    (6, "SOA"),
    (43, "DS"),
    (48, "DNSKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (50, "NSEC3"),
    (64, "SVCB"),
    (251, "IXFR"),
    (252, "AXFR"),
    (255, "ANY"),
];
/// One more, for all other types.
const TYPE_SLOTS: usize = MONITORED_TYPES.len() + 1;

/// Counts the exchanges of a server block.
pub(super) struct Report {
    registry: Registry,
    zones: usize,
    /// Name of the block's view; empty without one.
    view: String,
    /// By server, then by zone.
    sites: Box<[SiteSeries]>,
}

/// The series of one zone on one server, for each kind of exchange.
struct SiteSeries {
    server: String,
    zone: String,
    /// By transport, address family, type and DO bit.
    rows: [OnceLock<Arc<Row>>; HEADS],
}

/// The last rcode that fits in a header. Only an upstream gives others (RFC 6891 section 6.1.3), 4,080 if it will; they
/// have no row kept, so that it makes no memory of them; each such answer, of the slow path alone, looks its series up
/// in the registry.
const LAST_PLAIN_RCODE: u16 = 15;

/// Lists of rows: for each of two transports, two families, two states of the DO bit, and the types.
const HEADS: usize = 8 * TYPE_SLOTS;

/// The series that one kind of exchange counts in. A client with every type and flag makes some 0.3 MB of them for a
/// zone, together with an upstream that gives every rcode 1.8 MB. They are found without a lock: rows are only ever
/// appended to a list.
struct Row {
    rcode: Rcode,
    from: &'static str,
    requests: Counter,
    dnssec_ok: Option<Counter>,
    durations: Histogram,
    request_sizes: Histogram,
    response_sizes: Histogram,
    responses: Counter,
    next: OnceLock<Arc<Row>>,
}

impl HitCounter for Row {
    fn count(&self, request: usize, reply: usize, elapsed: Duration) {
        self.requests.increment();
        if let Some(dnssec_ok) = &self.dnssec_ok {
            dnssec_ok.increment();
        }
        self.durations.observe(elapsed.as_secs_f64());
        self.request_sizes.observe(request as f64);
        self.response_sizes.observe(reply as f64);
        self.responses.increment();
    }
}

/// Labels of a series beyond server, zone and view.
type More<'a> = &'a [(&'static str, &'a str)];

impl Report {
    pub(super) fn new(registry: &Registry, zones: &[String], servers: &[String], view: &str) -> Self {
        let site = |server: &String, zone: &String| SiteSeries {
            server: server.clone(),
            zone: zone.clone(),
            rows: [const { OnceLock::new() }; HEADS],
        };
        let sites = servers.iter().flat_map(|server| zones.iter().map(move |zone| site(server, zone)));
        Self { registry: registry.clone(), zones: zones.len(), view: view.to_owned(), sites: sites.collect() }
    }

    fn labelled<T>(&self, site: &SiteSeries, more: More<'_>, make: impl FnOnce(&[(&'static str, &str)]) -> T) -> T {
        let mut labels =
            vec![("server", site.server.as_str()), ("zone", site.zone.as_str()), ("view", self.view.as_str())];
        labels.extend(more);
        make(&labels)
    }
    fn counter(&self, site: &SiteSeries, name: &'static str, help: &'static str, more: More<'_>) -> Counter {
        self.labelled(site, more, |labels| self.registry.counter(name, help, labels))
    }

    fn requests(&self, site: &SiteSeries, proto: &str, family: &str, type_label: &str) -> Counter {
        let more = [("proto", proto), ("family", family), ("type", type_label)];
        self.counter(site, REQUESTS, "DNS requests by zone, transport, address family and query type.", &more)
    }
    fn dnssec_ok(&self, site: &SiteSeries) -> Counter {
        self.counter(site, "coredns_dns_do_requests_total", "DNS requests with the DO bit set.", &[])
    }
    fn responses(&self, site: &SiteSeries, rcode: Rcode, from: &str) -> Counter {
        let more = [("rcode", &*rcode.to_string()), ("plugin", from)];
        self.counter(
            site,
            "coredns_dns_responses_total",
            "DNS responses by response code and the directive that answered.",
            &more,
        )
    }
    fn durations(&self, site: &SiteSeries) -> Histogram {
        let (name, help) =
            ("coredns_dns_request_duration_seconds", "Time from a request's arrival to its response, in seconds.");
        self.labelled(site, &[], |labels| self.registry.histogram(name, help, TIME_BUCKETS, labels))
    }
    fn request_sizes(&self, site: &SiteSeries, proto: &str) -> Histogram {
        let (name, help) = ("coredns_dns_request_size_bytes", "Size of DNS requests, in bytes.");
        self.labelled(site, &[("proto", proto)], |labels| self.registry.histogram(name, help, SIZE_BUCKETS, labels))
    }
    fn response_sizes(&self, site: &SiteSeries, proto: &str) -> Histogram {
        let (name, help) = ("coredns_dns_response_size_bytes", "Size of DNS responses, in bytes.");
        self.labelled(site, &[("proto", proto)], |labels| self.registry.histogram(name, help, SIZE_BUCKETS, labels))
    }

    /// Does something with the row that an exchange counts in. None is an exchange's of another block.
    #[inline]
    fn with_row<T>(&self, exchange: &Exchange<'_>, work: impl FnOnce(&Arc<Row>) -> T) -> Option<T> {
        let request = &exchange.request;
        let site = self.sites.get(request.server_index * self.zones + request.zone)?;
        if exchange.rcode.0 > LAST_PLAIN_RCODE {
            return Some(work(&Arc::new(self.make_row(site, exchange))));
        }
        let slot = monitored(request.query.qtype);
        let (is_tcp, is_ipv4) = (request.peer.transport == Transport::Tcp, is_ipv4(&request.peer.client));
        let has_do = request.query.dnssec_ok();
        let head = 8 * slot + 4 * usize::from(is_tcp) + 2 * usize::from(is_ipv4) + usize::from(has_do);
        let mut place = site.rows.get(head)?;
        loop {
            let row = place.get_or_init(|| Arc::new(self.make_row(site, exchange)));
            // Most keywords are the same constant, which a look at the pointer tells.
            if row.rcode == exchange.rcode
                && (std::ptr::eq(row.from, exchange.answered_by) || row.from == exchange.answered_by)
            {
                return Some(work(row));
            }
            place = &row.next;
        }
    }

    #[cold]
    fn make_row(&self, site: &SiteSeries, exchange: &Exchange<'_>) -> Row {
        let Exchange { request, rcode, answered_by: from, .. } = *exchange;
        let proto = request.peer.transport.label();
        let family = if is_ipv4(&request.peer.client) { "1" } else { "2" };
        Row {
            rcode,
            from,
            requests: self.requests(site, proto, family, type_label(request.query.qtype)),
            dnssec_ok: request.query.dnssec_ok().then(|| self.dnssec_ok(site)),
            durations: self.durations(site),
            request_sizes: self.request_sizes(site, proto),
            response_sizes: self.response_sizes(site, proto),
            responses: self.responses(site, rcode, from),
            next: OnceLock::new(),
        }
    }
}

impl Observer for Report {
    fn explain(&self, _request: &Request<'_>) -> String {
        "counts it".to_owned()
    }

    fn observe(&self, exchange: &Exchange<'_>) {
        self.with_row(exchange, |row| row.count(exchange.request.wire.len(), exchange.reply.len(), exchange.elapsed));
    }

    fn packet_hits(&self, exchange: &Exchange<'_>) -> PacketHits {
        self.with_row(exchange, |row| PacketHits::Count(row.clone())).unwrap_or(PacketHits::Ignore)
    }
}

/// The slot of a query type.
fn monitored(qtype: RecordType) -> usize {
    MONITORED_TYPES.iter().position(|(number, _)| *number == qtype.0).unwrap_or(TYPE_SLOTS - 1)
}

/// Its `type`.
fn type_label(qtype: RecordType) -> &'static str {
    MONITORED_TYPES.get(monitored(qtype)).map_or("other", |(_, label)| label)
}

/// An IPv4 client of a socket that serves both families counts as IPv4.
fn is_ipv4(client: &SocketAddr) -> bool {
    client.ip().to_canonical().is_ipv4()
}
