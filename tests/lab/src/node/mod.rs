//! What cases are made of: a node with pods, KubeDNS and kube-proxy's rules, the program on it, clients, and what is
//! left of it all.

mod leftovers;
mod proxy;
mod scene;

pub use leftovers::{addresses, leftovers, ours};
pub use proxy::Proxy;
pub use scene::{SOON, START, Scene, Start, settled};
