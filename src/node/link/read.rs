//! Reads links and their addresses over netlink.

use super::difference::LinkView;
use super::into_io;
use crate::node::error::Error;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::{Handle, LinkGetRequest};
use std::io;
use std::net::IpAddr;

/// Each of the links `names` as it is, or the one that an agent made under this name, or none; no link has an empty
/// name. Needs no rights; must be called on a tokio runtime.
///
/// # Errors
///
/// [`Error::Socket`], [`Error::LinkCheck`].
pub(crate) async fn look<const N: usize>(names: [&str; N]) -> Result<[Option<LinkView>; N], Error> {
    let opened = rtnetlink::new_connection();
    let (connection, handle, _) = opened.map_err(|source| Error::Socket { purpose: "links", source })?;
    let connection = tokio::spawn(connection);
    let mut views = [const { None }; N];
    for (view_of_name, name) in views.iter_mut().zip(names).filter(|(_, name)| !name.is_empty()) {
        *view_of_name = match view(&handle, name).await? {
            Some(view) => Some(view),
            None => made_as(&handle, name).await?.into_iter().next(),
        };
    }
    connection.abort();
    Ok(views)
}

/// The link of this name, or none.
pub(super) async fn view(handle: &Handle, name: &str) -> Result<Option<LinkView>, Error> {
    one(handle, handle.link().get().match_name(name.to_owned()), name).await
}

/// The link of this index, whatever its name, or none. `name` is the one to tell in an error.
pub(super) async fn view_of_index(handle: &Handle, index: u32, name: &str) -> Result<Option<LinkView>, Error> {
    one(handle, handle.link().get().match_index(index), name).await
}

/// All links that an agent made under this name, whatever they are called now.
pub(super) async fn made_as(handle: &Handle, name: &str) -> Result<Vec<LinkView>, Error> {
    let links = handle.link().get().execute();
    let links: Vec<LinkMessage> =
        links.try_collect().await.map_err(|error| check_error(name, "look for", into_io(error)))?;
    let mut made = Vec::new();
    for link in links.iter().filter(|link| of(link).is_made_as(name)) {
        made.push(with_addresses(handle, link, name).await?);
    }
    Ok(made)
}

async fn one(handle: &Handle, request: LinkGetRequest, name: &str) -> Result<Option<LinkView>, Error> {
    match request.execute().try_next().await.map_err(into_io) {
        Ok(Some(link)) => with_addresses(handle, &link, name).await.map(Some),
        Ok(None) => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(check_error(name, "look at", error)),
    }
}

async fn with_addresses(handle: &Handle, link: &LinkMessage, name: &str) -> Result<LinkView, Error> {
    let addresses = handle.address().get().set_link_index_filter(link.header.index).execute();
    let addresses: Vec<AddressMessage> =
        addresses.try_collect().await.map_err(|error| check_error(name, "look at the addresses of", into_io(error)))?;
    Ok(LinkView { addresses: addresses.iter().filter_map(address_of).collect(), ..of(link) })
}

/// The link without its addresses.
pub(in crate::node) fn of(link: &LinkMessage) -> LinkView {
    LinkView {
        index: link.header.index,
        name: name_of(link).cloned().unwrap_or_default(),
        kind: link.attributes.iter().find_map(kind_of),
        alias: link.attributes.iter().find_map(alias_of),
        is_up: link.header.flags.contains(LinkFlags::Up),
        addresses: Vec::new(),
    }
}

pub(super) fn check_error(name: &str, action: impl Into<String>, source: io::Error) -> Error {
    Error::LinkCheck { action: action.into(), name: name.to_owned(), source }
}

pub(super) fn name_of(link: &LinkMessage) -> Option<&String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    })
}

fn alias_of(attribute: &LinkAttribute) -> Option<String> {
    match attribute {
        LinkAttribute::IfAlias(alias) => Some(alias.clone()),
        _ => None,
    }
}

fn kind_of(attribute: &LinkAttribute) -> Option<String> {
    let LinkAttribute::LinkInfo(infos) = attribute else { return None };
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

/// The address itself; on links between two ends, `Address` is the other end's.
pub(in crate::node) fn address_of(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let other = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    local.or(other).map(|address| (address, message.header.prefix_len))
}
