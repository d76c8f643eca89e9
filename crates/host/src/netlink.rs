//! One route-netlink connection, and its errors in operating-system terms.

use futures_util::{Stream, StreamExt, future};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::proto::Connection;
use rtnetlink::sys::{AsyncSocket, TokioSocket};
use std::io;
use std::pin::Pin;
use tokio::task::JoinHandle;

/// Receive buffer asked for, in bytes: a burst of neighbour events must not overrun it.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// A netlink request failed.
#[derive(Debug, thiserror::Error)]
#[error("netlink: {what}")]
pub struct NetlinkError {
    /// What was tried, such as `list neighbours`.
    pub what: &'static str,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

impl NetlinkError {
    pub(crate) fn io(what: &'static str, source: io::Error) -> Self {
        Self { what, source }
    }

    /// The kernel's error number, if it gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

/// Turns the library's error into the operating system's where it carries one.
pub(crate) fn failed(what: &'static str) -> impl FnOnce(rtnetlink::Error) -> NetlinkError {
    move |error| {
        let source = match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other.to_string()),
        };
        NetlinkError { what, source }
    }
}

/// Something the kernel sent unasked.
#[derive(Debug)]
pub(crate) enum Event {
    /// A change.
    Message(RouteNetlinkMessage),
    /// Changes were lost because they came faster than they were read.
    Overrun,
}

/// Events the kernel sends unasked, in order.
pub(crate) type Events = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// An open connection in the namespace of the thread that opened it; closes when dropped.
#[derive(Debug)]
pub struct Netlink {
    pub(crate) handle: rtnetlink::Handle,
    driver: JoinHandle<()>,
}

impl Netlink {
    /// Opens a connection. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _events) =
            rtnetlink::new_connection().map_err(|e| NetlinkError::io("open a socket", e))?;
        Ok(Self { handle, driver: spawn(connection) })
    }

    /// Opens a connection that also receives the events of these groups.
    pub(crate) fn open_with_events(
        groups: &[rtnetlink::MulticastGroup],
    ) -> Result<(Self, Events), NetlinkError> {
        let (mut connection, handle, events) =
            rtnetlink::new_multicast_connection(groups).map_err(|e| NetlinkError::io("open a socket", e))?;
        // A smaller buffer than asked for still works: an overrun is repaired by reading everything again.
        let _ = connection.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER_BYTES);
        let events = events.filter_map(|(message, _)| future::ready(event(message)));
        Ok((Self { handle, driver: spawn(connection) }, Box::pin(events)))
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn spawn(connection: Connection<RouteNetlinkMessage, TokioSocket>) -> JoinHandle<()> {
    tokio::spawn(connection)
}

fn event(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Event> {
    match message.payload {
        NetlinkPayload::InnerMessage(message) => Some(Event::Message(message)),
        NetlinkPayload::Overrun(_) => Some(Event::Overrun),
        _ => None,
    }
}
