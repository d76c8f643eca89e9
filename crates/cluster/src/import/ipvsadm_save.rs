//! The command lines that `ipvsadm-save` prints.

use super::draft::Draft;
use ::ipvsadm::{Place, Request, parse, restore_lines};

pub(super) fn import(text: &str, draft: &mut Draft) {
    for (line, text) in (1..).zip(text.lines()) {
        // As ipvsadm-restore has it, only lines that begin with the mark are comments.
        if text.starts_with('#') {
            continue;
        }
        let Some(words) = restore_lines(text).next() else { continue };
        match parse("ipvsadm", &words, Place::Restore, draft.names()) {
            Ok(Request::Change(change)) => {
                draft.apply(line, text, &change);
            }
            Ok(_) => draft.leave(line, text, "it declares nothing"),
            Err(failure) => draft.leave(line, text, failure.text.lines().next().unwrap_or_default()),
        }
    }
}
