//! A text that is changed in place: comments, order and layout of what is not touched stay.

use crate::read::Record;
use toml_edit::{Decor, DocumentMut, Item, Table, TableLike, Value};

/// The tables of one kind, such as `service`; made if there are none.
pub(super) fn kind<'d>(document: &'d mut DocumentMut, name: &str) -> Option<&'d mut dyn TableLike> {
    let made = || {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    };
    document.entry(name).or_insert_with(made).as_table_like_mut()
}

/// One table of a kind.
pub(super) fn section<'d>(
    document: &'d mut DocumentMut,
    of: &str,
    name: &str,
) -> Option<&'d mut dyn TableLike> {
    document.get_mut(of)?.as_table_like_mut()?.get_mut(name)?.as_table_like_mut()
}

/// Sets a key to a value that is written so. What stands around the former value stays.
pub(super) fn set(table: &mut dyn TableLike, key: &str, text: &str) -> Option<()> {
    let mut value: Value = text.parse().ok()?;
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => drop(table.insert(key, Item::Value(value))),
    }
    Some(())
}

/// A new table, written as the record says.
pub(super) fn table<R: Record>(record: &R) -> Option<Item> {
    let mut table = Table::new();
    for (key, text) in record.pairs() {
        set(&mut table, key, &text)?;
    }
    Some(Item::Table(table))
}

/// A copy of a table, without the comments before it, that stands wherever it is put.
pub(super) fn copy(item: &Item) -> Item {
    fn unplace(table: &mut Table) {
        table.set_position(None);
        for (_, item) in table.iter_mut() {
            if let Item::Table(table) = item {
                unplace(table);
            }
        }
    }
    let mut copy = item.clone();
    if let Item::Table(table) = &mut copy {
        unplace(table);
        *table.decor_mut() = Decor::default();
    }
    copy
}

/// What becomes of one item of a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    /// It stays as it is written.
    Stays,
    /// It is written so.
    Is(String),
    /// It goes.
    Goes,
}

/// Changes a list item by item; `None` if there is no such list with an item for each slot.
pub(super) fn change_list(
    table: &mut dyn TableLike,
    key: &str,
    slots: &[Slot],
    added: &[String],
) -> Option<()> {
    let list = table.get_mut(key)?.as_value_mut()?.as_array_mut()?;
    if list.len() != slots.len() {
        return None;
    }
    for (place, slot) in slots.iter().enumerate().rev() {
        match slot {
            Slot::Stays => {}
            Slot::Is(text) => drop(list.replace(place, text.parse::<Value>().ok()?)),
            Slot::Goes => {
                let gone = list.remove(place);
                // The first one of a line has no space before it.
                if let Some(first) = list.get_mut(0).filter(|_| place == 0)
                    && first.decor().prefix().and_then(|it| it.as_str()) == Some(" ")
                {
                    let prefix = gone.decor().prefix().cloned().unwrap_or_default();
                    first.decor_mut().set_prefix(prefix);
                }
            }
        }
    }
    for text in added {
        let value: Value = text.parse().ok()?;
        // In a list with an item per line, on a line of its own; comments are about the one that they stand at.
        let last = list.iter().last().and_then(|it| it.decor().prefix()?.as_str());
        let indent = last.and_then(|prefix| prefix.rfind('\n').map(|at| prefix[at..].to_owned()));
        match indent {
            Some(indent) => list.push_formatted(value.decorated(indent, "")),
            None => list.push(value),
        }
    }
    Some(())
}
