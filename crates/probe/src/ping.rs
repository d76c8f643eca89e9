//! ICMP echo.

use crate::error::{Failure, fail};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use surge_ping::{Client, Config, ICMP, PingIdentifier, PingSequence, SurgeError};
use tokio::sync::OnceCell;

/// One socket for each family, made with the first ping: it may need a permission that nobody else wants.
#[derive(Default)]
pub(crate) struct Pings {
    ipv4: OnceCell<Client>,
    ipv6: OnceCell<Client>,
    last: AtomicU16,
}

impl std::fmt::Debug for Pings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pings").finish_non_exhaustive()
    }
}

impl Pings {
    pub(crate) async fn probe(&self, address: IpAddr, timeout_ms: u32) -> Result<(), Failure> {
        let (cell, config) = match address {
            IpAddr::V4(_) => (&self.ipv4, Config::default()),
            IpAddr::V6(_) => (&self.ipv6, Config::builder().kind(ICMP::V6).build()),
        };
        let client = cell.get_or_try_init(|| async { Client::new(&config) }).await?;
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let mut pinger = client.pinger(address, PingIdentifier(number)).await;
        pinger.timeout(Duration::from_millis(timeout_ms.into()));
        match pinger.ping(PingSequence(number), b"sluice health check").await {
            Ok(_) => Ok(()),
            Err(SurgeError::IOError(error)) => Err(error.into()),
            Err(SurgeError::Timeout { .. }) => fail(format!("no answer within {timeout_ms} ms")),
            Err(error) => fail(error.to_string()),
        }
    }
}
