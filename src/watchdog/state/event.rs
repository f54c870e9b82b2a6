//! Events and actions: what the state machine is told, and what it decides.

use crate::chain::Transport;
use crate::node::Interception;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What is probed: a listen address as a client on this machine reaches it, over one transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeTarget {
    /// Where a client asks.
    pub address: SocketAddr,
    /// UDP or TCP.
    pub transport: Transport,
}

/// How the server's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exit {
    /// By itself, with this status.
    #[error("the server ended with status {0}")]
    Status(i32),
    /// By this signal.
    #[error("the server was ended by signal {0}")]
    Signal(i32),
    /// There was none: it could not be started.
    #[error("the server could not be started")]
    NotStarted,
}

/// Why the server was replaced: the label of `nodelocaldns_watchdog_server_restarts_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// It ended by itself.
    Exit,
    /// A signal of somebody else's ended it: a crash, or out of memory.
    Signal,
    /// It did not answer, and was killed.
    Hang,
    /// It did not come to serve in time, and was killed, or there was no starting it.
    Start,
    /// It would not take its configuration.
    Configuration,
    /// It broke the protocol of the control socket, and was killed.
    Protocol,
}

impl Cause {
    /// All there are.
    pub const ALL: [Self; 6] = [Self::Exit, Self::Signal, Self::Hang, Self::Start, Self::Configuration, Self::Protocol];

    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Hang => "hang",
            Self::Start => "start",
            Self::Configuration => "configuration",
            Self::Protocol => "protocol",
        }
    }
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// Our server answered.
    Answered,
    /// Somebody else did, or our server wrongly: no server of this program answers so. Every one of several tries in a
    /// row was answered so, from a port of its own each.
    Foreign,
    /// Another server of this program did: of a predecessor or successor that reads the same queue, or of another pod.
    /// Clients have answers there.
    OtherGeneration,
    /// No answer from it, but a sign of life, or nothing that can be laid at its door: the connection was closed (it
    /// has as many as it takes), nobody listens where the question went, or it could not be asked on this node at all.
    Unproven,
    /// Nobody answered the one packet of a sparing probe.
    Silent,
}

/// Why an address is not intercepted though the server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// Somebody else answers there.
    #[error("somebody else answers the watchdog's questions there")]
    Foreign,
    /// The question does not come to the server: nobody listens where it goes, or it would leave the node.
    #[error("the watchdog's questions do not come to the server")]
    Misrouted,
    /// Nobody answers.
    #[error("the watchdog's questions are not answered there")]
    Silence,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variant says what its fields are")]
pub enum Event<'a> {
    /// Nothing but that time has passed.
    Tick,
    /// The server serves these, with `has_streams` clients within TLS or HTTPS too, and takes at most `drain` to end.
    Serving { targets: &'a [ProbeTarget], has_streams: bool, drain: Duration },
    /// The server's thread of clients within TLS and HTTPS has had a turn.
    StreamsAlive,
    /// The server says that it will not take its configuration.
    ConfigurationRefused,
    /// The server has broken the protocol of the control socket.
    ProtocolViolated,
    /// The server's process has ended.
    Exited(Exit),
    /// A probe has ended.
    ProbeEnded { target: ProbeTarget, probe_id: u64, result: ProbeResult },
    /// A probe has had no answer for so long that it counts as missed; it is still under way. With `is_overrun` the
    /// kernel has dropped packets meanwhile, perhaps this one, since a queue was full.
    ProbeLate { target: ProbeTarget, probe_id: u64, is_overrun: bool },
    /// The node is as told, or could not be made so.
    NodeSettled { interception: &'a Interception, is_done: bool },
    /// Link and rules are gone.
    TornDown,
    /// Another process reads the same sockets too (a predecessor's or a successor's server), or does no longer.
    SocketsShared { is_shared: bool },
    /// A successor has the sockets, its server has proved itself, and its interception is in place.
    SuccessorServes,
    /// It has ended, and nobody in its place.
    SuccessorGone,
    /// SIGUSR1: look at the configuration again.
    Reload,
    /// SIGHUP: do not wait with a restart.
    Retry,
    /// SIGTERM and its like; a second time, without patience.
    Stop,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variant says what its fields are")]
pub enum Action {
    /// Start a server.
    Spawn,
    /// End the server now.
    Kill,
    /// Tell the server to look at its configuration again.
    Reload,
    /// Tell the server to answer what it has, and end. With `leave` somebody else reads its sockets on.
    Stop { leave: bool },
    /// Ask until something is heard; a sparing probe is one packet, and ends with [`ProbeResult::Silent`] if nobody
    /// answers it. It takes the place of the one before.
    Probe { target: ProbeTarget, probe_id: u64, is_single_packet: bool },
    /// Ask nobody any longer.
    CancelProbes,
    /// Queries for these addresses are to come to the server, and for no others.
    Intercept(Interception),
    /// Say that queries for this address do not come to a server that serves, and why. Once, until that changes.
    ReportObstacle { address: IpAddr, obstacle: Obstacle },
    /// Queries come to a proven server: a predecessor is told so, and a successor may come.
    AnnounceProven,
    /// No successor may come any longer.
    StopOffering,
    /// The server is replaced, for this reason.
    CountRestart(Cause),
    /// Take down what was set up on the node.
    Teardown,
    /// End, with this status.
    Exit(u8),
}
