//! The laws of a comparison: everything is counted once, and what the ledger loses is found, no more and no less.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt::Write,
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::{
    Batch, ContentKey, ContentType, Day, GapReason, Listed, Mark, Outcome, RecordId, Source, Splitter, TenantId,
};

const GRACE: SignedDuration = SignedDuration::from_mins(10);

#[test]
fn a_content_stands_as_the_topics_say() {
    let (old, young) = (content("c", at(0)), content("c", at(119)));
    let standing = |known: &Known, content: &Listed| known.standing(content, moment());
    let key = old.key();
    let mut known = Known::default();
    assert_eq!((standing(&known, &old), standing(&known, &young)), (Standing::Nobody, Standing::Young));

    let endless = Moment { grace: SignedDuration::MAX, ..moment() };
    assert_eq!(known.standing(&old, endless), Standing::Young);
    let (edge, late) = (content("c", at(110)), content("c", Timestamp::MAX));
    assert_eq!((standing(&known, &edge), standing(&known, &late)), (Standing::Nobody, Standing::Young));

    known.gap_opened(key);
    assert_eq!(standing(&known, &old), Standing::Gap);
    known.gap_closed(key);
    known.unlisted(at(0), at(1));
    assert_eq!((standing(&known, &old), standing(&known, &content("c", at(1)))), (Standing::Gap, Standing::Nobody));

    known.listed(key, 7, None);
    known.listed(key, 3, None);
    known.committed(8);
    assert_eq!(standing(&known, &young), Standing::Young, "its listing is behind the offset");
    known.committed(7);
    assert_eq!(standing(&known, &young), Standing::Waiting);

    for (outcome, expected) in [
        (Outcome::Moved, Standing::Waiting),
        (Outcome::Gap(GapReason::Expired), Standing::Gap),
        (Outcome::Published, Standing::Delivered),
    ] {
        known.settled(key, mark(outcome));
        assert_eq!(standing(&known, &old), expected);
    }
    known.too_large(key, Some("r"), 9);
    assert_eq!(standing(&known, &old), Standing::InPart);

    // Settled at minute 90: put back before that, it was fetched again already.
    known.listed(key, 9, Some(at(89)));
    assert_eq!(standing(&known, &old), Standing::InPart);
    known.listed(key, 9, Some(at(91)));
    assert_eq!(standing(&known, &old), Standing::Waiting);
    known.committed(10);
    assert_eq!(standing(&known, &old), Standing::InPart);
}

#[test]
fn what_is_not_there_is_judged_by_where_its_content_stands() {
    let judged = |known: &Known, content: &Arc<Listed>| {
        let found = compare(&one(known_copy(known)), &[opened(known, content, &["r"])], moment());
        found.verdicts[0]
    };
    let (old, young) = (content("c", at(0)), content("c", at(119)));
    let mut known = Known::default();
    assert_eq!(judged(&known, &old), Verdict::Missing);
    assert_eq!(judged(&known, &young), Verdict::Waiting);
    known.knows_from(at(1));
    assert_eq!(judged(&known, &old), Verdict::Unknown, "the ledger may have forgotten it");
    assert_eq!(judged(&known, &content("c", at(1))), Verdict::Missing);
}

/// Of one content: what the gaps topic, a filter and the ledger know of its records.
#[test]
fn gaps_and_filters_account_for_records_by_their_identity() {
    let mut known = Known::default();
    let content = content("c", at(0));
    known.published(RecordId::of_text("published"), Day(0));
    known.published(RecordId::of_text("too-large"), Day(0));
    known.filtered(RecordId::of_text("filtered"), Day(0));
    known.too_large(ContentKey::of("another"), Some("too-large"), 9);
    let records = ["published", "too-large", "filtered", "lost", "lost"];
    let found = compare(&HashMap::new(), &[opened(&known, &content, &records)], moment());
    let counts = found.total().records;
    for verdict in [Verdict::Delivered, Verdict::Gap, Verdict::Filtered, Verdict::Missing] {
        assert_eq!(counts.of(verdict), 1, "{verdict:?}");
    }
    assert_eq!(counts.all(), 4);
    assert_eq!(found.missing[0].id.as_deref(), Some("lost"));
}

#[test]
fn a_large_record_without_an_id_is_known_by_content_and_size() {
    let (content, other) = (content("c", at(0)), content("d", at(0)));
    let body = format!(r#"[{{"Text":"{}"}}]"#, "x".repeat(100));
    let mut known = Known::default();
    known.too_large(content.key(), None, 111);
    for (content, expected) in [(&content, Verdict::Gap), (&other, Verdict::Missing)] {
        let (mut batch, mut opened) = (Batch::new(), Opened::default());
        Splitter::new(50).push(body.as_bytes(), &mut batch).unwrap();
        opened.take(&known, &content.key(), &batch);
        let looked = Looked { content: Arc::clone(content), inside: opened.whole() };
        assert_eq!(compare(&HashMap::new(), &[looked], moment()).verdicts, [expected]);
    }
}

#[test]
fn what_could_not_be_read_is_never_delivered() {
    let mut known = Known::default();
    let contents = ["published", "gap", "nobody's"].map(|id| content(id, at(0)));
    known.settled(contents[0].key(), mark(Outcome::Published));
    known.settled(contents[1].key(), mark(Outcome::Gap(GapReason::NotFound)));
    let unreadable = |content: &Arc<Listed>| Looked {
        content: Arc::clone(content),
        inside: Inside::Unreadable("AF20051".to_owned()),
    };
    let found = compare(&one(known), &contents.each_ref().map(unreadable), moment());
    assert_eq!(found.verdicts, [Verdict::Unknown, Verdict::Gap, Verdict::Unknown]);
    let named: Vec<&str> = found.unreadable.iter().map(|(content, _)| &content.content_id[..]).collect();
    assert_eq!(named, ["published", "nobody's"]);
}

/// A content of a random world: where it stands, when it was created and what is in it.
#[derive(Clone, Debug)]
struct Made {
    standing: usize,
    minute: i64,
    records: Vec<u32>,
    open: bool,
}

fn made() -> impl Strategy<Value = Made> {
    let records = prop::collection::vec(0_u32..60, 0..12);
    (0_usize..6, 0_i64..120, records, any::<bool>()).prop_map(|(standing, minute, records, open)| Made {
        standing,
        minute,
        records,
        open,
    })
}

proptest! {
    /// Delivered, filtered, waiting, gap, missing and unknown are all there is, of contents and of records.
    #[test]
    fn everything_is_counted_once(
        made in prop::collection::vec(made(), 0..20),
        published: BTreeSet<u8>,
        filtered: BTreeSet<u8>,
        knows_from in 0_i64..120,
    ) {
        let mut known = Known::default();
        published.iter().for_each(|n| known.published(id(u32::from(*n)), Day(0)));
        filtered.iter().for_each(|n| known.filtered(id(u32::from(*n)), Day(0)));
        known.knows_from(at(knows_from));
        known.committed(0);
        let contents: Vec<_> = made.iter().enumerate().map(|(n, made)| {
            let content = content(&n.to_string(), at(made.minute));
            match made.standing {
                0 => known.settled(content.key(), mark(Outcome::Published)),
                1 => known.settled(content.key(), mark(Outcome::Gap(GapReason::Expired))),
                2 => known.settled(content.key(), mark(Outcome::Moved)),
                3 => known.listed(content.key(), 1, None),
                4 => known.gap_opened(content.key()),
                _ => {}
            }
            content
        }).collect();
        let looked: Vec<_> = made.iter().zip(&contents).map(|(made, content)| {
            let names: Vec<String> = made.records.iter().map(|n| name(*n)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            if made.open { opened(&known, content, &names) } else { unopened(content) }
        }).collect();
        let found = compare(&one(known), &looked, moment());
        let records: usize =
            made.iter().filter(|made| made.open).map(|made| made.records.iter().collect::<HashSet<_>>().len()).sum();
        let total = found.total();
        prop_assert_eq!(total.contents.all(), made.len() as u64);
        prop_assert_eq!(total.records.all(), records as u64);
        prop_assert_eq!(found.verdicts.len(), made.len());
        let waiting = looked.iter().zip(&found.verdicts).filter(|(_, verdict)| **verdict == Verdict::Waiting);
        prop_assert_eq!(found.waiting_since, waiting.map(|(looked, _)| looked.content.created).min());
        prop_assert!(found.missing.len() as u64 <= total.records.of(Verdict::Missing));
    }

    /// A complete ledger finds nothing; one that lost some ids finds those that a content holds, each once.
    #[test]
    fn what_is_taken_out_of_the_ledger_is_missing_and_nothing_else(
        contents in prop::collection::vec(prop::collection::vec(0_u32..60, 0..12), 1..20),
        taken in prop::collection::btree_set(0_u32..60, 0..30),
        settled: bool,
    ) {
        let world = |taken: &BTreeSet<u32>| {
            let mut known = Known::default();
            (0..60).filter(|n| !taken.contains(n)).for_each(|n| known.published(id(n), Day(0)));
            let listed: Vec<_> =
                contents.iter().enumerate().map(|(n, records)| (content(&n.to_string(), at(n as i64)), records)).collect();
            if settled {
                listed.iter().for_each(|(content, _)| known.settled(content.key(), mark(Outcome::Published)));
            }
            let looked: Vec<_> = listed.iter().map(|(content, records)| {
                let names: Vec<String> = records.iter().map(|n| name(*n)).collect();
                opened(&known, content, &names.iter().map(String::as_str).collect::<Vec<_>>())
            }).collect();
            compare(&one(known), &looked, moment())
        };
        prop_assert!(world(&BTreeSet::new()).missing.is_empty());
        let found = world(&taken);
        let named: BTreeSet<RecordId> = found.missing.iter().map(|record| record.identity).collect();
        let held: HashSet<u32> = contents.iter().flatten().copied().collect();
        let expected: BTreeSet<RecordId> = taken.iter().filter(|n| held.contains(n)).map(|n| id(*n)).collect();
        prop_assert_eq!(named.len(), found.missing.len());
        prop_assert_eq!(named, expected);
    }
}

fn moment() -> Moment {
    Moment { listed_at: at(120), grace: GRACE }
}

/// So many minutes after 1970 began.
fn at(minute: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
}

fn source() -> Source {
    Source { tenant: TenantId(Uuid::nil()), content_type: ContentType::Exchange }
}

fn one(known: Known) -> HashMap<Source, Known> {
    HashMap::from([(source(), known)])
}

/// All that a test of the ledger's reach fills in.
fn known_copy(known: &Known) -> Known {
    let mut copy = Known::default();
    copy.knows_from(known.reach());
    copy
}

fn content(id: &str, created: Timestamp) -> Arc<Listed> {
    Arc::new(Listed {
        source: source(),
        content_id: id.to_owned(),
        content_uri: String::new(),
        created,
        expires: Timestamp::MAX,
        raw: bytes::Bytes::new(),
    })
}

fn mark(outcome: Outcome) -> Mark {
    Mark::new(outcome, at(0), at(90), 0)
}

fn name(n: u32) -> String {
    format!("record {n}")
}

fn id(n: u32) -> RecordId {
    RecordId::of_text(&name(n))
}

fn unopened(content: &Arc<Listed>) -> Looked {
    Looked { content: Arc::clone(content), inside: Inside::Unopened }
}

fn opened(known: &Known, content: &Arc<Listed>, ids: &[&str]) -> Looked {
    let mut body = String::new();
    for id in ids {
        write!(body, r#",{{"Id":"{id}"}}"#).unwrap();
    }
    let (mut batch, mut opened) = (Batch::new(), Opened::default());
    let mut splitter = Splitter::new(1 << 20);
    splitter.push(format!("[{}]", body.trim_start_matches(',')).as_bytes(), &mut batch).unwrap();
    splitter.finish().unwrap();
    opened.take(known, &content.key(), &batch);
    Looked { content: Arc::clone(content), inside: opened.whole() }
}
