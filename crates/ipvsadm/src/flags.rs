//! Scheduler flags: the comma list of `-b`, and back.

use crate::failure::Failure;
use api::SchedulerFlags;

/// Flag names, the scheduler each belongs to (`None`: any) and the bit.
const FLAGS: [(&str, Option<&str>, u8); 7] = [
    ("sh-fallback", Some("sh"), 1),
    ("sh-port", Some("sh"), 2),
    ("mh-fallback", Some("mh"), 1),
    ("mh-port", Some("mh"), 2),
    ("flag-1", None, 1),
    ("flag-2", None, 2),
    ("flag-3", None, 3),
];

/// Reads a list. Empty words and repeats pass.
pub(crate) fn parse_flags(list: &str, scheduler: &str) -> Result<SchedulerFlags, Failure> {
    let mut flags = SchedulerFlags::default();
    for word in list.split(',').filter(|word| !word.is_empty()) {
        let Some((_, owner, bit)) = FLAGS.iter().find(|(name, ..)| *name == word) else {
            return Err(Failure::usage(format!("invalid scheduler flag `{word}'")));
        };
        if owner.is_some_and(|owner| owner != scheduler) {
            return Err(Failure::usage(format!("incompatible scheduler flag `{word}'")));
        }
        match bit {
            1 => flags.flag_1 = true,
            2 => flags.flag_2 = true,
            _ => flags.flag_3 = true,
        }
    }
    Ok(flags)
}

/// Writes a list. The third flag has no name with `sh` and `mh`, so it may be empty although a flag is set.
pub(crate) fn flags_text(flags: SchedulerFlags, scheduler: &str) -> String {
    let names: [Option<&str>; 3] = match scheduler {
        "sh" => [Some("sh-fallback"), Some("sh-port"), None],
        "mh" => [Some("mh-fallback"), Some("mh-port"), None],
        _ => [Some("flag-1"), Some("flag-2"), Some("flag-3")],
    };
    let set = [flags.flag_1, flags.flag_2, flags.flag_3];
    let words: Vec<&str> =
        names.into_iter().zip(set).filter(|(_, on)| *on).filter_map(|(name, _)| name).collect();
    words.join(",")
}
