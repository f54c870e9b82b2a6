//! Sends test queries, as any program on the host's network does.

use crate::chain::Transport;
use crate::doctor::findings::QueryReply;
use crate::message::{Name, Query, Rcode, RecordType};
use crate::net::dns_client::DnsClient;
use crate::plan::probe::{ProbePath, question, read_answer};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

/// For all of an exchange.
const PATIENCE: Duration = Duration::from_secs(2);

/// After which a datagram is sent again: one may be lost without anything being wrong.
const RESEND: Duration = Duration::from_millis(600);

/// Asks `server` for the addresses of `name`, or for what only a server of ours knows. Packets carry `mark`, for which
/// NET_ADMIN is needed.
pub(super) async fn ask(
    server: SocketAddr,
    transport: Transport,
    name: Option<&Name>,
    mark: Option<u32>,
) -> QueryReply {
    let id = fastrand::u16(..);
    let wire = match name {
        Some(name) => Query::compose(id, name.as_wire(), RecordType::A, true),
        None => question(id, ProbePath::Fast),
    };
    let client = DnsClient { mark, resets: true, ..DnsClient::new(server) };
    let exchange = async {
        match transport {
            Transport::Udp => client.query_udp(&wire, Some(RESEND)).await,
            Transport::Tcp => client.query_tcp(&wire).await,
        }
    };
    match timeout(PATIENCE, exchange).await {
        Err(_) => QueryReply::Silent,
        Ok(Ok(answer)) => match read_answer(id, ProbePath::Fast, &answer) {
            Some(number) if name.is_none() => QueryReply::Ours(number),
            // The fourth octet's lower half (RFC 1035 section 4.1.1).
            _ => QueryReply::Other(Rcode((answer.get(3).copied().unwrap_or_default() & 0x0f).into())),
        },
        Ok(Err(error)) => match error.kind() {
            io::ErrorKind::ConnectionRefused => QueryReply::Refused,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut => {
                QueryReply::Silent
            }
            io::ErrorKind::PermissionDenied if mark.is_some() => {
                QueryReply::Failed("a packet mark needs NET_ADMIN".to_owned())
            }
            _ => QueryReply::Failed(error.to_string()),
        },
    }
}
