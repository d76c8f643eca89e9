//! A flow table, shared with the packet path through mapped memory. The algorithm is the core's
//! (`forward::flow_table`); here are only the memory and the calls that the daemon wants.

use crate::map::{Map, TableError};
use crate::mapping::Mapping;
use crate::table::{Cursor, Put};
use abi::{FLOW_WAYS, Flow, FlowKey, FlowPlace, FlowSeed};
use forward::flow_table::{self, Found, Memory};
use std::cell::UnsafeCell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

const TAG_BUSY: u64 = 1;

/// A place as both sides see it.
#[derive(Debug)]
#[repr(transparent)]
struct Place(UnsafeCell<FlowPlace>);

// SAFETY: a place is read and written whole and volatile. The packet path may write it at the same time; a mixture
// of two writes is a wrong time or state of one flow until its next packet, as it is between two CPUs.
unsafe impl Sync for Place {}

impl Place {
    fn read(&self) -> FlowPlace {
        // SAFETY: valid and aligned as long as `self`; see `Sync` above about others who write.
        unsafe { self.0.get().read_volatile() }
    }

    fn write(&self, value: FlowPlace) {
        // SAFETY: as for `read`.
        unsafe { self.0.get().write_volatile(value) }
    }
}

/// A flow table.
#[derive(Debug)]
pub struct FlowTable {
    name: &'static str,
    tags: Mapping<AtomicU64>,
    places: Mapping<Place>,
    seed: FlowSeed,
}

/// The table of one call: what the core works on.
struct View<'a>(&'a FlowTable);

impl<'a> Memory for View<'a> {
    type Place = &'a Place;

    fn mask(&self) -> u32 {
        self.0.tags.len().wrapping_sub(1)
    }

    fn tags(&self, bucket: u32) -> u64 {
        self.0.tags.get(bucket).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn swap_tags(&self, bucket: u32, old: u64, new: u64) -> bool {
        let Some(word) = self.0.tags.get(bucket) else { return false };
        word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn add_tags(&self, bucket: u32, delta: u64) {
        if let Some(word) = self.0.tags.get(bucket) {
            word.fetch_add(delta, Ordering::AcqRel);
        }
    }

    fn place(&self, bucket: u32, way: u32) -> Option<&'a Place> {
        self.0.places.get(bucket.checked_mul(FLOW_WAYS)?.checked_add(way)?)
    }

    fn holds(&self, place: &'a Place, key: &FlowKey) -> bool {
        place.read().key == *key
    }

    fn flow(&self, place: &'a Place) -> Flow {
        place.read().flow
    }

    fn write(&self, place: &'a Place, key: &FlowKey, flow: &Flow) {
        place.write(FlowPlace { key: *key, flow: *flow, reserved: 0 });
    }
}

impl FlowTable {
    pub(crate) fn new(
        name: &'static str,
        tags: &Map,
        places: &Map,
        seed: FlowSeed,
    ) -> Result<Self, TableError> {
        let tags = Mapping::new(tags).map_err(|source| tags.error("map", source))?;
        let mapped = Mapping::<Place>::new(places).map_err(|source| places.error("map", source))?;
        let whole = tags.len().is_power_of_two() && tags.len().checked_mul(FLOW_WAYS) == Some(mapped.len());
        if !whole {
            return Err(
                places.error("map", io::Error::other("its tags and its places do not belong together"))
            );
        }
        Ok(Self { name, tags, places: mapped, seed })
    }

    fn error(&self, operation: &'static str, code: i32) -> TableError {
        TableError { table: self.name, operation, source: io::Error::from_raw_os_error(code) }
    }

    fn find(&self, key: &FlowKey) -> (u32, Option<Found<&Place>>) {
        let hash = flow_table::hash(&self.seed, key);
        (hash, flow_table::find(&View(self), hash, key))
    }

    /// Number of places. About seven tenths of them can be taken before a flow may find none.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.places.len()
    }

    /// The flow with this key.
    ///
    /// # Errors
    /// None today; the type leaves room for tables that are read by system call.
    pub fn get(&self, key: &FlowKey) -> Result<Option<Flow>, TableError> {
        Ok(self.find(key).1.map(|found| found.place.read().flow))
    }

    /// Removes a flow and returns what was known about it.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn take(&self, key: &FlowKey) -> Result<Option<Flow>, TableError> {
        let (hash, found) = self.find(key);
        let Some(found) = found else { return Ok(None) };
        let flow = found.place.read().flow;
        Ok(flow_table::remove(&View(self), &found, hash).then_some(flow))
    }

    /// Writes a flow.
    ///
    /// # Errors
    /// [`TableError`]: full ([`TableError::is_full`]), EEXIST or ENOENT as `put` asks.
    pub fn put(&self, key: &FlowKey, flow: &Flow, put: Put) -> Result<(), TableError> {
        let (hash, found) = self.find(key);
        match (found, put) {
            (Some(_), Put::New) => Err(self.error("write to", libc::EEXIST)),
            (None, Put::Existing) => Err(self.error("write to", libc::ENOENT)),
            (Some(found), _) => {
                View(self).write(found.place, key, flow);
                Ok(())
            }
            (None, _) => flow_table::insert(&View(self), hash, key, flow)
                .map_err(|_| self.error("write to", libc::E2BIG)),
        }
    }

    /// Writes a flow; when there is no place, the flow that would expire first makes room, as the packet path does it
    /// in the embryonic table.
    ///
    /// # Errors
    /// [`TableError`] only when packets kept changing the same places.
    pub fn put_or_evict(&self, key: &FlowKey, flow: &Flow) -> Result<(), TableError> {
        match self.put(key, flow, Put::Any) {
            Err(error) if error.is_full() => {
                let hash = flow_table::hash(&self.seed, key);
                flow_table::insert_or_evict(&View(self), hash, key, flow)
                    .map(drop)
                    .map_err(|_| self.error("write to", libc::E2BIG))
            }
            done => done,
        }
    }

    /// Writes flows; stops at the first that fails. `keys` and `flows` go in pairs.
    ///
    /// # Errors
    /// As [`Self::put`]; flows before the one refused are written.
    pub fn put_batch(&self, keys: &[FlowKey], flows: &[Flow]) -> Result<(), TableError> {
        keys.iter().zip(flows).try_for_each(|(key, flow)| self.put(key, flow, Put::Any))
    }

    /// Removes a flow; `false` when it was absent.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn delete(&self, key: &FlowKey) -> Result<bool, TableError> {
        Ok(self.take(key)?.is_some())
    }

    /// Reads about `count` flows from the cursor on and moves it. Flows that come and go meanwhile may or may not be
    /// seen; one that stays is seen once.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn scan(&self, cursor: &mut Cursor, count: usize) -> Result<Vec<(FlowKey, Flow)>, TableError> {
        let mut seen = Vec::new();
        let first = match *cursor {
            Cursor::Start => 0,
            Cursor::At(bucket) => bucket,
            Cursor::End => return Ok(seen),
        };
        let view = View(self);
        for bucket in first..self.tags.len() {
            if seen.len() >= count.max(1) {
                *cursor = Cursor::At(bucket);
                return Ok(seen);
            }
            let mut tags = view.tags(bucket);
            for way in 0..FLOW_WAYS {
                if tags & 0xff > TAG_BUSY
                    && let Some(place) = view.place(bucket, way)
                {
                    let FlowPlace { key, flow, .. } = place.read();
                    seen.push((key, flow));
                }
                tags >>= 8;
            }
        }
        *cursor = Cursor::End;
        Ok(seen)
    }

    /// Every flow.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn entries(&self) -> Result<Vec<(FlowKey, Flow)>, TableError> {
        self.scan(&mut Cursor::Start, usize::MAX)
    }
}
