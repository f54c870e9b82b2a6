//! What cases are made of: a node with pods, KubeDNS and kube-proxy's rules, the program on it, clients, and what is
//! left of it all.

mod cell;
mod leftovers;
mod operate;
mod proxy;
mod scene;
mod two_nodes;

pub use cell::{Cell, Interception, Services};
pub use leftovers::{addresses, leftovers, ours};
pub use operate::{doctor, tear_down};
pub use proxy::Proxy;
pub use scene::{ADDRESSES, SOON, START, Scene, Start, settled};
pub use two_nodes::{LONG, Node, PodNetwork, TwoNodes};
