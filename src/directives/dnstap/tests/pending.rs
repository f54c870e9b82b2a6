//! Readers that are none yet, or no longer: what they cost, and whom they keep out.

use super::super::queue::Queue;
use super::super::shared::{Address, EndpointConfig, Mode, Shared};
use super::super::writer::Writer;
use super::readers::process;
use crate::chain::{Ending, ProcessContext};
use crate::net::HostLookup;
use std::cell::Cell;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// An endpoint without a thread.
fn shared(address: SocketAddr, mode: Mode) -> Shared {
    let ProcessContext { registry, files, unix_sockets, .. } = process();
    let address = Address::Tcp { host: address.ip().to_string(), port: address.port() };
    Shared {
        queue: Queue::new(1000, 1, true, registry.counter("dropped", "Dropped.", &[])),
        config: EndpointConfig { text: "tcp://reader".to_owned(), address, mode, queue: 1 },
        lookup: HostLookup { resolvers: Vec::new(), files },
        unix_sockets,
        unix_threads: Arc::default(),
        sent: registry.counter("sent", "Sent.", &[]),
        readers: registry.gauge("readers", "Readers.", &[]),
        ending: Ending::default(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_accepts_and_closes_is_tried_ever_more_seldom_and_told_of_once() {
    let log: Arc<parking_lot::Mutex<Vec<u8>>> = Arc::default();
    let into = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || LogWriter(into.clone())).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mode = Mode::Connect { tls: None, buffer_octets: 1 << 20 };
    let shared = shared(listener.local_addr().unwrap(), mode);
    let tries = Cell::new(0);
    let refuse = async {
        loop {
            drop(listener.accept().await.unwrap());
            tries.set(tries.get() + 1);
        }
    };
    let minute = async {
        tokio::select! { () = Writer::new(&shared).run() => {}, () = refuse => {} }
    };
    assert!(timeout(Duration::from_secs(60), minute).await.is_err(), "neither ends");
    // Pauses of 0.1, 0.2, ... 6.4 s are 12.7 s; then one of 10 s after another.
    assert!((3..=13).contains(&tries.get()), "{}", tries.get());
    let log = String::from_utf8(log.lock().clone()).unwrap();
    assert_eq!((log.matches("it is tried again").count(), log.matches("a reader again").count()), (1, 0), "{log}");
}

struct LogWriter(Arc<parking_lot::Mutex<Vec<u8>>>);

impl Write for LogWriter {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(octets)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
