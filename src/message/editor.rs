//! What a directive says of the names, TTLs and the code of a reply.

use super::{LowerName, Rcode};

/// What is changed. Names are given, and taken, in lower case; those that stay as they are keep theirs.
pub trait Edit {
    /// Another owner for a record; `None`: it stays.
    fn owner(&self, name: &LowerName) -> Option<LowerName>;
    /// Whether the owner `asked` becomes `client`, the client's own name: as [`Edit::owner`] says, but told at once by
    /// whoever can.
    fn restores(&self, asked: &LowerName, client: &LowerName) -> bool {
        match self.owner(asked) {
            Some(owner) => owner == *client,
            None => asked == client,
        }
    }
    /// Another name in the data of a CNAME, DNAME, MX, NAPTR, NS, PTR, SOA (its first) or SRV record; `None`: it stays.
    fn value(&self, name: &LowerName) -> Option<LowerName>;
    /// The TTL, in seconds, in place of this one.
    fn ttl(&self, seconds: u32) -> u32;
    /// True if [`Edit::ttl`] gives each as it is.
    fn keeps_ttls(&self) -> bool {
        false
    }
    /// The seconds and the address of the AAAA record that takes the place of an A record in the answer section;
    /// `None`, for all of them: they stay.
    fn address(&self, seconds: u32, address: [u8; 4]) -> Option<(u32, [u8; 16])> {
        let _ = (seconds, address);
        None
    }
    /// The response code in place of this one.
    fn rcode(&self, rcode: Rcode) -> Rcode;
}
