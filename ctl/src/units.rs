//! Durations, times and numbers as people write and read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Ten years, the policy language's bound: more is a mistake.
const MAX_SECONDS: u64 = 3650 * 86_400;

/// A duration from the command line: `90s`, `10m`, `1h30m`, `7d`; in seconds.
pub fn parse_duration(text: &str) -> Result<u64, String> {
    let expected = || "expected a duration such as `90s`, `10m`, `1h30m` or `7d`".to_owned();
    let duration = humantime::parse_duration(text).map_err(|_| expected())?;
    match (duration.as_secs(), duration.subsec_nanos()) {
        (1..=MAX_SECONDS, 0) => Ok(duration.as_secs()),
        (_, 0) => Err("out of range, 1 second to 3650 days".to_owned()),
        _ => Err("whole seconds only".to_owned()),
    }
}

/// Seconds as `1h 30m`: exact.
#[must_use]
pub fn duration(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// Seconds by their largest unit, for a column: `3s`, `12m`, `5h`, `9d`.
#[must_use]
pub fn roughly(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Now, in seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A time in the past, seen from `now`.
#[must_use]
pub fn ago(time: Option<u64>, now: u64) -> String {
    time.map_or_else(|| "never".to_owned(), |time| format!("{} ago", roughly(now.saturating_sub(time))))
}

/// A time in the future, seen from `now`; `None` is no end.
#[must_use]
pub fn left(time: Option<u64>, now: u64) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("in {}", roughly(time.saturating_sub(now))))
}

/// A time as RFC 3339, UTC.
#[must_use]
pub fn timestamp(time: u64) -> String {
    // The formatter's range ends with the year 9999.
    let time = time.min(253_402_300_799);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time)).to_string()
}

/// A count in at most five characters: `999`, `1.2k`, `34k`, `5.6M`; powers of 1,000, rounded down.
#[must_use]
pub fn count(number: u64) -> String {
    let mut unit = 1;
    let mut suffix = None;
    for letter in ["k", "M", "G", "T", "P", "E"] {
        if number / unit < 1000 {
            break;
        }
        unit *= 1000;
        suffix = Some(letter);
    }
    match (suffix, number / unit) {
        (None, _) => number.to_string(),
        (Some(letter), whole @ 0..10) => format!("{whole}.{}{letter}", number % unit * 10 / unit),
        (Some(letter), whole) => format!("{whole}{letter}"),
    }
}

/// A size: `512 B`, `1.5 KiB`; powers of 1,024, rounded down.
#[must_use]
pub fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1024 => return format!("{bytes} B"),
        1024..0x10_0000 => (1 << 10, "KiB"),
        0x10_0000..0x4000_0000 => (1 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_seconds_with_a_unit() {
        for (text, seconds) in
            [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h 30m", 5400), ("1.5h", 5400), ("7d", 604_800)]
        {
            assert_eq!(parse_duration(text), Ok(seconds), "{text}");
        }
        for text in ["", "10", "0s", "m", "-5s", "500ms", "1500ms", "3651d", "ten minutes", "99999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(duration(5400), "1h 30m");
    }

    #[test]
    fn counts_fit_a_column() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (1299, "1.2k"),
            (34_999, "34k"),
            (999_999, "999k"),
            (5_600_000, "5.6M"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(count(number), text);
        }
        assert_eq!((size(1023), size(1536), size(5 << 20)), ("1023 B".into(), "1.5 KiB".into(), "5.0 MiB".into()));
    }

    #[test]
    fn times_are_relative_to_now() {
        assert_eq!(ago(None, 100), "never");
        assert_eq!(ago(Some(97), 100), "3s ago");
        assert_eq!(ago(Some(200), 100), "0s ago");
        assert_eq!(left(Some(100 + 7200), 100), "in 2h");
        assert_eq!(left(None, 100), "-");
        assert_eq!(timestamp(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(timestamp(u64::MAX), "9999-12-31T23:59:59Z");
    }
}
