//! Gets pages from the agent's own HTTP endpoints.

use crate::doctor::findings::HttpPage;
use crate::net::http_client;
use std::net::SocketAddr;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);
/// Octets of a page; the watchdog's metrics are a few thousand.
const LIMIT: usize = 4 << 20;

/// Status and text of `http://ADDRESS/PATH`.
pub(super) async fn fetch(address: SocketAddr, path: &str) -> HttpPage {
    match tokio::time::timeout(PATIENCE, http_client::get_text(address, path, LIMIT)).await {
        Ok(page) => page.map(|(status, text)| (status.as_u16(), text)).map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}
