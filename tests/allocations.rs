//! A cache hit allocates nothing: the stock node-local Corefile in this process, with an allocator that counts.

#![allow(unsafe_code, reason = "an allocator of its own counts")]

mod support;

use nodelocaldns::chain::{BatchClock, Loaders, Peer, ProcessContext, Received, Transport};
use nodelocaldns::corefile::{self, SystemLoader};
use nodelocaldns::directives::bind::SystemInterfaces;
use nodelocaldns::metrics::Registry;
use nodelocaldns::plan::{Dispatch, Listener, PacketCache, Plan, configure};
use nodelocaldns::server::{Limits, Server, Sockets};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;
use support::client::{PATIENCE, loopback, query};
use support::ports::free_port;
use support::upstream::{Reply, Rule, Upstream};

/// Counts what threads named as the server's workers are allocate.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

impl Counting {
    fn count() {
        // The kernel's name of the thread (PR_GET_NAME): asking the standard library for it could allocate.
        let mut name = [0_u8; 16];
        // SAFETY: the kernel writes at most 16 octets (prctl(2)).
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        if name.starts_with(b"worker-") {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: as our caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: as our caller promises.
        unsafe { System.realloc(old, layout, size) }
    }
    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations workers have made meanwhile.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    work();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// What is kept: each kind of answer that a pod's search path brings, and the longest-lived that the stock Corefile
/// keeps.
const KEPT: [(&str, &str); 4] = [
    ("web.shop.svc.cluster.local.", "A"),
    ("web.shop.svc.cluster.local.", "AAAA"),
    ("example.org.shop.svc.cluster.local.", "A"),
    ("example.org.", "A"),
];

/// TTLs are far above the test's time even where the stock Corefile caps them (5 s for denials, hence `denial 9984
/// 3600` below).
fn upstream() -> Upstream {
    let rule =
        |name: &str, rtype: &str, reply| Rule { name: name.to_owned(), rtype: rtype.to_owned(), via: None, reply };
    let answer = |records: &[&str]| records.iter().map(|record| (*record).to_owned()).collect();
    let authority: Vec<String> =
        answer(&["cluster.local. 3600 IN SOA ns.dns.cluster.local. host.cluster.local. 1 7200 900 1209600 3600"]);
    let denial =
        |rcode: &str| Reply { rcode: Some(rcode.to_owned()), authority: authority.clone(), ..Reply::default() };
    let records = |records: &[&str]| Reply { answer: answer(records), ..Reply::default() };
    Upstream::start(
        vec![
            rule(KEPT[0].0, "A", records(&["web.shop.svc.cluster.local. 3600 IN A 10.96.7.7"])),
            rule(KEPT[1].0, "AAAA", denial("NOERROR")),
            rule(KEPT[2].0, "A", denial("NXDOMAIN")),
            rule(KEPT[3].0, "A", records(&["example.org. 3600 IN A 192.0.2.1", "example.org. 3600 IN A 192.0.2.2"])),
        ],
        None,
    )
}

/// The plan of the stock Corefile on loopback ports, and its registry. Nothing of it is bound yet.
fn plan(upstream: &Upstream) -> (Plan, ProcessContext) {
    let upstream = loopback(upstream.port).to_string();
    let replacements = [
        (":53 {", format!(":{} {{", free_port())),
        ("169.254.20.10 10.96.0.10", "127.0.0.1".to_owned()),
        ("10.96.0.11", upstream.clone()),
        ("/etc/resolv.conf", upstream),
        (":9253", format!("127.0.0.1:{}", free_port())),
        ("169.254.20.10:8080", format!("127.0.0.1:{}", free_port())),
        ("cache 30", "cache 3600".to_owned()),
        ("success 9984 30", "success 9984 3600".to_owned()),
        ("denial 9984 5", "denial 9984 3600".to_owned()),
    ];
    let stock = include_str!("../config/Corefile.node-local");
    let text = replacements.iter().fold(stock.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the stock Corefile has no {from:?}");
        text.replace(from, to)
    });
    let (tree, diagnostics) = corefile::parse(Path::new("Corefile"), &text, &SystemLoader);
    assert_eq!(diagnostics.render(&tree.sources), "");
    let (config, diagnostics) = configure(&tree, 53, Loaders { files: &SystemLoader, interfaces: &SystemInterfaces });
    assert_eq!(diagnostics.render(&tree.sources), "");
    let services = ProcessContext::new(1, 64 << 20);
    (config.build(&services).expect("the stock Corefile is built"), services)
}

/// The queries for what is kept, on the wire, with and without EDNS.
fn queries() -> Vec<Vec<u8>> {
    let plain = KEPT.iter().map(|(name, rtype)| query(name, rtype).to_vec().expect("a query encodes"));
    plain
        .flat_map(|plain| {
            let mut with_edns = plain.clone();
            with_edns[11] = 1;
            with_edns.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
            [plain, with_edns]
        })
        .collect()
}

/// The stock Corefile's plan with everything kept, and nothing bound yet.
struct Scene {
    upstream: Upstream,
    plan: Plan,
    queries: Vec<Vec<u8>>,
    runtime: tokio::runtime::Runtime,
    _services: ProcessContext,
    /// One test after another, since the workers of all count: nextest gives each a process, cargo test does not.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Scene {
    fn new() -> Self {
        // A test that failed has left nothing half done here.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let upstream = upstream();
        let (plan, services) = plan(&upstream);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("control").enable_all().build();
        let runtime = runtime.expect("a runtime");
        let queries = queries();
        let listener = &plan.listeners[0];
        for query in &queries {
            let mut out = Vec::new();
            let (peer, clock) = (peer(listener, Transport::Udp), BatchClock::start(Instant::now()));
            let received = Received { wire: query, peer: &peer, clock: &clock };
            if let Dispatch::Pending(pending) = listener.dispatch(received, &mut PacketCache::default(), &mut out) {
                runtime.block_on(pending.run(&mut out));
            }
            assert!(out.len() > 12, "{query:?} is answered");
        }
        upstream.take_seen();
        Self { upstream, plan, queries, runtime, _services: services, _turn: turn }
    }

    /// Serves the plan with one worker; what is at its address.
    fn serve(&self) -> (Server, SocketAddr) {
        let registry = Registry::new(2);
        let mut server = Server::start(1, Limits::default(), Arc::default(), self.runtime.handle().clone(), &registry)
            .expect("the server starts");
        let addresses = self.plan.listeners.iter().map(|listener| listener.address);
        let sockets = Sockets::bind(&addresses.collect(), 1, &Sockets::default()).expect("the ports are free");
        server.apply(&self.plan.listeners, &[], sockets).expect("the plan is applied");
        (server, self.plan.listeners[0].address)
    }

    /// Calls `ask` until buffers have their size, then counts what a thousand of each query allocate.
    fn assert_hits_allocate_nothing(&self, mut ask: impl FnMut(&[u8])) {
        let mut ask_all = |rounds: usize| (0..rounds).for_each(|_| self.queries.iter().for_each(|query| ask(query)));
        ask_all(100);
        // What the runtime makes once, such as the list of tasks that let others go first, comes in one of these at
        // most; what a hit allocates comes in each.
        let counted = [(); 3].map(|()| allocations(|| ask_all(400)));
        assert!(counted.contains(&0), "allocations by {} hits each: {counted:?}", 400 * self.queries.len());
        // What comes out of the cache is told by what the upstream has not seen.
        let seen = self.upstream.take_seen();
        let ours: Vec<_> = seen.iter().filter(|(query, _)| KEPT.iter().any(|(name, _)| query.contains(name))).collect();
        assert!(ours.is_empty(), "not every query was a hit; the upstream saw {ours:?}");
    }
}

fn peer(listener: &Listener, transport: Transport) -> Peer {
    Peer { client: loopback(9), local: listener.address, transport }
}

#[test]
fn dispatching_a_hit_allocates_nothing() {
    let scene = Scene::new();
    let listener = scene.plan.listeners[0].clone();
    for transport in [Transport::Udp, Transport::Tcp] {
        let peer = peer(&listener, transport);
        let (mut out, mut packets) = (Vec::with_capacity(512), PacketCache::default());
        let work = || {
            scene.assert_hits_allocate_nothing(|query| {
                out.clear();
                let clock = BatchClock::start(Instant::now());
                let received = Received { wire: query, peer: &peer, clock: &clock };
                match listener.dispatch(received, &mut packets, &mut out) {
                    Dispatch::Reply => {}
                    Dispatch::PacketHit(hit) => listener.count(hit, received, &packets, &out),
                    _ => panic!("not a hit"),
                }
            });
        };
        // On a thread that counts.
        thread::scope(|scope| {
            let worker = thread::Builder::new().name("worker-test".to_owned()).spawn_scoped(scope, work);
            worker.expect("a thread starts").join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }
}

#[test]
fn a_hit_over_udp_allocates_nothing_from_datagram_to_reply() {
    let scene = Scene::new();
    let (server, address) = scene.serve();
    let socket = UdpSocket::bind(loopback(0)).expect("a socket");
    socket.connect(address).expect("a loopback address");
    socket.set_read_timeout(Some(PATIENCE)).expect("a positive time");
    let mut reply = [0; 1500];
    scene.assert_hits_allocate_nothing(|query| {
        // Eight at a time: several in a batch.
        for _ in 0..8 {
            socket.send(query).expect("the server's socket is there");
        }
        for _ in 0..8 {
            let length = socket.recv(&mut reply).expect("an answer");
            assert_eq!(reply[..2], query[..2], "the answer of {length} octets has the query's ID");
        }
    });
    assert_eq!(scene.runtime.block_on(server.drain(PATIENCE)), 0);
}

#[test]
fn a_hit_over_tcp_allocates_nothing_from_segment_to_reply() {
    let scene = Scene::new();
    let (server, address) = scene.serve();
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
    stream.set_nodelay(true).expect("a TCP socket");
    let (mut framed, mut reply) = (Vec::new(), [0; 1500]);
    scene.assert_hits_allocate_nothing(|query| {
        framed.clear();
        framed.extend_from_slice(&(query.len() as u16).to_be_bytes());
        framed.extend_from_slice(query);
        stream.write_all(&framed).expect("the connection stands");
        stream.read_exact(&mut reply[..2]).expect("a length");
        let length = usize::from(u16::from_be_bytes([reply[0], reply[1]]));
        stream.read_exact(&mut reply[..length]).expect("an answer");
        assert_eq!(reply[..2], query[..2], "the answer has the query's ID");
    });
    drop(stream);
    assert_eq!(scene.runtime.block_on(server.drain(PATIENCE)), 0);
}
