//! Reads the sets in which the kernel notes whose packets arrive, and changes them.

use super::encode::{FAMILY, arrival};
use super::header::header;
use super::{InterceptionTable, socket::NetlinkSocket};
use crate::node::arrival::{ArrivalSnapshot, ArrivingClient};
use crate::node::error::Error;
use netlink_bindings::nftables::{OpGetsetelemDump, Request};
use netlink_bindings::traits::NetlinkRequest;
use std::io;
use std::time::Duration;

impl InterceptionTable {
    /// Who is blocked and whose packets arrive.
    ///
    /// # Errors
    ///
    /// [`Error::Nftables`].
    pub(crate) fn look_at_clients(&mut self) -> Result<ArrivalSnapshot, Error> {
        let mut snapshot = ArrivalSnapshot::default();
        for family in arrival::FAMILIES {
            let blocked = members(&mut self.channel, &self.name, family.blocked);
            snapshot.blocked.extend(blocked.map_err(|source| self.refusal("look at", source))?);
            let arriving = members(&mut self.channel, &self.name, family.arriving);
            let arriving = arriving.map_err(|source| self.refusal("look at", source))?;
            snapshot.arriving.extend(arriving.into_iter().map(|(client, _)| client));
        }
        Ok(snapshot)
    }

    /// Leaves each of `clients` alone for so long. Not one of them, if one has been freed meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Nftables`].
    pub(crate) fn leave_alone(&mut self, clients: &[(ArrivingClient, Duration)]) -> Result<(), Error> {
        match self.channel.commit(|sequence| arrival::lengthen(&self.name, clients, sequence)) {
            Err(source) if source.raw_os_error() != Some(libc::ENOENT) => Err(self.refusal("change", source)),
            _ => Ok(()),
        }
    }

    /// Tries every blocked client again with its next packet.
    ///
    /// # Errors
    ///
    /// [`Error::Nftables`].
    pub(crate) fn try_all_clients(&mut self) -> Result<(), Error> {
        let committed = self.channel.commit(|sequence| arrival::free_all(&self.name, sequence));
        committed.map_err(|source| self.refusal("change", source))
    }
}

/// Who is blocked, as an owned table of this name has it; anybody with NET_ADMIN may read it.
///
/// # Errors
///
/// The kernel refused.
pub(crate) fn read(table: &str) -> io::Result<ArrivalSnapshot> {
    let mut channel = NetlinkSocket::open()?;
    let mut snapshot = ArrivalSnapshot::default();
    for family in arrival::FAMILIES {
        snapshot.blocked.extend(members(&mut channel, table, family.blocked)?);
    }
    Ok(snapshot)
}

/// The clients in a set, each with what is left of its time.
fn members(channel: &mut NetlinkSocket, table: &str, set: &str) -> io::Result<Vec<(ArrivingClient, Duration)>> {
    let mut request = Request::new().op_getsetelem_dump(&header(FAMILY, 0));
    request.encode().push_table_bytes(table.as_bytes()).push_set_bytes(set.as_bytes());
    let mut members = Vec::new();
    channel.dump(&request, |payload| members.extend(clients(payload)))?;
    Ok(members)
}

/// The clients that a message tells of as elements of a set, each with what is left of its time.
pub(in crate::node) fn clients(payload: &[u8]) -> Vec<(ArrivingClient, Duration)> {
    let (_, attributes) = OpGetsetelemDump::decode_reply(payload);
    let elements = attributes.get_elements().ok();
    let clients = elements.iter().flat_map(|elements| elements.get_elem()).filter_map(|element| {
        let client = arrival::client(element.get_key().ok()?.get_value().ok()?)?;
        // In network order, which `netlink-bindings` leaves as it is.
        let left = element.get_expiration().map(u64::from_be).unwrap_or_default();
        Some((client, Duration::from_millis(left)))
    });
    clients.collect()
}
