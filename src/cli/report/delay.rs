//! How long records are on their way: from the event to the API, from there to Kafka.

use std::{collections::BTreeMap, io, io::Write};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{Heading, Incoming, Page, Sum, histogram::Histogram};
use crate::cli::{
    Failure,
    facts::Facts,
    output::{OutputArgs, table},
};

/// One histogram a content type and leg.
#[derive(Default)]
pub(super) struct Delays {
    legs: BTreeMap<(&'static str, Leg), Histogram>,
    /// The end of a leg lay before its beginning: clocks differ. It counts as no time at all.
    backwards: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Leg {
    Available,
    Published,
    Total,
}

impl Leg {
    fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Published => "published",
            Self::Total => "total",
        }
    }
}

#[derive(Serialize)]
struct Row {
    content_type: &'static str,
    leg: Leg,
    count: u64,
    p50_seconds: u64,
    p90_seconds: u64,
    p99_seconds: u64,
    max_seconds: u64,
}

impl Sum for Delays {
    const NEEDS: &'static str = "whose content's listing is not known";
    const WANTS_CONTENTS: bool = true;

    fn add(&mut self, record: &Incoming<'_>, _: &Facts<'_>, created: Timestamp) -> bool {
        let Some(available) = record.available else { return false };
        let kind = record.kind.map_or("(several)", |kind| kind.as_str());
        let legs = [
            (Leg::Available, Some((created, available))),
            (Leg::Published, record.published.map(|published| (available, published))),
            (Leg::Total, record.published.map(|published| (created, published))),
        ];
        let mut backwards = false;
        for (leg, span) in legs {
            let Some((from, to)) = span else { continue };
            let took = to.duration_since(from);
            backwards |= took < SignedDuration::ZERO;
            let seconds = u64::try_from(took.as_secs()).unwrap_or(0);
            self.legs.entry((kind, leg)).or_default().add(seconds);
        }
        self.backwards += u64::from(backwards);
        true
    }
}

impl Delays {
    pub(super) fn show(&self, output: OutputArgs, heading: &Heading) -> Result<(), Failure> {
        let row = |((content_type, leg), seconds): (&(&'static str, Leg), &Histogram)| Row {
            content_type,
            leg: *leg,
            count: seconds.count(),
            p50_seconds: seconds.percentile(0.5),
            p90_seconds: seconds.percentile(0.9),
            p99_seconds: seconds.percentile(0.99),
            max_seconds: seconds.max(),
        };
        let rows = self.legs.iter().map(row).collect();
        output.show(&Page { heading, others: 0, rows }, |page| {
            let cells = |row: &Row| {
                let times = [row.p50_seconds, row.p90_seconds, row.p99_seconds, row.max_seconds].map(told);
                let first = [row.content_type.to_owned(), row.leg.as_str().to_owned(), row.count.to_string()];
                first.into_iter().chain(times)
            };
            table(&["content type", "leg", "count", "p50", "p90", "p99", "max"], page.rows.iter().map(cells))
        })?;
        if self.legs.keys().all(|(_, leg)| *leg == Leg::Available) && !self.legs.is_empty() {
            let _ = writeln!(io::stderr(), "only `available`: no record here says when it was published");
        }
        if self.backwards > 0 {
            let _ = writeln!(io::stderr(), "{} records arrive before they leave: clocks differ", self.backwards);
        }
        Ok(())
    }
}

/// `2d 3h`, `5m 7s`: the two largest units.
fn told(seconds: u64) -> String {
    let parts = [(seconds / 86_400, 'd'), (seconds / 3_600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown = parts[first..].iter().take(2).enumerate().filter(|(at, (count, _))| *at == 0 || *count > 0);
    shown.map(|(_, (count, unit))| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ContentType;

    #[test]
    fn a_record_has_a_leg_to_the_api_one_to_kafka_and_both_together() {
        let at = |second: i64| Timestamp::from_second(1_788_091_200 + second).unwrap();
        let mut delays = Delays::default();
        let mut add = |available: Option<i64>, published: Option<i64>| {
            let record = Incoming {
                kind: Some(ContentType::Exchange),
                bytes: b"{}",
                available: available.map(at),
                published: published.map(at),
            };
            delays.add(&record, &Facts::default(), at(0))
        };
        assert!(add(Some(60), Some(75)) && add(Some(100), None) && add(Some(-5), Some(2)));
        assert!(!add(None, Some(75)), "nobody knows when it became available");
        let of = |leg| &delays.legs[&("Audit.Exchange", leg)];
        assert_eq!((of(Leg::Available).count(), of(Leg::Available).max()), (3, 100));
        assert_eq!((of(Leg::Published).count(), of(Leg::Published).max()), (2, 15));
        assert_eq!((of(Leg::Total).max(), delays.backwards), (75, 1));
    }

    #[test]
    fn times_are_told_in_their_two_largest_units() {
        let times = [0, 59, 60, 61, 3_600, 3_661, 86_400, 183_600];
        assert_eq!(times.map(told), ["0s", "59s", "1m", "1m 1s", "1h", "1h 1m", "1d", "2d 3h"]);
    }
}
