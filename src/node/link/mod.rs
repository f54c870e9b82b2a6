//! The link that carries the listening addresses: a dummy link of ours (a bridge, where the kernel has no dummy links), or one that is there already.

mod difference;

use super::desired::LinkWish;
use super::error::Error;
pub use difference::LinkView;
use difference::{ALIAS, Step, addresses_to_remove, is_ours, prefix_length, steps};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkBridge, LinkDummy, LinkUnspec, MulticastGroup, RouteMessageBuilder,
    new_multicast_connection,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How long the kernel may take until packets for a new IPv6 address are delivered here; it is a millisecond or so.
const ROUTE_WAIT: Duration = Duration::from_secs(1);

/// What the kernel tells without having been asked.
type Notifications = BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

/// The link, and a connection to the kernel about it.
pub struct Link {
    wish: LinkWish,
    handle: Handle,
    notifications: Notifications,
    connection: JoinHandle<()>,
    /// Index of the link when it was last seen.
    index: Option<u32>,
    /// Whether the link with that index was ours when it was first seen.
    is_ours: bool,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Link {
    /// Opens the connection; changes nothing. Must be called on a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`].
    pub fn open(wish: LinkWish) -> Result<Self, Error> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let opened = new_multicast_connection(&groups);
        let (connection, handle, notifications) = opened.map_err(|source| Error::Socket { purpose: "links", source })?;
        let connection = tokio::spawn(connection);
        let notifications = notifications.map(|(message, _sender)| message).boxed();
        Ok(Self { wish, handle, notifications, connection, index: None, is_ours: false })
    }

    /// Sees to it that the link exists, is up and carries the addresses.
    ///
    /// # Errors
    ///
    /// [`Error::LinkAdd`] when it cannot be made, [`Error::LinkCheck`] for the rest, after everything has been tried.
    pub async fn ensure(&mut self) -> Result<(), Error> {
        let mut view = self.view().await?;
        let wanted = steps(&self.wish, view.as_ref());
        let is_new = self.index.is_none();
        let mut first_error = None;
        for step in &wanted {
            match self.take(step, view.as_ref()).await {
                Ok(()) if *step == Step::Create => view = self.view().await?,
                Ok(()) => {}
                Err(error @ Error::LinkAdd { .. }) => return Err(error),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        if !wanted.is_empty() && first_error.is_none() {
            first_error = self.wait_until_delivered_here().await.err();
        }
        let name = &self.wish.name;
        match view.as_ref() {
            Some(view) if is_new || self.index != Some(view.index) => {
                self.is_ours = wanted.contains(&Step::Create) || is_ours(&self.wish, view);
                let origin = match (wanted.contains(&Step::Create), self.is_ours) {
                    (true, _) => "made",
                    (false, true) => "found a predecessor's; it is ours from now on",
                    (false, false) => "found; only our addresses will be taken off it again",
                };
                tracing::info!("link {name}: {origin}");
            }
            _ if !wanted.is_empty() => tracing::warn!("link {name} had been changed by somebody and is mended: {wanted:?}"),
            _ => {}
        }
        self.index = view.map(|view| view.index);
        first_error.map_or(Ok(()), Err)
    }

    /// Deletes the link if it is ours, else takes our addresses off it. Nothing is left to do when it is gone already.
    ///
    /// # Errors
    ///
    /// [`Error::LinkCheck`], the last of several.
    pub async fn remove(&mut self) -> Result<(), Error> {
        let Some(view) = self.view().await? else { return Ok(()) };
        // What it carries by now are our own addresses, so what was decided when it was first seen holds.
        let is_ours = if self.index == Some(view.index) { self.is_ours } else { is_ours(&self.wish, &view) };
        if is_ours {
            tracing::info!("link {} is deleted", self.wish.name);
            let deleted = self.handle.link().del(view.index).execute().await;
            return accept(deleted, libc::ENODEV).map_err(|error| self.check_error("delete", error));
        }
        let mut outcome = Ok(());
        for (address, prefix) in addresses_to_remove(&self.wish, &view) {
            let deleted = self.handle.address().del(address_message(view.index, address, prefix)).execute().await;
            if let Err(error) = accept(deleted, libc::EADDRNOTAVAIL) {
                outcome = Err(self.check_error(format!("take address {address} off"), error));
            }
        }
        outcome
    }

    /// Waits until the kernel tells of something about the link or its addresses, our own changes included. May be dropped while it
    /// waits without losing any.
    pub async fn changed(&mut self) {
        while let Some(message) = self.notifications.next().await {
            let concerns = match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)) => {
                    Some(link.header.index) == self.index || name_of(&link) == Some(&self.wish.name)
                }
                NetlinkPayload::InnerMessage(
                    RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address),
                ) => Some(address.header.index) == self.index,
                // Some are lost.
                NetlinkPayload::Overrun(_) | NetlinkPayload::Error(_) => true,
                _ => false,
            };
            if concerns {
                // What has come together is looked at together.
                while let Some(Some(_)) = self.notifications.next().now_or_never() {}
                return;
            }
        }
        tracing::error!("the kernel's notifications about link {} ended; it is looked after at intervals only", self.wish.name);
        std::future::pending().await
    }

    async fn take(&self, step: &Step, view: Option<&LinkView>) -> Result<(), Error> {
        let name = &self.wish.name;
        match (step, view) {
            (Step::Create, _) => {
                let created = self.handle.link().add(LinkDummy::new(name).build()).execute().await;
                let mut created = accept(created, libc::EEXIST);
                // A bridge without ports holds addresses as well; kernels of small virtual machines often come without dummy links.
                if created.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EOPNOTSUPP)) {
                    created = accept(self.handle.link().add(LinkBridge::new(name).build()).execute().await, libc::EEXIST);
                }
                created.map_err(|source| Error::LinkAdd { name: name.clone(), source })?;
                // The kernel takes no alias when a link is made.
                let alias = LinkAttribute::IfAlias(ALIAS.to_owned());
                let message = LinkUnspec::new_with_name(name).append_extra_attribute(alias).build();
                let marked = self.handle.link().set(message).execute().await;
                accept(marked, 0).map_err(|error| self.check_error("give an alias to", error))
            }
            (Step::Raise, Some(view)) => {
                let raised = self.handle.link().set(LinkUnspec::new_with_index(view.index).up().build()).execute().await;
                accept(raised, 0).map_err(|error| self.check_error("set up", error))
            }
            (Step::Add(address), Some(view)) => {
                let mut request = self.handle.address().add(view.index, *address, prefix_length(address));
                *request.message_mut() = address_message(view.index, *address, prefix_length(address));
                accept(request.execute().await, libc::EEXIST)
                    .map_err(|error| self.check_error(format!("add address {address} to"), error))
            }
            (Step::Raise | Step::Add(_), None) => Err(self.check_error("find again", io::Error::from_raw_os_error(libc::ENODEV))),
        }
    }

    /// The kernel adds an IPv6 address at once, but the route that delivers its packets here a little later, from a work queue. A socket that
    /// asks for a route in between gets one out of the link, and may keep it.
    async fn wait_until_delivered_here(&self) -> Result<(), Error> {
        let started = Instant::now();
        for address in &self.wish.addresses {
            let IpAddr::V6(v6) = address else { continue };
            while !self.is_delivered_here(*v6).await {
                if started.elapsed() > ROUTE_WAIT {
                    let late = io::Error::new(io::ErrorKind::TimedOut, "the kernel has made no local route for it yet");
                    return Err(self.check_error(format!("use address {address} of"), late));
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(())
    }

    async fn is_delivered_here(&self, address: Ipv6Addr) -> bool {
        let message = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, prefix_length(&address.into())).build();
        let mut routes = self.handle.route().get(message).execute();
        matches!(routes.try_next().await, Ok(Some(route)) if route.header.kind == RouteType::Local)
    }

    async fn view(&self) -> Result<Option<LinkView>, Error> {
        view(&self.handle, &self.wish.name).await
    }

    fn check_error(&self, action: impl Into<String>, source: io::Error) -> Error {
        check_error(&self.wish.name, action, source)
    }
}

/// Each of the links `names` as it is, or none; no link has an empty name. Needs no rights; must be called on a tokio runtime.
///
/// # Errors
///
/// [`Error::Socket`], [`Error::LinkCheck`].
pub async fn look<const N: usize>(names: [&str; N]) -> Result<[Option<LinkView>; N], Error> {
    let opened = rtnetlink::new_connection();
    let (connection, handle, _) = opened.map_err(|source| Error::Socket { purpose: "links", source })?;
    let connection = tokio::spawn(connection);
    let mut views = [const { None }; N];
    for (view_of_name, name) in views.iter_mut().zip(names).filter(|(_, name)| !name.is_empty()) {
        *view_of_name = view(&handle, name).await?;
    }
    connection.abort();
    Ok(views)
}

/// The link as it is, or none.
async fn view(handle: &Handle, name: &str) -> Result<Option<LinkView>, Error> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = match links.try_next().await.map_err(into_io) {
        Ok(Some(link)) => link,
        Ok(None) => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
        Err(error) => return Err(check_error(name, "look at", error)),
    };
    let index = link.header.index;
    let addresses = handle.address().get().set_link_index_filter(index).execute();
    let addresses: Vec<AddressMessage> =
        addresses.try_collect().await.map_err(|error| check_error(name, "look at the addresses of", into_io(error)))?;
    Ok(Some(LinkView {
        index,
        kind: link.attributes.iter().find_map(kind_of),
        alias: link.attributes.iter().find_map(alias_of),
        is_up: link.header.flags.contains(LinkFlags::Up),
        addresses: addresses.iter().filter_map(address_of).collect(),
    }))
}

fn check_error(name: &str, action: impl Into<String>, source: io::Error) -> Error {
    Error::LinkCheck { action: action.into(), name: name.to_owned(), source }
}

fn name_of(link: &LinkMessage) -> Option<&String> {
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
fn address_of(message: &AddressMessage) -> Option<(IpAddr, u8)> {
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

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    match address {
        IpAddr::V4(address) => AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, prefix).build(),
        IpAddr::V6(address) => {
            let mut message = AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(address, prefix).build();
            // Nobody else has it, by design; sockets should bind to it at once, not after a second of asking around (RFC 4862 section 5.4).
            message.header.flags |= AddressHeaderFlags::Nodad;
            message
        }
    }
}

/// `outcome` with the kernel's error as such; the error `harmless` is none.
fn accept(outcome: Result<(), rtnetlink::Error>, harmless: i32) -> io::Result<()> {
    match outcome.map_err(into_io) {
        Err(error) if error.raw_os_error() != Some(harmless) => Err(error),
        _ => Ok(()),
    }
}

fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => io::Error::from_raw_os_error(message.raw_code().saturating_abs()),
        other => io::Error::other(other.to_string()),
    }
}
