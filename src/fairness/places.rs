//! The places themselves: who holds how many, and whose is taken. Every step takes the same time, whatever the number
//! of clients and of places.
//!
//! Clients are ranked by what they hold, which changes by one at a time: for each number there is a list of those who
//! hold so many.

use super::client::{Client, Network};
use super::lists::{self, Linked, Links, NONE};
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// Places that a client may hold without counting as one who holds many: what a pod has in flight when it looks up a
/// name. Between clients that hold no more, the oldest place gives way: what is answered soon has gone by then, and the
/// other rule would hit a pod that has two queries in flight when a flood comes from as many addresses as there are
/// places. (unbound's `jostle-timeout` has the same reason.) Were it more, fewer addresses could flood without counting
/// as large holders, and whose upstream is slow would lose its oldest query to them.
const FEW: usize = 2;
/// But where there are not many places in all, that would be a large part.
const FEW_PART: usize = 64;
/// What may be idle is not gone soon, so the oldest place is mostly that of who keeps one for long. Only between
/// clients with one place each the age counts, and first of all who is idle.
const FEW_THAT_IDLE: usize = 1;

/// A client that holds no more has none to spare.
const SPARE: usize = 8;

/// Places of a list that are looked at for the longest idle one.
const LOOKED_AT: usize = 32;

/// Entries that are kept when all places are free.
const KEPT: usize = 512;

/// The node of all clients.
const ALL: u32 = 0;

/// Levels: the lists that a place is in.
const LEVELS: usize = 3;
const ALL_LEVEL: usize = 0;
const NETWORK_LEVEL: usize = 1;
const ADDRESS_LEVEL: usize = 2;

/// What has a place.
pub(crate) trait Occupant {
    /// It may be idle at all.
    const IDLES: bool;
    /// Since when it is idle, in any unit; `None` if it is not. Of a client's places the longest idle gives way, else
    /// the oldest.
    fn idle_since(&self) -> Option<u64>;
}

/// Names a place for as long as its occupant has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    index: u32,
    generation: u32,
}

/// What came of asking for a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission<P> {
    Room(Place),
    /// Another one had to go.
    Instead(Place, Evicted<P>),
    /// All places are taken, and no other client holds more than this one.
    Full,
}

/// One who had to go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Evicted<P> {
    pub occupant: P,
    /// Whose it was.
    pub client: Client,
    /// How many places that client had, with this one.
    pub held: usize,
}

/// Places, and who has them.
pub(crate) struct Places<P> {
    limit: usize,
    count: usize,
    nodes: Vec<Node>,
    free_nodes: Vec<u32>,
    seats: Vec<Seat<P>>,
    free_seats: Vec<u32>,
    /// Of a seat that is made: not one that a place of before had.
    generation: u32,
    addresses: HashMap<u128, u32, RandomState>,
    networks: HashMap<Network, u32, RandomState>,
}

/// All clients, the addresses that count as one client, or an address.
struct Node {
    /// Of an address node; of a network's one, that of the address that it was made for.
    client: Client,
    /// [`NONE`] of the node of all.
    parent: u32,
    level: usize,
    count: usize,
    /// Those of the same parent that hold as many.
    equals: Links,
    /// Head of the list of its places, the oldest first.
    seats: u32,
    /// For each number the list of the children that hold so many; as long as the largest number.
    ranks: Vec<u32>,
}

struct Seat<P> {
    occupant: Option<P>,
    generation: u32,
    /// The node of the address.
    node: u32,
    links: [Links; LEVELS],
}

impl Linked for Node {
    fn links(&mut self, _list: usize) -> &mut Links {
        &mut self.equals
    }
}

impl<P> Linked for Seat<P> {
    fn links(&mut self, list: usize) -> &mut Links {
        &mut self.links[list]
    }
}

impl Node {
    fn new(client: Client, parent: u32, level: usize) -> Self {
        Self { client, parent, level, count: 0, equals: Links::default(), seats: NONE, ranks: Vec::new() }
    }

    /// What the child that holds most has.
    fn largest(&self) -> usize {
        self.ranks.len().saturating_sub(1)
    }
}

impl<P: Occupant> Places<P> {
    /// So many places, at least one.
    pub(crate) fn new(limit: usize) -> Self {
        let all = Node::new(Client { address: 0, network: None }, NONE, ALL_LEVEL);
        Self {
            limit: limit.max(1),
            count: 0,
            nodes: vec![all],
            free_nodes: Vec::new(),
            seats: Vec::new(),
            free_seats: Vec::new(),
            generation: 0,
            addresses: HashMap::default(),
            networks: HashMap::default(),
        }
    }

    /// Places that are taken.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Gives `client` a place. If none is free, one of the client that holds most is taken from it, unless `client` is
    /// that one itself, or `!is_fair`: then an idle one of its own, if it has one.
    pub(crate) fn admit(&mut self, client: Client, occupant: P, is_fair: bool) -> Admission<P> {
        if self.count < self.limit {
            return Admission::Room(self.seat(client, occupant));
        }
        let larger = if is_fair { self.larger_than(client) } else { None };
        let Some(seat) = larger.or_else(|| self.idle_one_of(client)) else { return Admission::Full };
        match self.evict(seat) {
            Some(evicted) => Admission::Instead(self.seat(client, occupant), evicted),
            None => Admission::Full,
        }
    }

    /// Who has a place; `None` if it had to go.
    pub(crate) fn occupant(&mut self, place: Place) -> Option<&mut P> {
        self.seats.get_mut(place.index as usize).filter(|seat| seat.generation == place.generation)?.occupant.as_mut()
    }

    /// Frees a place; what was there, unless it had to go before.
    pub(crate) fn release(&mut self, place: Place) -> Option<P> {
        self.occupant(place)?;
        let occupant = self.vacate(place.index);
        if self.count == 0 {
            self.shrink();
        }
        occupant
    }

    /// From now on there are so many places, at least one. Those who have to go for that.
    pub(crate) fn set_limit(&mut self, limit: usize) -> Vec<Evicted<P>> {
        self.limit = limit.max(1);
        let too_many = self.count.saturating_sub(self.limit);
        (0..too_many).filter_map(|_| self.evict_one()).collect()
    }

    /// Takes a place from the client that holds most; `None` if there is none.
    pub(crate) fn evict_one(&mut self) -> Option<Evicted<P>> {
        let seat = self.victim(ALL);
        self.evict(seat)
    }

    /// As [`Places::evict_one`], if that place is idle or its client has some to spare.
    pub(crate) fn evict_spare_one(&mut self) -> Option<Evicted<P>> {
        let seat = self.victim(ALL);
        let Seat { occupant, node, .. } = self.seats.get(seat as usize)?;
        let is_spare = occupant.as_ref().is_some_and(|occupant| occupant.idle_since().is_some());
        if is_spare || self.nodes[*node as usize].count > SPARE { self.evict(seat) } else { None }
    }

    /// Places that a client holds without holding many.
    fn few(&self) -> usize {
        if P::IDLES { FEW_THAT_IDLE } else { FEW.min(self.limit / FEW_PART) }
    }

    /// A place of one who holds more than `client`: of another client, or of another address that counts as the same.
    fn larger_than(&mut self, client: Client) -> Option<u32> {
        let address = self.addresses.get(&client.address).copied();
        let network = client.network.map(|network| self.networks.get(&network).copied());
        let held = |node: Option<u32>| node.map_or(0, |node| self.nodes[node as usize].count);
        let is_smaller = |node, among: u32| held(node) < self.nodes[among as usize].largest().max(self.few());
        let among = match network {
            None => is_smaller(address, ALL).then_some(ALL)?,
            Some(network) if is_smaller(network, ALL) => ALL,
            Some(network) => network.filter(|network| is_smaller(address, *network))?,
        };
        Some(self.victim(among))
    }

    /// The place that gives way among those of a node.
    fn victim(&mut self, mut node: u32) -> u32 {
        loop {
            let here = &self.nodes[node as usize];
            let largest = here.largest();
            if largest <= self.few() {
                return self.most_idle(node);
            }
            node = here.ranks[largest];
            if self.nodes[node as usize].level == ADDRESS_LEVEL {
                return self.most_idle(node);
            }
        }
    }

    /// The longest idle place of a node, of those looked at; the oldest one if none is idle.
    fn most_idle(&mut self, node: u32) -> u32 {
        let Node { level, seats: head, count, .. } = self.nodes[node as usize];
        if !P::IDLES {
            return head;
        }
        let (mut seat, mut best) = (head, (u64::MAX, head));
        for _ in 0..count.min(LOOKED_AT) {
            let idle_since = self.seats[seat as usize].occupant.as_ref().and_then(P::idle_since);
            best = best.min((idle_since.unwrap_or(u64::MAX), if idle_since.is_some() { seat } else { best.1 }));
            seat = lists::next(&mut self.seats, level, seat);
        }
        // The next time others are looked at.
        self.nodes[node as usize].seats = seat;
        best.1
    }

    fn idle_one_of(&mut self, client: Client) -> Option<u32> {
        let address = *self.addresses.get(&client.address).filter(|_| P::IDLES)?;
        let seat = self.most_idle(address);
        self.seats[seat as usize].occupant.as_ref()?.idle_since()?;
        Some(seat)
    }

    fn evict(&mut self, seat: u32) -> Option<Evicted<P>> {
        let node = self.seats.get(seat as usize)?.node;
        let Node { client, count, parent, .. } = self.nodes[node as usize];
        let held = if parent == ALL { count } else { self.nodes[parent as usize].count };
        Some(Evicted { occupant: self.vacate(seat)?, client, held })
    }

    fn seat(&mut self, client: Client, occupant: P) -> Place {
        let node = self.node_of(client);
        let index = self.free_seats.pop().unwrap_or(self.seats.len() as u32);
        let links = [Links::default(); LEVELS];
        match self.seats.get_mut(index as usize) {
            Some(seat) => *seat = Seat { occupant: Some(occupant), generation: seat.generation, node, links },
            None => self.seats.push(Seat { occupant: Some(occupant), generation: self.generation, node, links }),
        }
        let mut at = node;
        while at != NONE {
            let Node { parent, level, count, seats, .. } = self.nodes[at as usize];
            self.nodes[at as usize].seats = lists::push(&mut self.seats, level, seats, index);
            self.rank(at, count + 1);
            at = parent;
        }
        self.count += 1;
        Place { index, generation: self.seats[index as usize].generation }
    }

    fn vacate(&mut self, index: u32) -> Option<P> {
        let seat = self.seats.get_mut(index as usize)?;
        let occupant = seat.occupant.take()?;
        seat.generation = seat.generation.wrapping_add(1);
        let mut at = seat.node;
        self.free_seats.push(index);
        self.count -= 1;
        while at != NONE {
            let Node { client, parent, level, count, seats, .. } = self.nodes[at as usize];
            self.nodes[at as usize].seats = lists::remove(&mut self.seats, level, seats, index);
            self.rank(at, count - 1);
            if count == 1 && level != ALL_LEVEL {
                match client.network.filter(|_| level == NETWORK_LEVEL) {
                    Some(network) => self.networks.remove(&network),
                    None => self.addresses.remove(&client.address),
                };
                self.free_nodes.push(at);
            }
            at = parent;
        }
        Some(occupant)
    }

    /// Gives a node another number of places, and its rank by that.
    fn rank(&mut self, node: u32, count: usize) {
        let Node { parent, count: before, .. } = self.nodes[node as usize];
        self.nodes[node as usize].count = count;
        if parent == NONE {
            return;
        }
        if before > 0 {
            let head = self.nodes[parent as usize].ranks[before];
            let head = lists::remove(&mut self.nodes, 0, head, node);
            self.nodes[parent as usize].ranks[before] = head;
        }
        if count > 0 {
            let ranks = &mut self.nodes[parent as usize].ranks;
            if ranks.len() <= count {
                ranks.resize(count + 1, NONE);
            }
            let head = ranks[count];
            let head = lists::push(&mut self.nodes, 0, head, node);
            self.nodes[parent as usize].ranks[count] = head;
        }
        let ranks = &mut self.nodes[parent as usize].ranks;
        while ranks.last() == Some(&NONE) {
            ranks.pop();
        }
    }

    fn node_of(&mut self, client: Client) -> u32 {
        if let Some(node) = self.addresses.get(&client.address) {
            return *node;
        }
        let parent = match client.network {
            None => ALL,
            Some(network) => match self.networks.get(&network) {
                Some(node) => *node,
                None => {
                    let node = self.add(Node::new(client, ALL, NETWORK_LEVEL));
                    self.networks.insert(network, node);
                    node
                }
            },
        };
        let node = self.add(Node::new(client, parent, ADDRESS_LEVEL));
        self.addresses.insert(client.address, node);
        node
    }

    fn add(&mut self, node: Node) -> u32 {
        match self.free_nodes.pop() {
            Some(index) => {
                self.nodes[index as usize] = node;
                index
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        }
    }

    /// Lets go of the room that many places have taken.
    fn shrink(&mut self) {
        if self.seats.len() <= KEPT {
            return;
        }
        let made = self.seats.iter().map(|seat| seat.generation).max().unwrap_or_default();
        let limit = self.limit;
        *self = Self { generation: made.wrapping_add(1), ..Self::new(limit) };
    }
}
