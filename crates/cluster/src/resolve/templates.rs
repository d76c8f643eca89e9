//! Services filled in from their templates.

use super::Resolver;
use crate::file::Service;
use crate::read::{Record, Section};

/// Templates of templates of a service.
const DEEP_MAX: usize = 16;

impl<'a> Resolver<'a> {
    fn template_of(&self, section: &Section<Service>) -> Option<&'a Section<Service>> {
        let name = section.record.as_ref()?.template.as_ref()?;
        self.names.templates.get(name.value.0.as_str()).copied()
    }

    /// The templates of a service, nearest first; `None` if they go round in a circle or are too deep.
    pub(crate) fn chain(&self, section: &Section<Service>) -> Option<Vec<&'a Section<Service>>> {
        let mut chain: Vec<&'a Section<Service>> = Vec::new();
        let mut next = self.template_of(section);
        while let Some(template) = next {
            if chain.len() == DEEP_MAX {
                return None;
            }
            chain.push(template);
            next = self.template_of(template);
        }
        Some(chain)
    }

    /// Says of each circle once that it is one, at its first template.
    pub(super) fn resolve_template_cycles(&mut self) {
        let mut told: Vec<&str> = Vec::new();
        for section in self.file.template.iter().flat_map(|at| &at.value.0) {
            let Some(first) = section.record.as_ref().and_then(|service| service.template.as_ref()) else {
                continue;
            };
            let name = section.name.value.as_str();
            let mut names = vec![name];
            let mut next = self.template_of(section);
            while let Some(template) = next {
                names.push(&template.name.value);
                next = self
                    .template_of(template)
                    .filter(|_| template.name.value != name && names.len() <= DEEP_MAX + 1);
            }
            let message = match names.last() {
                Some(last) if *last == name && names.len() > 1 => {
                    if told.contains(&name) {
                        continue;
                    }
                    told.extend(&names);
                    format!("template `{name}' leads back to itself: {}", names.join(" -> "))
                }
                _ if names.len() > DEEP_MAX => {
                    format!("template `{name}' stands on more than {DEEP_MAX} templates: say more in fewer")
                }
                _ => continue,
            };
            self.error(&first.span, message);
        }
    }

    /// A service with what its templates say, and whether something in it or in them was wrong. `None` if its templates go
    /// round in a circle, or nothing of it could be read.
    pub(crate) fn filled(&self, section: &'a Section<Service>) -> Option<(Service, bool)> {
        let mut broken = section.broken;
        let mut filled = section.record.clone()?;
        for template in self.chain(section)? {
            broken |= template.broken;
            match &template.record {
                Some(base) => filled.fill(base),
                None => broken = true,
            }
        }
        // A name that leads nowhere hides what its template would have said.
        let named = section.record.as_ref().and_then(|service| service.template.as_ref());
        broken |= named.is_some_and(|at| !self.names.templates.contains_key(at.value.0.as_str()));
        Some((filled, broken))
    }
}
