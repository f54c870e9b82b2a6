//! Small clients of our own, for one exchange each: a DNS query and an HTTP request, the address at which a listener on
//! this machine is reached, and TLS as a client speaks it.

pub(crate) mod dns_client;
pub(crate) mod http_client;
mod listener_address;
pub(crate) mod tls;

pub(crate) use listener_address::reachable_address;
