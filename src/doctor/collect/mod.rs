//! Collects the findings. Each piece of work has a deadline, so that the whole takes a few seconds.

mod http;
mod privileges;
mod processes;
mod sockets;
mod test_query;

use super::findings::{Expectation, Findings, HttpPage, ListeningSocket, QueryPath, QueryReply, TestQuery};
use crate::chain::Transport;
use crate::net::reachable_address;
use crate::node::survey;
use crate::threads;
use futures_util::future::join_all;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use privileges::of as privileges_of;
pub(crate) use processes::agents;
pub use processes::netfilter_sockets;

/// For lists of the kernel's and programs that make them.
const PATIENCE: Duration = Duration::from_secs(3);

/// Queries of one kind, each from a port of its own: the kernel chooses among the sockets of an address by it.
const TRIES: usize = 8;

/// Looks at everything that `expected` is about. Changes nothing. Must be called on a tokio runtime; takes about 6 s at
/// most.
pub(crate) async fn collect(expected: &Expectation) -> Findings {
    let port = expected.spec.port;
    let ports = [port, expected.spec.health_port];
    let local = aside("listing sockets", move || sockets::listeners(&ports));
    let agents = aside("looking for agents", agents);
    let elsewhere = aside("looking for agents elsewhere", processes::elsewhere);
    let test_queries =
        join_all(expected.spec.addresses.iter().flat_map(|address| kinds(*address)).map(|kind| ask(expected, kind)));
    let metrics = async {
        let address = reachable_address(expected.metrics_address?, false);
        Some((address, http::fetch(address, "/metrics").await))
    };
    let (local, agents, elsewhere, test_queries, metrics) =
        tokio::join!(local, agents, elsewhere, test_queries, metrics);
    let listeners = local.and_then(|listed| listed.map_err(|error| error.to_string()));
    let health = health(expected, listeners.as_deref().unwrap_or_default()).await;
    Findings {
        agents: agents.unwrap_or_default(),
        elsewhere: elsewhere.unwrap_or_default(),
        privileges: privileges::privileges(),
        node: survey(&expected.spec, PATIENCE).await,
        listeners,
        test_queries,
        health,
        metrics,
    }
}

/// What comes of `work`, or why nothing does.
async fn aside<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let result = threads::run_blocking("look", work).map_err(|error| error.to_string())?;
    match tokio::time::timeout(PATIENCE, result).await {
        Ok(done) => done.map_err(|_panicked| format!("{what} ended before its time: please report this")),
        Err(_) => Err(format!("{what} took longer than {} s", PATIENCE.as_secs())),
    }
}

type QueryKind = (IpAddr, Transport, QueryPath);

fn kinds(address: IpAddr) -> impl Iterator<Item = QueryKind> {
    let ways = [QueryPath::Client, QueryPath::Marked, QueryPath::Name];
    [Transport::Udp, Transport::Tcp].into_iter().flat_map(move |transport| ways.map(|way| (address, transport, way)))
}

async fn ask(expected: &Expectation, (address, transport, way): QueryKind) -> TestQuery {
    let server = SocketAddr::new(address, expected.spec.port);
    let mark = (way == QueryPath::Marked).then_some(expected.spec.probe_mark);
    let name = (way == QueryPath::Name).then_some(&expected.name);
    let tries = if way == QueryPath::Client { TRIES } else { 1 };
    let replies: Vec<QueryReply> = join_all((0..tries).map(|_| test_query::ask(server, transport, name, mark))).await;
    TestQuery { address, transport, way, replies }
}

/// The health page at each of our addresses that somebody listens on.
async fn health(expected: &Expectation, listeners: &[ListeningSocket]) -> Vec<(SocketAddr, HttpPage)> {
    let port = expected.spec.health_port;
    let is_served = |address: &SocketAddr| {
        listeners.iter().any(|listener| {
            let ip = listener.address.ip();
            listener.transport == Transport::Tcp
                && listener.address.port() == port
                && (ip == address.ip() || ip.is_unspecified())
        })
    };
    let addresses = expected.spec.addresses.iter().map(|address| SocketAddr::new(*address, port));
    let pages =
        addresses.filter(is_served).map(|address| async move { (address, http::fetch(address, "/health").await) });
    join_all(pages).await
}
