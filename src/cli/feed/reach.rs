//! How much of a span the service still lists.

use jiff::{SignedDuration, Timestamp};

use crate::{
    cli::{
        Failure,
        args::{SpanArgs, TimeSpan, usage},
        output::tell,
    },
    domain::Planner,
};

/// How far back it lists as documented; what lies between this and [`Planner::REACH`] is cut off and told.
const DOCUMENTED: SignedDuration = SignedDuration::from_mins(7 * 24 * 60 + 5);

/// The span that was asked for, as far as the service can list it; what is cut off is told on standard error.
///
/// # Errors
/// When it begins earlier than the service lists, is empty, or lies in the future.
pub(in crate::cli) fn in_reach(
    span: &SpanArgs,
    now: Timestamp,
    otherwise: SignedDuration,
) -> Result<TimeSpan, Failure> {
    let span = span.of(now, otherwise)?;
    if span.from < now - DOCUMENTED {
        return Err(usage(format!(
            "the API lists the last 7 days and nothing older: the span may begin at {:.0} at the earliest, and not at {:.0}",
            now - Planner::REACH,
            span.from
        )));
    }
    within_reach(span, now)
}

/// The part of a span that the service can list; what is cut off is told on standard error.
///
/// # Errors
/// When nothing of it is left.
pub(in crate::cli) fn within_reach(span: TimeSpan, now: Timestamp) -> Result<TimeSpan, Failure> {
    let left = cut_to_reach(span, now)?;
    if span.from < left.from {
        tell(&format!(
            "note: the API can be relied on to list from {:.0} on, so this begins there and not at {:.0}",
            left.from, span.from
        ));
    }
    Ok(left)
}

/// The part of a span that the service can be relied on to list.
///
/// # Errors
/// When nothing of it is left.
pub(in crate::cli) fn cut_to_reach(span: TimeSpan, now: Timestamp) -> Result<TimeSpan, Failure> {
    let earliest = now - Planner::REACH;
    let (from, to) = (span.from.max(earliest), span.to.min(now));
    if to <= from {
        return Err(usage(format!(
            "nothing can be listed there: the API lists from {earliest:.0} until now, {now:.0}"
        )));
    }
    Ok(TimeSpan { from, to })
}
