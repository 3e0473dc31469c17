//! Spans of time and sizes, the way people write them: a whole number and its unit.

use std::time::Duration;

const SPANS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// `90s`, `500ms`, `1h`, `7d`. A bare number has no unit and is refused.
pub(super) fn span(text: &str) -> Option<Duration> {
    read(text, &SPANS).map(Duration::from_millis)
}

/// `128MiB`, `64KiB`, `1GiB`, `512B`.
pub(super) fn size(text: &str) -> Option<u64> {
    read(text, &SIZES)
}

/// The shortest way to write it that [`span`] reads back.
pub(super) fn show_span(span: Duration) -> String {
    show(u64::try_from(span.as_millis()).unwrap_or(u64::MAX), &SPANS)
}

/// The shortest way to write it that [`size`] reads back.
pub(super) fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES)
}

fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// `units` runs from the largest to the one that is 1, which divides everything.
fn show(amount: u64, units: &[(&str, u64)]) -> String {
    let whole = |(_, factor): &&(&str, u64)| amount != 0 && amount.is_multiple_of(*factor);
    let (name, factor) = units.iter().find(whole).unwrap_or(&units[units.len() - 1]);
    format!("{}{name}", amount / factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_needs_its_unit_and_must_fit() {
        assert_eq!(span("90s"), Some(Duration::from_secs(90)));
        assert_eq!(span(" 500 ms "), Some(Duration::from_millis(500)));
        assert_eq!(size("128MiB"), Some(128 << 20));
        for text in ["", "90", "s", "-1s", "1.5h", "1 week", "1h30m", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(span(text), None, "{text}");
        }
        for text in ["128", "128MB", "128mib", "MiB", "18446744073709551615GiB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(amount in 0_u64..1 << 50) {
            let millis = Duration::from_millis(amount);
            prop_assert_eq!(span(&show_span(millis)), Some(millis));
            prop_assert_eq!(size(&show_size(amount)), Some(amount));
        }

        #[test]
        fn no_text_panics(text in ".{0,12}") {
            let _ = (span(&text), size(&text));
        }
    }
}
