//! What the expressions of a view may ask of a query (CoreDNS plugin/pkg/expression).

use crate::chain::{BlockMetadata, Peer, Transport};
use crate::expression::{Environment, EvaluationError, Function, Prepared, Type, Value};
use crate::message::{Class, Query};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// What a function tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    BufferSize,
    Class,
    ClientAddress,
    DnssecOk,
    Id,
    IsInNetwork,
    Metadata,
    Name,
    Opcode,
    ClientPort,
    Protocol,
    ServerAddress,
    ServerPort,
    Size,
    RecordType,
}

/// By place in [`FUNCTIONS`].
const ASKS: [Asks; 15] = [
    Asks::BufferSize,
    Asks::Class,
    Asks::ClientAddress,
    Asks::DnssecOk,
    Asks::Id,
    Asks::IsInNetwork,
    Asks::Metadata,
    Asks::Name,
    Asks::Opcode,
    Asks::ClientPort,
    Asks::Protocol,
    Asks::ServerAddress,
    Asks::ServerPort,
    Asks::Size,
    Asks::RecordType,
];

const fn plain(name: &'static str, returns: Type) -> Function {
    Function { name, parameters: &[], returns, prepare: None }
}

/// The reference's functions.
pub(super) const FUNCTIONS: &[Function; ASKS.len()] = &[
    plain("bufsize", Type::Int),
    plain("class", Type::Text),
    plain("client_ip", Type::Text),
    plain("do", Type::Bool),
    plain("id", Type::Int),
    Function {
        name: "incidr",
        parameters: &[Type::Text, Type::Text],
        returns: Type::Bool,
        prepare: Some(prepare_network),
    },
    Function { name: "metadata", parameters: &[Type::Text], returns: Type::Text, prepare: None },
    plain("name", Type::Text),
    plain("opcode", Type::Int),
    plain("port", Type::Text),
    plain("proto", Type::Text),
    plain("server_ip", Type::Text),
    plain("server_port", Type::Text),
    plain("size", Type::Int),
    plain("type", Type::Text),
];

/// Whether a function's value is another for the same octets (after the ID) that come over the same transport to the
/// same listener: that is all that the packet cache knows of a query. A listener on all addresses of the machine has
/// many of its own.
pub(super) fn depends_on_client(function: usize) -> bool {
    matches!(ASKS.get(function), Some(Asks::ClientAddress | Asks::ClientPort | Asks::Id | Asks::ServerAddress))
}

/// A query, and what is known beside it.
pub(super) struct Asked<'q> {
    pub query: &'q Query,
    pub wire: &'q [u8],
    pub peer: &'q Peer,
    pub metadata: &'q BlockMetadata,
}

impl Environment for Asked<'_> {
    fn call<'v>(
        &'v self,
        function: usize,
        prepared: Option<&Prepared>,
        arguments: &[Value<'v>],
    ) -> Result<Value<'v>, EvaluationError> {
        let Self { query, wire, peer, metadata } = self;
        let address = |address: IpAddr| Value::text(address.to_canonical().to_string());
        let unknown = || EvaluationError::Value("a function that there is not".to_owned());
        Ok(match ASKS.get(function).ok_or_else(unknown)? {
            // Of TCP the reference says as much as a message may have.
            Asks::BufferSize if peer.transport == Transport::Tcp => Value::Int(u16::MAX.into()),
            Asks::BufferSize => Value::Int(query.udp_limit().into()),
            // A mnemonic that a type has as well is left to the type.
            Asks::Class if query.qclass == Class::ANY => Value::text("CLASS255"),
            Asks::Class => Value::text(query.qclass.to_string()),
            Asks::ClientAddress => address(peer.client.ip()),
            Asks::DnssecOk => Value::Bool(query.dnssec_ok()),
            Asks::Id => Value::Int(query.header.id.into()),
            Asks::IsInNetwork => return is_in_network(prepared, arguments).map(Value::Bool),
            Asks::Metadata => match arguments {
                [Value::Text(label)] => Value::text(metadata.get(label, &query.name).unwrap_or_default()),
                _ => return Err(wrong_argument("metadata", arguments)),
            },
            Asks::Name => Value::text(query.name.text().as_str().to_owned()),
            Asks::Opcode => Value::Int(query.header.opcode().into()),
            Asks::ClientPort => Value::text(peer.client.port().to_string()),
            Asks::Protocol => Value::text(peer.transport.label()),
            Asks::ServerAddress => address(peer.local.ip()),
            Asks::ServerPort => Value::text(peer.local.port().to_string()),
            Asks::Size => Value::Int(i64::try_from(wire.len()).unwrap_or(i64::MAX)),
            Asks::RecordType => Value::text(query.qtype.to_string()),
        })
    }
}

fn wrong_argument(operation: &'static str, arguments: &[Value<'_>]) -> EvaluationError {
    let found = if arguments.iter().any(|argument| matches!(argument, Value::Text(_))) { "a value" } else { "no text" };
    EvaluationError::Type { operation, found }
}

/// Reads the network once, where it is written down, and looks at an address that is.
fn prepare_network(arguments: &[Option<&Value<'static>>]) -> Result<Option<Prepared>, String> {
    let constant = |index: usize| match arguments.get(index) {
        Some(Some(Value::Text(text))) => Some(&**text),
        _ => None,
    };
    if let Some(text) = constant(0) {
        read_address(text)?;
    }
    Ok(match constant(1) {
        Some(text) => Some(Arc::new(read_network(text)?)),
        None => None,
    })
}

fn is_in_network(prepared: Option<&Prepared>, arguments: &[Value<'_>]) -> Result<bool, EvaluationError> {
    let [Value::Text(address), Value::Text(network)] = arguments else {
        return Err(wrong_argument("incidr", arguments));
    };
    let address = read_address(address).map_err(EvaluationError::Value)?;
    let network = match prepared.and_then(|prepared| prepared.downcast_ref::<IpNet>()) {
        Some(network) => *network,
        None => read_network(network).map_err(EvaluationError::Value)?,
    };
    Ok(network.contains(&address))
}

fn read_address(text: &str) -> Result<IpAddr, String> {
    let read = text.parse::<IpAddr>();
    read.map(|address| address.to_canonical()).map_err(|_| format!("`{}` is no IP address", short(text)))
}

fn read_network(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| format!("`{}` is no network; write `10.0.0.0/8` or `2001:db8::/32`", short(text)))
}

/// As much of a text as a message needs.
fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::{ASKS, Asks, FUNCTIONS};

    #[test]
    fn every_function_is_answered_under_its_own_name() {
        let named = |asks: Asks| match asks {
            Asks::BufferSize => "bufsize",
            Asks::Class => "class",
            Asks::ClientAddress => "client_ip",
            Asks::DnssecOk => "do",
            Asks::Id => "id",
            Asks::IsInNetwork => "incidr",
            Asks::Metadata => "metadata",
            Asks::Name => "name",
            Asks::Opcode => "opcode",
            Asks::ClientPort => "port",
            Asks::Protocol => "proto",
            Asks::ServerAddress => "server_ip",
            Asks::ServerPort => "server_port",
            Asks::Size => "size",
            Asks::RecordType => "type",
        };
        assert_eq!(ASKS.map(named).as_slice(), FUNCTIONS.iter().map(|function| function.name).collect::<Vec<_>>());
    }
}
