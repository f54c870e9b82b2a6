//! Variables of Services, which kubelet gives to containers (`enableServiceLinks`): those of the pod's namespace that
//! have a ClusterIP, and the API's.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use std::collections::BTreeMap;

/// A variable's name and value.
pub type Variable = (String, String);

/// Those of one Service at an address, as Docker's links were: the first port's, then each port's.
pub fn variables(name: &str, address: &str, ports: &[ServicePort]) -> Vec<Variable> {
    let name = name.to_uppercase().replace('-', "_");
    let protocol = |port: &ServicePort| port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let url = |port: &ServicePort| format!("{}://{address}:{}", protocol(port).to_lowercase(), port.port);
    let Some(first) = ports.first() else { return Vec::new() };
    let mut made = vec![
        (format!("{name}_SERVICE_HOST"), address.to_owned()),
        (format!("{name}_SERVICE_PORT"), first.port.to_string()),
        (format!("{name}_PORT"), url(first)),
    ];
    for port in ports {
        if let Some(port_name) = &port.name {
            let port_name = port_name.to_uppercase().replace('-', "_");
            made.push((format!("{name}_SERVICE_PORT_{port_name}"), port.port.to_string()));
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol(port));
        made.push((prefix.clone(), url(port)));
        made.push((format!("{prefix}_PROTO"), protocol(port).to_lowercase()));
        made.push((format!("{prefix}_PORT"), port.port.to_string()));
        made.push((format!("{prefix}_ADDR"), address.to_owned()));
    }
    made
}

/// Those of all Services of a cluster: what is at an address, by its name.
pub fn all(services: &BTreeMap<&str, (&str, &Service)>) -> Vec<Variable> {
    let of = |(name, (address, service)): (&&str, &(&str, &Service))| {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.clone()).unwrap_or_default();
        variables(name, address, &ports)
    };
    services.iter().flat_map(of).collect()
}

/// The API's own Service.
pub fn api() -> Service {
    let port = ServicePort { name: Some("https".to_owned()), port: 443, ..ServicePort::default() };
    Service { spec: Some(ServiceSpec { ports: Some(vec![port]), ..ServiceSpec::default() }), ..Service::default() }
}

#[cfg(test)]
mod tests {
    use super::variables;
    use k8s_openapi::api::core::v1::ServicePort;

    #[test]
    fn a_service_has_its_links() {
        let port = |name: &str, protocol: &str| ServicePort {
            name: Some(name.to_owned()),
            port: 53,
            protocol: Some(protocol.to_owned()),
            ..ServicePort::default()
        };
        let made = variables("kube-dns-upstream", "10.96.0.11", &[port("dns", "UDP"), port("dns-tcp", "TCP")]);
        let lines: Vec<String> = made.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected = [
            "KUBE_DNS_UPSTREAM_SERVICE_HOST=10.96.0.11",
            "KUBE_DNS_UPSTREAM_SERVICE_PORT=53",
            "KUBE_DNS_UPSTREAM_PORT=udp://10.96.0.11:53",
            "KUBE_DNS_UPSTREAM_SERVICE_PORT_DNS=53",
            "KUBE_DNS_UPSTREAM_PORT_53_UDP=udp://10.96.0.11:53",
            "KUBE_DNS_UPSTREAM_PORT_53_UDP_PROTO=udp",
            "KUBE_DNS_UPSTREAM_PORT_53_UDP_PORT=53",
            "KUBE_DNS_UPSTREAM_PORT_53_UDP_ADDR=10.96.0.11",
            "KUBE_DNS_UPSTREAM_SERVICE_PORT_DNS_TCP=53",
            "KUBE_DNS_UPSTREAM_PORT_53_TCP=tcp://10.96.0.11:53",
            "KUBE_DNS_UPSTREAM_PORT_53_TCP_PROTO=tcp",
            "KUBE_DNS_UPSTREAM_PORT_53_TCP_PORT=53",
            "KUBE_DNS_UPSTREAM_PORT_53_TCP_ADDR=10.96.0.11",
        ];
        assert_eq!(lines, expected);
    }
}
