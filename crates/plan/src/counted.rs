//! How many rows stand behind each bit of the filters and behind each switch, so that one row more or less needs no look
//! at the others.

use crate::services;
use crate::tables::Tables;
use abi::{Address, REAL_TRANSLATED, Real, SETTING_FTP, SETTING_PORT_ZERO, Service, ServiceKey};
use std::collections::{BTreeMap, BTreeSet};

/// Bits of a word of a filter.
const WORD_BITS: u32 = u64::BITS;

/// Rows that changed, as far as they count: before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowChanges {
    /// Services that are found, and whether each is FTP's.
    services: Vec<(ServiceKey, Option<bool>, Option<bool>)>,
    /// Addresses of real servers that may be masqueraded.
    reals: Vec<(Option<Address>, Option<Address>)>,
}

impl RowChanges {
    pub(crate) fn service(&mut self, key: &ServiceKey, before: Option<&Service>, after: Option<&Service>) {
        if services::is_found(key) {
            let is_ftp = |service: &Service| services::is_ftp(key, service);
            let (before, after) = (before.map(is_ftp), after.map(is_ftp));
            if before != after {
                self.services.push((*key, before, after));
            }
        }
    }

    pub(crate) fn real(&mut self, before: Option<&Real>, after: Option<&Real>) {
        let address = |real: &Real| (real.flags & REAL_TRANSLATED != 0).then_some(real.address);
        let (before, after) = (before.and_then(address), after.and_then(address));
        if before != after {
            self.reals.push((before, after));
        }
    }
}

/// Rows by bit of a filter; none has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Bits(BTreeMap<u32, u32>);

impl Bits {
    fn add(&mut self, bit: u32) {
        *self.0.entry(bit).or_default() += 1;
    }

    fn take(&mut self, bit: u32) {
        if let Some(count) = self.0.get_mut(&bit) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&bit);
            }
        }
    }

    /// A word of the filter.
    fn word(&self, word: u32) -> u64 {
        let first = word * WORD_BITS;
        self.0.range(first..first + WORD_BITS).fold(0, |bits, (bit, _)| bits | 1 << (bit - first))
    }
}

/// The counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    vips: Bits,
    masqueraded: Bits,
    ftp: u32,
    port_zero: u32,
}

fn bit(address: &Address) -> u32 {
    let (word, mask) = abi::vip_filter_bit(address);
    word * WORD_BITS + mask.trailing_zeros()
}

impl Counted {
    /// Those of whole tables.
    pub(crate) fn of(tables: &Tables) -> Self {
        let mut rows = RowChanges::default();
        tables.services.iter().for_each(|(key, service)| rows.service(key, None, Some(service)));
        tables.reals.values().for_each(|real| rows.real(None, Some(real)));
        let mut counted = Self::default();
        counted.count(&rows);
        counted
    }

    pub(crate) fn count(&mut self, rows: &RowChanges) {
        for (key, before, after) in &rows.services {
            before.iter().for_each(|is_ftp| self.take_service(key, *is_ftp));
            after.iter().for_each(|is_ftp| self.add_service(key, *is_ftp));
        }
        for (before, after) in &rows.reals {
            before.iter().for_each(|address| self.masqueraded.take(bit(address)));
            after.iter().for_each(|address| self.masqueraded.add(bit(address)));
        }
    }

    /// Undoes [`Self::count`].
    pub(crate) fn uncount(&mut self, rows: &RowChanges) {
        for (key, before, after) in &rows.services {
            after.iter().for_each(|is_ftp| self.take_service(key, *is_ftp));
            before.iter().for_each(|is_ftp| self.add_service(key, *is_ftp));
        }
        for (before, after) in &rows.reals {
            after.iter().for_each(|address| self.masqueraded.take(bit(address)));
            before.iter().for_each(|address| self.masqueraded.add(bit(address)));
        }
    }

    fn add_service(&mut self, key: &ServiceKey, is_ftp: bool) {
        self.vips.add(bit(&key.address));
        self.ftp += u32::from(is_ftp);
        self.port_zero += u32::from(services::is_port_zero(key));
    }

    fn take_service(&mut self, key: &ServiceKey, is_ftp: bool) {
        self.vips.take(bit(&key.address));
        self.ftp -= u32::from(is_ftp);
        self.port_zero -= u32::from(services::is_port_zero(key));
    }

    /// The switches that say which look-ups may find something.
    pub(crate) fn switches(&self) -> u32 {
        let on = |count: u32, switch| if count > 0 { switch } else { 0 };
        on(self.ftp, SETTING_FTP) | on(self.port_zero, SETTING_PORT_ZERO)
    }

    /// The words of the VIP filter that these rows may have changed, as they are now; `None` for 0.
    pub(crate) fn vip_words(&self, rows: &RowChanges) -> BTreeMap<u32, Option<u64>> {
        words(&self.vips, rows.services.iter().map(|(key, ..)| &key.address))
    }

    /// The same of the filter of masqueraded real servers.
    pub(crate) fn masquerade_words(&self, rows: &RowChanges) -> BTreeMap<u32, Option<u64>> {
        words(&self.masqueraded, rows.reals.iter().flat_map(|(before, after)| [before, after]).flatten())
    }
}

fn words<'a>(bits: &Bits, addresses: impl Iterator<Item = &'a Address>) -> BTreeMap<u32, Option<u64>> {
    let touched: BTreeSet<u32> = addresses.map(|address| abi::vip_filter_bit(address).0).collect();
    touched.into_iter().map(|word| (word, Some(bits.word(word)).filter(|bits| *bits != 0))).collect()
}
