//! The settings of the model, and what they come to for the packet path.

use crate::model::Model;
use abi::{
    SYSCTL_CACHE_BYPASS, SYSCTL_EXPIRE_NODEST_CONN, SYSCTL_EXPIRE_QUIESCENT_TEMPLATE, SYSCTL_PMTU_DISC,
    SYSCTL_SCHEDULE_ICMP, SYSCTL_SLOPPY_SCTP, SYSCTL_SLOPPY_TCP, Sysctls,
};
use api::{MEANINGLESS, Refusal, RefusalKind, SETTINGS, Setting, SettingView, SettingsView};
use std::collections::BTreeMap;

/// Settings that are not at their defaults.
pub(crate) type Chosen = BTreeMap<&'static str, u32>;

/// Settings that are nothing but a switch of the packet path.
const SWITCHES: [(&str, u32); 7] = [
    ("cache_bypass", SYSCTL_CACHE_BYPASS),
    ("expire_nodest_conn", SYSCTL_EXPIRE_NODEST_CONN),
    ("expire_quiescent_template", SYSCTL_EXPIRE_QUIESCENT_TEMPLATE),
    ("pmtu_disc", SYSCTL_PMTU_DISC),
    ("schedule_icmp", SYSCTL_SCHEDULE_ICMP),
    ("sloppy_sctp", SYSCTL_SLOPPY_SCTP),
    ("sloppy_tcp", SYSCTL_SLOPPY_TCP),
];

/// Checks a setting's name and value.
pub(crate) fn check(name: &str, value: u32) -> Result<&'static Setting, Refusal> {
    let Some(setting) = Setting::named(name) else {
        let why = MEANINGLESS.iter().find(|(meaningless, _)| *meaningless == name).map(|(_, why)| *why);
        return Err(match why {
            Some(why) => Refusal::new(RefusalKind::Unsupported, format!("{name} has no meaning here: {why}")),
            None => {
                let message = format!("there is no setting `{name}': `sluice set' lists them");
                Refusal::new(RefusalKind::Invalid, message)
            }
        });
    };
    if value < setting.least || value > setting.most {
        let message = format!("{name} {value} is out of range: {} to {}", setting.least, setting.most);
        return Err(Refusal::new(RefusalKind::OutOfRange, message));
    }
    Ok(setting)
}

impl Model {
    /// The value of a setting; 0 for a name that there is not.
    #[must_use]
    pub fn setting(&self, name: &str) -> u32 {
        let default = || Setting::named(name).map(|setting| setting.default);
        self.chosen().get(name).copied().or_else(default).unwrap_or_default()
    }

    /// Every setting with its value.
    #[must_use]
    pub fn settings_view(&self) -> SettingsView {
        let view = |setting: &Setting| SettingView {
            name: setting.name.to_owned(),
            value: self.setting(setting.name),
            default: setting.default,
            meaning: setting.meaning.to_owned(),
        };
        SettingsView { settings: SETTINGS.iter().map(view).collect() }
    }

    /// What the settings come to for the packet path, with so many free pages of memory.
    #[must_use]
    pub fn sysctls(&self) -> Sysctls {
        let threshold = u64::from(self.setting("amemthresh"));
        let missing = threshold.checked_sub(self.free_pages()).filter(|missing| *missing > 0);
        let drop_rate = match (self.setting("drop_packet"), missing) {
            (3, _) => self.setting("am_droprate"),
            (1 | 2, Some(missing)) => u32::try_from(threshold / missing).unwrap_or(u32::MAX),
            _ => 0,
        };
        let secure_tcp = match (self.setting("secure_tcp"), missing) {
            (3, _) | (1 | 2, Some(_)) => 1,
            _ => 0,
        };
        let on = |(name, switch): (&str, u32)| if self.setting(name) == 0 { 0 } else { switch };
        let switches = SWITCHES.into_iter().map(on).fold(0, |all, switch| all | switch);
        Sysctls {
            conn_reuse_mode: self.setting("conn_reuse_mode"),
            drop_rate,
            secure_tcp,
            switches,
            lblc_expiration_s: self.setting("lblc_expiration"),
            lblcr_expiration_s: self.setting("lblcr_expiration"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::small_options;
    use api::Change;

    fn set(model: &mut Model, name: &str, value: u32) -> Result<(), Refusal> {
        model.apply(&Change::SetSetting { name: name.to_owned(), value })
    }

    #[test]
    fn defaults_are_those_of_the_packet_path() {
        assert_eq!(Model::new(small_options()).sysctls(), Sysctls::default());
    }

    #[test]
    fn a_setting_is_kept_and_saved_and_its_default_forgotten() {
        let mut model = Model::new(small_options());
        set(&mut model, "conn_reuse_mode", 3).expect("in range");
        set(&mut model, "sloppy_tcp", 1).expect("in range");
        set(&mut model, "sloppy_tcp", 0).expect("in range");
        assert_eq!(model.sysctls(), Sysctls { conn_reuse_mode: 3, ..Sysctls::default() });
        let mut again = Model::new(small_options());
        assert!(again.apply_all(&model.to_changes()).iter().all(Option::is_none));
        assert_eq!(again, model);
        let view = model.settings_view();
        assert_eq!(view.settings.len(), SETTINGS.len());
        assert!(
            view.settings.iter().any(|it| it.name == "conn_reuse_mode" && it.value == 3 && it.default == 1)
        );
    }

    #[test]
    fn what_has_no_meaning_is_refused_with_the_reason() {
        let mut model = Model::new(small_options());
        for (name, value, expected) in [
            ("conntrack", 1, "conntrack has no meaning here: packets are balanced before netfilter"),
            (
                "drop_entry",
                3,
                "drop_entry has no meaning here: half-open connections are in a table of their own",
            ),
            ("conn_reuse", 1, "there is no setting `conn_reuse'"),
            ("conn_reuse_mode", 4, "conn_reuse_mode 4 is out of range: 0 to 3"),
            ("am_droprate", 0, "am_droprate 0 is out of range: 1 to"),
        ] {
            let refusal = set(&mut model, name, value).expect_err("refused");
            assert!(refusal.message.starts_with(expected), "{}", refusal.message);
        }
        assert_eq!(model, Model::new(small_options()));
    }

    #[test]
    fn switches_reach_the_packet_path() {
        for (name, switch) in SWITCHES {
            let mut model = Model::new(small_options());
            let other = 1 - model.setting(name);
            set(&mut model, name, other).expect("in range");
            assert_eq!(model.sysctls().switches, Sysctls::default().switches ^ switch, "{name}");
        }
    }

    #[test]
    fn the_automatic_modes_act_when_memory_is_short() {
        let mut model = Model::new(small_options());
        for (mode, free, expected) in [(0, 0, 0), (1, 2000, 0), (1, 768, 4), (2, 0, 1), (3, 2000, 10)] {
            set(&mut model, "drop_packet", mode).expect("in range");
            set(&mut model, "secure_tcp", mode).expect("in range");
            model.set_free_pages(free);
            assert_eq!(model.sysctls().drop_rate, expected, "mode {mode} with {free} pages");
            assert_eq!(model.sysctls().secure_tcp, u32::from(expected != 0), "mode {mode} with {free} pages");
        }
    }
}
