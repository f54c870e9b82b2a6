//! The pure path of a hit, in this process: read the query, find its block, get the answer, write the reply, count it.
//! No sockets, so that its instructions can be counted.

use crate::corefiles::corefile;
use crate::hits::{HITS, Kind};
use crate::peers::{Place, Service};
use crate::upstream;
use anyhow::{Context, Result, ensure};
use nodelocaldns::chain::{BatchClock, Loaders, Peer, ProcessContext, Received, Transport};
use nodelocaldns::corefile::SystemLoader;
use nodelocaldns::directives::bind::SystemInterfaces;
use nodelocaldns::plan::{Dispatch, Listener, PacketCache, configure};
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The function whose instructions count.
pub const COUNTED: &str = "hits_of_the_cache";

const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 53, 0, 3), 5300);
const UPSTREAM: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 53, 0, 2), 5300);
/// Fills the cache of the stock node-local Corefile, then hits it [`HITS`] times in [`hits_of_the_cache`].
pub fn run(kind: Kind) -> Result<()> {
    std::thread::spawn(|| upstream::serve(UPSTREAM.into()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let nowhere = Path::new("");
    let place = Place {
        address: ADDRESS,
        upstream: UPSTREAM,
        certificate: nowhere,
        folder: nowhere,
        ours: nowhere,
        node_cache: None,
        workers: 1,
    };
    let stock = corefile(Service::NodeLocal, &place);
    let text = stock.replace(" {\n    errors\n", &format!(" {{\n{}\n    errors\n", kind.directive()));
    ensure!(text != stock, "the stock Corefile's blocks do not begin with `errors`");
    let (tree, diagnostics) = nodelocaldns::corefile::parse(Path::new("Corefile"), &text, &SystemLoader);
    ensure!(!diagnostics.has_errors(), "{}", diagnostics.render(&tree.sources));
    let (config, diagnostics) = configure(&tree, 53, Loaders { files: &SystemLoader, interfaces: &SystemInterfaces });
    ensure!(!diagnostics.has_errors(), "{}", diagnostics.render(&tree.sources));
    let services = ProcessContext::new(1, 64 << 20);
    let plan = config.build(&services).context("cannot build the stock Corefile")?;
    let listener = plan.listeners.first().context("the stock Corefile listens nowhere")?;
    let peer =
        Peer { client: (Ipv4Addr::new(127, 53, 0, 4), 1053).into(), local: ADDRESS.into(), transport: Transport::Udp };
    nodelocaldns::metrics::enter_worker_slot(1);

    // A name for each hit. But a packet could share its slot with another, as the hash's seed has it.
    let names = if kind.is_packet_hit() { 1 } else { HITS as usize };
    let queries: Vec<Vec<u8>> = (0..names).map(|number| kind.query(number)).collect();
    let mut out = Vec::with_capacity(512);
    // Everything is received at one time, so that no TTL is another halfway. It is still to come: so no time has passed
    // since it was received, and it falls into the same bucket of the histogram, however slow valgrind makes all of it.
    let clock = BatchClock::start(Instant::now() + Duration::from_secs(60));
    let mut packets = PacketCache::default();
    // The popular name is forwarded at first, noted then, cached as a packet at last; each of the others is asked for
    // once more, too seldom for that.
    let times = if kind.is_packet_hit() { 3 } else { 1 };
    for query in queries.iter().cycle().take(times * queries.len()) {
        out.clear();
        let received = Received { wire: query, peer: &peer, clock: &clock };
        if let Dispatch::Pending(pending) = listener.dispatch(received, &mut packets, &mut out) {
            runtime.block_on(pending.run(&mut out));
        }
        let expected = kind.expected(query);
        ensure!(crate::message::is_right(query, &out, expected), "{kind:?} is not rightly answered: {out:?}");
    }
    // What is answered without the answer cache was noted when it was asked for first, and would be a packet now.
    if !kind.is_packet_hit() {
        packets = PacketCache::default();
    }
    let replies = hits_of_the_cache(listener, &queries, &peer, &clock, &mut packets, &mut out);
    ensure!(replies == HITS, "{replies} of {HITS} were hits");
    Ok(())
}

/// The counted part. Its name is what valgrind is told.
#[allow(unsafe_code, reason = "no other function has this name")]
#[unsafe(no_mangle)]
#[inline(never)]
fn hits_of_the_cache(
    listener: &Arc<Listener>,
    queries: &[Vec<u8>],
    peer: &Peer,
    clock: &BatchClock,
    packets: &mut PacketCache,
    out: &mut Vec<u8>,
) -> u64 {
    let mut replies = 0;
    for query in queries.iter().cycle().take(HITS as usize) {
        out.clear();
        let received = Received { wire: black_box(query), peer, clock };
        match listener.dispatch(received, packets, out) {
            Dispatch::Reply => replies += 1,
            Dispatch::PacketHit(hit) => {
                listener.count(hit, received, packets, black_box(out));
                replies += 1;
            }
            _ => {}
        }
        black_box(&out);
    }
    replies
}
