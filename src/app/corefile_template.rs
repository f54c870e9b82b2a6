//! The template of the agent's Corefile and where the rendered one is written, as the command line says.

use crate::cli::{Agent, Render};
use crate::corefile::SystemLoader;
use crate::deadline;
use crate::kube_dns::render::{PillarValues, ServiceAddress};
use crate::kube_dns::{CorefileOutput, CorefileTemplate};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the kube-dns ConfigMap is mounted if nobody says otherwise.
const DEFAULT_KUBE_DNS: &str = "/etc/kube-dns";

/// How long the start waits to know whether it is there.
const KUBE_DNS_PATIENCE: Duration = Duration::from_secs(2);

/// How the agent's Corefile comes about.
pub(super) fn template(agent: &Agent, default_port: u16) -> CorefileTemplate {
    template_of(&Render {
        local_addresses: agent.local_addresses.clone(),
        dns_port: default_port,
        template: agent.template.clone(),
        kube_dns: agent.kube_dns.clone(),
        upstream_service: agent.upstream_service.clone(),
        prometheus_listen_address: agent.prometheus_listen_address.clone(),
    })
}

/// How a Corefile comes about that is rendered with these flags.
pub(super) fn template_of(flags: &Render) -> CorefileTemplate {
    let values = PillarValues {
        local_addresses: flags.local_addresses.clone(),
        port: flags.dns_port,
        cluster_dns: ServiceAddress::read(&flags.upstream_service, &SystemLoader),
        prometheus: flags.prometheus_listen_address.clone(),
    };
    // A file system that does not answer is there, and is waited for where it is read.
    let exists = || deadline::within(KUBE_DNS_PATIENCE, || Path::new(DEFAULT_KUBE_DNS).exists()).unwrap_or(true);
    let default_kube_dns = || exists().then(|| PathBuf::from(DEFAULT_KUBE_DNS));
    CorefileTemplate::new(flags.template.clone(), flags.kube_dns.clone().or_else(default_kube_dns), values)
}

/// Where it is written.
pub(super) fn target(agent: &Agent) -> CorefileOutput {
    CorefileOutput::new(agent.conf.clone(), agent.template.clone())
}
