//! Small clients of our own, for one exchange each: a DNS query and an HTTP request, and the address at which a listener on this machine is reached.

pub mod dns_client;
pub mod http_client;
mod listener_address;

pub use listener_address::reachable_address;
