//! The day under which an id is filed and what became of its record, in one byte.

use std::num::NonZeroU8;

use jiff::Timestamp;

/// A day of the ledger's append time: whole days since 1970-01-01, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day(pub i32);

impl Day {
    pub fn of(time: Timestamp) -> Self {
        // The years that a timestamp can hold are 7.3 million days.
        Self(time.as_second().div_euclid(24 * 60 * 60) as i32)
    }

    /// A content of this day needs the ids of the day before and later.
    pub fn first_needed(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    pub(super) fn mark(self) -> DayMark {
        let within = self.0.rem_euclid(CYCLE) as u8;
        DayMark(NonZeroU8::MIN.saturating_add(within))
    }
}

/// Days after which a mark comes again. Not 128: the byte 0 is an empty slot.
const CYCLE: i32 = 127;

/// The bit beside the day: the record was dropped by a filter.
const FILTERED: u8 = 0x80;

/// A day modulo [`CYCLE`], of an id that was published or filtered. Tells days apart that are less than half a cycle
/// from each other, which is far more than an id is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DayMark(NonZeroU8);

impl DayMark {
    pub(super) fn filtered(self) -> Self {
        Self(self.0 | FILTERED)
    }

    pub(super) fn is_filtered(self) -> bool {
        self.0.get() & FILTERED != 0
    }

    pub(super) fn is_before(self, day: Day) -> bool {
        let within = i32::from(self.0.get() & !FILTERED) - 1;
        (1..=CYCLE / 2).contains(&(day.0 - within).rem_euclid(CYCLE))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_optional_mark_is_one_byte() {
        assert_eq!(size_of::<Option<DayMark>>(), 1);
    }

    #[test]
    fn days_change_at_midnight_before_and_after_1970() {
        for (text, day) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59Z", -1),
            ("2025-10-05T23:59:59.999Z", 20_366),
            ("2025-10-06T00:00:00Z", 20_367),
        ] {
            assert_eq!(Day::of(text.parse().unwrap()), Day(day), "{text}");
        }
    }

    proptest! {
        #[test]
        fn marks_order_days_up_to_two_months_apart(day in -100_000_i32..100_000, apart in -63_i32..=63) {
            let (published, filtered) = (Day(day).mark(), Day(day).mark().filtered());
            prop_assert_eq!(published.is_before(Day(day + apart)), apart > 0);
            prop_assert_eq!(filtered.is_before(Day(day + apart)), apart > 0);
            prop_assert!(filtered.is_filtered() && !published.is_filtered());
        }
    }
}
