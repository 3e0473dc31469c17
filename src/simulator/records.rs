//! The bytes of every record, made from its place alone: copying a template and patching four fields.
//! Nothing is stored, so gigabytes cost what copying them costs.

use jiff::Timestamp;
use uuid::{Builder, Uuid};

use super::{
    clock::at_ns,
    random::{chance, mix, part},
    samples::{Sample, samples},
    scenario::SourceScenario,
    template::{Filler, Template},
};
use crate::domain::{RecordId, Source};

/// How many users a tenant's records tell of.
const USERS: u32 = 20;

/// Where a record stands: in which arrival, and at which place of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) arrival: u64,
    pub(super) record: u32,
}

/// What stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The record whose home is this slot, or another one when it comes again.
    Named { home: Slot, reordered: bool },
    /// Without `Id`; the same `home` twice in an arrival gives equal bytes.
    Nameless { home: Slot, ordinal: u64 },
    /// A line of the sample files, by its place there.
    Sample(usize),
}

/// All records of one source.
#[derive(Debug)]
pub(super) struct Records {
    seed: u64,
    source_key: u64,
    tenant_key: u64,
    scenario: SourceScenario,
    templates: [Template; 3],
    filler: Filler,
    samples: Vec<Sample>,
}

impl Records {
    pub(super) fn new(seed: u64, source: Source, scenario: &SourceScenario) -> Self {
        let samples = if scenario.samples { samples(source.content_type) } else { Vec::new() };
        Self {
            seed,
            source_key: part(&source.to_string()),
            tenant_key: part(&source.tenant.to_string()),
            scenario: scenario.clone(),
            templates: Template::set(source),
            filler: Filler::new(seed),
            samples,
        }
    }

    /// How many records arrival `i` holds.
    pub(super) fn count(&self, i: u64) -> u32 {
        let extra = if i == 0 { self.samples.len() as u32 } else { 0 };
        self.ordinary(i) + extra
    }

    /// What stands in `slot`, which must lie below [`Self::count`].
    pub(super) fn entry(&self, slot: Slot) -> Entry {
        let ordinary = self.ordinary(slot.arrival);
        if slot.record >= ordinary {
            return Entry::Sample((slot.record - ordinary) as usize);
        }
        if self.is_nameless(slot) {
            let home = Slot { record: slot.record & !1, ..slot };
            let ordinal = u64::from(home != slot && self.is_nameless(home));
            return Entry::Nameless { home, ordinal };
        }
        let share = self.scenario.duplicates.share;
        let roll = if share > 0.0 { self.roll(2, slot) } else { u64::MAX };
        if share > 0.0 && chance(roll, share) {
            return self.repeat(slot, mix(roll, &[3]));
        }
        Entry::Named { home: slot, reordered: false }
    }

    /// What makes the record in `slot` the same record as others.
    pub(super) fn identity(&self, slot: Slot, at: impl Fn(u64) -> i64) -> RecordId {
        match self.entry(slot) {
            Entry::Named { home, .. } => RecordId(self.guid(home).into_bytes()),
            Entry::Sample(line) => self.samples[line].identity,
            Entry::Nameless { ordinal, .. } => {
                let mut bytes = Vec::new();
                self.write(slot, at, &mut bytes);
                RecordId::of_bytes(&bytes, ordinal)
            }
        }
    }

    /// The text of the record's `Id` as sent, if it has a usable one.
    pub(super) fn key(&self, slot: Slot) -> Option<String> {
        match self.entry(slot) {
            Entry::Named { home, .. } => Some(self.guid(home).hyphenated().to_string()),
            Entry::Nameless { .. } => None,
            Entry::Sample(line) => self.samples[line].id.clone(),
        }
    }

    /// The whole record.
    pub(super) fn write(&self, slot: Slot, at: impl Fn(u64) -> i64, out: &mut Vec<u8>) {
        let fill = self.write_head(slot, at, out);
        if let Some(fill) = fill {
            self.fill(fill, 0, fill.bytes, out);
            out.extend_from_slice(Template::TAIL);
        }
    }

    /// All the bytes that the record with this identity may legitimately have.
    pub(super) fn variants(&self, slot: Slot, at: impl Fn(u64) -> i64 + Copy) -> Vec<Vec<u8>> {
        match self.entry(slot) {
            Entry::Sample(line) => {
                let identity = self.samples[line].identity;
                self.samples.iter().filter(|s| s.identity == identity).map(|s| s.bytes.to_vec()).collect()
            }
            Entry::Nameless { .. } => vec![self.bytes(slot, at)],
            Entry::Named { home, .. } => {
                let orders: &[bool] = if self.scenario.duplicates.reordered { &[false, true] } else { &[false] };
                orders.iter().map(|&reordered| self.named(home, reordered, at)).collect()
            }
        }
    }

    /// The record up to its filler, and what filler and [`Template::TAIL`] must follow; nothing follows a sample.
    pub(super) fn write_head(&self, slot: Slot, at: impl Fn(u64) -> i64, out: &mut Vec<u8>) -> Option<Fill> {
        match self.entry(slot) {
            Entry::Named { home, reordered } => Some(self.patch(usize::from(reordered), home, at, out)),
            Entry::Nameless { home, .. } => Some(self.patch(2, home, at, out)),
            Entry::Sample(line) => {
                out.extend_from_slice(self.samples[line].bytes);
                None
            }
        }
    }

    /// The filler's bytes from `from`, at most `count` of them.
    pub(super) fn fill(&self, fill: Fill, from: usize, count: usize, out: &mut Vec<u8>) {
        self.filler.copy(fill.seed, from, count, out);
    }

    fn bytes(&self, slot: Slot, at: impl Fn(u64) -> i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(slot, at, &mut bytes);
        bytes
    }

    fn named(&self, home: Slot, reordered: bool, at: impl Fn(u64) -> i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let fill = self.patch(usize::from(reordered), home, at, &mut bytes);
        self.fill(fill, 0, fill.bytes, &mut bytes);
        bytes.extend_from_slice(Template::TAIL);
        bytes
    }

    fn patch(&self, template: usize, home: Slot, at: impl Fn(u64) -> i64, out: &mut Vec<u8>) -> Fill {
        let template = &self.templates[template];
        // The event lies a few minutes before its content; the second tells neighbours apart.
        let event_ns = at(home.arrival) - 300_000_000_000;
        let (second, user) = (u64::from(home.record % 60), u64::from(home.record % USERS));
        template.write(self.guid(home), event_time(event_ns), second, user, serial(home), out);
        let bytes = self.record_bytes(home.arrival).saturating_sub(template.bytes() + Template::TAIL.len());
        Fill { seed: serial(home), bytes }
    }

    fn ordinary(&self, i: u64) -> u32 {
        match self.scenario.big.iter().find(|big| big.index == i) {
            Some(big) => big.records,
            None if i < self.scenario.history.arrivals => self.scenario.history.records,
            None => self.scenario.live.records,
        }
    }

    fn record_bytes(&self, i: u64) -> usize {
        self.scenario.big.iter().find(|big| big.index == i).map_or(self.scenario.record_bytes, |big| big.record_bytes)
    }

    fn is_nameless(&self, slot: Slot) -> bool {
        self.scenario.without_id > 0.0 && chance(self.roll(1, slot), self.scenario.without_id)
    }

    /// A record seen before: in the same arrival, or in one of the thousand before it.
    fn repeat(&self, slot: Slot, roll: u64) -> Entry {
        let reordered = self.scenario.duplicates.reordered && roll & 1 == 1;
        let (which, place) = (mix(roll, &[1]), mix(roll, &[2]));
        let arrival = match slot.arrival {
            0 => 0,
            i if roll & 6 == 0 => i,
            i => i - 1 - which % i.min(1_000),
        };
        let earlier = if arrival == slot.arrival { slot.record } else { self.ordinary(arrival) };
        let home = match earlier {
            0 => slot,
            records => Slot { arrival, record: (place % u64::from(records)) as u32 },
        };
        Entry::Named { home, reordered }
    }

    fn guid(&self, home: Slot) -> Uuid {
        let shared = self.scenario.shared_ids > 0.0 && {
            let roll = mix(self.seed, &[4, self.tenant_key, home.arrival, u64::from(home.record)]);
            chance(roll, self.scenario.shared_ids)
        };
        let key = if shared { self.tenant_key } else { self.source_key };
        let high = mix(self.seed, &[5, key, home.arrival, u64::from(home.record)]);
        let low = mix(high, &[6]);
        Builder::from_random_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes()).into_uuid()
    }

    fn roll(&self, about: u64, slot: Slot) -> u64 {
        mix(self.seed, &[about, self.source_key, slot.arrival, u64::from(slot.record)])
    }
}

/// The padding of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill {
    seed: u64,
    pub(super) bytes: usize,
}

fn serial(home: Slot) -> u64 {
    home.arrival << 20 | u64::from(home.record)
}

/// `YYYY-MM-DDTHH:MM` of the event; [`Template::write`] adds the second.
fn event_time(ns: i64) -> [u8; 16] {
    let at: Timestamp = at_ns(ns);
    let civil = at.to_zoned(jiff::tz::TimeZone::UTC).datetime();
    let mut text = *b"0000-00-00T00:00";
    for (from, digits, value) in [
        (0, 4, i32::from(civil.year())),
        (5, 2, i32::from(civil.month())),
        (8, 2, i32::from(civil.day())),
        (11, 2, i32::from(civil.hour())),
        (14, 2, i32::from(civil.minute())),
    ] {
        super::template::digits(&mut text[from..from + digits], u64::from(value.unsigned_abs()));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{domain::ContentType, simulator::scenario::*};

    fn records(scenario: &SourceScenario, kind: ContentType) -> Records {
        let source = Source { tenant: TenantScenario::default().id, content_type: kind };
        Records::new(1, source, scenario)
    }

    fn at(i: u64) -> i64 {
        1_788_000_000_000_000_000 + i as i64 * 1_000_000_000
    }

    #[test]
    fn a_record_is_json_of_the_length_asked_for_with_its_id_and_a_number_no_f64_holds() {
        for kind in ContentType::ALL {
            let records = records(&SourceScenario::default(), kind);
            for record in 0..20 {
                let slot = Slot { arrival: 3, record };
                let bytes = records.bytes(slot, at);
                assert_eq!(bytes.len(), 1_500);
                let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                assert_eq!(json["Id"].as_str().map(str::to_owned), records.key(slot));
                assert_eq!(json["CreationTime"].as_str().unwrap().len(), 19);
                assert!(json["Serial"].as_u64().unwrap() > 1 << 53);
                assert_eq!(records.identity(slot, at), RecordId::of_text(&records.key(slot).unwrap()));
            }
        }
    }

    #[test]
    fn s41_repeats_come_in_the_same_and_in_later_arrivals_and_in_another_order() {
        let duplicates = Duplicates { share: 0.3, reordered: true };
        let records = records(&SourceScenario { duplicates, ..SourceScenario::default() }, ContentType::Exchange);
        let (mut same, mut later, mut reordered_count) = (0, 0, 0);
        for slot in (0..50).flat_map(|arrival| (0..20).map(move |record| Slot { arrival, record })) {
            let Entry::Named { home, reordered } = records.entry(slot) else { panic!("all have names") };
            if home != slot {
                assert!((home.arrival, home.record) < (slot.arrival, slot.record));
                same += u32::from(home.arrival == slot.arrival);
                later += u32::from(home.arrival != slot.arrival);
                reordered_count += u32::from(reordered);
                let variants = records.variants(slot, at);
                assert!(variants.contains(&records.bytes(slot, at)));
                let [plain, other] = variants.try_into().unwrap();
                assert_ne!(plain, other);
                let read = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
                assert_eq!(read(&plain), read(&other), "only the order differs");
            }
        }
        assert!(same > 20 && later > 100 && reordered_count > 50, "{same} {later} {reordered_count}");
    }

    #[test]
    fn nameless_records_come_in_equal_pairs_that_their_ordinal_tells_apart() {
        let scenario = SourceScenario { without_id: 1.0, ..SourceScenario::default() };
        let records = records(&scenario, ContentType::General);
        let slots = (0..20).map(|record| Slot { arrival: 2, record });
        let identities: HashSet<_> = slots.clone().map(|slot| records.identity(slot, at)).collect();
        let bytes: HashSet<_> = slots.clone().map(|slot| records.bytes(slot, at)).collect();
        assert_eq!((identities.len(), bytes.len()), (20, 10));
        assert!(slots.clone().all(|slot| records.key(slot).is_none()));
    }

    #[test]
    fn s41_a_share_of_ids_is_common_to_the_content_types() {
        let scenario = SourceScenario { shared_ids: 0.5, ..SourceScenario::default() };
        let ids = |kind| {
            let records = records(&scenario, kind);
            let slots = (0..10).flat_map(|arrival| (0..20).map(move |record| Slot { arrival, record }));
            slots.filter_map(|slot| records.key(slot)).collect::<HashSet<_>>()
        };
        let common = ids(ContentType::Dlp).intersection(&ids(ContentType::Exchange)).count();
        assert!((60..140).contains(&common), "{common}");
    }
}
