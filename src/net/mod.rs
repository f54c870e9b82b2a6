//! Small clients of our own, for one exchange each: a DNS query and an HTTP request, the address at which a listener on
//! this machine is reached, the addresses of a host name, and TLS and DNS over HTTPS as a client speaks them.

pub(crate) mod bounded_reads;
pub(crate) mod dns_client;
pub(crate) mod doh;
mod host_lookup;
pub(crate) mod http_client;
mod listener_address;
pub(crate) mod tls;

pub(crate) use host_lookup::ReadFile;
pub(crate) use host_lookup::{HostLookup, RefreshTimer};
pub(crate) use listener_address::reachable_address;
