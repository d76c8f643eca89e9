//! The tiers: which crate may depend on which. The table is here and nowhere else.

use std::path::Path;

use anyhow::Context as _;
use cargo_metadata::{DependencyKind, MetadataCommand};

use super::Finding;

/// Every crate under `crates/` that has a tier. A crate depends only on crates of lower tiers.
const TIERS: [(&str, u8); 17] = [
    ("wire", 0),
    ("abi", 0),
    ("forward", 0),
    ("plan", 1),
    ("ipvsadm", 1),
    ("api", 1),
    ("health", 1),
    ("cluster", 1),
    ("doctor", 1),
    ("connsync", 1),
    ("kernel", 2),
    ("host", 2),
    ("probe", 2),
    ("runtime", 2),
    ("director", 3),
    ("lab", 3),
    ("cli", 3),
];

/// Arrows inside a tier that are allowed, with the reason.
const INSIDE: [(&str, &str, &str); 11] = [
    ("forward", "wire", "the load balancer reads headers"),
    ("forward", "abi", "the load balancer reads the tables"),
    ("plan", "api", "the model is made of the requests' types"),
    ("cluster", "api", "a file becomes changes"),
    ("cluster", "plan", "a file obeys the rules of the model"),
    ("cluster", "ipvsadm", "saved command lines are imported"),
    ("ipvsadm", "api", "options become requests, answers become listings"),
    ("health", "api", "what is declared and shown of health are the requests' types"),
    ("doctor", "api", "services and real servers are named as in the requests"),
    ("cli", "director", "one binary holds every program"),
    ("cli", "lab", "one binary holds every program"),
];

/// Crates beside the tiers, and the highest tier they may use. Nothing that ships depends on them.
const BESIDE: [(&str, u8); 4] = [("testkit", 2), ("compare", 2), ("xtask", 0), ("verify", 2)];

/// A crate of the workspace and the crates of the workspace it depends on.
pub(super) struct Crate {
    /// Without `sluice-`.
    pub(super) name: String,
    /// From the root of the repository.
    pub(super) manifest: String,
    pub(super) uses: Vec<Use>,
}

/// One dependency on a crate of the workspace.
pub(super) struct Use {
    /// Without `sluice-`.
    pub(super) name: String,
    /// Only the tests depend on it.
    pub(super) dev: bool,
    /// The manifest's line.
    pub(super) line: usize,
}

/// The tier of a crate, by its folder's name.
pub(super) fn tier(name: &str) -> Option<u8> {
    TIERS.iter().find(|(member, _)| *member == name).map(|(_, tier)| *tier)
}

/// Asks cargo for the crates of the workspace.
///
/// # Errors
/// cargo metadata failed, or a manifest could not be read.
pub(super) fn crates(root: &Path) -> anyhow::Result<Vec<Crate>> {
    let metadata =
        MetadataCommand::new().current_dir(root).no_deps().exec().context("cargo metadata failed")?;
    let short = |name: &str| name.strip_prefix("sluice-").unwrap_or(name).to_owned();
    let mut crates = Vec::new();
    for package in metadata.workspace_packages() {
        let path = package.manifest_path.as_std_path();
        let text = crate::read(path)?;
        let line = |name: &str| {
            let starts =
                |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', ' ', '=']));
            text.lines().position(starts).map_or(0, |at| at + 1)
        };
        let inside = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
        let uses = inside.map(|dependency| Use {
            name: short(&dependency.name),
            dev: dependency.kind == DependencyKind::Development,
            line: line(dependency.rename.as_deref().unwrap_or(&dependency.name)),
        });
        let manifest = path.strip_prefix(root).unwrap_or(path).display().to_string();
        crates.push(Crate { name: short(&package.name), manifest, uses: uses.collect() });
    }
    Ok(crates)
}

/// Finds every arrow that points up or sideways, and every crate the table does not know.
pub(super) fn check(crates: &[Crate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in crates {
        let beside = BESIDE.iter().find(|(name, _)| *name == member.name).map(|(_, tier)| *tier);
        let Some(limit) = tier(&member.name).map(Limit::Below).or(beside.map(Limit::UpTo)) else {
            let text = "this crate has no tier; add it to the table in xtask/src/tidy/tiers.rs";
            findings.push(Finding::new(&member.manifest, 0, text));
            continue;
        };
        for used in &member.uses {
            if let Some(text) = wrong(member, &limit, used) {
                findings.push(Finding::new(&member.manifest, used.line, text));
            }
        }
    }
    findings
}

enum Limit {
    Below(u8),
    UpTo(u8),
}

fn wrong(member: &Crate, limit: &Limit, used: &Use) -> Option<String> {
    let name = &member.name;
    let Some(tier) = tier(&used.name) else {
        let known = BESIDE.iter().any(|(beside, _)| *beside == used.name);
        // A crate without a tier is reported for its own manifest.
        let may = used.name == "testkit" && (used.dev || matches!(limit, Limit::UpTo(_)));
        return (known && !may).then(|| {
            format!("{name} depends on {}, which is for tests only; make it a dev-dependency", used.name)
        });
    };
    let listed = INSIDE.iter().any(|(from, to, _)| *from == name && *to == used.name);
    match limit {
        _ if listed => None,
        Limit::Below(own) if tier < *own => None,
        Limit::UpTo(highest) if tier <= *highest => None,
        Limit::Below(own) => Some(format!(
            "{name} (tier {own}) depends on {} (tier {tier}); a crate depends only on lower tiers: move \
             what is shared down",
            used.name
        )),
        Limit::UpTo(highest) => Some(format!(
            "{name} depends on {} (tier {tier}); it may use the tiers up to {highest}",
            used.name
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, used: &str, dev: bool) -> usize {
        let uses = vec![Use { name: used.to_owned(), dev, line: 3 }];
        check(&[Crate { name: name.to_owned(), manifest: "Cargo.toml".to_owned(), uses }]).len()
    }

    #[test]
    fn arrows_point_down() {
        assert_eq!(findings("plan", "abi", false), 0);
        assert_eq!(findings("director", "kernel", false), 0);
        assert_eq!(findings("abi", "plan", false), 1);
        assert_eq!(findings("kernel", "director", true), 1);
    }

    #[test]
    fn arrows_inside_a_tier_are_listed() {
        assert_eq!(findings("plan", "api", false), 0);
        assert_eq!(findings("api", "plan", false), 1);
        assert_eq!(findings("host", "kernel", false), 1);
        assert_eq!(findings("director", "lab", false), 1);
    }

    #[test]
    fn crates_beside_the_tiers_are_for_tests() {
        assert_eq!(findings("forward", "testkit", true), 0);
        assert_eq!(findings("forward", "testkit", false), 1);
        assert_eq!(findings("testkit", "kernel", false), 0);
        assert_eq!(findings("testkit", "director", false), 1);
        assert_eq!(findings("xtask", "kernel", false), 1);
    }

    #[test]
    fn an_unknown_crate_is_reported_once() {
        assert_eq!(findings("novelty", "abi", false), 1);
        assert_eq!(findings("plan", "novelty", false), 0);
    }

    #[test]
    fn a_finding_names_the_line() {
        let uses = vec![Use { name: "director".to_owned(), dev: false, line: 14 }];
        let manifest = "crates/abi/Cargo.toml".to_owned();
        let findings = check(&[Crate { name: "abi".to_owned(), manifest, uses }]);
        assert_eq!((findings[0].file.as_str(), findings[0].line), ("crates/abi/Cargo.toml", 14));
    }
}
