//! Small clients of our own, for one exchange each: a DNS query and an HTTP request, the address at which a listener on
//! this machine is reached, the addresses of a host name, and TLS and DNS over HTTPS as a client speaks them.

pub mod dns_client;
pub mod doh;
mod host_lookup;
pub mod http_client;
mod listener_address;
pub mod tls;

pub use host_lookup::{HostLookup, ReadFile, RefreshTimer};
pub use listener_address::reachable_address;
