//! What a correct connector must have delivered by a given time, and what it may be excused for.

use std::{
    collections::HashSet,
    fmt,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{clock::ns, fault::ContentFault, records::Slot, server::Shared, source::SimSource};
use crate::domain::{GapReason, RecordId, Source};

/// The truth of a running simulator. Cheap to clone; computed when asked, from the scenario.
#[derive(Clone)]
pub struct Truth(pub(super) Arc<Shared>);

impl fmt::Debug for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Truth")
    }
}

/// What one source owes.
#[derive(Clone, Debug)]
pub struct SourceTruth {
    pub source: Source,
    /// Every record that was to be had at the time asked for, once per identity.
    pub due: Vec<TruthRecord>,
    /// Records that were only in contents that cannot be had any more, and why. Published or not, both are right.
    pub excused: Vec<(GapReason, TruthRecord)>,
}

/// One record, by its place; its bytes are made when asked for.
#[derive(Clone)]
pub struct TruthRecord {
    /// As the connector has to know it.
    pub identity: RecordId,
    slot: Slot,
    source: Arc<SimSource>,
}

impl Truth {
    /// The truth at the simulator's present moment, one entry a tenant and content type.
    pub fn now(&self) -> Vec<SourceTruth> {
        self.records(self.0.clock.now())
    }

    /// The truth at `now`: what had become available to the subscriber by then, this moment included.
    pub fn records(&self, now: Timestamp) -> Vec<SourceTruth> {
        let sources = self.0.tenants.iter().flat_map(|tenant| &tenant.sources);
        let faults = self.0.faults.faults();
        sources.map(|source| of_source(source, &faults.contents, now)).collect()
    }
}

impl SourceTruth {
    /// SHA-256 over the identities in order of their bytes.
    pub fn digest(&self) -> [u8; 32] {
        let mut ids: Vec<RecordId> = self.due.iter().map(|record| record.identity).collect();
        ids.sort_unstable();
        let mut hash = Sha256::new();
        ids.iter().for_each(|id| hash.update(id.0));
        hash.finalize().into()
    }
}

impl TruthRecord {
    /// The text of the `Id`, which is the Kafka key; nothing when the record has no usable one.
    pub fn key(&self) -> Option<String> {
        self.source.records.key(self.slot)
    }

    /// Whether a record with these bytes is this record as sent.
    pub fn accepts(&self, bytes: &[u8]) -> bool {
        self.variants().iter().any(|variant| variant == bytes)
    }

    /// The first half of the SHA-256 of every form that the bytes may have.
    pub fn hashes(&self) -> Vec<[u8; 16]> {
        self.variants().iter().map(|bytes| half_hash(bytes)).collect()
    }

    /// Every form that the bytes may have: the members may come in another order the second time.
    pub fn variants(&self) -> Vec<Vec<u8>> {
        self.source.records.variants(self.slot, |i| self.source.arrivals.at(i))
    }
}

impl fmt::Debug for TruthRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} of arrival {} of {}", self.slot.record, self.slot.arrival, self.source.source)
    }
}

/// What [`TruthRecord::hashes`] gives for a record with these bytes.
pub fn half_hash(bytes: &[u8]) -> [u8; 16] {
    let digest = Sha256::digest(bytes);
    std::array::from_fn(|at| digest[at])
}

fn of_source(source: &Arc<SimSource>, faults: &[ContentFault], now: Timestamp) -> SourceTruth {
    let view = source.view(now);
    let (mut due, mut excused) = (Vec::new(), Vec::new());
    // Only a source that repeats itself pays for remembering.
    let repeats = source.scenario.duplicates.share > 0.0 || source.scenario.samples;
    let mut seen: HashSet<RecordId, BuildHasherDefault<FirstBytes>> = HashSet::default();
    let mut lost = Vec::new();
    for arrival in (0..view.until).filter(|&i| view.shows(i)) {
        match excuse(source, faults, arrival, now) {
            Availability::Due => {}
            Availability::Lost(reason) => {
                lost.push((reason, arrival));
                continue;
            }
            Availability::Never => continue,
        }
        for record in records(source, arrival) {
            if !repeats || seen.insert(record.identity) {
                due.push(record);
            }
        }
    }
    for (reason, arrival) in lost {
        let left = records(source, arrival).filter(|record| !repeats || seen.insert(record.identity));
        excused.extend(left.map(|record| (reason, record)));
    }
    SourceTruth { source: source.source, due, excused }
}

fn records(source: &Arc<SimSource>, arrival: u64) -> impl Iterator<Item = TruthRecord> + '_ {
    (0..source.records.count(arrival)).map(move |record| {
        let slot = Slot { arrival, record };
        let identity = source.records.identity(slot, |i| source.arrivals.at(i));
        TruthRecord { identity, slot, source: Arc::clone(source) }
    })
}

enum Availability {
    Due,
    Lost(GapReason),
    /// Nobody was ever offered it.
    Never,
}

fn excuse(source: &SimSource, faults: &[ContentFault], arrival: u64, now: Timestamp) -> Availability {
    let (low, high) = source.range(arrival);
    let fails = |fault: &&ContentFault| {
        fault.content_type == source.source.content_type && fault.times.is_none() && (low..high).contains(&fault.index)
    };
    if let Some(fault) = faults.iter().find(fails) {
        return fault.damage.reason().map_or(Availability::Never, Availability::Lost);
    }
    // Seven days by the listing's start, or sooner if the content itself lapses.
    let unlisted_ns = source.arrivals.at(arrival).saturating_add(7 * 86_400_000_000_000);
    let expires_ns = source.expires_ns(super::source::Content { first: arrival, last: arrival });
    if unlisted_ns.min(expires_ns) <= ns(now) { Availability::Lost(GapReason::Expired) } else { Availability::Due }
}

/// Record identities are as good as random: their first bytes are hash enough.
#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
