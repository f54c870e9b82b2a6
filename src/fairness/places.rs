//! A bounded number of places: which client holds how many, and whose place is taken for another client. Every step
//! takes the same time, whatever the number of clients and of places.
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

/// The group of all clients.
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
    Granted(Place),
    /// Another one had to go.
    Evicting(Place, Evicted<P>),
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
    groups: Vec<ClientGroup>,
    free_groups: Vec<u32>,
    slots: Vec<PlaceSlot<P>>,
    free_slots: Vec<u32>,
    /// Of a slot that is made: not one that a place of before had.
    generation: u32,
    addresses: HashMap<u128, u32, RandomState>,
    networks: HashMap<Network, u32, RandomState>,
}

/// All clients, the addresses that count as one client, or an address.
struct ClientGroup {
    /// Of an address group; of a network's one, that of the address that it was made for.
    client: Client,
    /// [`NONE`] of the group of all.
    parent: u32,
    level: usize,
    count: usize,
    /// Those of the same parent that hold as many.
    equals: Links,
    /// Head of the list of its places, the oldest first.
    slots: u32,
    /// For each number the list of the children that hold so many; as long as the largest number.
    ranks: Vec<u32>,
}

struct PlaceSlot<P> {
    occupant: Option<P>,
    generation: u32,
    /// The group of the address.
    group: u32,
    links: [Links; LEVELS],
}

impl Linked for ClientGroup {
    fn links(&mut self, _list: usize) -> &mut Links {
        &mut self.equals
    }
}

impl<P> Linked for PlaceSlot<P> {
    fn links(&mut self, list: usize) -> &mut Links {
        &mut self.links[list]
    }
}

impl ClientGroup {
    fn new(client: Client, parent: u32, level: usize) -> Self {
        Self { client, parent, level, count: 0, equals: Links::default(), slots: NONE, ranks: Vec::new() }
    }

    /// What the child that holds most has.
    fn largest(&self) -> usize {
        self.ranks.len().saturating_sub(1)
    }
}

impl<P: Occupant> Places<P> {
    /// So many places, at least one.
    pub(crate) fn new(limit: usize) -> Self {
        let all = ClientGroup::new(Client { address: 0, network: None }, NONE, ALL_LEVEL);
        Self {
            limit: limit.max(1),
            count: 0,
            groups: vec![all],
            free_groups: Vec::new(),
            slots: Vec::new(),
            free_slots: Vec::new(),
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
            return Admission::Granted(self.occupy(client, occupant));
        }
        let larger = if is_fair { self.larger_than(client) } else { None };
        let Some(slot) = larger.or_else(|| self.idle_one_of(client)) else { return Admission::Full };
        match self.evict(slot) {
            Some(evicted) => Admission::Evicting(self.occupy(client, occupant), evicted),
            None => Admission::Full,
        }
    }

    /// Who has a place; `None` if it had to go.
    pub(crate) fn occupant(&mut self, place: Place) -> Option<&mut P> {
        self.slots.get_mut(place.index as usize).filter(|slot| slot.generation == place.generation)?.occupant.as_mut()
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
        let slot = self.victim(ALL);
        self.evict(slot)
    }

    /// As [`Places::evict_one`], if that place is idle or its client has some to spare.
    pub(crate) fn evict_spare_one(&mut self) -> Option<Evicted<P>> {
        let slot = self.victim(ALL);
        let PlaceSlot { occupant, group, .. } = self.slots.get(slot as usize)?;
        let is_spare = occupant.as_ref().is_some_and(|occupant| occupant.idle_since().is_some());
        if is_spare || self.groups[*group as usize].count > SPARE { self.evict(slot) } else { None }
    }

    /// Places that a client holds without holding many.
    fn few(&self) -> usize {
        if P::IDLES { FEW_THAT_IDLE } else { FEW.min(self.limit / FEW_PART) }
    }

    /// A place of one who holds more than `client`: of another client, or of another address that counts as the same.
    fn larger_than(&mut self, client: Client) -> Option<u32> {
        let address = self.addresses.get(&client.address).copied();
        let network = client.network.map(|network| self.networks.get(&network).copied());
        let held = |group: Option<u32>| group.map_or(0, |group| self.groups[group as usize].count);
        let is_smaller = |group, among: u32| held(group) < self.groups[among as usize].largest().max(self.few());
        let among = match network {
            None => is_smaller(address, ALL).then_some(ALL)?,
            Some(network) if is_smaller(network, ALL) => ALL,
            Some(network) => network.filter(|network| is_smaller(address, *network))?,
        };
        Some(self.victim(among))
    }

    /// The place that gives way among those of a group.
    fn victim(&mut self, mut group: u32) -> u32 {
        loop {
            let here = &self.groups[group as usize];
            let largest = here.largest();
            if largest <= self.few() {
                return self.most_idle(group);
            }
            group = here.ranks[largest];
            if self.groups[group as usize].level == ADDRESS_LEVEL {
                return self.most_idle(group);
            }
        }
    }

    /// The longest idle place of a group, of those looked at; the oldest one if none is idle.
    fn most_idle(&mut self, group: u32) -> u32 {
        let ClientGroup { level, slots: head, count, .. } = self.groups[group as usize];
        if !P::IDLES {
            return head;
        }
        let (mut slot, mut best) = (head, (u64::MAX, head));
        for _ in 0..count.min(LOOKED_AT) {
            let idle_since = self.slots[slot as usize].occupant.as_ref().and_then(P::idle_since);
            best = best.min((idle_since.unwrap_or(u64::MAX), if idle_since.is_some() { slot } else { best.1 }));
            slot = lists::next(&mut self.slots, level, slot);
        }
        // The next time others are looked at.
        self.groups[group as usize].slots = slot;
        best.1
    }

    fn idle_one_of(&mut self, client: Client) -> Option<u32> {
        let address = *self.addresses.get(&client.address).filter(|_| P::IDLES)?;
        let slot = self.most_idle(address);
        self.slots[slot as usize].occupant.as_ref()?.idle_since()?;
        Some(slot)
    }

    fn evict(&mut self, slot: u32) -> Option<Evicted<P>> {
        let group = self.slots.get(slot as usize)?.group;
        let ClientGroup { client, count, parent, .. } = self.groups[group as usize];
        let held = if parent == ALL { count } else { self.groups[parent as usize].count };
        Some(Evicted { occupant: self.vacate(slot)?, client, held })
    }

    fn occupy(&mut self, client: Client, occupant: P) -> Place {
        let group = self.group_of(client);
        let index = self.free_slots.pop().unwrap_or(self.slots.len() as u32);
        let links = [Links::default(); LEVELS];
        match self.slots.get_mut(index as usize) {
            Some(slot) => *slot = PlaceSlot { occupant: Some(occupant), generation: slot.generation, group, links },
            None => self.slots.push(PlaceSlot { occupant: Some(occupant), generation: self.generation, group, links }),
        }
        let mut at = group;
        while at != NONE {
            let ClientGroup { parent, level, count, slots, .. } = self.groups[at as usize];
            self.groups[at as usize].slots = lists::push(&mut self.slots, level, slots, index);
            self.rank(at, count + 1);
            at = parent;
        }
        self.count += 1;
        Place { index, generation: self.slots[index as usize].generation }
    }

    fn vacate(&mut self, index: u32) -> Option<P> {
        let slot = self.slots.get_mut(index as usize)?;
        let occupant = slot.occupant.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        let mut at = slot.group;
        self.free_slots.push(index);
        self.count -= 1;
        while at != NONE {
            let ClientGroup { client, parent, level, count, slots, .. } = self.groups[at as usize];
            self.groups[at as usize].slots = lists::remove(&mut self.slots, level, slots, index);
            self.rank(at, count - 1);
            if count == 1 && level != ALL_LEVEL {
                match client.network.filter(|_| level == NETWORK_LEVEL) {
                    Some(network) => self.networks.remove(&network),
                    None => self.addresses.remove(&client.address),
                };
                self.free_groups.push(at);
            }
            at = parent;
        }
        Some(occupant)
    }

    /// Gives a group another number of places, and its rank by that.
    fn rank(&mut self, group: u32, count: usize) {
        let ClientGroup { parent, count: before, .. } = self.groups[group as usize];
        self.groups[group as usize].count = count;
        if parent == NONE {
            return;
        }
        if before > 0 {
            let head = self.groups[parent as usize].ranks[before];
            let head = lists::remove(&mut self.groups, 0, head, group);
            self.groups[parent as usize].ranks[before] = head;
        }
        if count > 0 {
            let ranks = &mut self.groups[parent as usize].ranks;
            if ranks.len() <= count {
                ranks.resize(count + 1, NONE);
            }
            let head = ranks[count];
            let head = lists::push(&mut self.groups, 0, head, group);
            self.groups[parent as usize].ranks[count] = head;
        }
        let ranks = &mut self.groups[parent as usize].ranks;
        while ranks.last() == Some(&NONE) {
            ranks.pop();
        }
    }

    fn group_of(&mut self, client: Client) -> u32 {
        if let Some(group) = self.addresses.get(&client.address) {
            return *group;
        }
        let parent = match client.network {
            None => ALL,
            Some(network) => match self.networks.get(&network) {
                Some(group) => *group,
                None => {
                    let group = self.add(ClientGroup::new(client, ALL, NETWORK_LEVEL));
                    self.networks.insert(network, group);
                    group
                }
            },
        };
        let group = self.add(ClientGroup::new(client, parent, ADDRESS_LEVEL));
        self.addresses.insert(client.address, group);
        group
    }

    fn add(&mut self, group: ClientGroup) -> u32 {
        match self.free_groups.pop() {
            Some(index) => {
                self.groups[index as usize] = group;
                index
            }
            None => {
                self.groups.push(group);
                (self.groups.len() - 1) as u32
            }
        }
    }

    /// Lets go of the room that many places have taken.
    fn shrink(&mut self) {
        if self.slots.len() <= KEPT {
            return;
        }
        let made = self.slots.iter().map(|slot| slot.generation).max().unwrap_or_default();
        let limit = self.limit;
        *self = Self { generation: made.wrapping_add(1), ..Self::new(limit) };
    }
}
