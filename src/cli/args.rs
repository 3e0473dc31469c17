//! Arguments that many commands have: which tenants, which content types, which span of time.

use clap::Args;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, civil, tz::TimeZone};

use super::{Exit, Failure};
use crate::{
    config::{Settings, Tenant},
    domain::ContentType,
};

/// Which tenants of the settings.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct TenantArgs {
    /// Only these tenants, by name or id; all of the settings otherwise.
    #[arg(long = "tenant", value_name = "NAME|ID", value_delimiter = ',')]
    tenants: Vec<String>,
}

impl TenantArgs {
    /// # Errors
    /// When the settings have no tenant of that name or id.
    pub(super) fn of<'a>(&self, settings: &'a Settings) -> Result<Vec<&'a Tenant>, Failure> {
        if self.tenants.is_empty() {
            return Ok(settings.tenants.iter().collect());
        }
        let find = |asked: &String| {
            let is_it = |tenant: &&Tenant| tenant.name == *asked || tenant.id.to_string().eq_ignore_ascii_case(asked);
            settings.tenants.iter().find(is_it).ok_or_else(|| {
                let known: Vec<&str> = settings.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
                usage(format!("the settings have no tenant `{asked}`; they have {}", known.join(", ")))
            })
        };
        self.tenants.iter().map(find).collect()
    }
}

/// Which sources: tenants, and which content types of each.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct SourceArgs {
    #[command(flatten)]
    tenants: TenantArgs,
    /// Only these content types, such as Audit.Exchange; those of the tenant's settings otherwise.
    #[arg(long = "type", value_name = "CONTENT_TYPE", value_delimiter = ',')]
    types: Vec<ContentType>,
}

impl SourceArgs {
    /// Whether tenants were named.
    pub(super) fn name_tenants(&self) -> bool {
        !self.tenants.tenants.is_empty()
    }

    /// The content types that were asked for; nothing when that was left open.
    pub(super) fn types(&self) -> Option<&[ContentType]> {
        (!self.types.is_empty()).then_some(&self.types)
    }

    /// The tenants, each with the content types that were asked for, else with those that the settings say.
    ///
    /// # Errors
    /// When the settings have no tenant of a name or id.
    pub(super) fn of<'a>(&self, settings: &'a Settings) -> Result<Vec<(&'a Tenant, Vec<ContentType>)>, Failure> {
        let kinds = |tenant: &Tenant| self.types().unwrap_or(&tenant.content_types).to_vec();
        Ok(self.tenants.of(settings)?.into_iter().map(|tenant| (tenant, kinds(tenant))).collect())
    }
}

/// Which span of time.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct SpanArgs {
    /// From so long ago until now, such as 24h, 90m or 7d.
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with_all = ["from", "to"])]
    since: Option<SignedDuration>,
    /// From this time on, such as 2026-01-31 or 2026-01-31T13:00:00Z; UTC unless an offset is given.
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Timestamp>,
    /// Up to this time, exclusive; now otherwise.
    #[arg(long, value_name = "TIME", value_parser = time, requires = "from")]
    to: Option<Timestamp>,
}

/// `from <= t < to`, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeSpan {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

impl SpanArgs {
    /// Whether a span was asked for.
    pub(super) fn is_given(&self) -> bool {
        self.since.is_some() || self.from.is_some()
    }

    /// The span that was asked for; the `otherwise` before now when none was.
    ///
    /// # Errors
    /// When it is empty or runs backwards.
    pub(super) fn of(&self, now: Timestamp, otherwise: SignedDuration) -> Result<TimeSpan, Failure> {
        let ago = self.since.unwrap_or(otherwise);
        let from = self.from.unwrap_or_else(|| now.checked_sub(ago).unwrap_or(Timestamp::MIN));
        let to = self.to.unwrap_or(now);
        if to <= from {
            return Err(usage(format!("the span from {from} to {to} is empty: its end must be later than its start")));
        }
        Ok(TimeSpan { from, to })
    }
}

/// Wrong usage, told in a sentence.
pub(super) fn usage(why: String) -> Failure {
    Failure::new(Exit::Usage, anyhow::Error::msg(why))
}

/// `24h`, `1d 12h`: days are 24 hours.
pub(super) fn duration(text: &str) -> Result<SignedDuration, String> {
    let span: Span = text.parse().map_err(|_| "not a duration such as 24h, 90m or 7d".to_owned())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| "too long".to_owned())?;
    if duration <= SignedDuration::ZERO { Err("not longer than nothing".to_owned()) } else { Ok(duration) }
}

/// A time with an offset, or without one in UTC, or a day's beginning in UTC.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    let in_utc = |civil: civil::DateTime| civil.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
    let civil = || text.parse::<civil::DateTime>().and_then(in_utc);
    text.parse::<Timestamp>()
        .or_else(|_| civil())
        .map_err(|_| "not a time such as 2026-01-31, 2026-01-31T13:00 or 2026-01-31T13:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_times_are_read_as_people_write_them() {
        assert_eq!(duration("7d"), Ok(SignedDuration::from_hours(168)));
        assert_eq!(duration("1h30m"), Ok(SignedDuration::from_mins(90)));
        for wrong in ["", "7", "-1h", "0s", "1 month", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        let utc = |text: &str| time(text).map(|time| time.to_string());
        assert_eq!(utc("2026-01-31"), Ok("2026-01-31T00:00:00Z".to_owned()));
        assert_eq!(utc("2026-01-31T13:00"), Ok("2026-01-31T13:00:00Z".to_owned()));
        assert_eq!(utc("2026-01-31T13:00:00+02:00"), Ok("2026-01-31T11:00:00Z".to_owned()));
        assert!(utc("yesterday").is_err());
    }

    #[test]
    fn a_span_is_never_empty() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let hour = SignedDuration::from_hours(1);
        let span = |since, from: Option<&str>, to: Option<&str>| {
            let at = |text: Option<&str>| text.map(|text| time(text).unwrap());
            SpanArgs { since, from: at(from), to: at(to) }.of(now, hour).map_err(|failure| failure.to_string())
        };
        assert_eq!(span(None, None, None), Ok(TimeSpan { from: now - hour, to: now }));
        assert_eq!(span(Some(hour * 2), None, None).unwrap().from, now - hour * 2);
        assert_eq!(span(None, Some("2026-01-30"), Some("2026-01-31")).unwrap().to, time("2026-01-31").unwrap());
        assert_eq!(span(Some(SignedDuration::MAX), None, None).unwrap().from, Timestamp::MIN);
        assert!(span(None, Some("2026-02-01"), None).unwrap_err().contains("empty"));
    }
}
