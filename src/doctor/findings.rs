//! What the doctor expects of the node, and what it has found: plain data.

use crate::chain::Transport;
use crate::message::Rcode;
use crate::node::{Backend, NodeSpec, Survey};
use std::net::{IpAddr, SocketAddr};

/// What to look at.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// How the node should look, as the agent was told.
    pub spec: NodeSpec,
    /// What should hold the rules.
    pub backend: Backend,
    /// Where the agent serves its metrics; none if nowhere.
    pub metrics_address: Option<SocketAddr>,
    /// A name to ask for, absolute.
    pub name: crate::message::Name,
}

/// What is there.
#[derive(Debug)]
pub struct Findings {
    /// Agents' processes, as far as they can be seen.
    pub agents: Vec<AgentProcess>,
    /// Processes of agents that are seen, in another network namespace than this one.
    pub elsewhere: Vec<i32>,
    /// What the one who looks may.
    pub privileges: Privileges,
    /// Link, addresses and rules.
    pub node: Survey,
    /// Sockets on the DNS port and the health port, whoever's, or why they cannot be listed.
    pub listeners: Result<Vec<ListeningSocket>, String>,
    /// Test queries.
    pub test_queries: Vec<TestQuery>,
    /// What the health endpoint says on each address that somebody listens on.
    pub health: Vec<(SocketAddr, HttpPage)>,
    /// What the metrics endpoint says; none if there is none.
    pub metrics: Option<(SocketAddr, HttpPage)>,
}

/// What this process may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Privileges {
    pub is_root: bool,
    /// The capability NET_ADMIN.
    pub has_net_admin: bool,
    /// The capability NET_RAW.
    pub has_net_raw: bool,
    /// Its capabilities are for a user namespace that is not the machine's own.
    pub is_in_a_user_namespace: bool,
}

/// Status and body of a page, or why there is none.
pub(crate) type HttpPage = Result<(u16, String), String>;

/// A process of an agent, ours or the reference's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentProcess {
    /// Its process ID.
    pub pid: i32,
    /// Such as `nodelocaldns` or `node-cache`.
    pub program: String,
    /// Its command line, the program's name first.
    pub arguments: Vec<String>,
    /// By a signal or a debugger: it does nothing.
    pub is_stopped: bool,
    /// Its parent is an agent too: it is that one's server.
    pub is_server: bool,
    /// Port IDs of its netlink sockets.
    pub port_ids: Vec<u32>,
}

/// A socket that takes queries or connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListeningSocket {
    /// UDP or TCP.
    pub transport: Transport,
    /// Where it is bound.
    pub address: SocketAddr,
    /// Processes that hold it; none where they cannot be seen.
    pub holders: Vec<SocketHolder>,
}

/// A process that holds a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketHolder {
    /// Its process ID.
    pub pid: i32,
    /// The name of its program.
    pub program: String,
}

/// In which way a test query goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueryPath {
    /// As that of any program on the host's network.
    Client,
    /// With the watchdog's mark: to the sockets on this node, whether queries are intercepted or not.
    Marked,
    /// As any program's, for an ordinary name instead of the server's own.
    Name,
}

/// Test queries of one kind; several, where different sockets may get them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestQuery {
    pub address: IpAddr,
    pub transport: Transport,
    pub way: QueryPath,
    pub replies: Vec<QueryReply>,
}

/// What came of a test query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryReply {
    /// The answer that only a server of ours has, with its number.
    Ours(u64),
    /// Another answer: to a question for our server, somebody else's.
    Other(Rcode),
    /// Nobody listens there.
    Refused,
    /// Nothing within the time.
    Silent,
    /// It could not be sent.
    Failed(String),
}
