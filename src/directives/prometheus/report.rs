//! Counts exchanges. A series is made when its first exchange comes, as in the reference; from then on it is found by array index.

use crate::chain::{Exchange, Observer, Transport};
use crate::message::{Rcode, RecordType};
use crate::metrics::{Counter, Histogram, Registry, SIZE_BUCKETS, TIME_BUCKETS};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

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

/// The `zone` of queries that no server block answers. It has no final dot, so it is no zone's name.
const UNSERVED_ZONE: &str = "dropped";

/// Counts the exchanges that no server block of `server` takes (REFUSED), under the zone `dropped`. The exchange's
/// [`crate::chain::Request::server`] is 0.
pub fn count_unserved(registry: &Registry, server: &str) -> Arc<dyn Observer> {
    Arc::new(Report::new(registry, &[UNSERVED_ZONE.to_owned()], &[server.to_owned()]))
}

/// Counts the exchanges of a server block.
pub(super) struct Report {
    registry: Registry,
    zones: usize,
    /// By server, then by zone.
    sites: Box<[SiteSeries]>,
}

/// The series of one zone on one server.
#[derive(Default)]
struct SiteSeries {
    server: String,
    zone: String,
    durations: OnceLock<Histogram>,
    dnssec_ok: OnceLock<Counter>,
    udp: TransportSeries,
    tcp: TransportSeries,
    responses: ResponseTable,
}

#[derive(Default)]
struct TransportSeries {
    request_sizes: OnceLock<Histogram>,
    response_sizes: OnceLock<Histogram>,
    over_ipv4: [OnceLock<Counter>; TYPE_SLOTS],
    over_ipv6: [OnceLock<Counter>; TYPE_SLOTS],
}

/// Labels of a series beyond server, zone and view.
type More<'a> = &'a [(&'static str, &'a str)];

impl Report {
    pub(super) fn new(registry: &Registry, zones: &[String], servers: &[String]) -> Self {
        let site =
            |server: &String, zone: &String| SiteSeries { server: server.clone(), zone: zone.clone(), ..SiteSeries::default() };
        let sites = servers.iter().flat_map(|server| zones.iter().map(move |zone| site(server, zone)));
        Self { registry: registry.clone(), zones: zones.len(), sites: sites.collect() }
    }

    fn labelled<T>(&self, site: &SiteSeries, more: More<'_>, make: impl FnOnce(&[(&'static str, &str)]) -> T) -> T {
        let mut labels = vec![("server", site.server.as_str()), ("zone", site.zone.as_str()), ("view", "")];
        labels.extend(more);
        make(&labels)
    }
    fn counter(&self, site: &SiteSeries, name: &'static str, help: &'static str, more: More<'_>) -> Counter {
        self.labelled(site, more, |labels| self.registry.counter(name, help, labels))
    }

    fn requests(&self, site: &SiteSeries, proto: &str, family: &str, type_label: &str) -> Counter {
        let more = [("proto", proto), ("family", family), ("type", type_label)];
        self.counter(site, "coredns_dns_requests_total", "DNS requests by zone, transport, address family and query type.", &more)
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
        let (name, help) = ("coredns_dns_request_duration_seconds", "Time from a request's arrival to its response, in seconds.");
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
}

impl Observer for Report {
    fn observe(&self, exchange: &Exchange<'_>) {
        let request = &exchange.request;
        let Some(site) = self.sites.get(request.server * self.zones + request.zone) else { return };
        let transport = request.peer.transport;
        let proto = transport.label();
        let by_transport = match transport {
            Transport::Udp => &site.udp,
            Transport::Tcp => &site.tcp,
        };
        let (slot, type_label) = monitored(request.query.qtype);
        let (by_family, family) = match is_ipv4(&request.peer.client) {
            true => (&by_transport.over_ipv4, "1"),
            false => (&by_transport.over_ipv6, "2"),
        };
        by_family[slot].get_or_init(|| self.requests(site, proto, family, type_label)).increment();
        if request.query.dnssec_ok() {
            site.dnssec_ok.get_or_init(|| self.dnssec_ok(site)).increment();
        }
        site.durations.get_or_init(|| self.durations(site)).observe(exchange.elapsed.as_secs_f64());
        by_transport.request_sizes.get_or_init(|| self.request_sizes(site, proto)).observe(request.wire.len() as f64);
        by_transport.response_sizes.get_or_init(|| self.response_sizes(site, proto)).observe(exchange.reply.len() as f64);
        let (rcode, from) = (exchange.rcode, exchange.answered_by);
        site.responses.counter(rcode, from, || self.responses(site, rcode, from)).increment();
    }
}

/// The slot and label of a query type.
fn monitored(qtype: RecordType) -> (usize, &'static str) {
    let known = MONITORED_TYPES.iter().enumerate().find(|(_, (number, _))| *number == qtype.0);
    known.map_or((TYPE_SLOTS - 1, "other"), |(slot, (_, label))| (slot, *label))
}

/// An IPv4 client of a socket that serves both families counts as IPv4.
fn is_ipv4(client: &SocketAddr) -> bool {
    client.ip().to_canonical().is_ipv4()
}

/// Counters by rcode and directive. They are found without a lock: nodes are only ever appended to the list of an rcode's slot.
#[derive(Default)]
struct ResponseTable([OnceLock<Box<ResponseNode>>; 16]);

struct ResponseNode {
    rcode: Rcode,
    from: &'static str,
    counter: Counter,
    next: OnceLock<Box<ResponseNode>>,
}

impl ResponseTable {
    fn counter(&self, rcode: Rcode, from: &'static str, make: impl Fn() -> Counter) -> &Counter {
        let mut place = &self.0[usize::from(rcode.0) % self.0.len()];
        loop {
            let node = place.get_or_init(|| Box::new(ResponseNode { rcode, from, counter: make(), next: OnceLock::new() }));
            // Most keywords are the same constant, which a look at the pointer tells.
            if node.rcode == rcode && (std::ptr::eq(node.from, from) || node.from == from) {
                return &node.counter;
            }
            place = &node.next;
        }
    }
}
