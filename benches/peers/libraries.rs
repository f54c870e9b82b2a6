//! The cache that the libraries give: hickory-server takes queries apart and puts replies together, moka keeps the
//! answers. Against it stands what our own receiving, wire form and store are for.

use anyhow::{Context, Result};
use async_trait::async_trait;
use hickory_proto::op::{HeaderCounts, Message, Metadata, ResponseCode};
use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use moka::sync::Cache;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};

/// What an upstream may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long answers are kept: as long as the shortest-lived of the scripted upstream's, so that none is too old.
const TIME_TO_LIVE: Duration = Duration::from_secs(5);

/// Serves on `address`, with one thread, until killed.
pub fn serve(address: SocketAddr, upstream: SocketAddr, entries: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let answers = Cache::builder().max_capacity(entries).time_to_live(TIME_TO_LIVE).build();
        let mut server = Server::new(Forwarder { upstream, answers });
        server.register_socket(UdpSocket::bind(address).await?);
        server.register_listener(TcpListener::bind(address).await?, Duration::from_secs(120), 64);
        server.block_until_done().await.context("hickory-server has ended")
    })
}

struct Forwarder {
    upstream: SocketAddr,
    /// By the query's octets after its ID.
    answers: Cache<Vec<u8>, Arc<Message>>,
}

impl Forwarder {
    async fn answer(&self, query: &[u8]) -> Result<Arc<Message>> {
        let key = query.get(2..).unwrap_or_default();
        if let Some(known) = self.answers.get(key) {
            return Ok(known);
        }
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect(self.upstream).await?;
        socket.send(query).await?;
        let mut octets = [0; 4096];
        let count = tokio::time::timeout(PATIENCE, socket.recv(&mut octets)).await??;
        let answer = Arc::new(Message::read(&mut BinDecoder::new(octets.get(..count).unwrap_or_default()))?);
        self.answers.insert(key.to_vec(), answer.clone());
        Ok(answer)
    }
}

#[async_trait]
impl RequestHandler for Forwarder {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut handle: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let builder = MessageResponseBuilder::from_message_request(request);
        let none = || std::iter::empty::<&Record>();
        let sent = match self.answer(request.as_slice()).await {
            Ok(answer) => {
                metadata.response_code = answer.metadata.response_code;
                metadata.recursion_available = true;
                let reply = builder.build(metadata, &answer.answers, &answer.authorities, none(), &answer.additionals);
                handle.send_response(reply).await
            }
            Err(_) => {
                metadata.response_code = ResponseCode::ServFail;
                handle.send_response(builder.build(metadata, none(), none(), none(), none())).await
            }
        };
        sent.unwrap_or_else(|_| hickory_proto::op::Header { metadata, counts: HeaderCounts::default() }.into())
    }
}
