//! The command `doctor`: what is not given on its command line is taken from the agent that runs here.

use super::{Agent, Invocation, Mode, OutputFormat, ServeOptions};
use crate::message::Name;
use crate::node::Backend;
use std::net::{IpAddr, SocketAddr};

/// What the user asks of `doctor`. What is not given is what the running agent was told, else the agent's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doctor {
    pub local_addresses: Option<Vec<IpAddr>>,
    pub interface: Option<String>,
    pub dns_port: Option<u16>,
    /// The outer `None`: not given; the inner one: no rules.
    pub interception: Option<Backend>,
    pub probe_mark: Option<u32>,
    pub health_port: Option<u16>,
    pub metrics_listen_address: Option<SocketAddr>,
    /// An ordinary name to ask for.
    pub name: Name,
    pub output: OutputFormat,
}

impl Doctor {
    /// The whole of what to examine, `running` being what the agent that runs was told. None if nobody said which
    /// addresses.
    pub(crate) fn completed(self, running: Option<ServeOptions>) -> Option<(ServeOptions, Agent)> {
        let mut options = match (running, &self.local_addresses) {
            (Some(options), _) => options,
            // With the agent's defaults.
            (None, Some(_)) => match Invocation::parse(["nodelocaldns", "-localip", "127.0.0.1"].map(Into::into)) {
                Ok(Invocation::Serve(options)) => options,
                _ => return None,
            },
            (None, None) => return None,
        };
        let Mode::Agent(agent) = options.mode.clone() else { return None };
        let mut agent = *agent;
        agent.local_addresses = self.local_addresses.unwrap_or(agent.local_addresses);
        agent.interface = self.interface.or(agent.interface);
        agent.interception = self.interception.unwrap_or(agent.interception);
        agent.probe_mark = self.probe_mark.unwrap_or(agent.probe_mark);
        agent.health_port = self.health_port.unwrap_or(agent.health_port);
        options.dns_port = self.dns_port.unwrap_or(options.dns_port);
        options.metrics_listen_address = self.metrics_listen_address.or(options.metrics_listen_address);
        Some((options, agent))
    }
}
