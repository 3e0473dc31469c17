//! A record as one line, for files and pipes that hold a record a line.

/// Appends the record and a line feed. Its bytes stay as they are unless it is spread over lines: then the white space
/// between its tokens goes, and nothing else; no number is ever read.
///
/// `record` is one JSON value, so a line feed is never inside a string.
pub(super) fn put(record: &[u8], out: &mut Vec<u8>) {
    if memchr::memchr2(b'\n', b'\r', record).is_none() {
        out.extend_from_slice(record);
    } else {
        let (mut in_string, mut is_escaped) = (false, false);
        for byte in record {
            let is_space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
            if in_string || !is_space {
                out.push(*byte);
            }
            in_string ^= *byte == b'"' && !is_escaped;
            is_escaped = in_string && *byte == b'\\' && !is_escaped;
        }
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn line(record: &str) -> String {
        let mut out = Vec::new();
        put(record.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_record_on_one_line_stays_as_it_is() {
        let record = r#"{ "a" : 1.0e+400, "b":"x\" y" }"#;
        assert_eq!(line(record), format!("{record}\n"));
    }

    #[test]
    fn a_record_on_many_lines_loses_the_space_between_its_tokens_only() {
        let record = "{\r\n  \"a b\" : [ 12345678901234567890.10 ,\n\t\"c \\\" \\\\\" , \" d\" ]\n}";
        assert_eq!(line(record), "{\"a b\":[12345678901234567890.10,\"c \\\" \\\\\",\" d\"]}\n");
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_spread_over_lines_comes_out_as_the_same_value_on_one(value in json()) {
            let told = line(&serde_json::to_string_pretty(&value).unwrap());
            prop_assert_eq!(told.matches('\n').count(), 1);
            prop_assert_eq!(serde_json::from_str::<Value>(&told).unwrap(), value);
        }
    }
}
