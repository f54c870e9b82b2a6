//! The node, as the watchdog sees it.

use super::fallback::{self, Services};
use crate::cli::{Agent, Backend};
use crate::node::{Choice, Error, Interception, Node, Reach, Wish};
use crate::watchdog::{Interceptor, SetupError};
use std::future::pending;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Sets the node's link and rules up. The node is opened when something is first wanted of it, and again after that has failed.
pub struct NodeInterceptor {
    wish: Wish,
    choice: Choice,
    sync_interval: Duration,
    node: Option<Node>,
}

impl NodeInterceptor {
    /// For what the flags say.
    pub fn new(agent: &Agent, dns_port: u16) -> Self {
        for objection in fallback::plan(agent, dns_port, &Services::read(agent)).objections {
            tracing::warn!("{objection}");
        }
        Self { wish: wish(agent, dns_port), choice: choice(agent), sync_interval: agent.sync_interval, node: None }
    }

    fn node(&mut self) -> Result<&mut Node, Error> {
        let node = match self.node.take() {
            Some(node) => node,
            None => Node::prepare(self.wish.clone(), self.choice, self.sync_interval)?,
        };
        Ok(self.node.insert(node))
    }
}

/// What the node is to look like.
pub fn wish(agent: &Agent, dns_port: u16) -> Wish {
    Wish {
        addresses: agent.local_addresses.clone(),
        port: dns_port,
        health_port: agent.health_port,
        interface: agent.interface.clone(),
        probe_mark: agent.probe_mark,
        fallback: fallback::plan(agent, dns_port, &Services::read(agent)).fallback,
    }
}

/// What is to hold the rules.
pub fn choice(agent: &Agent) -> Choice {
    match agent.interception {
        Some(Backend::Auto) => Choice::Auto,
        Some(Backend::Nftables) => Choice::Nftables,
        Some(Backend::Iptables) => Choice::Iptables,
        None => Choice::None,
    }
}

impl Interceptor for NodeInterceptor {
    async fn ensure(&mut self, interception: &Interception) -> Result<Vec<SetupError>, Vec<SetupError>> {
        let node = self.node().map_err(|error| vec![told(&error)])?;
        // Neither waits for the other: without rules the addresses that are this node's alone are served all the same, and an address
        // that is missing here is nobody's.
        let rules = node.ensure(interception).await;
        let mut errors: Vec<SetupError> = node.ensure_link().await.err().iter().map(told).collect();
        // Before the interception goes on for the first time, since it is told to be off first.
        errors.extend(node.ensure_fallback().err().iter().map(told));
        match rules {
            Ok(()) => Ok(errors),
            Err(error) => {
                errors.insert(0, told(&error));
                Err(errors)
            }
        }
    }

    fn is_ready_for_queries(&self) -> bool {
        self.node.as_ref().is_none_or(Node::is_ready_for_queries)
    }

    fn reach(&self) -> Reach {
        self.node.as_ref().map(Node::reach).unwrap_or_default()
    }

    async fn teardown(&mut self) -> Result<(), Vec<SetupError>> {
        let Some(node) = self.node.take() else { return Ok(()) };
        let errors: Vec<SetupError> = node.teardown().await.iter().map(told).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn take_errors_beside(&mut self) -> Vec<SetupError> {
        self.node.iter_mut().flat_map(Node::take_errors_beside).map(|error| told(&error)).collect()
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

fn told(error: &Error) -> SetupError {
    SetupError { errortype: error.error_type(), message: error.to_string() }
}
