//! Which service a packet belongs to.

use crate::Tables;
use crate::packet::is_tcp;
use abi::{FlowKey, SETTING_FTP, SETTING_PORT_ZERO, Service, ServiceKey};

/// FTP's control port, network order.
pub(crate) const FTP_BE: u16 = 21_u16.to_be();
/// FTP's data port, network order. What comes from it opens no flow [`ip_vs_core.c`, `ip_vs_schedule`].
pub(crate) const FTP_DATA_BE: u16 = 20_u16.to_be();
/// The first port that any user may open.
const UNPRIVILEGED: u16 = 1024;

/// The service of a packet, in the order of IPVS [`ip_vs_ctl.c`, `ip_vs_service_find`]: by mark, by exact port, for
/// the data connections of FTP by port 21, by port 0. Marks cost nothing: user space writes the service of a mark under
/// what its matches name. The others are looked for only where such services exist.
#[inline(always)]
#[must_use]
pub fn service<T: Tables>(tables: &T, key: &FlowKey) -> Option<Service> {
    let mut at = ServiceKey {
        address: key.virtual_address,
        port_be: key.virtual_port_be,
        protocol: key.protocol as u16,
    };
    if let Some(service) = tables.service(&at) {
        return Some(service);
    }
    let switches = tables.settings()?.sysctls.switches;
    if switches & SETTING_FTP != 0 && may_be_ftp_data(key) {
        at.port_be = FTP_BE;
        // A mark that covers port 21 does not cover the data connections.
        if let Some(service) = tables.service(&at).filter(|service| service.mark == 0) {
            return Some(service);
        }
    }
    if switches & SETTING_PORT_ZERO != 0 {
        at.port_be = 0;
        return tables.service(&at);
    }
    None
}

/// Whether the virtual port may be one end of a data connection of FTP: active from port 20, passive any that
/// the server's users may open.
#[inline(always)]
fn may_be_ftp_data(key: &FlowKey) -> bool {
    let port_be = key.virtual_port_be;
    is_tcp(key) && (port_be == FTP_DATA_BE || u16::from_be(port_be) >= UNPRIVILEGED)
}
