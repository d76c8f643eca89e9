//! Persistence: templates that keep a client on its real server [`ip_vs_core.c`, `ip_vs_sched_persist`].
//!
//! A template is a [`Flow`] in a table of its own. Each new flow of the client restarts its timer. While flows stand under
//! it, it does not end: `FLOW_CONTROLLED` says so here, and user space, which sees all flows, prolongs or removes it.

use crate::deliver::deliver;
use crate::find::FTP_BE;
use crate::packet::Work;
use crate::{Step, Tables, bind, find};
use abi::{
    Address, FLOW_ASSURED, FLOW_CONTROLLED, FLOW_TEMPLATE, Flow, FlowKey, REAL_AVAILABLE, SERVICE_SIP,
    SYSCTL_EXPIRE_QUIESCENT_TEMPLATE, Service, Verdict,
};
use wire::Bytes;

const SECOND_NS: u64 = 1_000_000_000;

/// The key of the template that a flow of this service stands under, where the client's address names it: the service's
/// own port has a template to itself, all other ports of the VIP share one, and so do the matches of a mark.
#[inline(always)]
#[must_use]
pub fn template_key(service: &Service, key: &FlowKey) -> FlowKey {
    let client = masked(&key.client, service.mask);
    if service.mark != 0 {
        let virtual_address = Address::of_mark(service.mark, client.is_v4());
        return FlowKey { client, virtual_address, client_port_be: 0, virtual_port_be: 0, protocol: 0 };
    }
    let port_be = key.virtual_port_be;
    let is_own = port_be == service.port_be && port_be != FTP_BE;
    let virtual_port_be = if is_own { port_be } else { 0 };
    FlowKey { client, virtual_port_be, client_port_be: 0, ..*key }
}

/// A client address under an IPv4 mask (network order) or an IPv6 prefix length.
#[inline(always)]
pub(crate) fn masked(address: &Address, mask: u32) -> Address {
    let [a, b, c, d] = address.0;
    if address.is_v4() {
        return Address([a, b, c, d & mask]);
    }
    let word = |before: u32| prefix_mask(mask.saturating_sub(before));
    Address([a & word(0), b & word(32), c & word(64), d & word(96)])
}

/// The mask of the first `bits` bits of a word, all of them from 32 on.
#[inline(always)]
const fn prefix_mask(bits: u32) -> u32 {
    if bits >= 32 { u32::MAX } else { !(u32::MAX.wrapping_shr(bits)).to_be() }
}

/// The template of a packet's client, as it was found.
pub struct Template<H> {
    key: FlowKey,
    found: Option<H>,
    /// The real server it names; `None` when there is no template, or none that counts.
    pub real: Option<u32>,
}

/// Looks for the template of a packet's client. Of a SIP service, [`crate::call`] has read the Call-ID.
#[inline(always)]
pub fn find<T: Tables>(tables: &T, service: &Service, flow: &FlowKey, now_ns: u64) -> Template<T::Flow> {
    let mut key = template_key(service, flow);
    if service.flags & SERVICE_SIP != 0 {
        key.client = tables.call_hash();
    }
    let found = tables.template(&key);
    let real = match found {
        Some(handle) => real_of(tables, &tables.flow(handle), now_ns),
        None => None,
    };
    Template { key, found, real }
}

/// The real server that a template names, if its client may go to it. Weight and thresholds do not matter, unless the
/// weight is 0 because the real server failed, or the setting says that it matters.
#[inline(always)]
fn real_of<T: Tables>(tables: &T, template: &Flow, now_ns: u64) -> Option<u32> {
    if now_ns >= template.expires_ns && template.flags & FLOW_CONTROLLED == 0 {
        return None;
    }
    let real = tables.real(template.real)?;
    let switches = tables.settings().map_or(0, |settings| settings.sysctls.switches);
    let expires = real.failed != 0 || switches & SYSCTL_EXPIRE_QUIESCENT_TEMPLATE != 0;
    let quiescent = real.weight == 0 && expires;
    let counts = real.flags & REAL_AVAILABLE != 0 && !quiescent;
    counts.then_some(template.real)
}

impl<H: Copy> Template<H> {
    /// A new flow goes to this real server: restarts the template, or makes one. `false` when there is no room.
    #[inline(always)]
    pub fn keep<T: Tables<Flow = H>>(
        &self,
        tables: &T,
        service: &Service,
        real: u32,
        controls: bool,
        now_ns: u64,
    ) -> bool {
        let expires_ns = now_ns.wrapping_add(u64::from(service.persistence_s).wrapping_mul(SECOND_NS));
        let controls = if controls { FLOW_CONTROLLED } else { 0 };
        // Zeros where there is none: the verifier refuses a program that carries a value along which it never wrote.
        let before = match self.found {
            Some(handle) => tables.flow(handle),
            None => Flow::default(),
        };
        if let (Some(handle), Some(_)) = (self.found, self.real) {
            tables.set_flow(handle, &Flow { expires_ns, flags: before.flags | controls, ..before });
            return true;
        }
        let opened_s = now_ns.checked_div(SECOND_NS).unwrap_or_default() as u32;
        let flags = FLOW_TEMPLATE | controls;
        let template = Flow { expires_ns, real, flags, opened_s, ..Flow::default() };
        if !tables.insert_template(&self.key, &template) {
            return false;
        }
        tables.add_load(real, abi::Load::of(&template));
        // The one that stood there before is replaced.
        if self.found.is_some() {
            bind::unbind(tables, &before);
        }
        if service.flags & SERVICE_SIP != 0 {
            tables.insert_call(&self.key);
        }
        true
    }
}

/// A connection under a template was established: the template is marked, and the packet sent on. A program of its
/// own, as it happens once in the life of a persistent connection.
#[inline(always)]
pub fn assure<B: Bytes, T: Tables>(bytes: &mut B, tables: &T, work: &Work) -> Step {
    let Some(real) = tables.real(work.real) else {
        tables.take_back_known();
        return Step::stop(tables, Verdict::DropInternal);
    };
    mark_assured(tables, &work.key, work.real);
    deliver(bytes, tables, work, &real, Verdict::of_forward(work.verdict))
}

/// Marks the template that a flow to this real server stands under.
#[inline(always)]
pub(crate) fn mark_assured<T: Tables>(tables: &T, key: &FlowKey, real: u32) {
    if let Some(service) = find::service(tables, key)
        && let Some(handle) = tables.template(&template_key(&service, key))
    {
        let template = tables.flow(handle);
        if template.real == real && template.flags & FLOW_ASSURED == 0 {
            tables.set_flow(handle, &Flow { flags: template.flags | FLOW_ASSURED, ..template });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(port: u16, mark: u32, mask: u32) -> Service {
        Service { port_be: port.to_be(), mark, mask, ..Service::default() }
    }

    fn flow(client: Address, port: u16) -> FlowKey {
        let virtual_address = Address::v4([192, 0, 2, 10]);
        FlowKey {
            client,
            virtual_address,
            client_port_be: 999_u16.to_be(),
            virtual_port_be: port.to_be(),
            protocol: 6,
        }
    }

    #[test]
    fn keys_are_those_of_the_specification() {
        let client = Address::v4([198, 51, 100, 77]);
        let net = Address::v4([198, 51, 100, 0]);
        let key = |service: &Service, port| {
            let key = template_key(service, &flow(client, port));
            assert_eq!((key.client, key.client_port_be), (net, 0));
            (key.protocol, key.virtual_address, u16::from_be(key.virtual_port_be))
        };
        let mask = 0xffff_ff00_u32.to_be();
        let vip = Address::v4([192, 0, 2, 10]);
        assert_eq!(key(&service(80, 0, mask), 80), (6, vip, 80));
        assert_eq!(key(&service(21, 0, mask), 21), (6, vip, 0));
        assert_eq!(key(&service(21, 0, mask), 5000), (6, vip, 0));
        assert_eq!(key(&service(0, 0, mask), 443), (6, vip, 0));
        assert_eq!(key(&service(0, 7, mask), 443), (0, Address::v4([0, 0, 0, 7]), 0));
    }

    #[test]
    fn ipv6_clients_share_a_prefix() {
        let client = Address([u32::MAX; 4]);
        let masked = |prefix| masked(&client, prefix).octets();
        assert_eq!(masked(128), [255; 16]);
        let mut expected = [0; 16];
        expected[..8].fill(255);
        assert_eq!(masked(64), expected);
        expected[7] = 0xf0;
        assert_eq!(masked(60), expected);
        assert_eq!(masked(1)[0], 0x80);
    }
}
