//! The messages between watchdog and server: one JSON document in each packet of a SOCK_SEQPACKET socket. Listening
//! sockets are passed beside them ([`super::channel`]). Pure.

use crate::chain::Level;
use crate::server::ListenAddresses;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Octets of the longest message. The kernel's default send buffer takes one of this length whole.
pub const MAX_MESSAGE: usize = 128 << 10;

/// Octets of texts in a message; the rest is cut.
const MAX_TEXT: usize = 16 << 10;

/// From the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "the variant says what its fields are")]
pub enum ServerReport {
    /// It needs DNS sockets for these addresses, as many UDP sockets for each as there are workers.
    Want { listen: ListenAddresses, workers: usize },
    /// It serves these, HTTP on sockets of its own, and nothing else; it takes at most so many milliseconds to end.
    Serving { listen: ListenAddresses, http: Vec<SocketAddr>, drain_ms: u64 },
    /// It sends queries to these: none of them may be made to come back to it.
    Upstreams { addresses: Vec<SocketAddr> },
    /// It will not take its configuration, and ends. What is wrong it has told its standard error.
    Failed { message: String },
    /// What its caches hold, in a file beside this packet ([`Instruction::ExportCache`], or its end by SIGTERM).
    Cache,
    /// The thread of its clients within TLS and HTTPS has had a turn.
    StreamsAlive,
    /// A user wants lines of this level logged, and those above; `None`: as it is configured.
    LogLevel { level: Option<Level> },
    /// Something it does for the node went wrong; counted in `coredns_nodecache_setup_errors_total` under this type.
    SetupError { errortype: String },
}

/// From the watchdog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "the variant says what its fields are")]
pub enum Instruction {
    /// The first thing said: what to answer probes with, and whether this is the first server of its watchdog. Beside
    /// it is a socket at which the configuration's files are to be had, one at which each process asks the other for
    /// its metrics, with `admin` the admin socket, then what a predecessor's caches held, if anything is.
    Hello { generation: u64, is_first: bool, admin: bool },
    /// What the rules last as long as is beside this packet: to be kept to the end, instead of one that came before.
    Hold,
    /// Sockets that were wanted, beside this packet; with `more` others follow.
    Sockets { more: bool },
    /// They could not be opened.
    Refused { errors: Vec<String> },
    /// Look at the configuration again.
    Reload,
    /// Queries for more of its addresses come to it now: its own to its upstreams may, too.
    Intercepted,
    /// Report what the caches hold.
    ExportCache,
    /// Whether a successor reads the sockets too, and is to have its share of what arrives though it may be second.
    Yield { is_on: bool },
    /// Log lines of this level, and those above, as the server before was told to.
    LogLevel { level: Level },
    /// Answer what has been received, and end. With `leave` another process reads the sockets on; else nobody does.
    Stop { leave: bool },
}

/// Why a packet is no message, or a message no packet.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says it")]
pub enum MessageError {
    #[error("a message of {0} octets is longer than the control socket takes ({MAX_MESSAGE}): serve fewer addresses")]
    TooLong(usize),
    #[error("not a message of the control socket: {0}; both processes must be of the same build")]
    Malformed(#[from] serde_json::Error),
}

/// The packet of a message. Texts are cut to a length that fits.
///
/// # Errors
/// [`MessageError::TooLong`] for a message with thousands of addresses.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, MessageError> {
    let octets = serde_json::to_vec(&message.shortened())?;
    if octets.len() > MAX_MESSAGE { Err(MessageError::TooLong(octets.len())) } else { Ok(octets) }
}

/// The message of a packet.
///
/// # Errors
/// [`MessageError::Malformed`] for anything else.
pub fn decode<M: Message>(packet: &[u8]) -> Result<M, MessageError> {
    Ok(serde_json::from_slice(packet)?)
}

/// [`ServerReport`] or [`Instruction`].
pub trait Message: Serialize + for<'de> Deserialize<'de> + Clone {
    /// The same with texts of a length that fits.
    fn shortened(&self) -> Self;
}

impl Message for ServerReport {
    fn shortened(&self) -> Self {
        let mut short = self.clone();
        if let Self::Failed { message: text } | Self::SetupError { errortype: text } = &mut short {
            cut(text, MAX_TEXT);
        }
        short
    }
}

impl Message for Instruction {
    fn shortened(&self) -> Self {
        let mut short = self.clone();
        if let Self::Refused { errors } = &mut short {
            let mut left = MAX_TEXT;
            errors.retain_mut(|error| {
                cut(error, left);
                left -= error.len();
                !error.is_empty()
            });
        }
        short
    }
}

fn cut(text: &mut String, octets: usize) {
    let boundary = (0..=octets.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(boundary.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::{
        Instruction, Level, ListenAddresses, MAX_MESSAGE, MAX_TEXT, Message, MessageError, ServerReport, decode, encode,
    };
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::fmt::Debug;
    use std::net::{IpAddr, SocketAddr, SocketAddrV6};

    fn address() -> impl Strategy<Value = SocketAddr> {
        let plain = (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port));
        let scoped = (any::<std::net::Ipv6Addr>(), any::<u16>(), any::<u32>())
            .prop_map(|(ip, port, scope)| SocketAddrV6::new(ip, port, 0, scope).into());
        prop_oneof![plain, scoped]
    }

    fn level() -> impl Strategy<Value = Level> {
        prop_oneof![Just(Level::Debug), Just(Level::Info), Just(Level::Warning), Just(Level::Error)]
    }

    fn report() -> impl Strategy<Value = ServerReport> {
        let addresses = || vec(address(), 0..40);
        let listen = || (addresses(), addresses()).prop_map(|(dns, streams)| ListenAddresses { dns, streams });
        prop_oneof![
            (listen(), any::<usize>()).prop_map(|(listen, workers)| ServerReport::Want { listen, workers }),
            (listen(), addresses(), any::<u64>()).prop_map(|(listen, http, drain_ms)| ServerReport::Serving {
                listen,
                http,
                drain_ms
            }),
            addresses().prop_map(|addresses| ServerReport::Upstreams { addresses }),
            ".{0,200}".prop_map(|message| ServerReport::Failed { message }),
            Just(ServerReport::Cache),
            Just(ServerReport::StreamsAlive),
            proptest::option::of(level()).prop_map(|level| ServerReport::LogLevel { level }),
            ".{0,200}".prop_map(|errortype| ServerReport::SetupError { errortype }),
        ]
    }

    fn instruction() -> impl Strategy<Value = Instruction> {
        prop_oneof![
            (any::<u64>(), any::<bool>(), any::<bool>()).prop_map(|(generation, is_first, admin)| Instruction::Hello {
                generation,
                is_first,
                admin
            }),
            Just(Instruction::Hold),
            any::<bool>().prop_map(|more| Instruction::Sockets { more }),
            vec(".{1,100}", 0..20).prop_map(|errors| Instruction::Refused { errors }),
            Just(Instruction::Reload),
            Just(Instruction::Intercepted),
            Just(Instruction::ExportCache),
            any::<bool>().prop_map(|is_on| Instruction::Yield { is_on }),
            level().prop_map(|level| Instruction::LogLevel { level }),
            any::<bool>().prop_map(|leave| Instruction::Stop { leave }),
        ]
    }

    fn comes_back<M: Message + PartialEq + Debug>(message: &M) {
        assert_eq!(&decode::<M>(&encode(message).unwrap()).unwrap(), message);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn a_message_comes_out_as_it_went_in(report in report(), instruction in instruction()) {
            comes_back(&report);
            comes_back(&instruction);
        }

        #[test]
        fn octets_that_are_no_message_are_refused_without_a_panic(
            octets in vec(any::<u8>(), 0..300),
            report in report(),
            at in any::<prop::sample::Index>(),
            octet in any::<u8>()
        ) {
            let _ = decode::<ServerReport>(&octets);
            let _ = decode::<Instruction>(&octets);
            let mut packet = encode(&report).unwrap();
            let end = packet.len();
            prop_assert!(decode::<ServerReport>(&packet[..at.index(end)]).is_err(), "cut short");
            packet[at.index(end)] = octet;
            let _ = decode::<ServerReport>(&packet);
        }
    }

    #[test]
    fn long_texts_are_cut_and_many_addresses_refused() {
        let long = "ü".repeat(MAX_TEXT);
        let ServerReport::Failed { message } =
            decode(&encode(&ServerReport::Failed { message: long.clone() }).unwrap()).unwrap()
        else {
            panic!("another message")
        };
        assert!(message.len() <= MAX_TEXT && long.starts_with(&message));
        let errors = vec![long.clone(), long];
        let Instruction::Refused { errors } = decode(&encode(&Instruction::Refused { errors }).unwrap()).unwrap()
        else {
            panic!("another message")
        };
        assert_eq!(errors.len(), 1);
        let listen = std::iter::repeat_n(([10, 0, 0, 1], 5353).into(), MAX_MESSAGE / 16).collect();
        let many = ServerReport::Want { listen, workers: 1 };
        assert!(matches!(encode(&many), Err(MessageError::TooLong(_))));
    }

    #[test]
    fn octets_after_a_message_and_unknown_fields_are_refused() {
        assert!(decode::<Instruction>(b"\"reload\"").is_ok());
        assert!(decode::<Instruction>(b"\"reload\" ~").is_err());
        assert!(decode::<Instruction>(br#"{"sockets":{"more":true,"less":false}}"#).is_err());
    }
}
