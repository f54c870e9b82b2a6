//! The directive against scripted upstreams on loopback.

mod exchange;
mod flooding_https;
mod https;
mod loops;
mod parse;
mod scripted;
mod scripted_https;
mod single_flight;
mod socket_limits;
mod spoofing;
mod subnets;
mod tcp;
mod tls;
mod udp;

use super::Forward;
use super::config::{ForwardConfig, ForwardOptions};
use super::metrics::UpstreamMetrics;
use super::remote::{Remote, UpstreamProtocol, UpstreamSettings};
use super::socket_budget::SocketBudget;
use super::spoof_guard::SpoofGuard;
use super::target::{Protocol, UpstreamTarget};
use crate::chain::{
    BuildContext, Chain, Course, Explanation, Failure, Following, Handler, Next, Outcome, OwnedRequest, Peer,
    ProcessContext, Purpose, Request, Transport,
};
use crate::message::{Name, Query, RecordType, Response};
use crate::metrics::Registry;
use crate::net::tls::ClientTls;
use crate::ports::free_port;
use futures_util::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

fn process() -> ProcessContext {
    ProcessContext::new(2, 1 << 20)
}

/// The settings of an upstream of a `forward` without options.
pub(super) fn upstream_settings() -> UpstreamSettings {
    UpstreamSettings {
        source_address: None,
        expire: Duration::from_secs(10),
        max_age: None,
        connections_per_worker: None,
        read_timeout: Duration::from_secs(2),
        use_caps_for_id: false,
        probe_interval: Duration::from_millis(500),
        probe_name: Name::root(),
        probe_recursion_desired: true,
        probe_tcp: false,
    }
}

pub(super) fn remote(address: SocketAddr, settings: UpstreamSettings) -> Arc<Remote> {
    let metrics = UpstreamMetrics::new(&Registry::new(1), address.to_string(), "tcp");
    let (sockets, spoof_guard) = (Arc::new(SocketBudget::new(8)), SpoofGuard::default());
    let (protocol, streams) = (UpstreamProtocol::Dns, AtomicUsize::new(0));
    Arc::new(Remote { address, protocol, streams, settings, metrics, sockets, spoof_guard })
}

/// A running `forward . TO...` and what it was built with.
struct Running {
    forward: Arc<Forward>,
    process: ProcessContext,
}

impl Running {
    fn new(targets: &[SocketAddr], options: ForwardOptions) -> Self {
        let process = process();
        let forward = build(targets, options, &process);
        Self { forward, process }
    }

    /// One whose upstreams are believed if `tls` trusts them.
    fn over_tls(targets: Vec<UpstreamTarget>, tls: ClientTls, options: ForwardOptions) -> Self {
        let config = ForwardConfig { from: Name::root(), except: Vec::new(), targets, tls: Some(tls), options };
        let process = process();
        let forward = build_config(&config, &process);
        Self { forward, process }
    }

    async fn ask(&self, request: &OwnedRequest) -> Outcome {
        let chain = Arc::new(Chain { handlers: [self.forward.clone() as Arc<dyn Handler>].into() });
        chain.start().run(request.borrow()).await
    }

    /// The answer; a failure ends the test.
    async fn answer(&self, request: &OwnedRequest) -> Response {
        self.ask(request).await.expect("an answer").response
    }

    /// Why a query has no answer.
    async fn failure(&self) -> String {
        format!("{:?}", self.ask(&request("a.example.", Transport::Udp)).await.expect_err("a failure"))
    }

    fn sockets(&self) -> Arc<SocketBudget> {
        SocketBudget::shared(&self.process.reload_state, &self.process.registry)
    }

    /// Value of the series whose line begins with `name`; 0 if there is none.
    fn metric(&self, name: &str) -> f64 {
        let text = self.process.registry.encode();
        text.lines()
            .filter(|line| line.starts_with(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

fn build(targets: &[SocketAddr], options: ForwardOptions, process: &ProcessContext) -> Arc<Forward> {
    let config = ForwardConfig {
        from: Name::root(),
        except: Vec::new(),
        targets: targets.iter().copied().map(plain).collect(),
        tls: None,
        options,
    };
    build_config(&config, process)
}

/// An upstream by UDP and TCP.
fn plain(address: SocketAddr) -> UpstreamTarget {
    UpstreamTarget::Address { address, protocol: Protocol::Dns }
}

fn build_config(config: &ForwardConfig, process: &ProcessContext) -> Arc<Forward> {
    in_context(process, |context| Arc::new(Forward::new(config, context)))
}

/// What a directive of the root zone on 127.0.0.1 is built with.
fn in_context<T>(process: &ProcessContext, make: impl FnOnce(&BuildContext<'_>) -> T) -> T {
    let servers = ["dns://127.0.0.1:53".to_owned()];
    make(&BuildContext::new(&[], &servers, process))
}

/// An A query with RD, as a client sends it.
fn request(name: &str, transport: Transport) -> OwnedRequest {
    request_from(&Query::compose(7, Name::parse(name).unwrap().as_wire(), RecordType::A, true), transport)
}

fn request_from(wire: &[u8], transport: Transport) -> OwnedRequest {
    let query = Query::read(wire).unwrap_or_else(|_| panic!("a query"));
    let peer = Peer { client: "127.0.0.1:9999".parse().unwrap(), local: "127.0.0.1:53".parse().unwrap(), transport };
    OwnedRequest {
        wire: wire.into(),
        query,
        peer,
        server_index: 0,
        zone: 0,
        udp_cap: None,
        client_subnet: None,
        nsid: None,
        wants_refresh: false,
        spans: None,
        options: None,
        metadata: None,
        trail: None,
        received: Instant::now(),
        purpose: Purpose::Answer,
    }
}

/// So many of different names, by UDP.
fn requests(count: usize) -> Vec<OwnedRequest> {
    (0..count).map(|index| request(&format!("n{index}.example."), Transport::Udp)).collect()
}

/// The octets of the first A record's address.
fn address_in(response: &Response) -> Vec<u8> {
    response.records().find(|record| record.rtype == RecordType::A).expect("an A record").rdata().to_vec()
}

/// A read timeout short enough for tests whose upstream is silent.
fn short_timeout() -> ForwardOptions {
    ForwardOptions { read_timeout: Duration::from_millis(300), ..ForwardOptions::default() }
}

/// A handler that answers with a code and under a keyword of the test's choice.
struct Stub {
    keyword: &'static str,
    rcode: crate::message::Rcode,
}

impl Handler for Stub {
    fn keyword(&self) -> &'static str {
        self.keyword
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        rest.explain(request, explanation)
    }

    fn serve<'a>(&'a self, request: Request<'a>, _next: Next<'a>) -> BoxFuture<'a, Outcome> {
        let response = Response::empty(request.query, request.wire, self.rcode);
        Box::pin(async move { Ok(crate::chain::Answer { response, from: self.keyword }) })
    }
}

/// A loopback address where nobody listens.
fn dead_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}
