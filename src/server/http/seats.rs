//! Who holds the connections to one HTTP address, and whose makes room for the next.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

/// Connections, the oldest first, each with whose it is.
pub(super) struct Seats<T> {
    limit: usize,
    held: VecDeque<(IpAddr, T)>,
}

impl<T> Seats<T> {
    pub fn new(limit: usize) -> Self {
        Self { limit, held: VecDeque::new() }
    }

    /// Keeps those that are not over.
    pub fn retain(&mut self, is_open: impl Fn(&T) -> bool) {
        self.held.retain(|(_, connection)| is_open(connection));
    }

    /// Seats a client's connection. Returns the one that loses its seat, if there are too many: the oldest of the client that holds most, whoever has
    /// just come; among several such clients that of the one who came first.
    pub fn take(&mut self, client: IpAddr, connection: T) -> Option<T> {
        self.held.push_back((network(client), connection));
        if self.held.len() <= self.limit {
            return None;
        }
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for (holder, _) in &self.held {
            *counts.entry(*holder).or_default() += 1;
        }
        let most = counts.values().max().copied()?;
        let oldest = self.held.iter().position(|(holder, _)| counts.get(holder) == Some(&most))?;
        self.held.remove(oldest).map(|(_, connection)| connection)
    }
}

/// What counts as one client: an IPv4 address, or the /64 that a host may choose its IPv6 addresses from (RFC 4291 section 2.5.1).
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::Seats;
    use std::net::IpAddr;

    /// Seats for four, taken by these in turn; who loses a seat each time, by the order of coming.
    fn losers(clients: &[&str]) -> Vec<Option<usize>> {
        let mut seats = Seats::new(4);
        let take = |(number, client): (usize, &&str)| seats.take(client.parse::<IpAddr>().unwrap(), number);
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
        assert_eq!(losers(&["192.0.2.1", "2001:db8::1", "2001:db8:0:1::1", "::ffff:192.0.2.1", "192.0.2.3"]), [Some(0)]);
    }

    #[test]
    fn what_is_over_takes_no_seat() {
        let mut seats = Seats::new(1);
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(seats.take(client, 1), None);
        seats.retain(|connection| *connection != 1);
        assert_eq!(seats.take(client, 2), None);
        assert_eq!(seats.take(client, 3), Some(2));
    }
}
