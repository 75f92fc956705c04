//! Points in time as sources write them.

use clap::ValueEnum;
use time::{Date, Month, PrimitiveDateTime, Time, UtcOffset};

/// How a source writes its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum TimeUnit {
    /// Unix seconds, or a date with or without a time of day, as in 2024-05-01T12:30:00Z (no offset: UTC).
    #[default]
    Auto,
    /// Unix seconds.
    Seconds,
    /// Unix milliseconds.
    Milliseconds,
    /// Unix microseconds.
    Microseconds,
    /// There are no times: the order of the rows counts.
    Order,
}

/// Unix seconds of a time as it is written. Errors say what was expected.
pub(super) fn moment(text: &str, unit: TimeUnit) -> Result<i64, String> {
    let per_second = match unit {
        TimeUnit::Milliseconds => 1_000,
        TimeUnit::Microseconds => 1_000_000,
        TimeUnit::Auto | TimeUnit::Seconds | TimeUnit::Order => 1,
    };
    if let Ok(number) = text.parse::<i64>() {
        return Ok(number.div_euclid(per_second));
    }
    if let Ok(number) = text.parse::<f64>()
        && number.is_finite()
        && number.abs() < 1e15
    {
        return Ok((number / per_second as f64).floor() as i64);
    }
    let date = if unit == TimeUnit::Auto { calendar(text) } else { None };
    date.ok_or_else(|| {
        let expected = match unit {
            TimeUnit::Auto => "Unix seconds or a date such as 2024-05-01T12:30:00Z (or another --time-unit)",
            _ => "a whole number",
        };
        format!("{text:?}, expected {expected}")
    })
}

/// `YYYY-MM-DD`, then nothing or `T` or a blank and `HH:MM[:SS[.fraction]]`, then nothing or `Z` or an offset `+HH:MM`.
fn calendar(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let mut parts = date.split('-');
    let year = parts.next()?.parse().ok()?;
    let month = Month::try_from(parts.next()?.parse::<u8>().ok()?).ok()?;
    let date = Date::from_calendar_date(year, month, parts.next()?.parse().ok()?).ok()?;
    if rest.is_empty() {
        return Some(PrimitiveDateTime::new(date, Time::MIDNIGHT).assume_utc().unix_timestamp());
    }
    let rest = rest.strip_prefix(['T', ' '])?;
    let (clock, offset) = match rest.find(['Z', '+', '-']) {
        Some(at) => (&rest[..at], offset(&rest[at..])?),
        None => (rest, UtcOffset::UTC),
    };
    let clock = clock.trim_end();
    let mut parts = clock.split_once('.').map_or(clock, |(whole, _)| whole).split(':');
    let (hour, minute) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let second = parts.next().map_or(Ok(0), str::parse).ok()?;
    let time = Time::from_hms(hour, minute, second).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_offset(offset).unix_timestamp())
}

fn offset(text: &str) -> Option<UtcOffset> {
    if text == "Z" {
        return Some(UtcOffset::UTC);
    }
    let (hours, minutes) = match text.split_once(':') {
        Some((hours, minutes)) => (hours.parse::<i8>().ok()?, minutes.parse::<i8>().ok()?),
        None => (text.parse::<i8>().ok()?, 0),
    };
    UtcOffset::from_hms(hours, if text.starts_with('-') { -minutes } else { minutes }, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        let noon = 1_714_566_600;
        for text in [
            "1714566600",
            "1714566600.75",
            "2024-05-01T12:30:00Z",
            "2024-05-01 12:30:00",
            "2024-05-01T12:30",
            "2024-05-01T14:30:00.250+02:00",
            "2024-05-01T10:00:00-02:30",
            "2024-05-01 12:30:00.5 +00",
        ] {
            assert_eq!(moment(text, TimeUnit::Auto), Ok(noon), "{text}");
        }
        assert_eq!(moment("2024-05-01", TimeUnit::Auto), Ok(1_714_521_600));
        assert_eq!(moment("1714566600999", TimeUnit::Milliseconds), Ok(noon));
        assert_eq!(moment("1714566600999999", TimeUnit::Microseconds), Ok(noon));
        assert_eq!(moment("-1", TimeUnit::Milliseconds), Ok(-1));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in
            ["yesterday", "2024-13-01", "2024-02-30", "2024-05-01T25:00", "NaN", "2024-05-01X", "01.05.2024", "ä"]
        {
            assert!(moment(text, TimeUnit::Auto).unwrap_err().contains("expected Unix seconds"), "{text}");
        }
        assert!(moment("2024-05-01", TimeUnit::Seconds).is_err());
    }
}
