//! Identical questions in flight.

use super::scripted::{Act, Upstream};
use super::*;
use futures_util::future::join_all;

async fn slow_upstream() -> Upstream {
    Upstream::start(|seen| Act::Later(Duration::from_millis(60), seen.answer(1))).await
}

#[tokio::test]
async fn identical_questions_in_flight_are_asked_once_by_udp_and_tcp_clients_alike() {
    let upstream = slow_upstream().await;
    let running = Running::new(&[upstream.address], Options::default());
    let requests: Vec<_> = (0..20)
        .map(|index| {
            request(
                if index % 2 == 0 { "A.example." } else { "a.EXAMPLE." },
                if index % 3 == 0 { Transport::Tcp } else { Transport::Udp },
            )
        })
        .collect();
    for response in join_all(requests.iter().map(|request| running.answer(request))).await {
        assert_eq!(address_in(&response), [192, 0, 2, 1]);
    }
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!(running.metric("nodelocaldns_forward_shared_total"), 19.0);
}

#[tokio::test]
async fn questions_asked_one_after_another_are_each_asked() {
    let upstream = Upstream::start(|seen| Act::Send(seen.answer(1))).await;
    let running = Running::new(&[upstream.address], Options::default());
    for _ in 0..3 {
        running.answer(&request("a.example.", Transport::Udp)).await;
    }
    assert_eq!(upstream.seen().len(), 3);
}

#[tokio::test]
async fn questions_that_differ_in_type_flags_or_edns_are_asked_apart() {
    let upstream = slow_upstream().await;
    let running = Running::new(&[upstream.address], Options::default());
    let plain = request("a.example.", Transport::Udp).wire.to_vec();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut wire = plain.clone();
        change(&mut wire);
        request_from(&wire, Transport::Udp)
    };
    let with_opt = |wire: &mut Vec<u8>, flags: u8, options: &[u8]| {
        wire[11] = 1;
        wire.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, flags, 0, 0, u8::try_from(options.len()).unwrap()]);
        wire.extend_from_slice(options);
    };
    let type_at = plain.len() - 3;
    let requests = [
        changed(&|_| {}),
        changed(&|wire| wire[2] &= !0x01),
        changed(&|wire| wire[3] |= 0x10),
        changed(&|wire| wire[3] |= 0x20),
        changed(&|wire| wire[type_at] = 28),
        changed(&|wire| wire[type_at + 2] = 3),
        changed(&|wire| with_opt(wire, 0, &[])),
        changed(&|wire| with_opt(wire, 0x80, &[])),
        changed(&|wire| with_opt(wire, 0, &[0, 8, 0, 4, 0, 1, 0, 0])),
    ];
    join_all(requests.iter().map(|request| running.answer(request))).await;
    assert_eq!(upstream.seen().len(), requests.len());
}

#[tokio::test]
async fn cookies_which_do_not_go_upstream_do_not_part_questions() {
    let upstream = slow_upstream().await;
    let running = Running::new(&[upstream.address], Options::default());
    let requests = [1_u8, 2].map(|cookie| {
        let mut wire = request("a.example.", Transport::Udp).wire.to_vec();
        wire[11] = 1;
        wire.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 12, 0, 10, 0, 8, cookie, 2, 3, 4, 5, 6, 7, 8]);
        request_from(&wire, Transport::Udp)
    });
    join_all(requests.iter().map(|request| running.answer(request))).await;
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_tcp_client_asks_again_itself_when_the_shared_answer_is_truncated() {
    let upstream = Upstream::start(|seen| match seen.transport {
        Transport::Udp => Act::Later(Duration::from_millis(60), seen.truncated()),
        Transport::Tcp => Act::Send(seen.answer(1)),
    })
    .await;
    let running = Running::new(&[upstream.address], Options::default());
    let (by_udp, by_tcp) = (request("a.example.", Transport::Udp), request("a.example.", Transport::Tcp));
    let (cut, whole) = tokio::join!(running.answer(&by_udp), running.answer(&by_tcp));
    assert!(cut.is_truncated() && !whole.is_truncated());
    assert_eq!(address_in(&whole), [192, 0, 2, 1]);
    assert_eq!((upstream.count(Transport::Udp), upstream.count(Transport::Tcp)), (1, 1));
}

#[tokio::test]
async fn a_waiter_asks_itself_when_the_leader_is_dropped() {
    let upstream = slow_upstream().await;
    let running = Running::new(&[upstream.address], Options::default());
    let (first, second) = (request("a.example.", Transport::Udp), request("a.example.", Transport::Udp));
    let waiting = async {
        // After the leader below, which is polled first.
        running.answer(&second).await
    };
    let leading = tokio::time::timeout(Duration::from_millis(20), running.answer(&first));
    let (dropped, answered) = tokio::join!(leading, waiting);
    assert!(dropped.is_err());
    assert_eq!(address_in(&answered), [192, 0, 2, 1]);
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn a_failure_is_shared_too() {
    let upstream = Upstream::start(|_| Act::Silent).await;
    let running = Running::new(&[upstream.address], Options { max_connect_attempts: 1, ..quick() });
    let (first, second) = (request("a.example.", Transport::Udp), request("a.example.", Transport::Udp));
    let (one, other) = tokio::join!(running.ask(&first), running.ask(&second));
    let (one, other): (Failure, Failure) = (one.unwrap_err(), other.unwrap_err());
    assert_eq!(one.cause, other.cause);
    assert_eq!(upstream.seen().iter().filter(|seen| seen.wire[12] != 0).count(), 3, "one exchange of three datagrams");
}

#[test]
fn workers_share_a_flight() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let control = runtime();
    let upstream = control.block_on(slow_upstream());
    let running = Arc::new(Running::new(&[upstream.address], Options::default()));
    let workers: Vec<_> = (1..=2)
        .map(|lane| {
            let running = running.clone();
            std::thread::spawn(move || {
                crate::metrics::enter_lane(lane);
                runtime().block_on(async { address_in(&running.answer(&request("a.example.", Transport::Udp)).await) })
            })
        })
        .collect();
    control.block_on(async {
        while workers.iter().any(|worker| !worker.is_finished()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    for worker in workers {
        assert_eq!(worker.join().unwrap(), [192, 0, 2, 1]);
    }
    assert_eq!(upstream.seen().len(), 1);
}
