//! The watchdog's intervals and deadlines.

use std::time::Duration;

/// How long and how often. The defaults keep the gap of a hanging server under 700 ms: 400 ms until it is known, 70 ms
/// until another one answers or the interception is withdrawn, which costs less than 100 ms with either kind of rules.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between the end of a probe and the next one while the server is to prove itself.
    pub prove_interval: Duration,
    /// The longest that this becomes, doubled each time, where somebody else answers or nobody ever did.
    pub longest_prove_interval: Duration,
    /// A probe that was in vain is repeated when the node has changed, but no sooner than this after it.
    pub change_interval: Duration,
    /// Between probes over UDP of a server that has proved itself.
    pub watch_udp_interval: Duration,
    /// The same over TCP, where each costs a connection.
    pub watch_tcp_interval: Duration,
    /// A probe without an answer for this long has all addresses probed at the UDP interval, over TCP too: that shows
    /// whether the whole server hangs.
    pub suspicion: Duration,
    /// The server hangs when no probe has been answered for this long.
    pub silence_of_all: Duration,
    /// A question over UDP to an intercepted address without an answer for this long, while the server answers others,
    /// costs the address its interception. Long enough for a worker that others keep from its processor: what is
    /// withdrawn comes back after a second at the earliest, and cuts connections twice. Not while packets are dropped
    /// from full queues: cluster DNS is not to have the flood too.
    pub silence_while_others_answer: Duration,
    /// The server answers others while the last answer was so long ago at most. When one is suspect, each is asked
    /// every [`Timing::watch_udp_interval`].
    pub others_answer_within: Duration,
    /// A part of the server hangs when one address that has answered before is silent for this long; it is no longer
    /// intercepted then at the latest. Longer than `silence_of_all`: a flood drops single probes from a full receive
    /// buffer, and a restart, which loses the cache, would make that worse.
    pub silence_of_one: Duration,
    /// The thread of clients within TLS and HTTPS hangs when it has had no turn for this long. Longer than
    /// `silence_of_one`: a flood of handshakes takes it seconds for a turn where a signature
    /// takes tens of milliseconds.
    pub silence_of_streams: Duration,
    /// Answers from each address and transport that prove a server at the first start.
    pub first_proofs: u32,
    /// The same after the interception had to be withdrawn.
    pub later_proofs: u32,
    /// How long the interception outlasts a server that is gone; queries wait in the sockets for the next one
    /// meanwhile.
    pub restart_grace: Duration,
    /// The first restart comes at once; the second after this, each later one after twice as long.
    pub first_delay: Duration,
    /// The longest that this becomes.
    pub longest_delay: Duration,
    /// After serving for this long the next restart comes at once again.
    pub healthy_time: Duration,
    /// How long a server may take to report that it serves.
    pub start_limit: Duration,
    /// How long the end waits for the rules to be withdrawn.
    pub withdraw_limit: Duration,
    /// How long the end waits for everything to be taken down.
    pub teardown_limit: Duration,
    /// Woken later than this the watchdog itself was held up (SIGSTOP, a frozen cgroup), and nobody is blamed for that
    /// time.
    pub own_stall: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            prove_interval: Duration::from_millis(20),
            longest_prove_interval: Duration::from_secs(10),
            change_interval: Duration::from_secs(1),
            watch_udp_interval: Duration::from_millis(100),
            watch_tcp_interval: Duration::from_millis(500),
            suspicion: Duration::from_millis(50),
            silence_of_all: Duration::from_millis(400),
            silence_while_others_answer: Duration::from_millis(800),
            others_answer_within: Duration::from_millis(150),
            silence_of_one: Duration::from_secs(2),
            silence_of_streams: Duration::from_secs(15),
            first_proofs: 3,
            later_proofs: 50,
            restart_grace: Duration::from_millis(70),
            first_delay: Duration::from_millis(10),
            longest_delay: Duration::from_secs(5),
            healthy_time: Duration::from_secs(60),
            start_limit: Duration::from_secs(30),
            withdraw_limit: Duration::from_secs(2),
            teardown_limit: Duration::from_secs(5),
            own_stall: Duration::from_millis(100),
        }
    }
}
