//! Sets the node up for the watchdog: [`NodeInterceptor`].

use super::fallback_plan::{ServiceEnvironment, fallback_plan};
use crate::cli::Agent;
use crate::node::{Backend, ClientReachability, Error, Interception, Node, NodeSpec};
use crate::watchdog::{EnsureOutcome, Interceptor, SetupError};
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Sets the node's link and rules up. The node is opened when something is first wanted of it, and again after that has
/// failed.
pub(super) struct NodeInterceptor {
    spec: NodeSpec,
    backend: Backend,
    sync_interval: Duration,
    /// Addresses that are not intercepted, since the server sends queries there.
    spared: Interception,
    node: Option<Node>,
}

impl NodeInterceptor {
    /// For what the flags say.
    pub(super) fn new(agent: &Agent, dns_port: u16) -> Self {
        for warning in fallback_plan(agent, dns_port, &ServiceEnvironment::read(agent)).warnings {
            tracing::warn!("{warning}");
        }
        Self {
            spec: spec(agent, dns_port),
            backend: agent.interception,
            sync_interval: agent.sync_interval,
            spared: Interception::default(),
            node: None,
        }
    }

    fn node(&mut self) -> Result<&mut Node, Error> {
        let node = match self.node.take() {
            Some(node) => node,
            None => Node::prepare(self.spec.clone(), self.backend, self.sync_interval)?,
        };
        Ok(self.node.insert(node))
    }
}

/// What the node is to look like.
pub(super) fn spec(agent: &Agent, dns_port: u16) -> NodeSpec {
    NodeSpec {
        addresses: agent.local_addresses.clone(),
        port: dns_port,
        health_port: agent.health_port,
        interface: agent.interface.clone(),
        probe_mark: agent.probe_mark,
        fallback: fallback_plan(agent, dns_port, &ServiceEnvironment::read(agent)).fallback,
    }
}

impl Interceptor for NodeInterceptor {
    async fn ensure(&mut self, interception: &Interception) -> EnsureOutcome {
        let interception = interception.without(&self.spared);
        let node = match self.node() {
            Ok(node) => node,
            Err(error) => return EnsureOutcome { is_in_place: false, errors: vec![setup_error(&error)] },
        };
        // Neither waits for the other: without rules the addresses that are this node's alone are served all the same,
        // and an address that is missing here is nobody's.
        let rules = node.ensure(&interception).await;
        let link = node.ensure_link().await;
        // Before the interception goes on for the first time, since it is told to be off first.
        let fallback = node.ensure_fallback();
        let is_in_place = rules.is_ok();
        let errors =
            [rules, link, fallback].iter().filter_map(|result| result.as_ref().err()).map(setup_error).collect();
        EnsureOutcome { is_in_place, errors }
    }

    fn spare(&mut self, upstreams: &[SocketAddr]) -> Interception {
        let spared = spared(&self.spec.addresses, self.spec.port, upstreams);
        for address in spared.without(&self.spared).addresses().filter(|_| !self.backend.is_none()) {
            tracing::error!(
                "queries for {address} are not intercepted: the Corefile sends its own there, and they would come back. Cluster DNS answers \
                 whoever asks that address. Make another Service of cluster DNS, such as kube-dns-upstream, and name it with -upstreamsvc, \
                 or take {address} out of -localip"
            );
        }
        self.spared.clone_from(&spared);
        spared
    }

    fn is_ready_for_queries(&self) -> bool {
        self.node.as_ref().is_none_or(Node::is_ready_for_queries)
    }

    fn reach(&self) -> ClientReachability {
        self.node.as_ref().map(Node::reach).unwrap_or_default()
    }

    fn refused(&self) -> Interception {
        self.node.as_ref().map(Node::refused).unwrap_or_default()
    }

    async fn teardown(&mut self) -> Vec<SetupError> {
        let Some(node) = self.node.take() else { return Vec::new() };
        node.teardown().await.iter().map(setup_error).collect()
    }

    fn take_background_errors(&mut self) -> Vec<SetupError> {
        self.node.iter_mut().flat_map(Node::take_background_errors).map(|error| setup_error(&error)).collect()
    }

    fn take_owner(&mut self) -> Option<OwnedFd> {
        self.node.as_mut().and_then(Node::take_owner)
    }

    async fn changed(&mut self) {
        match &mut self.node {
            Some(node) => _ = node.changed().await,
            None => pending().await,
        }
    }
}

/// The addresses of ours that queries are sent to, but for those that lead nowhere else: whatever is sent to a
/// link-local address comes here with and without an interception.
fn spared(own: &[IpAddr], port: u16, upstreams: &[SocketAddr]) -> Interception {
    let is_asked =
        |own: &IpAddr| upstreams.iter().any(|upstream| upstream.ip().to_canonical() == *own && upstream.port() == port);
    let leads_elsewhere = |own: &IpAddr| !own.is_loopback() && !matches!(own, IpAddr::V4(own) if own.is_link_local());
    let own = own.iter().map(IpAddr::to_canonical);
    own.filter(|own| leads_elsewhere(own) && is_asked(own)).collect()
}

fn setup_error(error: &Error) -> SetupError {
    SetupError { errortype: error.error_type(), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::spared;
    use std::net::{IpAddr, SocketAddr};

    #[test]
    fn a_cluster_ip_that_queries_are_sent_to_is_spared_and_what_is_ours_alone_is_not() {
        let own: Vec<IpAddr> = ["169.254.20.10", "10.96.0.10", "fd00::10"].map(|own| own.parse().unwrap()).into();
        let spared = |upstreams: &[&str]| {
            let upstreams: Vec<SocketAddr> = upstreams.iter().map(|upstream| upstream.parse().unwrap()).collect();
            spared(&own, 53, &upstreams).addresses().map(|address| address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(spared(&["10.96.0.11:53", "192.0.2.1:53"]), [""; 0]);
        assert_eq!(spared(&["10.96.0.10:53", "10.96.0.11:53"]), ["10.96.0.10"]);
        assert_eq!(spared(&["[fd00::10]:53", "[::ffff:10.96.0.10]:53"]), ["10.96.0.10", "fd00::10"]);
        assert_eq!(spared(&["10.96.0.10:5353"]), [""; 0], "no rule is for another port");
        assert_eq!(spared(&["169.254.20.10:53"]), [""; 0], "it comes here whatever the rules are");
    }
}
