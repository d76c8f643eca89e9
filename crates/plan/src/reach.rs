//! Whether the health checks of a service reach its real servers, and its fallback could serve.

use crate::before::Before;
use crate::model::{Model, ServiceEntry};
use crate::options::Options;
use crate::{check, health, supported};
use api::{RealId, Refusal, RefusalKind, Scheduler, ServiceId};

impl ServiceEntry {
    fn has_path_check(&self) -> bool {
        let own = self.real_healths().filter_map(|health| health.checks.as_ref());
        own.chain([&self.health().checks]).flatten().any(|check| check.kind == api::CheckKind::Path)
    }

    /// The checks of a real server: its own, or else the service's.
    #[must_use]
    pub fn checks_of(&self, id: &RealId) -> &[api::Check] {
        let own = self.real_health(id).and_then(|health| health.checks.as_deref());
        own.unwrap_or(&self.health().checks)
    }
}

impl Model {
    /// Whether the checks of touched services can be made, where that was not looked at with each change.
    pub(crate) fn check_reach(&self, before: &Before) -> Result<(), Refusal> {
        let touched = before.services().filter(|_| before.as_whole).map(|(id, _)| id);
        for (id, entry) in touched.filter_map(|id| Some((id, self.service(id)?))) {
            if entry.has_path_check() {
                for (real, it) in entry.reals() {
                    health::checks_reach(id, entry.checks_of(real), real, &it.spec)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether a fallback could be added like any real server.
pub(crate) fn check_fallback(
    service: &ServiceId,
    entry: &ServiceEntry,
    fallback: api::Fallback,
    options: &Options,
) -> Result<(), Refusal> {
    let api::Fallback { real, spec } = fallback;
    if entry.real(&real).is_some() {
        return Err(Refusal::new(
            RefusalKind::RealExists,
            format!("{real} is a real server of {service} already"),
        ));
    }
    check::real_family(service, &real, &spec)?;
    check::real_numbers(&real, &spec)?;
    check::real_unicast(&real)?;
    supported::real(&real, &spec)?;
    check::real_tunnel(&real, &spec)?;
    check::real_port(service, &real, &spec)?;
    if entry.scheduler() == Scheduler::Mh {
        check::mh_reals(service, entry.reals().len() + 1, options)?;
    }
    Ok(())
}
