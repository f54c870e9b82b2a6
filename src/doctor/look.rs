//! Sees what is there. Every look is bounded, so that the whole is over within a few seconds.

mod ask;
mod http;
mod processes;
mod rights;
mod sockets;

use super::findings::{Asked, Findings, Listener, Page, Question, Reply, Way};
use crate::chain::Transport;
use crate::net::reachable_address;
use crate::node::survey;
use crate::threads;
use futures_util::future::join_all;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use processes::{agents, netfilter_sockets};
pub use rights::of as rights_of;

/// For lists of the kernel's and programs that make them.
const PATIENCE: Duration = Duration::from_secs(3);

/// Queries of one kind, each from a port of its own: the kernel chooses among the sockets of an address by it.
const TRIES: usize = 8;

/// Looks at everything that `question` is about. Changes nothing. Must be called on a tokio runtime; takes about 6 s at most.
pub async fn look(question: &Question) -> Findings {
    let port = question.spec.port;
    let ports = [port, question.spec.health_port];
    let local = aside("listing sockets", move || sockets::listeners(&ports));
    let agents = aside("looking for agents", agents);
    let elsewhere = aside("looking for agents elsewhere", processes::elsewhere);
    let asked = join_all(question.spec.addresses.iter().flat_map(|address| kinds(*address)).map(|kind| ask(question, kind)));
    let metrics = async {
        let address = reachable_address(question.metrics_address?, false);
        Some((address, http::fetch(address, "/metrics").await))
    };
    let (local, agents, elsewhere, asked, metrics) = tokio::join!(local, agents, elsewhere, asked, metrics);
    let listeners = local.and_then(|listed| listed.map_err(|error| error.to_string()));
    let health = health(question, listeners.as_deref().unwrap_or_default()).await;
    Findings {
        agents: agents.unwrap_or_default(),
        elsewhere: elsewhere.unwrap_or_default(),
        rights: rights::rights(),
        node: survey(&question.spec, PATIENCE).await,
        listeners,
        asked,
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

type Kind = (IpAddr, Transport, Way);

fn kinds(address: IpAddr) -> impl Iterator<Item = Kind> {
    let ways = [Way::Client, Way::Marked, Way::Name];
    [Transport::Udp, Transport::Tcp].into_iter().flat_map(move |transport| ways.map(|way| (address, transport, way)))
}

async fn ask(question: &Question, (address, transport, way): Kind) -> Asked {
    let server = SocketAddr::new(address, question.spec.port);
    let mark = (way == Way::Marked).then_some(question.spec.probe_mark);
    let name = (way == Way::Name).then_some(&question.name);
    let tries = if way == Way::Client { TRIES } else { 1 };
    let replies: Vec<Reply> = join_all((0..tries).map(|_| ask::ask(server, transport, name, mark))).await;
    Asked { address, transport, way, replies }
}

/// The health page at each of our addresses that somebody listens on.
async fn health(question: &Question, listeners: &[Listener]) -> Vec<(SocketAddr, Page)> {
    let port = question.spec.health_port;
    let is_served = |address: &SocketAddr| {
        listeners.iter().any(|listener| {
            let ip = listener.address.ip();
            listener.transport == Transport::Tcp && listener.address.port() == port && (ip == address.ip() || ip.is_unspecified())
        })
    };
    let addresses = question.spec.addresses.iter().map(|address| SocketAddr::new(*address, port));
    let pages = addresses.filter(is_served).map(|address| async move { (address, http::fetch(address, "/health").await) });
    join_all(pages).await
}
