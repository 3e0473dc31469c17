use proptest::prelude::*;

use super::*;
use crate::domain::RecordRef;

const SAMPLES: [&str; 6] = [
    include_str!("../../../docs/api/samples/Audit.AzureActiveDirectory.jsonl"),
    include_str!("../../../docs/api/samples/Audit.Exchange.jsonl"),
    include_str!("../../../docs/api/samples/Audit.SharePoint.jsonl"),
    include_str!("../../../docs/api/samples/Audit.General.jsonl"),
    include_str!("../../../docs/api/samples/DLP.All.jsonl"),
    HOSTILE,
];
const HOSTILE: &str = include_str!("../../../docs/api/samples/hostile.jsonl");
const MAX: usize = 8 << 20;

/// All chunks through one splitter.
fn split<'a>(max: usize, chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Batch, NotAnArray> {
    let (mut splitter, mut out) = (Splitter::new(max), Batch::new());
    for chunk in chunks {
        splitter.push(chunk, &mut out)?;
        assert!(splitter.held_bytes() <= max);
    }
    splitter.finish().map(|()| out)
}

fn records(batch: &Batch) -> Vec<RecordRef<'_>> {
    batch.iter().collect()
}

fn array<S: AsRef<str>>(elements: &[S]) -> Vec<u8> {
    format!("[{}]", elements.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(",")).into_bytes()
}

fn lines() -> Vec<&'static str> {
    SAMPLES.iter().flat_map(|file| file.lines()).collect()
}

/// The same value with white space wherever JSON allows it.
fn spread(json: &str) -> String {
    let (mut text, mut in_string, mut escaped) = (String::new(), false, false);
    for c in json.chars() {
        let counts = !in_string && "{}[],:".contains(c);
        text.push_str(if counts { "\r\n\t " } else { "" });
        text.push(c);
        text.push_str(if counts { " \n" } else { "" });
        in_string ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped && in_string;
    }
    text.trim().to_owned()
}

#[test]
fn every_sample_comes_out_as_it_went_in() {
    let whole = array(&lines());
    let batch = split(MAX, [&whole[..]]).unwrap();
    assert_eq!(batch.len(), lines().len());
    assert_eq!(batch.bytes(), lines().iter().map(|line| line.len()).sum::<usize>());
    for (record, line) in batch.iter().zip(lines()) {
        assert_eq!(record.bytes, line.as_bytes());
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_default(); // a lone surrogate is no Value
        if let Some(id) = value["Id"].as_str() {
            assert_eq!(record.key, Some(id).filter(|id| !id.is_empty()));
            assert_eq!(record.workload, value["Workload"].as_str());
            assert_eq!(record.operation, value["Operation"].as_str());
            assert!(record.created.is_some() || value["CreationTime"].as_str().is_none_or(|t| t.contains('/')));
        }
    }
}

#[test]
fn white_space_changes_bytes_but_neither_records_nor_identities() {
    let loose: Vec<String> = lines().into_iter().map(spread).collect();
    let body = format!("\u{feff} \n[\n{}\t] \r\n", loose.join(" ,\n ")).into_bytes();
    let (tight, spacious) = (split(MAX, [&array(&lines())[..]]).unwrap(), split(MAX, [&body[..]]).unwrap());
    assert_eq!(tight.len(), spacious.len());
    for ((a, b), text) in tight.iter().zip(spacious.iter()).zip(&loose) {
        assert_eq!(b.bytes, text.as_bytes());
        assert_eq!((a.key, a.operation, a.created), (b.key, b.operation, b.created));
        assert!(a.identity == b.identity || a.key.is_none());
    }
}

#[test]
fn a_cut_at_any_byte_changes_nothing() {
    let body = [BYTE_ORDER_MARK, b" \n", &array(&HOSTILE.lines().collect::<Vec<_>>()), b"\n"].concat();
    let whole = split(MAX, [&body[..]]).unwrap();
    for at in 0..=body.len() {
        let cut = split(MAX, [&body[..at], &[], &body[at..]]).unwrap();
        assert!(records(&cut) == records(&whole), "cut at {at}");
    }
}

#[test]
fn chunks_of_one_byte_change_nothing() {
    let body = array(&lines());
    let whole = split(MAX, [&body[..]]).unwrap();
    for size in [1, 2, 3, 7] {
        assert!(records(&split(MAX, body.chunks(size)).unwrap()) == records(&whole));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn chunks_of_any_size_change_nothing(sizes in prop::collection::vec(1_usize..40_000, 1..20), bom: bool) {
        let body = [if bom { BYTE_ORDER_MARK } else { b"" }, &array(&lines())].concat();
        let (mut chunks, mut rest) = (Vec::new(), &body[..]);
        for size in sizes.iter().cycle() {
            let (chunk, after) = rest.split_at((*size).min(rest.len()));
            chunks.push(chunk);
            rest = after;
            if rest.is_empty() { break }
        }
        prop_assert!(records(&split(MAX, chunks).unwrap()) == records(&split(MAX, [&body[..]]).unwrap()));
    }

    #[test]
    fn bytes_of_any_kind_never_panic(body: Vec<u8>, size in 1_usize..9, max in 0_usize..12) {
        let alphabet = b"[]{},:\"\\1enul I d\xef\xbb\xbf\n";
        let json: Vec<u8> = body.iter().map(|byte| alphabet[usize::from(*byte) % alphabet.len()]).collect();
        for bytes in [body, json] {
            let opened = [b"[", &bytes[..]].concat();
            let (a, b) = (split(max, opened.chunks(size)), split(max, [&opened[..]]));
            prop_assert_eq!(a.map(|batch| batch.len()), b.map(|batch| batch.len()));
        }
    }

    #[test]
    fn a_body_that_was_cut_off_is_refused(part in 0.0_f64..1.0) {
        let body = array(&lines());
        let at = (body.len() as f64 * part) as usize;
        let offset = at as u64;
        prop_assert_eq!(split(MAX, [&body[..at]]).map(|_| ()).unwrap_err().offset, offset);
    }
}

#[test]
fn empty_arrays_hold_no_records() {
    for body in ["[]", " [ ] ", "\u{feff}[\n]\n"] {
        assert!(split(MAX, [body.as_bytes()]).unwrap().is_empty(), "{body}");
    }
}

#[test]
fn damage_is_refused_where_it_is() {
    for (body, offset) in [
        ("", 0),
        ("  ", 2),
        ("{\"error\":1}", 0),
        ("<html>", 0),
        ("\u{feff}\u{feff}[]", 3),
        (" \u{feff}[]", 1),
        ("[", 1),
        ("[1,]", 3),
        ("[,1]", 1),
        ("[1,,2]", 3),
        ("[{} {}]", 4),
        ("[{}{}]", 3),
        ("[\"a\"\"b\"]", 4),
        ("[1 2]", 3),
        ("[{}]]", 4),
        ("[]x", 2),
        ("[1] [2]", 4),
        ("[{}", 3),
        ("[{}}", 3),
        ("[{]]", 1),
        ("[{\"a\":}, 1]", 1),
        ("[1, {\"a\" 1}]", 4),
        ("[nul]", 1),
        ("[1x]", 1),
        ("[x]", 1),
        ("[1}", 3),
        ("[\"\n\"]", 1),
        ("[\"a", 3),
    ] {
        let whole = split(MAX, [body.as_bytes()]).map(|_| ()).unwrap_err();
        assert_eq!(whole.offset, offset, "{body}: {whole}");
        assert_eq!(split(MAX, body.as_bytes().chunks(1)).map(|_| ()), Err(whole), "{body}");
    }
    assert!(split(MAX, [&b"\xef\xbb[]"[..]]).is_err());
}

#[test]
fn what_came_before_the_damage_is_there_and_nothing_comes_after_it() {
    let (mut splitter, mut out) = (Splitter::new(MAX), Batch::new());
    let fault = splitter.push(b"[1,2,oh,3]", &mut out).unwrap_err();
    assert_eq!(splitter.push(b"[4]", &mut out), Err(fault));
    assert_eq!(out.iter().map(|record| record.bytes).collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(splitter.finish(), Err(fault));
}

#[test]
fn bytes_that_are_no_utf8_pass_through() {
    let body = b"[{\"Id\":\"x\",\"Text\":\"\xff\xe2\x82\"},\"\x80\"]";
    let batch = split(MAX, body.chunks(1)).unwrap();
    assert_eq!(batch.iter().map(|record| record.bytes).collect::<Vec<_>>(), [&body[1..24], &body[25..28]]);
    assert_eq!(records(&batch)[0].key, Some("x"));
}

#[test]
fn equal_records_without_id_are_told_apart_by_their_ordinal() {
    let batch = split(MAX, [&b"[{},null,{},{\"Id\":\"\"},{},{\"Id\":\"a\"},{\"Id\":\"a\"}]"[..]]).unwrap();
    let identities: Vec<RecordId> = batch.iter().map(|record| record.identity).collect();
    assert_eq!(
        [0, 1, 2].map(|ordinal| RecordId::of_bytes(b"{}", ordinal)),
        [identities[0], identities[2], identities[4]]
    );
    assert_eq!(identities[3], RecordId::of_bytes(b"{\"Id\":\"\"}", 0));
    assert_eq!([identities[5], identities[6]], [RecordId::of_text("a"); 2]);
}

#[test]
fn no_depth_overflows_the_stack() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for record in [format!(r#"{{"Id":"a","Deep":{deep}}}"#), format!(r#"{{"Id":"a","Operation":{deep}}}"#), deep] {
        let batch = split(MAX, array(&[&record]).chunks(50_000)).unwrap();
        assert_eq!(records(&batch)[0].bytes, record.as_bytes());
    }
}

#[test]
fn a_record_that_is_too_large_is_named_and_not_held() {
    let long = format!(r#"{{"Text":"{}","Id":"late"}}"#, "x\\\"".repeat(7 << 20));
    let body = array(&[r#"{"Id":"before"}"#, &long, r#"{"Id":"after"}"#]);
    let batch = split(MAX, body.chunks(64 << 10)).unwrap(); // `split` looks at what is held
    assert!(20 << 20 < long.len() && batch.bytes() < 100);
    let facts = batch.iter().map(|record| (record.key, record.oversize));
    let length = Some(long.len() as u64);
    assert_eq!(facts.collect::<Vec<_>>(), [(Some("before"), None), (Some("late"), length), (Some("after"), None)]);
    assert_eq!(records(&batch)[1].identity, RecordId::of_text("late"));
}

#[test]
fn the_limit_itself_is_not_too_large_however_the_record_arrives() {
    for body in [&b"[\"12345\"]"[..], b"[{\"a\":1}]"] {
        for (max, oversize) in [(7, None), (6, Some(7))] {
            for size in 1..=9 {
                let batch = split(max, body.chunks(size)).unwrap();
                assert_eq!(records(&batch)[0].oversize, oversize);
                assert_eq!(batch.bytes(), if oversize.is_some() { 0 } else { 7 });
            }
        }
    }
    assert!(split(6, b"[1234567]".chunks(2)).is_err()); // a word is not a record
}

#[test]
fn oversize_records_without_id_differ_by_bytes_and_ordinal_and_not_by_chunks() {
    let body = br#"["aaaaaaa","bbbbbbb","aaaaaaa"]"#;
    let identities = |size| split(4, body.chunks(size)).unwrap().iter().map(|r| r.identity).collect::<Vec<_>>();
    let whole = identities(100);
    assert!(whole[0] != whole[1] && whole[0] != whole[2]);
    assert_eq!(identities(1), whole);
}
