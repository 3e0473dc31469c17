//! Records as they leave the splitter: their bytes as received, and the few facts that routing needs.

use std::{borrow::Cow, fmt, ops::Range};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::RecordId;

/// Records cut from a blob: one buffer of bytes, one of texts, one small entry per record.
/// Emptied with [`Batch::clear`] it keeps its buffers, so that a blob costs no allocation per record.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    texts: String,
    entries: Vec<Entry>,
}

/// One record of a [`Batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// From the record's first byte to its last, as received. Empty when `oversize`.
    pub bytes: &'a [u8],
    pub identity: RecordId,
    /// The `Id`, decoded. `None` without a usable one (missing, empty, or no string): then the identity is a hash of the bytes.
    pub key: Option<&'a str>,
    /// `RecordType` as text: a number as it was written, or a string of digits.
    pub record_type: Option<&'a str>,
    pub workload: Option<&'a str>,
    pub operation: Option<&'a str>,
    /// `UserId` as it was written, in its quotes: only who asks for it pays for reading it.
    user: Option<&'a str>,
    /// `CreationTime` in seconds since 1970. A fraction is cut off; without a zone it is UTC.
    pub created: Option<i64>,
    /// The record is larger than the splitter's limit, and this is its real length in bytes.
    /// Only `identity` and `key` are known of it.
    pub oversize: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    identity: RecordId,
    bytes: Range<usize>,
    key: Option<Range<usize>>,
    record_type: Option<Range<usize>>,
    workload: Option<Range<usize>>,
    operation: Option<Range<usize>>,
    user: Option<Range<usize>>,
    created: Option<i64>,
    oversize: Option<u64>,
}

impl<'a> RecordRef<'a> {
    /// `UserId`, decoded; copied only where it holds an escape.
    pub fn user(&self) -> Option<Cow<'a, str>> {
        unquoted(self.user?)
    }
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// With room for about `bytes` bytes of records.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes the records have together.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.texts.clear();
        self.entries.clear();
    }

    /// The records in the order in which they arrived.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RecordRef<'_>> {
        self.entries.iter().map(|entry| self.record(entry))
    }

    pub(super) fn append(&mut self, bytes: &[u8], identity: RecordId, facts: &Facts<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        let entry = Entry {
            identity,
            bytes: start..self.bytes.len(),
            key: self.keep(facts.id.as_deref()),
            record_type: self.keep(facts.record_type.as_deref()),
            workload: self.keep(facts.workload.as_deref()),
            operation: self.keep(facts.operation.as_deref()),
            user: self.keep(facts.user.as_deref()),
            created: facts.created,
            oversize: None,
        };
        self.entries.push(entry);
    }

    pub(super) fn append_oversize(&mut self, length: u64, identity: RecordId, id: Option<&str>) {
        self.append(&[], identity, &Facts { id: id.map(Cow::Borrowed), ..Facts::default() });
        if let Some(entry) = self.entries.last_mut() {
            entry.oversize = Some(length);
        }
    }

    fn keep(&mut self, text: Option<&str>) -> Option<Range<usize>> {
        let start = self.texts.len();
        self.texts.push_str(text?);
        Some(start..self.texts.len())
    }

    fn record(&self, entry: &Entry) -> RecordRef<'_> {
        let text = |span: &Option<Range<usize>>| span.clone().map(|span| &self.texts[span]);
        RecordRef {
            bytes: &self.bytes[entry.bytes.clone()],
            identity: entry.identity,
            key: text(&entry.key),
            record_type: text(&entry.record_type),
            workload: text(&entry.workload),
            operation: text(&entry.operation),
            user: text(&entry.user),
            created: entry.created,
            oversize: entry.oversize,
        }
    }
}

/// What routing needs of a record. Everything else in it is only checked to be JSON.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts<'a> {
    /// Never empty.
    pub(super) id: Option<Cow<'a, str>>,
    record_type: Option<Cow<'a, str>>,
    workload: Option<Cow<'a, str>>,
    operation: Option<Cow<'a, str>>,
    /// In its quotes.
    user: Option<Cow<'a, str>>,
    created: Option<i64>,
}

impl<'a> Facts<'a> {
    /// Checks that `record` is one JSON value and reads its facts on the way. `None`: it is not JSON.
    ///
    /// Bytes that are no UTF-8 are legal here as long as they are inside strings: what came is what we publish.
    pub(super) fn of(record: &'a [u8]) -> Option<Self> {
        if let Ok(facts) = Self::of_text(record) {
            return Some(facts);
        }
        match String::from_utf8_lossy(record) {
            Cow::Borrowed(_) => None, // UTF-8 was not what was wrong with it
            Cow::Owned(mended) => Some(Facts::of_text(mended.as_bytes()).ok()?.without_mended_texts()),
        }
    }

    /// The same for an object at the start of `bytes`, and where it ends. `None` when it does not end in `bytes` or
    /// anything is unusual about it: then [`Facts::of`] decides.
    pub(super) fn of_first(bytes: &'a [u8]) -> Option<(Self, usize)> {
        if bytes.first() != Some(&b'{') {
            return None;
        }
        let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Object<'a>>();
        let object = values.next()?.ok()?;
        (!object.is_doubtful).then(|| (object.facts, values.byte_offset()))
    }

    fn of_text(record: &'a [u8]) -> serde_json::Result<Self> {
        // Only an object has facts. A visitor for any value would parse numbers into f64 and refuse the large ones.
        if record.first() != Some(&b'{') {
            serde_json::from_slice::<IgnoredAny>(record)?;
            return Ok(Self::default());
        }
        let object: Object<'a> = serde_json::from_slice(record)?;
        if object.is_doubtful {
            serde_json::from_slice::<IgnoredAny>(record)?;
        }
        Ok(object.facts)
    }

    /// Two different ids must not become the same one by being mended, so a text with a replacement in it is no text.
    fn without_mended_texts(self) -> Facts<'static> {
        let sound = |text: Option<Cow<'_, str>>| {
            text.filter(|text| !text.contains(char::REPLACEMENT_CHARACTER)).map(|text| Cow::Owned(text.into_owned()))
        };
        Facts {
            id: sound(self.id),
            record_type: sound(self.record_type),
            workload: sound(self.workload),
            operation: sound(self.operation),
            user: sound(self.user),
            created: self.created,
        }
    }
}

/// The top-level members of an object. The last one of a name wins, as it does in most readers.
#[derive(Default)]
struct Object<'a> {
    facts: Facts<'a>,
    /// A name holds a control character. Escaped it is legal, raw it is not, and this reader cannot tell.
    is_doubtful: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                let Object { mut facts, mut is_doubtful } = Object::default();
                while let Some(name) = members.next_key()? {
                    match name {
                        Name::Id => facts.id = string(members.next_value()?).filter(|id| !id.is_empty()),
                        Name::RecordType => facts.record_type = whole_number(members.next_value()?),
                        Name::Workload => facts.workload = string(members.next_value()?),
                        Name::Operation => facts.operation = string(members.next_value()?),
                        Name::UserId => facts.user = quoted(members.next_value()?),
                        Name::CreationTime => {
                            facts.created = string(members.next_value()?).as_deref().and_then(epoch_seconds);
                        }
                        Name::Other { is_doubtful: name_is } => {
                            is_doubtful |= name_is;
                            members.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(Object { facts, is_doubtful })
            }
        }

        json.deserialize_map(Members)
    }
}

/// The name of a top-level member.
enum Name {
    Id,
    RecordType,
    Workload,
    Operation,
    UserId,
    CreationTime,
    Other { is_doubtful: bool },
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        member_name(json, |name| match name {
            b"Id" => Name::Id,
            b"RecordType" => Name::RecordType,
            b"Workload" => Name::Workload,
            b"Operation" => Name::Operation,
            b"UserId" => Name::UserId,
            b"CreationTime" => Name::CreationTime,
            _ => Name::Other { is_doubtful: name.iter().any(|byte| *byte < b' ') },
        })
    }
}

/// What `of` makes of a member's name. It comes as bytes: as `str` a lone surrogate in it would fail the whole record.
///
/// # Errors
/// When no name stands there.
pub fn member_name<'de, D: Deserializer<'de>, T>(json: D, of: impl FnOnce(&[u8]) -> T) -> Result<T, D::Error> {
    struct Bytes<F>(F);

    impl<T, F: FnOnce(&[u8]) -> T> Visitor<'_> for Bytes<F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a name")
        }

        fn visit_bytes<E>(self, name: &[u8]) -> Result<T, E> {
            Ok((self.0)(name))
        }
    }

    json.deserialize_bytes(Bytes(of))
}

/// The text of a JSON string; `None` for any other value, and for a string that is no Unicode (a lone surrogate).
fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    unquoted(value.get())
}

/// A JSON string as it stands; `None` for any other value.
fn quoted(value: &RawValue) -> Option<Cow<'_, str>> {
    value.get().starts_with('"').then(|| Cow::Borrowed(value.get()))
}

fn unquoted(quoted: &str) -> Option<Cow<'_, str>> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(quoted).ok().map(Cow::Owned)
}

/// A number as it was written, or the string of digits that some workloads send for one.
fn whole_number(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = string(value).unwrap_or(Cow::Borrowed(value.get()));
    let digits = text.strip_prefix('-').unwrap_or(&text);
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(text)
}

fn epoch_seconds(text: &str) -> Option<i64> {
    creation_time(text).map(Timestamp::as_second)
}

/// A record's `CreationTime`. `YYYY-MM-DDTHH:MM:SS` is UTC without saying so; some workloads add a fraction, a `Z` or an
/// offset. `None` for any other text.
///
/// Source: docs/api/contract.md 8.1.
pub fn creation_time(text: &str) -> Option<Timestamp> {
    let has_zone = text.get(10..)?.contains(['Z', 'z', '+', '-']);
    if has_zone { text.parse().ok() } else { TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(record: &str) -> Facts<'_> {
        Facts::of(record.as_bytes()).unwrap()
    }

    #[test]
    fn creation_times_are_read_with_and_without_zone_and_fraction() {
        let noon = Some(1_788_091_200);
        for text in [
            "2026-08-30T12:00:00",
            "2026-08-30T12:00:00Z",
            "2026-08-30T12:00:00.1234567Z",
            "2026-08-30T12:00:00.999",
            "2026-08-30T14:00:00+02:00",
        ] {
            assert_eq!(epoch_seconds(text), noon, "{text}");
        }
        for text in ["30/08/2026 12:00", "", "Z", "2026-13-01T00:00:00", "now"] {
            assert_eq!(epoch_seconds(text), None, "{text}");
        }
    }

    #[test]
    fn the_last_member_of_a_name_wins_even_when_it_is_useless() {
        assert_eq!(facts(r#"{"Id":"a","Id":"b"}"#).id.as_deref(), Some("b"));
        assert_eq!(facts(r#"{"Id":"a","Id":7}"#).id, None);
        assert_eq!(facts(r#"{"Id":"a","Id":""}"#).id, None);
        assert_eq!(facts(r#"{"Id":null,"\u0049d":"x\u0041"}"#).id.as_deref(), Some("xA"));
        assert_eq!(facts(r#"{"id":"a","ID":"b","Id ":"c","Deep":{"Id":"d"}}"#).id, None);
    }

    #[test]
    fn a_record_type_is_a_whole_number_however_it_is_written() {
        for (text, read) in [("25", Some("25")), (r#""25""#, Some("25")), ("-1", Some("-1"))] {
            assert_eq!(facts(&format!(r#"{{"RecordType":{text}}}"#)).record_type.as_deref(), read);
        }
        assert_eq!(
            facts(r#"{"RecordType":18446744073709551616}"#).record_type.as_deref(),
            Some("18446744073709551616")
        );
        for text in [r#""x""#, r#""""#, "null", "[25]", "1.5", "1e400"] {
            assert_eq!(facts(&format!(r#"{{"RecordType":{text}}}"#)).record_type, None, "{text}");
        }
    }

    #[test]
    fn a_lone_surrogate_costs_only_the_text_that_has_it() {
        let read = facts(r#"{"Operation":"\ud83d","\ud83d":1,"Workload":"w","Id":"\ud83d"}"#);
        assert_eq!((read.operation, read.id, read.workload.as_deref()), (None, None, Some("w")));
    }

    #[test]
    fn a_user_is_a_string_and_read_only_when_asked_for() {
        let user = |record: &str| {
            let mut batch = Batch::new();
            batch.append(record.as_bytes(), RecordId::of_bytes(b"", 0), &facts(record));
            batch.iter().next().unwrap().user().map(Cow::into_owned)
        };
        assert_eq!(user(r#"{"UserId":"ada@contoso.example"}"#).as_deref(), Some("ada@contoso.example"));
        assert_eq!(user(r#"{"\u0055serId":"CONTOSO\\ada"}"#).as_deref(), Some(r"CONTOSO\ada"));
        assert_eq!(user(r#"{"UserId":"a","UserId":""}"#).as_deref(), Some(""));
        for none in [r#"{}"#, r#"{"UserId":null}"#, r#"{"UserId":7}"#, r#"{"UserId":"\ud83d"}"#, r#"{"userid":"a"}"#] {
            assert_eq!(user(none), None, "{none}");
        }
        assert_eq!(user(r#"{"UserId":"a","UserId":["b"]}"#), None);
        let read = Facts::of(b"{\"UserId\":\"a\xff\",\"Workload\":\"w\"}").unwrap();
        assert_eq!((read.user, read.workload.as_deref()), (None, Some("w")));
    }

    #[test]
    fn bytes_that_are_no_utf8_are_let_through_in_strings_and_give_no_text() {
        let read = Facts::of(b"{\"Id\":\"a\xff\",\"Workload\":\"w\",\"\xe2\x82\":\"\xe2\"}").unwrap();
        assert_eq!((read.id, read.workload.as_deref()), (None, Some("w")));
        assert_eq!(Facts::of(b"{\"Id\":\xff}"), None);
        assert_eq!(Facts::of(b"\xff"), None);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "{",
            "{}}",
            "{]",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":01}"#,
            r#"{a:1}"#,
            r#"{"a":"\x"}"#,
            r#"{"\x":1}"#,
            "tru",
            "12x",
            "-",
            "\"\n\"",
            "{\"\n\":1}",
            "{\"Id\n\":1}",
            "{\"\\t\n\":1}",
        ] {
            assert_eq!(Facts::of(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn any_json_value_is_a_record_and_no_number_is_too_large() {
        for text in [
            "{}",
            r#"{"\n":1}"#,
            "null",
            "true",
            "\"text\"",
            "1e400",
            "-123456789012345678901234567890",
            "[1,{\"Id\":\"a\"}]",
        ] {
            assert_eq!(facts(text), Facts::default(), "{text}");
        }
    }
}
