//! Which templates have flows under them, and until when these live on.
//!
//! IPVS counts the flows of each template. Here the packet path only notes that there was one, because it cannot see a flow
//! that the kernel evicts; which flows there are, each pass of the sweep finds out. A template that is named by a Call-ID
//! cannot be told from its flows, so it ends when its time is over.

use abi::{FLOW_CONTROLLED, Flow, FlowKey, SERVICE_SIP, Service};
use std::collections::{BTreeMap, HashSet};

const SECOND_NS: u64 = 1_000_000_000;
/// By how much a template with flows under it is prolonged [`ip_vs_conn.c`, `ip_vs_conn_expire`].
const STEP_NS: u64 = 60 * SECOND_NS;

/// What is to become of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing.
    Stays,
    /// It lives on until then.
    Until(u64),
    /// It has ended.
    Ends,
}

/// Persistent services, and the templates that the flows of this pass stand under.
#[derive(Debug, Default)]
pub(crate) struct Controls {
    services: BTreeMap<u32, Service>,
    controlling: HashSet<FlowKey>,
    started_ns: u64,
}

impl Controls {
    /// A pass begins.
    pub(crate) fn start(&mut self, now_ns: u64) {
        self.controlling.clear();
        self.started_ns = now_ns;
    }

    /// The services as they are now.
    pub(crate) fn set_services<'a>(&mut self, services: impl Iterator<Item = &'a Service>) {
        let persistent = services.filter(|service| service.persistence_s > 0);
        self.services = persistent.map(|service| (service.index, *service)).collect();
    }

    /// A live flow of a real server of this service.
    pub(crate) fn see(&mut self, key: &FlowKey, flow: &Flow, service: Option<u32>) {
        if flow.flags & FLOW_CONTROLLED == 0 {
            return;
        }
        let Some(service) = service.and_then(|index| self.services.get(&index)) else { return };
        if service.flags & SERVICE_SIP == 0 {
            self.controlling.insert(forward::persist::template_key(service, key));
        }
    }

    /// What is to become of a template whose real server belongs to this service, when all flows have been seen.
    pub(crate) fn fate(&self, key: &FlowKey, template: &Flow, service: Option<u32>, now_ns: u64) -> Fate {
        if now_ns < template.expires_ns {
            return Fate::Stays;
        }
        if template.flags & FLOW_CONTROLLED == 0 {
            return Fate::Ends;
        }
        if self.controlling.contains(key) {
            let steps = (now_ns - template.expires_ns) / STEP_NS + 1;
            return Fate::Until(template.expires_ns + steps * STEP_NS);
        }
        // A flow that came after its table was gone through was not seen. It restarted the template.
        let life_s = service.and_then(|index| self.services.get(&index)).map_or(1, |it| it.persistence_s);
        let restarted_ns = template.expires_ns.saturating_sub(u64::from(life_s) * SECOND_NS);
        if restarted_ns < self.started_ns { Fate::Ends } else { Fate::Stays }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::{Address, FLOW_TEMPLATE};

    const SECOND: u64 = SECOND_NS;

    fn service() -> Service {
        Service { index: 3, persistence_s: 10, mask: u32::MAX, port_be: 80_u16.to_be(), ..Service::default() }
    }

    fn key() -> FlowKey {
        FlowKey {
            client: Address::v4([198, 51, 100, 1]),
            virtual_address: Address::v4([192, 0, 2, 10]),
            client_port_be: 40_000_u16.to_be(),
            virtual_port_be: 80_u16.to_be(),
            protocol: 6,
        }
    }

    fn template(expires_s: u64, flags: u8) -> Flow {
        Flow { expires_ns: expires_s * SECOND, flags: FLOW_TEMPLATE | flags, ..Flow::default() }
    }

    fn controls(start_s: u64, flow: bool) -> (Controls, FlowKey) {
        let mut controls = Controls::default();
        controls.set_services([service()].iter());
        controls.start(start_s * SECOND);
        if flow {
            let of_flow = Flow { flags: FLOW_CONTROLLED, ..Flow::default() };
            controls.see(&key(), &of_flow, Some(3));
            controls.see(&FlowKey { client: Address::v4([1, 1, 1, 1]), ..key() }, &Flow::default(), Some(3));
        }
        (controls, forward::persist::template_key(&service(), &key()))
    }

    #[test]
    fn a_template_with_flows_goes_on_in_steps_of_a_minute() {
        let (controls, key) = controls(100, true);
        let fate = |template: Flow, now_s| controls.fate(&key, &template, Some(3), now_s * SECOND);
        assert_eq!(fate(template(100, FLOW_CONTROLLED), 99), Fate::Stays);
        assert_eq!(fate(template(100, FLOW_CONTROLLED), 100), Fate::Until(160 * SECOND));
        assert_eq!(fate(template(100, FLOW_CONTROLLED), 161), Fate::Until(220 * SECOND));
        // Of one-packet flows only, and of another client.
        assert_eq!(fate(template(100, 0), 101), Fate::Ends);
        let other = FlowKey { client: Address::v4([1, 1, 1, 1]), ..key };
        assert_eq!(controls.fate(&other, &template(100, 0), Some(3), 101 * SECOND), Fate::Ends);
    }

    #[test]
    fn one_without_flows_ends_once_a_pass_has_seen_all_of_them() {
        let (controls, key) = controls(95, false);
        let fate =
            |expires_s| controls.fate(&key, &template(expires_s, FLOW_CONTROLLED), Some(3), 110 * SECOND);
        // Restarted at 94, before the pass; at 96, during it.
        assert_eq!(fate(104), Fate::Ends);
        assert_eq!(fate(106), Fate::Stays);
    }

    #[test]
    fn a_call_cannot_be_told_from_its_flows() {
        let mut controls = Controls::default();
        let call = Service { flags: SERVICE_SIP, ..service() };
        controls.set_services([call].iter());
        controls.start(25 * SECOND);
        controls.see(&key(), &Flow { flags: FLOW_CONTROLLED, ..Flow::default() }, Some(3));
        let key = forward::persist::template_key(&call, &key());
        assert_eq!(controls.fate(&key, &template(30, FLOW_CONTROLLED), Some(3), 31 * SECOND), Fate::Ends);
    }
}
