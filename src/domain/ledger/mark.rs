//! What is remembered of a content that is settled, and what follows from it when the content is listed again.

use jiff::{SignedDuration, Timestamp};

use crate::{
    config,
    domain::{ContentKey, GapReason},
};

/// How a listing came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Every record that was not known before is in Kafka.
    Published,
    /// Copied to the end of the listings: that copy, and so the content, is not settled (docs/exactly-once.md, rule 15).
    Moved,
    /// Could not be had; the gaps topic says why.
    Gap(GapReason),
}

/// Whether a content is to be fetched a second time because the same id may hold more records later (rule 21).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Recheck {
    /// Fetched late enough, or not fetched at all.
    NotNeeded,
    /// By the next sweep.
    Due,
    /// Done, and nothing new was there.
    Empty,
    /// Done, and it held records that were not there before.
    Grown,
}

/// The mark of a settled content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub outcome: Outcome,
    /// `contentCreated`.
    pub created: Timestamp,
    pub settled: Timestamp,
    pub recheck: Recheck,
    /// Records published from the content, over all fetches.
    pub records: u32,
}

/// Records of a content that were not known before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub published: u32,
    /// Dropped by a filter.
    pub filtered: u32,
}

/// A content is fetched a second time when its first fetch came within this of its creation.
const FRESH: SignedDuration = SignedDuration::from_hours(1);

/// How long a gap rests before a sweep tries it again. Less than a day: the sweep comes once a day, and a gap that was
/// settled minutes after it must not wait for the one after the next.
const GAP_RESTS: SignedDuration = SignedDuration::from_hours(23);

/// One content in so many is rechecked while rechecks find nothing.
const SAMPLE: u64 = 50;

/// Rechecks of a source without a find, after which only a sample is rechecked.
pub(super) const CONVINCED: u32 = 1_000;

impl Mark {
    /// The mark of a content (or, moved, of its listing) that has no other yet, or that closes a gap.
    pub fn new(outcome: Outcome, created: Timestamp, settled: Timestamp, records: u32) -> Self {
        let fresh = settled.duration_since(created) < FRESH;
        let recheck = if fresh && outcome == Outcome::Published { Recheck::Due } else { Recheck::NotNeeded };
        Self { outcome, created, settled, recheck, records }
    }

    /// The mark after the second fetch. One that could not be had found nothing and is no gap: the content was published.
    pub fn rechecked(self, settled: Timestamp, found: Found) -> Self {
        let recheck = if found == Found::default() { Recheck::Empty } else { Recheck::Grown };
        Self { settled, recheck, records: self.records.saturating_add(found.published), ..self }
    }

    /// Whether a sweep at `now` may try this gap again (rule 20).
    pub(super) fn may_close(&self, now: Timestamp) -> bool {
        match self.outcome {
            Outcome::Gap(reason) => reason.may_close() && now.duration_since(self.settled) >= GAP_RESTS,
            Outcome::Published | Outcome::Moved => false,
        }
    }

    /// Whether a sweep fetches this content again. `fruitless` counts the source's rechecks since the last find.
    pub(super) fn is_recheck_due(&self, key: &ContentKey, policy: config::Recheck, fruitless: u32) -> bool {
        let due = self.outcome == Outcome::Published && self.recheck == Recheck::Due;
        due && match policy {
            config::Recheck::All => true,
            config::Recheck::Sampled => fruitless < CONVINCED || is_sampled(key),
            config::Recheck::Off => false,
        }
    }
}

/// The key is a hash already: part of it decides, the same for every process and restart.
fn is_sampled(key: &ContentKey) -> bool {
    let (part, _) = key.0.split_first_chunk().expect("a key has 16 bytes");
    u64::from_be_bytes(*part).is_multiple_of(SAMPLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_content_in_fifty_is_sampled() {
        let sampled = (0..50_000).filter(|n: &u32| is_sampled(&ContentKey::of(&n.to_string()))).count();
        assert!((800..1_200).contains(&sampled), "{sampled}");
    }

    #[test]
    fn only_a_content_published_within_the_hour_is_due_for_a_recheck() {
        let created = Timestamp::UNIX_EPOCH;
        let mark =
            |outcome, minutes| Mark::new(outcome, created, created + SignedDuration::from_mins(minutes), 1).recheck;
        assert_eq!(mark(Outcome::Published, 59), Recheck::Due);
        assert_eq!(mark(Outcome::Published, 60), Recheck::NotNeeded);
        assert_eq!(mark(Outcome::Gap(GapReason::NotFound), 1), Recheck::NotNeeded);
        assert_eq!(mark(Outcome::Moved, 1), Recheck::NotNeeded);
    }
}
