//! The link that carries the listening addresses: a dummy link of ours (a bridge, where the kernel has no dummy links),
//! or one that is there already.

mod difference;
mod read;

use super::check_schedule::{CheckSchedule, Urgency};
use super::desired::LinkSpec;
use super::error::Error;
use super::ipv6;
use super::rate_limit::{RateLimit, times};
pub(crate) use difference::LinkView;
use difference::{LinkInventory, LinkStep, addresses_to_remove, alias, is_ours, prefix_length, steps};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
pub(super) use read::look;
pub(in crate::node) use read::{address_of, of};
use read::{check_error, made_as, name_of, view, view_of_index};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkBridge, LinkDummy, LinkMessageBuilder, LinkUnspec, MulticastGroup,
    RouteMessageBuilder, new_multicast_connection,
};
use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How long the kernel may take until packets for a new IPv6 address are delivered here; it is a millisecond or so.
const ROUTE_WAIT: Duration = Duration::from_secs(1);

/// How long a name is left alone after it was given back: somebody else may want another one, and neither should keep
/// the other busy.
const RENAME_PAUSE: Duration = Duration::from_secs(60);

/// The longest pause between two repairs of a link that somebody changes again and again. What asks from its addresses
/// gets no answer meanwhile, so it is no longer than it takes for repairs to cost next to nothing.
const LONGEST_REPAIR_PAUSE: Duration = Duration::from_secs(1);

/// What the kernel tells without having been asked.
type Notifications = BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

/// The link, and a connection to the kernel about it.
pub(super) struct Link {
    spec: LinkSpec,
    handle: Handle,
    notifications: Notifications,
    connection: JoinHandle<()>,
    /// Index of the link when it was last seen.
    index: Option<u32>,
    /// Whether the link with that index was ours when it was first seen.
    is_ours: bool,
    /// When it was last given back its name.
    renamed: Option<Instant>,
    /// Why it has another name, as it was told.
    misnomer: Option<String>,
    /// When to look after it; each repair is one of its looks.
    schedule: CheckSchedule,
    /// What others did to it.
    mended: RateLimit,
    last_mended: Vec<LinkStep>,
    /// Links that were made because the one before was gone.
    made: RateLimit,
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
    pub(super) fn open(spec: LinkSpec) -> Result<Self, Error> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let opened = new_multicast_connection(&groups);
        let (connection, handle, notifications) =
            opened.map_err(|source| Error::Socket { purpose: "links", source })?;
        let connection = tokio::spawn(connection);
        let notifications = notifications.map(|(message, _sender)| message).boxed();
        let mut schedule = CheckSchedule::new(Instant::now(), LONGEST_REPAIR_PAUSE);
        // Whoever opens it looks after it without being told.
        schedule.announce();
        Ok(Self {
            spec,
            handle,
            notifications,
            connection,
            index: None,
            is_ours: false,
            renamed: None,
            misnomer: None,
            schedule,
            mended: RateLimit::default(),
            last_mended: Vec::new(),
            made: RateLimit::default(),
        })
    }

    /// Sees to it that the link exists, is up and carries the addresses. One that we made is looked after also when
    /// somebody has renamed it, and gets its name back if that is free.
    ///
    /// # Errors
    ///
    /// [`Error::LinkAdd`] when it cannot be made, [`Error::Ipv6Disabled`] and [`Error::LinkCheck`] for the rest, after
    /// everything has been tried.
    pub(super) async fn ensure(&mut self) -> Result<(), Error> {
        self.schedule.begin(Instant::now());
        let found = self.find().await?;
        let before = found.link.clone();
        let is_known = before.as_ref().is_some_and(|link| self.index == Some(link.index));
        let mut is_ours =
            if is_known { self.is_ours } else { before.as_ref().is_none_or(|link| is_ours(&self.spec, link)) };
        let may_be_renamed = found.is_name_free && self.renamed.is_none_or(|renamed| renamed.elapsed() >= RENAME_PAUSE);
        let wanted = steps(&self.spec, before.as_ref(), is_ours, may_be_renamed);
        let (mut view, mut done, mut first_error, mut misnomer) = (before, Vec::new(), None, None);
        for step in wanted {
            match self.take(&step, view.as_ref()).await {
                Ok(()) => {
                    if step == LinkStep::Rename {
                        self.renamed = Some(Instant::now());
                    }
                    if step == LinkStep::Create {
                        view = self.view().await?;
                        is_ours = true;
                    }
                    done.push(step);
                }
                Err(error @ Error::LinkAdd { .. }) => return Err(error),
                // It serves under any name.
                Err(error @ Error::LinkName { .. }) => misnomer = Some(error.to_string()),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        if !done.is_empty() && first_error.is_none() {
            first_error = self.wait_until_delivered_here().await.err();
        }
        for link in &found.surplus {
            tracing::warn!("link {} is deleted: we made it too, and no address is to be on two links", link.name);
            first_error = first_error.or(self.delete(link).await.err());
        }
        first_error = first_error.or(self.leave(view.as_ref()).await.err());
        self.tell(view.as_ref(), is_known, is_ours, &done);
        let called = view.as_ref().map(|link| &link.name).filter(|called| **called != self.spec.name).cloned();
        if !found.is_name_free && is_ours {
            let taken = |called| {
                format!(
                    "our link {} is called {called} now and is used as that: another link has its name",
                    self.spec.name
                )
            };
            misnomer = called.map(taken);
        }
        self.tell_misnomer(misnomer);
        self.index = view.map(|view| view.index);
        self.is_ours = is_ours;
        first_error.map_or(Ok(()), Err)
    }

    /// Says what has been done, the same at most once a minute.
    fn tell(&mut self, view: Option<&LinkView>, is_known: bool, is_ours: bool, done: &[LinkStep]) {
        let (name, now) = (&self.spec.name, Instant::now());
        if view.is_some() && !is_known {
            let origin = match (done.contains(&LinkStep::Create), is_ours) {
                (true, _) => "made",
                (false, true) => "found a predecessor's; it is ours from now on",
                (false, false) => "found; only our addresses will be taken off it again",
            };
            // The first one is no sign that somebody takes them away.
            let count = if self.index.is_none() { Some(1) } else { self.made.count(now) };
            if let Some(count) = count {
                tracing::info!("link {name}: {origin}{}", times(count));
            }
        } else if !done.is_empty() {
            self.mended.add();
            self.last_mended = done.to_vec();
        }
        if self.schedule.end(!done.is_empty(), now) {
            tracing::warn!(
                "link {name} is changed again and again; it is put right ever more seldom, at last every {LONGEST_REPAIR_PAUSE:?}"
            );
        }
        if let Some(count) = self.mended.due(now) {
            tracing::warn!(
                "link {name} had been changed by somebody and is mended: {:?}{}; `ip monitor link address` shows when it changes",
                self.last_mended,
                times(count)
            );
        }
    }

    /// Says once why the link is called otherwise than it should be.
    fn tell_misnomer(&mut self, misnomer: Option<String>) {
        if let Some(misnomer) = misnomer.as_ref().filter(|misnomer| self.misnomer.as_ref() != Some(*misnomer)) {
            tracing::warn!("{misnomer}");
        }
        self.misnomer = misnomer;
    }

    /// Deletes the link if it is ours, whatever its name, else takes our addresses off it. Nothing is left to do when
    /// it is gone already.
    ///
    /// # Errors
    ///
    /// [`Error::LinkCheck`], the last of several.
    pub(super) async fn remove(&mut self) -> Result<(), Error> {
        let LinkInventory { link, surplus, .. } = self.find().await?;
        let mut outcome = Ok(());
        for link in link.iter().chain(&surplus) {
            // What it carries by now are our own addresses, so what was decided when it was first seen holds.
            let is_ours = if self.index == Some(link.index) { self.is_ours } else { is_ours(&self.spec, link) };
            let removed = if is_ours {
                tracing::info!("link {} is deleted", link.name);
                self.delete(link).await
            } else {
                self.take_addresses_off(link).await
            };
            outcome = outcome.and(removed);
        }
        outcome
    }

    /// Takes our addresses off a link of somebody's that had the wanted name, and has not any more.
    async fn leave(&self, now: Option<&LinkView>) -> Result<(), Error> {
        let Some(before) = self.index.filter(|index| now.is_some_and(|link| link.index != *index)) else {
            return Ok(());
        };
        match view_of_index(&self.handle, before, &self.spec.name).await? {
            Some(link) => self.take_addresses_off(&link).await,
            None => Ok(()),
        }
    }

    async fn take_addresses_off(&self, link: &LinkView) -> Result<(), Error> {
        let mut outcome = Ok(());
        for (address, prefix) in addresses_to_remove(&self.spec, link) {
            let deleted = self.handle.address().del(address_message(link.index, address, prefix)).execute().await;
            if let Err(error) = accept(deleted, libc::EADDRNOTAVAIL) {
                outcome = Err(check_error(&link.name, format!("take address {address} off"), error));
            }
        }
        outcome
    }

    async fn delete(&self, link: &LinkView) -> Result<(), Error> {
        let deleted = self.handle.link().del(link.index).execute().await;
        accept(deleted, libc::ENODEV).map_err(|error| check_error(&link.name, "delete", error))
    }

    /// The link to look after. All links are looked through only while the one that is known is not the one of the
    /// wanted name.
    async fn find(&self) -> Result<LinkInventory, Error> {
        let named = self.view().await?;
        if named.is_some() && named.as_ref().map(|link| link.index) == self.index {
            return Ok(LinkInventory { link: named, ..LinkInventory::default() });
        }
        let mut made = made_as(&self.handle, &self.spec.name).await?;
        // Ours, also if somebody took its alias.
        if let Some(known) = self.index.filter(|known| self.is_ours && !made.iter().any(|link| link.index == *known)) {
            made.extend(view_of_index(&self.handle, known, &self.spec.name).await?);
        }
        Ok(LinkInventory::among(named, made, self.index))
    }

    /// Waits until the kernel has told of something about the link or its addresses, our own changes included, and it
    /// is time to look: at once, but later each time for one who takes away what was put right. May be dropped while it
    /// waits without losing any.
    pub(super) async fn changed(&mut self) {
        loop {
            let due = self.schedule.due_at();
            let due = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                concerns = self.next_notification() => if concerns {
                    // What has come together is looked at together.
                    while let Some(Some(_)) = self.notifications.next().now_or_never() {}
                    self.schedule.want(Urgency::Prompt, Instant::now());
                },
                () = due => {
                    self.schedule.announce();
                    return;
                }
            }
        }
    }

    /// Whether the next thing that the kernel tells is about the link.
    async fn next_notification(&mut self) -> bool {
        let Some(message) = self.notifications.next().await else {
            tracing::error!(
                "the kernel's notifications about link {} ended; it is looked after at intervals only",
                self.spec.name
            );
            return pending().await;
        };
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)) => {
                Some(link.header.index) == self.index || name_of(&link) == Some(&self.spec.name)
            }
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address),
            ) => Some(address.header.index) == self.index,
            // Some are lost.
            NetlinkPayload::Overrun(_) | NetlinkPayload::Error(_) => true,
            _ => false,
        }
    }

    async fn take(&self, step: &LinkStep, view: Option<&LinkView>) -> Result<(), Error> {
        let name = &self.spec.name;
        match (step, view) {
            (LinkStep::Create, _) => {
                let created = self.handle.link().add(LinkDummy::new(name).build()).execute().await;
                let mut created = accept(created, libc::EEXIST);
                // A bridge without ports holds addresses as well; kernels of small virtual machines often come without
                // dummy links.
                if created.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EOPNOTSUPP)) {
                    created =
                        accept(self.handle.link().add(LinkBridge::new(name).build()).execute().await, libc::EEXIST);
                }
                created.map_err(|source| Error::LinkAdd { name: name.clone(), source })?;
                // The kernel takes no alias when a link is made.
                self.mark(LinkUnspec::new_with_name(name)).await
            }
            (LinkStep::Mark, Some(view)) => self.mark(LinkUnspec::new_with_index(view.index)).await,
            (LinkStep::Rename, Some(view)) => {
                let message = LinkUnspec::new_with_index(view.index).name(name.clone()).build();
                let renamed = accept(self.handle.link().set(message).execute().await, 0);
                renamed.map_err(|source| Error::LinkName { name: name.clone(), called: view.name.clone(), source })
            }
            (LinkStep::Raise, Some(view)) => {
                let raised =
                    self.handle.link().set(LinkUnspec::new_with_index(view.index).up().build()).execute().await;
                accept(raised, 0).map_err(|error| self.check_error("set up", error))
            }
            (LinkStep::Add(address), Some(view)) => {
                let mut request = self.handle.address().add(view.index, *address, prefix_length(address));
                *request.message_mut() = address_message(view.index, *address, prefix_length(address));
                accept(request.execute().await, libc::EEXIST).map_err(|source| add_error(*address, &view.name, source))
            }
            (_, None) => Err(self.check_error("find again", io::Error::from_raw_os_error(libc::ENODEV))),
        }
    }

    async fn mark(&self, link: LinkMessageBuilder<LinkUnspec>) -> Result<(), Error> {
        let message = link.append_extra_attribute(LinkAttribute::IfAlias(alias(&self.spec.name))).build();
        let marked = self.handle.link().set(message).execute().await;
        accept(marked, 0).map_err(|error| self.check_error("give an alias to", error))
    }

    /// The kernel adds an IPv6 address at once, but the route that delivers its packets here a little later, from a
    /// work queue. A socket that asks for a route in between gets one out of the link, and may keep it.
    async fn wait_until_delivered_here(&self) -> Result<(), Error> {
        let started = Instant::now();
        for address in &self.spec.addresses {
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
        let message =
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, prefix_length(&address.into())).build();
        let mut routes = self.handle.route().get(message).execute();
        matches!(routes.try_next().await, Ok(Some(route)) if route.header.kind == RouteType::Local)
    }

    async fn view(&self) -> Result<Option<LinkView>, Error> {
        view(&self.handle, &self.spec.name).await
    }

    fn check_error(&self, action: impl Into<String>, source: io::Error) -> Error {
        check_error(&self.spec.name, action, source)
    }
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    match address {
        IpAddr::V4(address) => AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, prefix).build(),
        IpAddr::V6(address) => {
            let mut message = AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(address, prefix).build();
            // Nobody else has it, by design; sockets should bind to it at once, not after a second of asking around
            // (RFC 4862 section 5.4).
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

/// Why an address could not be added to a link.
fn add_error(address: IpAddr, link: &str, source: io::Error) -> Error {
    let sysctls = if address.is_ipv6() { ipv6::disabled_by(link) } else { Vec::new() };
    if source.raw_os_error() == Some(libc::EACCES) && !sysctls.is_empty() {
        return Error::Ipv6Disabled { address, link: link.to_owned(), sysctls };
    }
    check_error(link, format!("add address {address} to"), source)
}
