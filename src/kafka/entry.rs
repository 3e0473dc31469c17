//! A ledger entry as bytes in the ledger topic. The message's key is the tenant; the rest is here.

use std::borrow::Cow;

use jiff::Timestamp;
use uuid::Uuid;

use crate::domain::{ContentType, GapReason, Mark, Outcome, RecheckState, RecordId};

/// One entry of the ledger topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The consumer group that wrote it. Another name means that two groups share a prefix (docs/exactly-once.md, rule 17).
    pub group: &'a str,
    pub content_type: ContentType,
    /// Empty for [`EntryKind::Began`]; for a replay's beginning see [`ReplayStep::Began`].
    pub content_id: &'a str,
    pub kind: EntryKind,
    /// Ids published, filtered or refreshed by the transaction of this entry; at most [`Entry::MAX_IDS`].
    pub ids: Cow<'a, [RecordId]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// The source's first entry: nothing created before `start_from` is ever listed.
    Began { start_from: Timestamp },
    /// Ids published so far from a content that has more to come.
    Ids,
    /// The content's end, with the last of its ids.
    Settled(Mark),
    /// Ids of records that a filter dropped, from a content that may have more to come.
    Filtered,
    /// A replay published the ids once more, on purpose. Says nothing of what the connector has published.
    Replayed { replay: Uuid, step: ReplayStep },
}

/// How far a replay has come with a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayStep {
    /// It is about to publish what was made available in this span. The content id is the topic that the records go to;
    /// empty when they go to that of their content type.
    Began { from: Timestamp, to: Timestamp },
    /// Ids published so far from a content that may have more to come.
    Ids,
    /// Nothing more of this content is to come.
    Whole,
}

impl Entry<'_> {
    /// Ids of one entry: half a mebibyte, within what a broker takes by default.
    pub const MAX_IDS: usize = 30_000;

    /// Shape, big-endian: version `u8`; kind `u8`; content type `u8`; group and content id, each a length `u32` and
    /// UTF-8; the kind's fields; number of ids `u32` and 16 bytes each.
    /// Units: times are milliseconds since 1970, UTC; what is finer is cut off.
    ///
    /// Entries longer than [`Self::MAX_IDS`] are the caller's to split.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.group.len() + self.content_id.len() + 16 * self.ids.len());
        out.extend([VERSION, self.kind.code(), self.content_type.code()]);
        for text in [self.group, self.content_id] {
            put_length(&mut out, text.len());
            out.extend(text.as_bytes());
        }
        match &self.kind {
            EntryKind::Began { start_from } => put_time(&mut out, *start_from),
            EntryKind::Ids | EntryKind::Filtered => {}
            EntryKind::Settled(mark) => put_mark(&mut out, mark),
            EntryKind::Replayed { replay, step } => put_replay(&mut out, *replay, *step),
        }
        put_length(&mut out, self.ids.len());
        self.ids.iter().for_each(|id| out.extend(id.0));
        out
    }
}

impl<'a> Entry<'a> {
    /// # Errors
    /// [`NotAnEntry`] for anything that [`Self::encode`] of this version does not write. Whoever meets one must stop:
    /// to skip an entry is to publish its records again.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, NotAnEntry> {
        let mut rest = Rest(bytes);
        match rest.byte()? {
            VERSION => {}
            other => return Err(NotAnEntry::Version(other)),
        }
        let kind = rest.byte()?;
        let content_type = rest.byte()?;
        let content_type = ContentType::from_code(content_type)
            .ok_or(NotAnEntry::Unknown { what: "content type", code: content_type })?;
        let (group, content_id) = (rest.text("group")?, rest.text("content id")?);
        let kind = match kind {
            1 => EntryKind::Began { start_from: rest.time()? },
            2 => EntryKind::Ids,
            3 => EntryKind::Settled(rest.mark()?),
            4 => EntryKind::Filtered,
            5 => EntryKind::Replayed { replay: Uuid::from_bytes(rest.array()?), step: rest.step()? },
            code => return Err(NotAnEntry::Unknown { what: "kind", code }),
        };
        let ids = rest.ids()?;
        if !rest.0.is_empty() {
            return Err(NotAnEntry::Trailing(rest.0.len()));
        }
        Ok(Self { group, content_type, content_id, kind, ids: Cow::Owned(ids) })
    }
}

/// Why bytes in the ledger topic are no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEntry {
    #[error("version {0} of the ledger is unknown; a newer o365feed wrote it")]
    Version(u8),
    #[error("the ledger entry ends too early")]
    Truncated,
    #[error("the ledger entry names an unknown {what}: {code}")]
    Unknown { what: &'static str, code: u8 },
    #[error("the ledger entry's {0} is not UTF-8")]
    NotText(&'static str),
    #[error("the ledger entry's time is outside of what a calendar knows: {0} ms")]
    Time(i64),
    #[error("the ledger entry has {0} bytes after its end")]
    Trailing(usize),
}

const VERSION: u8 = 1;

impl EntryKind {
    /// Codes are never given to another meaning.
    fn code(&self) -> u8 {
        match self {
            Self::Began { .. } => 1,
            Self::Ids => 2,
            Self::Settled(_) => 3,
            Self::Filtered => 4,
            Self::Replayed { .. } => 5,
        }
    }
}

fn put_mark(out: &mut Vec<u8>, mark: &Mark) {
    out.extend([outcome_code(mark.outcome), recheck_code(mark.recheck)]);
    put_time(out, mark.created);
    put_time(out, mark.settled);
    out.extend(mark.records.to_be_bytes());
}

fn put_replay(out: &mut Vec<u8>, replay: Uuid, step: ReplayStep) {
    out.extend(replay.into_bytes());
    match step {
        ReplayStep::Began { from, to } => {
            out.push(1);
            put_time(out, from);
            put_time(out, to);
        }
        ReplayStep::Ids => out.push(2),
        ReplayStep::Whole => out.push(3),
    }
}

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    out.extend(time.as_millisecond().to_be_bytes());
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // A Kafka message is far below 4 GiB, so a longer one is refused anyway.
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

/// Codes are never given to another meaning.
fn outcome_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Published => 1,
        Outcome::Moved => 2,
        Outcome::Gap(GapReason::Expired) => 16,
        Outcome::Gap(GapReason::NotFound) => 17,
        Outcome::Gap(GapReason::InvalidId) => 18,
        Outcome::Gap(GapReason::Unreadable) => 19,
        Outcome::Gap(GapReason::Oversize) => 20,
        Outcome::Gap(GapReason::ListingsLost) => 21,
        Outcome::Gap(GapReason::Unlisted) => 22,
    }
}

/// Codes are never given to another meaning.
fn recheck_code(recheck: RecheckState) -> u8 {
    match recheck {
        RecheckState::NotNeeded => 0,
        RecheckState::Due => 1,
        RecheckState::Empty => 2,
        RecheckState::Grown => 3,
    }
}

/// The bytes not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], NotAnEntry> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(NotAnEntry::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NotAnEntry> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(NotAnEntry::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, NotAnEntry> {
        self.array().map(|[byte]| byte)
    }

    fn length(&mut self) -> Result<usize, NotAnEntry> {
        usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| NotAnEntry::Truncated)
    }

    fn text(&mut self, what: &'static str) -> Result<&'a str, NotAnEntry> {
        let length = self.length()?;
        str::from_utf8(self.take(length)?).map_err(|_| NotAnEntry::NotText(what))
    }

    fn time(&mut self) -> Result<Timestamp, NotAnEntry> {
        let milliseconds = i64::from_be_bytes(self.array()?);
        Timestamp::from_millisecond(milliseconds).map_err(|_| NotAnEntry::Time(milliseconds))
    }

    fn ids(&mut self) -> Result<Vec<RecordId>, NotAnEntry> {
        let count = self.length()?;
        let bytes = self.take(count.checked_mul(16).ok_or(NotAnEntry::Truncated)?)?;
        let (ids, _) = bytes.as_chunks();
        Ok(ids.iter().copied().map(RecordId).collect())
    }

    fn step(&mut self) -> Result<ReplayStep, NotAnEntry> {
        Ok(match self.byte()? {
            1 => ReplayStep::Began { from: self.time()?, to: self.time()? },
            2 => ReplayStep::Ids,
            3 => ReplayStep::Whole,
            code => return Err(NotAnEntry::Unknown { what: "step of a replay", code }),
        })
    }

    fn mark(&mut self) -> Result<Mark, NotAnEntry> {
        let (outcome, recheck) = (self.byte()?, self.byte()?);
        Ok(Mark {
            outcome: outcome_of(outcome).ok_or(NotAnEntry::Unknown { what: "outcome", code: outcome })?,
            recheck: recheck_of(recheck).ok_or(NotAnEntry::Unknown { what: "recheck", code: recheck })?,
            created: self.time()?,
            settled: self.time()?,
            records: u32::from_be_bytes(self.array()?),
        })
    }
}

fn outcome_of(code: u8) -> Option<Outcome> {
    let gaps = GapReason::ALL.into_iter().map(Outcome::Gap);
    [Outcome::Published, Outcome::Moved].into_iter().chain(gaps).find(|outcome| outcome_code(*outcome) == code)
}

fn recheck_of(code: u8) -> Option<RecheckState> {
    use RecheckState::{Due, Empty, Grown, NotNeeded};
    [NotNeeded, Due, Empty, Grown].into_iter().find(|recheck| recheck_code(*recheck) == code)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is in a topic stays there for weeks: a release must read what the one before it wrote.
    #[test]
    fn version_one_is_these_bytes() {
        let time = |milliseconds| Timestamp::from_millisecond(milliseconds).unwrap();
        let mark = Mark {
            outcome: Outcome::Gap(GapReason::NotFound),
            created: time(1),
            settled: time(-1),
            recheck: RecheckState::Grown,
            records: 258,
        };
        let entry = Entry {
            group: "g",
            content_type: ContentType::Exchange,
            content_id: "c$1",
            kind: EntryKind::Settled(mark),
            ids: vec![RecordId([7; 16])].into(),
        };
        let expected = [
            &[1, 3, 2][..],
            b"\0\0\0\x01g\0\0\0\x03c$1",
            &[17, 3, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 1, 2],
            &[0, 0, 0, 1],
            &[7; 16],
        ]
        .concat();
        assert_eq!(entry.encode(), expected);
        assert_eq!(Entry::decode(&expected), Ok(entry));
    }

    #[test]
    fn a_filtered_entry_is_these_bytes() {
        let entry = Entry {
            group: "g",
            content_type: ContentType::Dlp,
            content_id: "c",
            kind: EntryKind::Filtered,
            ids: vec![RecordId([7; 16]), RecordId([8; 16])].into(),
        };
        let expected = [&[1, 4, 5][..], b"\0\0\0\x01g\0\0\0\x01c", &[0, 0, 0, 2], &[7; 16], &[8; 16]].concat();
        assert_eq!(entry.encode(), expected);
        assert_eq!(Entry::decode(&expected), Ok(entry));
    }

    #[test]
    fn the_largest_entry_is_within_what_a_broker_takes() {
        let entry = Entry {
            group: &"g".repeat(200),
            content_type: ContentType::Dlp,
            content_id: &"c".repeat(1_000),
            kind: EntryKind::Filtered,
            ids: vec![RecordId([7; 16]); Entry::MAX_IDS].into(),
        };
        assert!(entry.encode().len() < 512 * 1_024);
    }

    #[test]
    fn a_strange_entry_is_named_and_not_guessed_at() {
        let entry = Entry {
            group: "g",
            content_type: ContentType::Dlp,
            content_id: "c",
            kind: EntryKind::Began { start_from: Timestamp::UNIX_EPOCH },
            ids: Cow::Borrowed(&[]),
        };
        let damaged = |at: usize, byte: u8| {
            let mut bytes = entry.encode();
            bytes[at] = byte;
            Entry::decode(&bytes).unwrap_err()
        };
        assert_eq!(damaged(0, 2), NotAnEntry::Version(2));
        assert_eq!(damaged(1, 9), NotAnEntry::Unknown { what: "kind", code: 9 });
        assert_eq!(damaged(2, 0), NotAnEntry::Unknown { what: "content type", code: 0 });
        assert_eq!(damaged(3, 255), NotAnEntry::Truncated);
        assert_eq!(damaged(7, 0xff), NotAnEntry::NotText("group"));
        assert!(matches!(damaged(13, 0x7f), NotAnEntry::Time(_)));
        let longer = [entry.encode(), vec![0]].concat();
        assert_eq!(Entry::decode(&longer), Err(NotAnEntry::Trailing(1)));
    }

    fn time() -> impl Strategy<Value = Timestamp> {
        (-10_000_000_000_000_i64..=10_000_000_000_000).prop_map(|at| Timestamp::from_millisecond(at).unwrap())
    }

    fn kind() -> impl Strategy<Value = EntryKind> {
        let outcomes: Vec<_> = (0..=u8::MAX).filter_map(outcome_of).collect();
        let rechecks: Vec<_> = (0..=u8::MAX).filter_map(recheck_of).collect();
        assert_eq!((outcomes.len(), rechecks.len()), (2 + GapReason::ALL.len(), 4));
        let mark = (prop::sample::select(outcomes), prop::sample::select(rechecks), time(), time(), any::<u32>());
        let steps = prop_oneof![
            (time(), time()).prop_map(|(from, to)| ReplayStep::Began { from, to }),
            Just(ReplayStep::Ids),
            Just(ReplayStep::Whole),
        ];
        prop_oneof![
            time().prop_map(|start_from| EntryKind::Began { start_from }),
            Just(EntryKind::Ids),
            Just(EntryKind::Filtered),
            (any::<u128>(), steps).prop_map(|(id, step)| EntryKind::Replayed { replay: Uuid::from_u128(id), step }),
            mark.prop_map(|(outcome, recheck, created, settled, records)| EntryKind::Settled(Mark {
                outcome,
                created,
                settled,
                recheck,
                records
            })),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_no_shorter_piece_of_it(
            group: String,
            content_id: String,
            content_type in prop::sample::select(ContentType::ALL.to_vec()),
            kind in kind(),
            ids in prop::collection::vec(any::<[u8; 16]>().prop_map(RecordId), 0..20),
        ) {
            let entry = Entry { group: &group, content_type, content_id: &content_id, kind, ids: ids.into() };
            let bytes = entry.encode();
            prop_assert_eq!(Entry::decode(&bytes), Ok(entry));
            for end in 0..bytes.len() {
                prop_assert_eq!(Entry::decode(&bytes[..end]), Err(NotAnEntry::Truncated));
            }
        }

        #[test]
        fn any_bytes_are_an_entry_or_an_error(
            mut bytes in prop::collection::vec(any::<u8>(), 0..120),
            kind in 0_u8..7,
        ) {
            let _ = Entry::decode(&bytes);
            // Most random bytes end at the version; these get further.
            bytes.splice(0..0, [VERSION, kind, 1, 0, 0, 0, 1, b'g', 0, 0, 0, 0]);
            let _ = Entry::decode(&bytes);
        }
    }
}
