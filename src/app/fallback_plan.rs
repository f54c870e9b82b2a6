//! Which of the node's addresses get a fallback, and where it leads. Pure, but for reading the environment.

use crate::cli::{Agent, FallbackTo};
use crate::corefile::SystemLoader;
use crate::kube_dns::render::ServiceAddress;
use crate::node::{Fallback, Redirection};
use std::collections::HashSet;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the environment tells of Services: kubelet puts those of the pod's namespace there, each with one of its
/// addresses.
pub(super) struct ServiceEnvironment {
    /// The one of `-upstreamsvc`.
    pub upstream: ServiceAddress,
    /// Of all of them.
    pub addresses: HashSet<IpAddr>,
}

impl ServiceEnvironment {
    /// Of this process's environment.
    pub(super) fn read(agent: &Agent) -> Self {
        let is_address = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.ends_with("_SERVICE_HOST"));
        let variables = std::env::vars_os().filter(|(name, _)| is_address(name));
        let addresses = variables.filter_map(|(_, value)| value.to_str()?.parse().ok()).collect();
        Self { upstream: ServiceAddress::read(&agent.upstream_service, &SystemLoader), addresses }
    }
}

/// The fallback, and why it is not what somebody may expect.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FallbackPlan {
    pub fallback: Fallback,
    /// One for each address at which nobody will answer when this program is gone.
    pub warnings: Vec<String>,
}

/// An address that the environment names is a ClusterIP, which leads to its Service when we are gone; the others are
/// ours alone, and queries for them go to the upstream Service. There is no fallback without interception, which has to
/// shadow it.
pub(super) fn fallback_plan(agent: &Agent, dns_port: u16, services: &ServiceEnvironment) -> FallbackPlan {
    let mut warnings = Vec::new();
    let (ipv4, ipv6) = match agent.fallback {
        _ if agent.interception.is_none() => (None, None),
        FallbackTo::Nowhere => (None, None),
        FallbackTo::Addresses { ipv4, ipv6 } => (ipv4.map(Ok), ipv6.map(Ok)),
        FallbackTo::Upstream => match upstream(agent, dns_port, services) {
            Ok(IpAddr::V4(address)) => (Some(Ok(address)), Some(Err(only_one(agent, "IPv4")))),
            Ok(IpAddr::V6(address)) => (Some(Err(only_one(agent, "IPv6"))), Some(Ok(address))),
            Err(why) => (Some(Err(why.clone())), Some(Err(why))),
        },
    };
    let own = || {
        let canonical = agent.local_addresses.iter().map(IpAddr::to_canonical);
        canonical.filter(|own| !services.addresses.contains(own) && !own.is_loopback() && !own.is_unspecified())
    };
    let mut own_ipv4: Vec<Ipv4Addr> =
        own().filter_map(|own| if let IpAddr::V4(own) = own { Some(own) } else { None }).collect();
    let own_ipv6: Vec<Ipv6Addr> =
        own().filter_map(|own| if let IpAddr::V6(own) = own { Some(own) } else { None }).collect();
    // Whatever else is a ClusterIP that the environment does not name, this one is not.
    own_ipv4.sort_by_key(|own| !own.is_link_local());
    let ipv4 = ipv4.and_then(|upstream| redirect(&own_ipv4, upstream, &mut warnings));
    let ipv6 = ipv6.and_then(|upstream| redirect(&own_ipv6, upstream, &mut warnings));
    FallbackPlan { fallback: Fallback { mark: agent.fallback_mark, ipv4, ipv6 }, warnings }
}

/// One for the first address; the others, and all if there is no upstream, get an objection.
fn redirect<A: Copy + Display>(
    own: &[A],
    upstream: Result<A, String>,
    warnings: &mut Vec<String>,
) -> Option<Redirection<A>> {
    let mut warn = |local: A, why: &str| {
        warnings.push(format!(
            "nobody will answer at {local} when this program is gone: {why}. Name an address of cluster DNS that this program does not \
             serve, as in --fallback 10.96.0.11; a ClusterIP needs none, and --fallback none says that it is known"
        ));
    };
    match (own, upstream) {
        ([local, others @ ..], Ok(upstream)) => {
            for other in others {
                warn(*other, &format!("one address of a family can have a fallback, and {local} has it"));
            }
            Some(Redirection { local: *local, upstream })
        }
        (locals, Err(why)) => {
            locals.iter().for_each(|local| warn(*local, &why));
            None
        }
        ([], Ok(_)) => None,
    }
}

fn upstream(agent: &Agent, dns_port: u16, services: &ServiceEnvironment) -> Result<IpAddr, String> {
    let name = &agent.upstream_service;
    let address = services.upstream.address()?.to_canonical();
    if agent.local_addresses.iter().any(|own| own.to_canonical() == address) {
        return Err(format!("{address}, of the Service {name} (-upstreamsvc), is intercepted here too"));
    }
    match services.upstream.port() {
        Some(port) if port != dns_port => {
            Err(format!("the Service {name} (-upstreamsvc) answers on port {port}, and this program on {dns_port}"))
        }
        _ => Ok(address),
    }
}

fn only_one(agent: &Agent, family: &str) -> String {
    format!("the environment tells only the {family} address of the Service {} (-upstreamsvc)", agent.upstream_service)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Invocation, Mode};
    use crate::corefile::Loader;
    use std::ffi::OsString;
    use std::io;
    use std::path::{Path, PathBuf};

    struct Environment(&'static [(&'static str, &'static str)]);

    impl Loader for Environment {
        fn read(&self, _: &Path) -> io::Result<String> {
            Err(io::ErrorKind::NotFound.into())
        }
        fn glob(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
            Ok(Vec::new())
        }
        fn environment(&self, name: &str) -> Option<String> {
            self.0.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        }
    }

    /// As kubelet sets it in kube-system.
    const USUAL: Environment = Environment(&[
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBE_DNS_SERVICE_HOST", "10.96.0.10"),
        ("KUBE_DNS_UPSTREAM_SERVICE_HOST", "10.96.0.11"),
        ("KUBE_DNS_UPSTREAM_SERVICE_PORT", "53"),
    ]);

    /// Of an agent that is given `arguments`: each redirection as text, and the objections.
    fn planned(environment: &Environment, arguments: &str) -> (String, Vec<String>) {
        let words = std::iter::once("nodelocaldns").chain(arguments.split(' ')).map(OsString::from);
        let Ok(Invocation::Serve(options)) = Invocation::parse(words) else { panic!("{arguments} is no command line") };
        let Mode::Agent(agent) = options.mode else { panic!("{arguments} makes no agent") };
        let hosts = environment.0.iter().filter(|(name, _)| name.ends_with("_SERVICE_HOST"));
        let services = ServiceEnvironment {
            upstream: ServiceAddress::read(&agent.upstream_service, environment),
            addresses: hosts.map(|(_, value)| value.parse().unwrap()).collect(),
        };
        let FallbackPlan { fallback, warnings } = fallback_plan(&agent, options.dns_port, &services);
        (fallback.to_string(), warnings)
    }

    #[test]
    fn the_link_local_address_falls_back_to_the_upstream_service_and_cluster_ips_need_nothing() {
        let (fallback, warnings) = planned(&USUAL, "-localip 169.254.20.10,10.96.0.10 -upstreamsvc kube-dns-upstream");
        assert_eq!((fallback.as_str(), warnings), ("169.254.20.10 -> 10.96.0.11", vec![]));
    }

    #[test]
    fn under_ipvs_the_upstream_service_is_kube_dns_itself() {
        let (fallback, warnings) = planned(&USUAL, "-localip 169.254.20.10");
        assert_eq!((fallback.as_str(), warnings), ("169.254.20.10 -> 10.96.0.10", vec![]));
    }

    #[test]
    fn without_the_service_it_is_said_that_there_is_no_fallback_why_and_what_to_do() {
        let (fallback, warnings) = planned(&Environment(&[]), "-localip 169.254.20.10 -upstreamsvc kube-dns-upstream");
        assert_eq!(fallback, "");
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        for part in ["169.254.20.10", "KUBE_DNS_UPSTREAM_SERVICE_HOST is not set", "--fallback 10.96.0.11"] {
            assert!(warning.contains(part), "{part}: {warning}");
        }
    }

    #[test]
    fn an_address_that_is_intercepted_here_is_no_fallback() {
        let (fallback, warnings) = planned(&USUAL, "-localip 169.254.20.10,10.96.0.10");
        assert_eq!((fallback.as_str(), warnings.len()), ("", 1));
        assert!(
            warnings[0].contains("10.96.0.10, of the Service kube-dns (-upstreamsvc), is intercepted"),
            "{warnings:?}"
        );
    }

    #[test]
    fn a_service_on_another_port_is_no_fallback() {
        let (fallback, warnings) =
            planned(&USUAL, "-localip 169.254.20.10 -upstreamsvc kube-dns-upstream -dns.port 5353");
        assert_eq!((fallback.as_str(), warnings.len()), ("", 1));
        assert!(warnings[0].contains("answers on port 53, and this program on 5353"), "{warnings:?}");
    }

    #[test]
    fn for_the_other_family_the_address_must_be_named() {
        let addresses = "-localip 169.254.20.10,fd00:53::10 -upstreamsvc kube-dns-upstream";
        let (fallback, warnings) = planned(&USUAL, addresses);
        assert_eq!((fallback.as_str(), warnings.len()), ("169.254.20.10 -> 10.96.0.11", 1));
        assert!(warnings[0].contains("fd00:53::10") && warnings[0].contains("only the IPv4 address"), "{warnings:?}");
        let (fallback, warnings) = planned(&USUAL, &format!("{addresses} --fallback 10.96.0.11,fd00::11"));
        assert_eq!((fallback.as_str(), warnings), ("169.254.20.10 -> 10.96.0.11, fd00:53::10 -> fd00::11", vec![]));
        let (fallback, warnings) = planned(&USUAL, &format!("{addresses} --fallback 10.96.0.11"));
        assert_eq!(
            (fallback.as_str(), warnings),
            ("169.254.20.10 -> 10.96.0.11", vec![]),
            "who names one family means one"
        );
    }

    #[test]
    fn of_several_addresses_the_link_local_one_has_the_fallback() {
        let (fallback, warnings) =
            planned(&Environment(&[]), "-localip 10.96.0.10,169.254.20.10 --fallback 10.96.0.11");
        assert_eq!((fallback.as_str(), warnings.len()), ("169.254.20.10 -> 10.96.0.11", 1));
        assert!(warnings[0].contains("at 10.96.0.10") && warnings[0].contains("169.254.20.10 has it"), "{warnings:?}");
    }

    #[test]
    fn there_is_none_where_none_is_wanted_or_nothing_would_shadow_it() {
        for arguments in ["--fallback none", "--interception none", "-setupiptables=false"] {
            let (fallback, warnings) = planned(&USUAL, &format!("-localip 169.254.20.10 {arguments}"));
            assert_eq!((fallback.as_str(), warnings), ("", vec![]), "{arguments}");
        }
        let (fallback, warnings) = planned(&USUAL, "-localip 127.0.0.1");
        assert_eq!((fallback.as_str(), warnings), ("", vec![]), "loopback addresses are no pod's to ask");
    }
}
