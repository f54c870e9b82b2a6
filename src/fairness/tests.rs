use super::*;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What has a place in these tests: a number, and since when it is idle.
type Guest = (usize, Option<u64>);

impl Occupant for Guest {
    const IDLES: bool = true;
    fn idle_since(&self) -> Option<u64> {
        self.1
    }
}

/// One that is never idle.
#[derive(Debug, PartialEq, Eq)]
struct Busy(usize);

impl Occupant for Busy {
    const IDLES: bool = false;
    fn idle_since(&self) -> Option<u64> {
        None
    }
}

fn v4(last: u8) -> Client {
    Fairness::default().client(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))
}

fn v6(network: u16, last: u16) -> Client {
    Fairness::default().client(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, last)))
}

/// Who gave way to `client`; `None` if nobody had to or it was refused.
fn evicted<P: Occupant>(places: &mut Places<P>, client: Client, occupant: P) -> Option<Client> {
    match places.admit(client, occupant, true) {
        Admission::Evicting(_, evicted) => Some(evicted.client),
        _ => None,
    }
}

#[test]
fn one_who_holds_less_takes_the_largest_holders_oldest_place_and_the_largest_is_refused() {
    let mut places = Places::new(6);
    for number in 0..4 {
        places.admit(v4(1), Busy(number), true);
    }
    places.admit(v4(2), Busy(4), true);
    places.admit(v4(2), Busy(5), true);
    assert_eq!(places.admit(v4(1), Busy(6), true), Admission::Full);
    let Admission::Evicting(_, evicted) = places.admit(v4(3), Busy(7), true) else { panic!("refused") };
    assert_eq!(evicted, Evicted { occupant: Busy(0), client: v4(1), held: 4 });
    let Admission::Evicting(_, evicted) = places.admit(v4(2), Busy(8), true) else { panic!("refused") };
    assert_eq!(evicted, Evicted { occupant: Busy(1), client: v4(1), held: 3 });
    assert_eq!(places.admit(v4(2), Busy(9), true), Admission::Full, "it has most itself");
    assert_eq!(places.len(), 6);
}

#[test]
fn many_addresses_of_a_64_are_one_client_and_among_themselves_the_largest_gives_way() {
    let mut places = Places::new(6);
    for last in 1..=4 {
        places.admit(v6(1, last), Busy(usize::from(last)), true);
    }
    places.admit(v6(1, 1), Busy(5), true);
    places.admit(v6(2, 1), Busy(6), true);
    assert_eq!(evicted(&mut places, v6(1, 2), Busy(7)), Some(v6(1, 1)), "within the /64");
    assert_eq!(evicted(&mut places, v6(2, 2), Busy(8)).map(|client| client.network), Some(v6(1, 1).network));
    assert_eq!(evicted(&mut places, v4(1), Busy(9)).map(|client| client.network), Some(v6(1, 1).network));
}

#[test]
fn with_fairness_off_whoever_comes_late_is_refused() {
    let mut places = Places::new(1);
    places.admit(v4(1), Busy(0), false);
    assert_eq!(places.admit(v4(2), Busy(1), false), Admission::Full);
}

#[test]
fn between_clients_that_hold_few_the_oldest_place_gives_way() {
    let mut places = Places::new(1000);
    for number in 0..1000_usize {
        let address = Ipv4Addr::from_bits(0x0a00_0000 + number as u32);
        places.admit(Fairness::default().client(address.into()), Busy(number), true);
    }
    for number in 0..2 {
        let Admission::Evicting(_, evicted) = places.admit(v4(1), Busy(2000), true) else { panic!("refused") };
        assert_eq!(evicted.occupant, Busy(number), "not those of the one that comes");
    }
    assert_eq!(places.admit(v4(1), Busy(2001), true), Admission::Full, "it has most now, and no longer few");
    let Admission::Evicting(_, evicted) = places.admit(v4(2), Busy(2002), true) else { panic!("refused") };
    assert_eq!(evicted.occupant, Busy(2));
}

#[test]
fn one_in_flight_outlasts_a_flood_from_an_eighth_as_many_addresses_as_places() {
    let mut places = Places::new(1000);
    let Admission::Granted(polite) = places.admit(v4(1), Busy(0), true) else { panic!("full") };
    for number in 0..10_000_u32 {
        let address = Ipv4Addr::from_bits(0x0a00_0000 + number % 200);
        places.admit(Fairness::default().client(address.into()), Busy(1), true);
    }
    assert_eq!(places.occupant(polite), Some(&mut Busy(0)));
}

#[test]
fn an_idle_connection_of_a_small_holder_outlasts_busy_ones_of_many() {
    let mut places = Places::new(1000);
    let Admission::Granted(polite) = places.admit(v4(1), (0, Some(1)), true) else { panic!("full") };
    for number in 0..10_000_u32 {
        let address = Ipv4Addr::from_bits(0x0a00_0000 + number % 200);
        places.admit(Fairness::default().client(address.into()), (1, None), true);
    }
    assert_eq!(places.occupant(polite), Some(&mut (0, Some(1))));
}

#[test]
fn between_holders_of_one_each_an_idle_place_gives_way() {
    let mut places = Places::new(20);
    for last in 0..20 {
        places.admit(v4(last), (usize::from(last), (last == 7).then_some(1)), true);
    }
    assert_eq!(evicted(&mut places, v4(100), (100, None)), Some(v4(7)));
}

#[test]
fn the_longest_idle_place_goes_before_any_that_is_busy() {
    let mut places = Places::new(4);
    for guest in [(0, None), (1, Some(30)), (2, Some(20)), (3, None)] {
        places.admit(v4(1), guest, true);
    }
    let mut gone = |client, number| match places.admit(client, (number, None), true) {
        Admission::Evicting(_, evicted) => Some(evicted.occupant.0),
        _ => None,
    };
    assert_eq!(gone(v4(2), 4), Some(2));
    assert_eq!(gone(v4(1), 5), Some(1), "an idle one of its own");
    assert_eq!(gone(v4(1), 6), None, "it has no idle one, and most");
    assert!(gone(v4(2), 7).is_some(), "a busy one, if none is idle");
}

#[test]
fn places_that_were_freed_or_taken_away_are_not_freed_again() {
    let mut places = Places::new(2);
    let Admission::Granted(first) = places.admit(v4(1), Busy(0), true) else { panic!("full") };
    let Admission::Granted(second) = places.admit(v4(1), Busy(1), true) else { panic!("full") };
    assert_eq!(evicted(&mut places, v4(2), Busy(2)), Some(v4(1)));
    assert_eq!(places.release(first), None, "it was taken away");
    assert_eq!((places.release(second), places.release(second)), (Some(Busy(1)), None));
    assert_eq!(places.len(), 1);
}

#[test]
fn the_room_of_a_peak_is_given_back_and_old_places_mean_nothing_then() {
    let mut places = Places::new(4000);
    let taken: Vec<Place> = (0..4000_usize)
        .map(|number| match places.admit(v4((number % 200) as u8), Busy(number), true) {
            Admission::Granted(place) => place,
            _ => panic!("full"),
        })
        .collect();
    for place in &taken {
        assert!(places.release(*place).is_some());
    }
    for number in 0..100 {
        places.admit(v4(1), Busy(number), true);
    }
    assert!(taken.iter().all(|place| places.release(*place).is_none()));
    assert_eq!(places.len(), 100);
}

#[test]
fn a_lower_limit_takes_places_from_those_who_hold_most() {
    let mut places = Places::new(100);
    for number in 0..60 {
        places.admit(v4(1), Busy(number), true);
    }
    for number in 0..5 {
        places.admit(v4(2), Busy(number), true);
    }
    let evicted = places.set_limit(15);
    assert_eq!((evicted.len(), places.len()), (50, 15));
    assert!(evicted.iter().all(|evicted| evicted.client == v4(1)));
    assert_eq!(places.set_limit(0).len(), 14, "one is left");
}

#[test]
fn an_ipv4_mapped_address_is_the_ipv4_address_and_prefixes_make_networks() {
    let client = |fairness: Fairness, address: &str| fairness.client(address.parse().unwrap());
    let fairness = Fairness::default();
    assert_eq!(client(fairness, "::ffff:192.0.2.1"), client(fairness, "192.0.2.1"));
    assert_eq!(client(fairness, "192.0.2.1").to_string(), "192.0.2.1");
    assert_eq!(client(fairness, "2001:db8:1:2:3::4").to_string(), "2001:db8:1:2::/64");
    let wide = Fairness { ipv4_prefix: 24, ipv6_prefix: 128, is_on: true };
    assert_eq!(client(wide, "192.0.2.1").to_string(), "192.0.2.0/24");
    assert_eq!(client(wide, "192.0.2.1").network, client(wide, "192.0.2.200").network);
    assert_eq!(client(wide, "2001:db8::4").to_string(), "2001:db8::4");
    let policy = SharedFairness::default();
    assert_eq!(policy.get(), fairness);
    policy.set(Fairness { is_on: false, ..wide });
    assert_eq!(policy.get(), Fairness { is_on: false, ..wide });
}

#[test]
fn a_future_that_has_to_give_way_is_woken_and_ends() {
    let limiter = Arc::new(ConcurrencyLimiter::new(2));
    let mut running = FuturesUnordered::new();
    for number in 0..2 {
        let PermitOutcome::Granted(permit) = limiter.admit(v4(1), true) else { panic!("full") };
        running.push(async move { (number, permit.hold(std::future::pending::<()>()).await) });
    }
    assert!(running.next().now_or_never().is_none());
    let PermitOutcome::Evicting { permit, client, held } = limiter.admit(v4(2), true) else { panic!("refused") };
    assert_eq!((client, held), (v4(1), 2));
    assert_eq!(running.next().now_or_never(), Some(Some((0, None))), "the oldest");
    assert_eq!(permit.hold(async { 7 }).now_or_never(), Some(Some(7)));
    assert_eq!(limiter.running(), 2);
    drop((permit, running));
    assert_eq!(limiter.running(), 0);
}

#[test]
fn a_future_that_has_to_give_way_before_it_began_does_not_begin() {
    let limiter = Arc::new(ConcurrencyLimiter::new(1));
    let PermitOutcome::Granted(permit) = limiter.admit(v4(1), true) else { panic!("full") };
    let PermitOutcome::Evicting { .. } = limiter.admit(v4(2), true) else { panic!("refused") };
    assert_eq!(permit.hold(async { panic!("it ran") }).now_or_never(), Some(None::<()>));
}

#[test]
fn it_is_told_at_once_and_then_once_a_minute() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let notice = LogThrottle::new(start);
    let told: Vec<bool> = [0, 0, 1, 59, 60, 61, 120].map(|seconds| notice.is_due(at(seconds))).into();
    assert_eq!(told, [true, false, false, false, true, false, true]);
}

/// What a client or the clock does.
#[derive(Clone, Debug)]
enum PlaceStep {
    Come(Client),
    /// The place with this number, of those that are taken, is freed.
    Leave(usize),
    Limit(usize),
}

fn clients() -> impl Strategy<Value = Client> {
    prop_oneof![
        4 => (0..4_u8).prop_map(v4),
        4 => (0..3_u16, 0..4_u16).prop_map(|(network, last)| v6(network, last)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<PlaceStep>> {
    let step = prop_oneof![
        12 => clients().prop_map(PlaceStep::Come),
        5 => any::<usize>().prop_map(PlaceStep::Leave),
        1 => (1..400_usize).prop_map(PlaceStep::Limit),
    ];
    prop::collection::vec(step, 1..600)
}

/// Places each counts, the slow way.
fn holdings(taken: &[(Place, Client)]) -> (HashMap<u128, usize>, HashMap<u128, usize>) {
    let (mut top, mut addresses) = (HashMap::new(), HashMap::new());
    for (_, client) in taken {
        *top.entry(top_of(*client)).or_default() += 1;
        *addresses.entry(client.address).or_default() += 1;
    }
    (top, addresses)
}

fn top_of(client: Client) -> u128 {
    client.network.map_or(client.address, |network| network.bits)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nobody_gives_way_while_another_holds_more_than_a_few_and_nobody_who_holds_less_is_refused(
        steps in steps(), limit in 1..300_usize
    ) {
        let mut places = Places::new(limit);
        let (mut limit, mut taken) = (limit, Vec::<(Place, Client)>::new());
        let mut numbers = 0;
        for step in steps {
            let few = 2.min(limit / 64);
            match step {
                PlaceStep::Leave(number) if !taken.is_empty() => {
                    let (place, _) = taken.swap_remove(number % taken.len());
                    prop_assert!(places.release(place).is_some());
                }
                PlaceStep::Leave(_) => {}
                PlaceStep::Limit(new) => {
                    limit = new;
                    let evicted = places.set_limit(new).len();
                    let before = taken.len();
                    taken.retain(|(place, _)| places.occupant(*place).is_some());
                    prop_assert_eq!((evicted, taken.len()), (before - taken.len(), before.min(limit)));
                }
                PlaceStep::Come(client) => {
                    let (top, addresses) = holdings(&taken);
                    let held = top.get(&top_of(client)).copied().unwrap_or(0);
                    let most = top.values().copied().max().unwrap_or(0);
                    numbers += 1;
                    match places.admit(client, Busy(numbers), true) {
                        Admission::Granted(place) => {
                            prop_assert!(taken.len() < limit);
                            taken.push((place, client));
                        }
                        Admission::Evicting(place, evicted) => {
                            prop_assert_eq!(taken.len(), limit);
                            prop_assert_eq!(evicted.held, top[&top_of(evicted.client)]);
                            let is_within = top_of(evicted.client) == top_of(client) && held == most;
                            prop_assert!(evicted.held == most || most <= few || is_within);
                            prop_assert!(held < most.max(few) || is_within);
                            if is_within && evicted.held > few {
                                let own = |client: Client| addresses.get(&client.address).copied().unwrap_or(0);
                                prop_assert!(own(client) < own(evicted.client).max(few));
                            }
                            let before = taken.len();
                            taken.retain(|(place, _)| places.occupant(*place).is_some());
                            prop_assert_eq!(taken.len(), before - 1);
                            taken.push((place, client));
                        }
                        Admission::Full => {
                            prop_assert_eq!(taken.len(), limit);
                            prop_assert!(held >= most.max(few), "{} of {}", held, most);
                        }
                    }
                }
            }
            prop_assert_eq!(places.len(), taken.len());
        }
        for (place, _) in taken {
            prop_assert!(places.release(place).is_some());
        }
        prop_assert_eq!(places.len(), 0);
    }
}
