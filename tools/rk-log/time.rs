//! Times and numbers as people write them: RFC 3339 in UTC, hexadecimal zxids, ranges.

use jiff::Timestamp;

/// A range whose ends count; an end that is absent is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Range {
    from: Option<i64>,
    to: Option<i64>,
}

impl Range {
    /// Whether the number is in it.
    pub(crate) fn holds(&self, number: i64) -> bool {
        self.from.is_none_or(|from| from <= number) && self.to.is_none_or(|to| number <= to)
    }

    fn parse(text: &str, end: impl Fn(&str) -> Result<i64, String>) -> Result<Self, String> {
        let Some((from, to)) = text.split_once("..") else {
            let only = Some(end(text)?);
            return Ok(Self { from: only, to: only });
        };
        let end = |text: &str| if text.is_empty() { Ok(None) } else { end(text).map(Some) };
        Ok(Self { from: end(from)?, to: end(to)? })
    }
}

/// Milliseconds since 1970 as RFC 3339 in UTC, or as the number if that is beyond the calendar.
pub(crate) fn rfc3339(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.3}"))
}

/// A time in RFC 3339, or milliseconds since 1970.
pub(crate) fn parse_time(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let parsed: Result<Timestamp, _> = text.parse();
    parsed.map(Timestamp::as_millisecond).map_err(|_| {
        format!("{text:?} is neither a time like 2026-01-31T12:00:00Z nor milliseconds since 1970")
    })
}

/// A zxid or session id: hexadecimal behind `0x`, else decimal.
pub(crate) fn parse_id(text: &str) -> Result<i64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok().map(u64::cast_signed),
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| format!("{text:?} is no number like 0x1f or 31"))
}

/// `FROM..TO` of zxids.
pub(crate) fn parse_id_range(text: &str) -> Result<Range, String> {
    Range::parse(text, parse_id)
}

/// `FROM..TO` of times.
pub(crate) fn parse_time_range(text: &str) -> Result<Range, String> {
    Range::parse(text, parse_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ranges() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(i64::MAX), i64::MAX.to_string());
        assert_eq!(parse_time("1970-01-01T00:00:01.5Z"), Ok(1500));
        assert_eq!(parse_time("1970-01-01T01:00:00+01:00"), Ok(0));
        assert_eq!(parse_time("-5"), Ok(-5));
        assert!(parse_time("yesterday").is_err());
        assert_eq!(parse_id("0xffffffffffffffff"), Ok(-1));
        assert_eq!(parse_id("31"), Ok(31));
        assert!(parse_id("0x").is_err());
        let range = parse_id_range("0x10..").expect("a range");
        assert!(range.holds(16) && range.holds(i64::MAX) && !range.holds(15));
        let range = parse_id_range("7").expect("a range");
        assert!(range.holds(7) && !range.holds(8));
        assert!(parse_time_range("1..x").is_err());
    }
}
