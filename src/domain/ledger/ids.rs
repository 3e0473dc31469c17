//! The set of known record ids: 16 bytes and a day each, in little more memory than that.

use std::hash::{BuildHasher, RandomState};

use super::day::DayMark;
use crate::domain::RecordId;

/// Ids with the day each was last seen: open addressing with linear probing, 17 bytes a slot.
///
/// A small table is one shard. A large one is [`SHARDS`], so that growing copies one of them and never holds two of
/// everything. The hash is keyed: whoever writes audit records can choose ids, and must not be able to choose their slots.
/// Nothing is removed one by one; [`Self::retain`] builds a shard anew.
#[derive(Debug)]
pub(super) struct Ids {
    hasher: RandomState,
    /// One or [`SHARDS`].
    shards: Vec<Shard>,
    split_at: usize,
}

const SHARDS: usize = 64;
/// Bits of the hash that choose the shard.
const SHARD_BITS: u32 = SHARDS.trailing_zeros();
/// Entries at which one shard becomes [`SHARDS`].
const SPLIT_AT: usize = 65_536;

impl Ids {
    pub(super) fn new() -> Self {
        Self::splitting_at(SPLIT_AT)
    }

    fn splitting_at(split_at: usize) -> Self {
        Self { hasher: RandomState::new(), shards: vec![Shard::default()], split_at }
    }

    pub(super) fn get(&self, id: RecordId) -> Option<DayMark> {
        let hash = self.hasher.hash_one(id.0);
        let shard = &self.shards[self.shard_of(hash)];
        shard.slot_of(id, hash).and_then(|slot| shard.days[slot])
    }

    /// Adds an id, or files a known one under another day.
    pub(super) fn put(&mut self, id: RecordId, day: DayMark) {
        let hash = self.hasher.hash_one(id.0);
        let at = self.shard_of(hash);
        self.shards[at].put(id, day, hash, &self.hasher);
        if self.shards.len() == 1 && self.shards[0].len > self.split_at {
            self.split();
        }
    }

    /// Keeps the ids of one shard whose day passes. `shard` is below [`Self::shards`].
    pub(super) fn retain(&mut self, shard: usize, keep: impl Fn(DayMark) -> bool) {
        let kept = self.shards[shard].days.iter().flatten().filter(|day| keep(**day)).count();
        if kept < self.shards[shard].len {
            let before = std::mem::replace(&mut self.shards[shard], Shard::for_entries(kept));
            for (id, day) in before.entries().filter(|(_, day)| keep(*day)) {
                self.shards[shard].put(id, day, self.hasher.hash_one(id.0), &self.hasher);
            }
        }
    }

    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Slots of a shard: what [`Self::retain`] has to look at.
    pub(super) fn slots(&self, shard: usize) -> usize {
        self.shards[shard].ids.len()
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len).sum()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let slots: usize = self.shards.iter().map(|shard| shard.ids.len()).sum();
        slots * SLOT_BYTES + self.shards.capacity() * size_of::<Shard>()
    }

    fn shard_of(&self, hash: u64) -> usize {
        if self.shards.len() == 1 { 0 } else { (hash >> (u64::BITS - SHARD_BITS)) as usize }
    }

    fn split(&mut self) {
        let whole = std::mem::take(&mut self.shards).pop().unwrap_or_default();
        let hashes = || whole.entries().map(|(id, day)| (id, day, self.hasher.hash_one(id.0)));
        let mut counts = [0; SHARDS];
        for (_, _, hash) in hashes() {
            counts[(hash >> (u64::BITS - SHARD_BITS)) as usize] += 1;
        }
        let mut shards: Vec<_> = counts.into_iter().map(Shard::for_entries).collect();
        for (id, day, hash) in hashes() {
            shards[(hash >> (u64::BITS - SHARD_BITS)) as usize].put(id, day, hash, &self.hasher);
        }
        self.shards = shards;
    }
}

const SLOT_BYTES: usize = size_of::<[u8; 16]>() + size_of::<Option<DayMark>>();

/// Two arrays rather than one of pairs: nothing is lost to alignment, and a scan for days touches one byte a slot.
#[derive(Debug, Default)]
struct Shard {
    ids: Box<[[u8; 16]]>,
    /// As long as `ids`; `None` is an empty slot, and there is always one.
    days: Box<[Option<DayMark>]>,
    len: usize,
}

impl Shard {
    const SMALLEST: usize = 16;

    /// Room for `entries` and a few more.
    fn for_entries(entries: usize) -> Self {
        if entries == 0 { Self::default() } else { Self::with_slots(Self::SMALLEST.max(entries * 5 / 4)) }
    }

    fn with_slots(slots: usize) -> Self {
        Self { ids: vec![[0; 16]; slots].into(), days: vec![None; slots].into(), len: 0 }
    }

    fn entries(&self) -> impl Iterator<Item = (RecordId, DayMark)> {
        self.ids.iter().zip(&self.days).filter_map(|(id, day)| Some((RecordId(*id), (*day)?)))
    }

    /// Where `id` is, or the empty slot where it belongs. `None` only when there are no slots at all.
    fn slot_of(&self, id: RecordId, hash: u64) -> Option<usize> {
        let slots = self.ids.len();
        // The bits that chose the shard are equal for all in it; the product's upper half is the slot (no division).
        let mut at = ((u128::from(hash << SHARD_BITS) * slots as u128) >> u64::BITS) as usize;
        for _ in 0..slots {
            if self.days[at].is_none() || self.ids[at] == id.0 {
                return Some(at);
            }
            at = if at + 1 == slots { 0 } else { at + 1 };
        }
        None
    }

    fn put(&mut self, id: RecordId, day: DayMark, hash: u64, hasher: &RandomState) {
        // At nine tenths a probe is still short; a quarter more slots then leaves 72 %, 23.6 bytes an id.
        if (self.len + 1) * 10 > self.ids.len() * 9 {
            self.grow(hasher);
        }
        let at = self.slot_of(id, hash).expect("a shard that has just been grown has an empty slot");
        if self.days[at].is_none() {
            self.ids[at] = id.0;
            self.len += 1;
        }
        self.days[at] = Some(day);
    }

    fn grow(&mut self, hasher: &RandomState) {
        let larger = Self::with_slots(Self::SMALLEST.max(self.ids.len() * 5 / 4));
        let before = std::mem::replace(self, larger);
        for (id, day) in before.entries() {
            self.put(id, day, hasher.hash_one(id.0), hasher);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::Day;

    /// What README.md counts with. Every step of growth is passed on the way.
    #[test]
    fn an_id_takes_at_most_24_bytes_from_ten_thousand_to_two_million() {
        let mut ids = Ids::new();
        let mut worst: f64 = 0.0;
        for n in 1..=2_000_000_u32 {
            ids.put(id(n), Day(20_000).mark());
            if n >= 10_000 && n % 500 == 0 {
                worst = worst.max(ids.memory_bytes() as f64 / f64::from(n));
            }
        }
        assert_eq!(ids.len(), 2_000_000);
        assert!(worst <= 24.0, "{worst} bytes");
    }

    #[test]
    fn an_empty_set_takes_almost_nothing_and_a_small_one_little() {
        let mut ids = Ids::new();
        assert!(ids.memory_bytes() < 64);
        (0..10).for_each(|n| ids.put(id(n), Day(20_000).mark()));
        assert!(ids.memory_bytes() < 512);
    }

    #[test]
    fn what_is_dropped_gives_its_memory_back() {
        let mut ids = Ids::new();
        for n in 0..200_000 {
            ids.put(id(n), Day(if n % 10 == 0 { 20_001 } else { 20_000 }).mark());
        }
        for shard in 0..ids.shards() {
            ids.retain(shard, |day| day == Day(20_001).mark());
        }
        assert_eq!(ids.len(), 20_000);
        assert!(ids.memory_bytes() <= 24 * ids.len(), "{}", ids.memory_bytes());
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_map(
            steps in prop::collection::vec((0_u32..300, 0_i32..4, 0_u8..40), 0..1_500),
            split_at in 1_usize..400,
        ) {
            let (mut ids, mut model) = (Ids::splitting_at(split_at), HashMap::new());
            for (n, day, action) in steps {
                if action == 0 {
                    for shard in 0..ids.shards() {
                        ids.retain(shard, |mark| mark != Day(day).mark());
                    }
                    model.retain(|_, known| *known != day);
                } else {
                    ids.put(id(n), Day(day).mark());
                    model.insert(n, day);
                }
            }
            prop_assert_eq!(ids.len(), model.len());
            for n in 0..300 {
                prop_assert_eq!(ids.get(id(n)), model.get(&n).map(|day| Day(*day).mark()));
            }
        }
    }

    fn id(n: u32) -> RecordId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        RecordId(bytes)
    }
}
