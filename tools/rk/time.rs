//! Times and durations as people write them.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Timestamp};

/// Wall time in milliseconds as `2026-01-02T03:04:05.678Z`; the number if it is out of range.
pub(crate) fn rfc3339(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.3}"))
}

/// `15s`, `1h 30m`, `7 days`, `500ms`: a day has 24 hours, and nothing is negative.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<Span>().and_then(|span| {
        let days = SpanRelativeTo::days_are_24_hours();
        Duration::try_from(span.to_duration(days)?)
    });
    duration.map_err(|_| format!("{text:?} is no duration like 15s, 1h 30m or 7 days"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations() {
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(i64::MAX), i64::MAX.to_string());
        for (text, ms) in [
            ("15s", 15_000),
            ("0s", 0),
            ("500ms", 500),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            ("7 days", 604_800_000),
            ("2w", 1_209_600_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "15", "-1s", "s", "1 fortnight", "1 month"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
