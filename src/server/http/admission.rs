//! Bounds the connections to one HTTP address, and chooses which is closed for the next.

use crate::fairness::{Client, Fairness};
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;

/// Connections, the oldest first, each with whose it is.
pub(super) struct HttpConnections<T> {
    limit: usize,
    held: VecDeque<HttpConnection<T>>,
}

struct HttpConnection<T> {
    client: Client,
    connection: T,
}

impl<T> HttpConnections<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, held: VecDeque::new() }
    }

    /// Keeps those that are not over.
    pub(super) fn retain(&mut self, is_open: impl Fn(&T) -> bool) {
        self.held.retain(|entry| is_open(&entry.connection));
    }

    /// Admits a client's connection. With too many, one connection is evicted and returned: of the network with most
    /// connections (the new one counts), and there of the address with most; ties go to whoever came first. Of that
    /// address the oldest connection goes that has had an answer, else the oldest: many hosts may share one address
    /// behind NAT.
    pub(super) fn take(&mut self, client: IpAddr, connection: T, waits: impl Fn(&T) -> bool) -> Option<T> {
        self.held.push_back(HttpConnection { client: Fairness::default().client(client), connection });
        if self.held.len() <= self.limit {
            return None;
        }
        let clients = || self.held.iter().map(|entry| entry.client);
        let largest_holder = largest(clients().map(Client::holder))?;
        let largest = largest(clients().filter(|client| client.holder() == largest_holder).map(Client::address))?;
        let of_largest = || self.held.iter().enumerate().filter(|(_, entry)| entry.client.address() == largest);
        let loser = of_largest().find(|(_, entry)| !waits(&entry.connection)).or_else(|| of_largest().next());
        let (index, _) = loser?;
        self.held.remove(index).map(|entry| entry.connection)
    }
}

/// What is there most often; of several such the one that comes first.
fn largest<K: Copy + Eq + Hash>(items: impl Iterator<Item = K> + Clone) -> Option<K> {
    let mut counts: HashMap<K, usize> = HashMap::new();
    for item in items.clone() {
        *counts.entry(item).or_default() += 1;
    }
    let most = counts.values().max().copied()?;
    items.into_iter().find(|item| counts.get(item) == Some(&most))
}

#[cfg(test)]
mod tests {
    use super::HttpConnections;
    use std::net::IpAddr;

    /// HttpConnections for four, taken by these in turn; who loses a place each time, by the order of coming.
    fn losers(clients: &[&str]) -> Vec<Option<usize>> {
        let mut held = HttpConnections::new(4);
        let take = |(number, client): (usize, &&str)| held.take(client.parse::<IpAddr>().unwrap(), number, |_| false);
        clients.iter().enumerate().map(take).skip(4).collect()
    }

    #[test]
    fn the_oldest_of_who_holds_most_makes_room_and_nobody_elses() {
        let attack = "192.0.2.66";
        assert_eq!(losers(&["192.0.2.1", attack, attack, attack, attack, attack, attack]), [Some(1), Some(2), Some(3)]);
        assert_eq!(losers(&[attack, attack, attack, attack, "192.0.2.1", "192.0.2.2"]), [Some(0), Some(1)]);
        assert_eq!(losers(&["192.0.2.1", "192.0.2.2", attack, attack, "192.0.2.3"]), [Some(2)]);
    }

    #[test]
    fn with_one_each_the_first_makes_room_and_of_one_client_the_newest_is_served() {
        assert_eq!(losers(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"]), [Some(0)]);
        assert_eq!(losers(&["192.0.2.1"; 6]), [Some(0), Some(1)]);
    }

    #[test]
    fn a_64_counts_as_one_client_and_a_mapped_address_as_the_ipv4_one() {
        assert_eq!(losers(&["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2:2", "192.0.2.3"]), [Some(2)]);
        assert_eq!(
            losers(&["192.0.2.1", "2001:db8::1", "2001:db8:0:1::1", "::ffff:192.0.2.1", "192.0.2.3"]),
            [Some(0)]
        );
    }

    #[test]
    fn within_a_64_the_address_that_holds_most_makes_room() {
        let (attack, modest) = ("2001:db8::66", "2001:db8::9");
        assert_eq!(losers(&[modest, attack, attack, attack, attack, attack]), [Some(1), Some(2)]);
        assert_eq!(losers(&[attack, attack, attack, attack, modest]), [Some(0)]);
        // Nor does it matter that all but the one who comes wait for a first answer.
        let mut held = HttpConnections::new(2);
        let mut take = |address: &str, number| held.take(address.parse().unwrap(), number, |number| *number != 3);
        assert_eq!([take(attack, 1), take(attack, 2), take(modest, 3)], [None, None, Some(1)]);
    }

    #[test]
    fn what_is_over_takes_no_place() {
        let mut held = HttpConnections::new(1);
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(held.take(client, 1, |_| false), None);
        held.retain(|connection| *connection != 1);
        assert_eq!(held.take(client, 2, |_| false), None);
        assert_eq!(held.take(client, 3, |_| false), Some(2));
    }

    #[test]
    fn who_waits_for_a_first_answer_loses_no_place_to_those_of_one_address_that_have_theirs() {
        let mut held = HttpConnections::new(3);
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let waits = |connection: &i32| [1, 4, 5].contains(connection);
        let losers: Vec<_> = (1..=6).map(|number| held.take(client, number, waits)).collect();
        assert_eq!(losers, [None, None, None, Some(2), Some(3), Some(6)]);
        assert_eq!(held.take(client, 7, |_| true), Some(1), "all wait");
    }
}
