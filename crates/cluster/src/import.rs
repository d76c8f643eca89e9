//! Other programs' files as cluster files.
//!
//! An importer reads what it knows and makes changes of a model, so that the rules are the same as everywhere; the model is
//! then rendered. Whatever it does not carry over, be it unknown, impossible here or refused by the model, is in the list of
//! what was left, with its line and the reason.
//!
//! Deliberately absent: guesses about what a program does where its file says nothing, but for the defaults that its
//! manual names.

mod draft;
mod ipvsadm_save;
mod keepalived;
mod keepalived_checks;
mod ldirectord;
mod lines;
mod lvs_dr;
mod piranha;

pub use ::ipvsadm::Names;
use draft::Draft;
use plan::Options;
use std::str::FromStr;

/// A form that can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What `ipvsadm-save` prints.
    IpvsadmSave,
    /// `keepalived.conf`.
    Keepalived,
    /// `ldirectord.cf`.
    Ldirectord,
    /// `lvs_dr.conf` and its like, for the configure script of the LVS-HOWTO.
    LvsDr,
    /// `lvs.cf` of Piranha.
    Piranha,
}

impl Format {
    /// Every form, with the word that names it.
    pub const ALL: [(&str, Self); 5] = [
        ("ipvsadm-save", Self::IpvsadmSave),
        ("keepalived", Self::Keepalived),
        ("ldirectord", Self::Ldirectord),
        ("lvs-dr", Self::LvsDr),
        ("piranha", Self::Piranha),
    ];
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text).map(|(_, format)| format);
        let names = || Self::ALL.map(|(name, _)| name).join(", ");
        found.ok_or_else(|| format!("`{text}' cannot be imported: there are {}", names()))
    }
}

/// What came of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// A cluster file.
    pub text: String,
    /// What is not in it, in the order of the file.
    pub left: Vec<Left>,
}

/// Something that was not carried over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its line, counted from 1.
    pub line: usize,
    /// What stands there.
    pub what: String,
    /// Why it was left.
    pub why: String,
}

/// Carries a file over. Names of hosts and services that stand in it are looked up with `names`.
#[must_use]
pub fn import(format: Format, text: &str, options: &Options, names: &dyn Names) -> Import {
    let mut draft = Draft::new(options, names);
    // A byte order mark is no part of the first line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::IpvsadmSave => ipvsadm_save::import(text, &mut draft),
        Format::Keepalived => keepalived::import(text, &mut draft),
        Format::Ldirectord => ldirectord::import(text, &mut draft),
        Format::LvsDr => lvs_dr::import(text, &mut draft),
        Format::Piranha => piranha::import(text, &mut draft),
    }
    draft.finish()
}
