//! Options to values, from left to right. Order matters: `-6` and `-M` look at the service given so far, `-r`
//! takes its default port from it.

use crate::address;
use crate::endpoint::{Names, cut};
use crate::failure::Failure;
use crate::number::{whole_u8, whole_u16, whole_u32};
use crate::option::{Kind, Kinds, Meaning};
use crate::scan::Found;
use crate::tunnel::TunnelType;
use api::{Family, Forwarding, Protocol, RealId, ServiceId};
use std::net::{IpAddr, Ipv6Addr};

/// Longest persistence and state timeout, 31 days, in seconds.
pub(crate) const TIMEOUT_S_MAX: u32 = 31 * 24 * 3600;
/// Persistence without a value, in seconds.
const PERSISTENCE_S_DEFAULT: u32 = 360;
/// Bytes kept of scheduler and interface names.
const NAME_BYTES_MAX: usize = 15;
/// Largest synchronisation message that fits a UDP datagram, in bytes.
const SYNC_MAXLEN_MAX: u16 = 65507;
const POSITIVE_MAX: u32 = i32::MAX as u32;
const PREFIX_MAX: u32 = 128;

/// The values of the options read so far.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) given: Kinds,
    pub(crate) service: Option<ServiceId>,
    /// IPv4: the mask; IPv6: the prefix length.
    pub(crate) netmask: u32,
    pub(crate) scheduler: String,
    pub(crate) persistence_s: u32,
    pub(crate) engine: Option<String>,
    pub(crate) flag_list: String,
    pub(crate) real: Option<RealId>,
    pub(crate) forwarding: Forwarding,
    pub(crate) weight: u32,
    pub(crate) upper_threshold: u32,
    pub(crate) lower_threshold: u32,
    pub(crate) tunnel_type: TunnelType,
    pub(crate) tunnel_port: u16,
    pub(crate) interface: String,
    pub(crate) syncid: u8,
    pub(crate) sync_maxlen: u16,
    pub(crate) mcast_group: Option<IpAddr>,
    pub(crate) mcast_port: u16,
    pub(crate) mcast_ttl: u8,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            given: Kinds::default(),
            service: None,
            netmask: u32::MAX,
            scheduler: "wlc".to_owned(),
            persistence_s: 0,
            engine: None,
            flag_list: String::new(),
            real: None,
            forwarding: Forwarding::DirectRouting,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            tunnel_type: TunnelType::default(),
            tunnel_port: 0,
            interface: "eth0".to_owned(),
            syncid: 0,
            sync_maxlen: 0,
            mcast_group: None,
            mcast_port: 0,
            mcast_ttl: 0,
        }
    }
}

impl Draft {
    /// Takes one option in.
    pub(crate) fn take(&mut self, found: &Found<'_>, names: &dyn Names) -> Result<(), Failure> {
        let argument = found.argument.unwrap_or_default();
        match found.meaning {
            Meaning::Command(_) => Err(Failure::usage(format!("invalid option `{}'", found.word))),
            Meaning::Sort => Ok(()),
            Meaning::Ipv6 => self.take_ipv6(),
            Meaning::Service(protocol) => {
                self.mark(Kind::Service)?;
                self.take_service(protocol, argument, names)
            }
            Meaning::Fwmark => {
                self.mark(Kind::Service)?;
                let mark = whole_u32(argument, 1, u32::MAX)
                    .ok_or_else(|| Failure::usage(format!("invalid fwmark value `{argument}' specified")))?;
                self.service = Some(ServiceId::Fwmark { mark, family: Family::Ipv4 });
                Ok(())
            }
            Meaning::Forward(forwarding) => {
                self.mark(Kind::Forward)?;
                self.forwarding = forwarding;
                Ok(())
            }
            Meaning::Plain(kind) => {
                self.mark(kind)?;
                self.take_plain(kind, found.argument, names)
            }
        }
    }

    fn mark(&mut self, kind: Kind) -> Result<(), Failure> {
        if self.given.put(kind) {
            return Ok(());
        }
        Err(Failure::usage(format!("multiple '{}' options specified", kind.name())))
    }

    fn take_ipv6(&mut self) -> Result<(), Failure> {
        let Some(ServiceId::Fwmark { family, .. }) = &mut self.service else {
            // The classic text ends with a newline of its own.
            return Err(Failure::usage("-6 used before -f\n"));
        };
        *family = Family::Ipv6;
        self.netmask = PREFIX_MAX;
        Ok(())
    }

    fn take_service(&mut self, protocol: Protocol, text: &str, names: &dyn Names) -> Result<(), Failure> {
        let at = address::endpoint(text, Some(protocol), names)
            .ok_or_else(|| Failure::usage("illegal virtual server address[:port] specified"))?;
        if at.address.is_ipv6() {
            self.netmask = PREFIX_MAX;
        }
        self.service =
            Some(ServiceId::Address { protocol, address: at.address, port: at.port.unwrap_or_default() });
        Ok(())
    }

    fn take_plain(&mut self, kind: Kind, argument: Option<&str>, names: &dyn Names) -> Result<(), Failure> {
        let text = argument.unwrap_or_default();
        match kind {
            Kind::Scheduler if text.is_empty() => Ok(()),
            Kind::Scheduler => set(&mut self.scheduler, cut(text, NAME_BYTES_MAX).to_owned()),
            Kind::Persistent => self.take_persistence(argument),
            Kind::Netmask => self.take_netmask(text, names),
            Kind::Engine => set(&mut self.engine, (!text.is_empty()).then(|| text.to_owned())),
            Kind::SchedFlags => set(&mut self.flag_list, text.to_owned()),
            Kind::Server => self.take_real(text, names),
            Kind::Weight => {
                read(&mut self.weight, whole_u32(text, 0, POSITIVE_MAX), "illegal weight specified")
            }
            Kind::UpperThreshold => {
                let value = whole_u32(text, 0, POSITIVE_MAX);
                read(&mut self.upper_threshold, value, "illegal u_threshold specified")
            }
            Kind::LowerThreshold => {
                let value = whole_u32(text, 0, POSITIVE_MAX);
                read(&mut self.lower_threshold, value, "illegal l_threshold specified")
            }
            Kind::TunType => {
                read(&mut self.tunnel_type, TunnelType::from_name(text), "illegal tunnel type specified")
            }
            Kind::TunPort => {
                let value = whole_u16(text, 1, u16::MAX);
                read(&mut self.tunnel_port, value, "illegal tunnel port specified")
            }
            _ => self.take_daemon(kind, text),
        }
    }

    /// Options of daemons; what is left has no value.
    fn take_daemon(&mut self, kind: Kind, text: &str) -> Result<(), Failure> {
        match kind {
            Kind::McastInterface => set(&mut self.interface, cut(text, NAME_BYTES_MAX).to_owned()),
            Kind::SyncId => read(&mut self.syncid, whole_u8(text, 0, u8::MAX), "illegal syncid specified"),
            Kind::SyncMaxlen => {
                let value = whole_u16(text, 1, SYNC_MAXLEN_MAX);
                read(&mut self.sync_maxlen, value, "illegal sync-maxlen specified")
            }
            Kind::McastGroup => {
                self.mcast_group = Some(multicast_group(text)?);
                Ok(())
            }
            Kind::McastPort => {
                read(&mut self.mcast_port, whole_u16(text, 1, u16::MAX), "illegal mcast-port specified")
            }
            Kind::McastTtl => {
                read(&mut self.mcast_ttl, whole_u8(text, 1, u8::MAX), "illegal mcast-ttl specified")
            }
            _ => Ok(()),
        }
    }

    fn take_persistence(&mut self, argument: Option<&str>) -> Result<(), Failure> {
        let Some(text) = argument else {
            return set(&mut self.persistence_s, PERSISTENCE_S_DEFAULT);
        };
        self.persistence_s = timeout(text, 1)?;
        Ok(())
    }

    fn take_netmask(&mut self, text: &str, names: &dyn Names) -> Result<(), Failure> {
        if self.service.is_some_and(|service| service.family() == Family::Ipv6) {
            return read(&mut self.netmask, whole_u32(text, 1, PREFIX_MAX), "illegal ipv6 netmask specified");
        }
        let mask = address::ipv4(text, names).map(u32::from);
        read(&mut self.netmask, mask, "illegal virtual server persistent mask specified")
    }

    fn take_real(&mut self, text: &str, names: &dyn Names) -> Result<(), Failure> {
        let (protocol, service_port) = match self.service {
            Some(ServiceId::Address { protocol, port, .. }) => (Some(protocol), port),
            Some(ServiceId::Fwmark { .. }) => (Some(Protocol::Tcp), 0),
            None => (None, 0),
        };
        let at = address::endpoint(text, protocol, names)
            .ok_or_else(|| Failure::usage("illegal real server address[:port] specified"))?;
        self.real = Some(RealId { address: at.address, port: at.port.unwrap_or(service_port) });
        Ok(())
    }
}

fn set<T>(place: &mut T, value: T) -> Result<(), Failure> {
    *place = value;
    Ok(())
}

fn read<T>(place: &mut T, value: Option<T>, text: &str) -> Result<(), Failure> {
    *place = value.ok_or_else(|| Failure::usage(text))?;
    Ok(())
}

/// A timeout in seconds, `low` to 31 days.
pub(crate) fn timeout(text: &str, low: u32) -> Result<u32, Failure> {
    whole_u32(text, low, TIMEOUT_S_MAX)
        .ok_or_else(|| Failure::usage(format!("invalid timeout value `{text}' specified")))
}

/// A multicast group. Unlike service addresses it has no short forms and no names.
fn multicast_group(text: &str) -> Result<IpAddr, Failure> {
    if let Ok(group) = text.parse::<Ipv6Addr>() {
        return if group.is_multicast() {
            Ok(group.into())
        } else {
            Err(Failure::usage(format!("invalid IPv6 mcast-group `{text}'")))
        };
    }
    match text.parse::<std::net::Ipv4Addr>() {
        Ok(group) if group.is_multicast() => Ok(group.into()),
        _ => Err(Failure::usage(format!("invalid IPv4 mcast-group `{text}'"))),
    }
}
