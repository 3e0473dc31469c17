//! `startTime` and `endTime` as the service reads them, with the answers it gives to windows it does not like.

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

use super::{answer::Answer, clock::wire_ms, scenario::WideWindow};

const DAY: SignedDuration = SignedDuration::from_hours(24);
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What a listing asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Span {
        start: Timestamp,
        end: Timestamp,
    },
    /// A `+` that was not encoded came in as a space: the service finds nothing and says nothing.
    Nothing,
}

/// Reads the window of a listing. With `is_page`, a start that has meanwhile become too old is let through.
///
/// # Errors
/// The answer to send instead.
pub(super) fn asked(
    start: Option<&str>,
    end: Option<&str>,
    now: Timestamp,
    wide: WideWindow,
    is_page: bool,
) -> Result<Asked, Answer> {
    let (start, end) = match (start, end) {
        (None, None) => return Ok(Asked::Span { start: now - DAY, end: now }),
        (Some(start), Some(end)) => (start, end),
        _ => {
            let code = "String reference not set to an instance of a String.\r\nParameter name";
            return Err(Answer::error(400, code, "s"));
        }
    };
    let (start, end) = match (moment("startTime", start)?, moment("endTime", end)?) {
        (Some(start), Some(end)) => (start, end),
        _ => return Ok(Asked::Nothing),
    };
    let width = end.duration_since(start);
    let is_too_wide = match wide {
        WideWindow::Refused { exactly_a_day } => DAY < width || (exactly_a_day && width == DAY),
        WideWindow::SilentlyPartial => false,
    };
    if width <= SignedDuration::ZERO || is_too_wide {
        return Err(refused("AF20055", start, end));
    }
    if start < now - WEEK && !is_page {
        return Err(refused("AF20030", start, end));
    }
    Ok(Asked::Span { start, end: if DAY < width { start + DAY } else { end } })
}

fn refused(code: &str, start: Timestamp, end: Timestamp) -> Answer {
    let text = |at: Timestamp| wire_ms(super::clock::ns(at));
    let message = format!(
        "Start time and end time must both be specified (or both omitted) and must be less than or equal to 24 hours \
         apart, with the start time prior to end time and start time no more than 7 days in the past. \
         StartTime:{}, EndTime:{}",
        text(start),
        text(end)
    );
    Answer::error(400, code, message)
}

/// Any of the formats of docs/api/contract.md 3.5; nothing for the one that a bare `+` makes.
fn moment(name: &str, text: &str) -> Result<Option<Timestamp>, Answer> {
    if text.contains(' ') {
        return Ok(None);
    }
    let bare = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    let utc = |civil: civil::DateTime| civil.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
    let read = bare.parse::<civil::DateTime>().and_then(utc).or_else(|_| text.parse::<Timestamp>());
    // Times that no arithmetic of days around them could hold are no times for this service.
    let sane = read.ok().filter(|at| (1970..2200).contains(&at.to_zoned(TimeZone::UTC).year()));
    match sane {
        Some(at) => Ok(Some(at)),
        None => Err(Answer::error(400, "AF20002", format!("Invalid parameter type: {name}. Expected type: datetime"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-08-30T12:00:00Z";
    const REFUSED: WideWindow = WideWindow::Refused { exactly_a_day: false };

    fn read(start: &str, end: &str, wide: WideWindow) -> Result<Asked, u16> {
        asked(Some(start), Some(end), NOW.parse().unwrap(), wide, false).map_err(|answer| answer.status)
    }

    #[test]
    fn s31_every_format_of_the_contract_is_read() {
        let end = "2026-08-30T11:00:00";
        for start in [
            "2026-08-30",
            "2026-08-30T00:00",
            "2026-08-30T00:00:00",
            "2026-08-30T00:00:00Z",
            "2026-08-30T00:00:00.000Z",
            "2026-08-30T00:00:00.0000000Z",
            "2026-08-30T00:00:00.000000000Z",
            "2026-08-30T00:00:00.000000+00:00",
        ] {
            let expected = Asked::Span {
                start: "2026-08-30T00:00:00Z".parse().unwrap(),
                end: "2026-08-30T11:00:00Z".parse().unwrap(),
            };
            assert_eq!(read(start, end, REFUSED), Ok(expected), "{start}");
        }
        assert_eq!(read("2026-08-30T00:00:00 00:00", end, REFUSED), Ok(Asked::Nothing));
        assert_eq!(read("yesterday", end, REFUSED), Err(400));
        assert_eq!(read("-009999-01-01", end, REFUSED), Err(400));
    }

    #[test]
    fn s32_windows_are_refused_by_the_rules() {
        let (day, eve) = ("2026-08-30T10:00:00", "2026-08-29T10:00:00");
        assert!(read(eve, day, REFUSED).is_ok(), "exactly 24 h");
        assert_eq!(read(eve, day, WideWindow::Refused { exactly_a_day: true }), Err(400));
        assert_eq!(read("2026-08-29T09:59:59", day, REFUSED), Err(400));
        assert_eq!(read(day, eve, REFUSED), Err(400), "reversed");
        assert_eq!(read("2026-08-23T11:59:59", "2026-08-23T13:00:00", REFUSED), Err(400), "too old");
        assert!(read(day, "2026-08-31T09:00:00", REFUSED).is_ok(), "an end in the future");
        let partial = Asked::Span {
            start: "2026-08-28T10:00:00Z".parse().unwrap(),
            end: "2026-08-29T10:00:00Z".parse().unwrap(),
        };
        assert_eq!(read("2026-08-28T10:00:00", day, WideWindow::SilentlyPartial), Ok(partial));
    }
}
