//! Small clients of our own, for one exchange each: a DNS query and an HTTP request, the address at which a listener on
//! this machine is reached, and TLS and DNS over HTTPS as a client speaks them.

pub mod dns_client;
pub mod doh;
pub mod http_client;
mod listener_address;
pub mod tls;

pub use listener_address::reachable_address;
