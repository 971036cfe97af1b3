//! Times and durations as people read them. Pure: `now` is an argument.

use serde::{Serialize, Serializer};
use time::OffsetDateTime;

/// Milliseconds since 1970; 0 and less mean “never”. In JSON an ISO 8601 text in UTC, or null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Time(pub(crate) i64);

impl Time {
    /// The clock of this machine: for the rim alone, everything else takes it as an argument.
    pub(crate) fn now() -> Self {
        let nanos = OffsetDateTime::now_utc().unix_timestamp_nanos();
        Self(i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX))
    }

    fn utc(self) -> Option<OffsetDateTime> {
        if self.0 <= 0 {
            return None;
        }
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).ok()
    }

    /// `2026-11-22T03:04:05Z`, or `never`.
    pub(crate) fn iso(self) -> String {
        self.utc()
            .map_or_else(|| "never".to_owned(), |utc| format!("{}Z", seconds(utc)))
    }

    /// `3 min ago`, `in 5 h`, `just now`, `never`.
    pub(crate) fn age(self, now: Time) -> String {
        if self.utc().is_none() {
            return "never".to_owned();
        }
        let passed = now.0.saturating_sub(self.0);
        let length = span(passed.unsigned_abs());
        match passed {
            -999..=999 => "just now".to_owned(),
            1_000.. => format!("{length} ago"),
            _ => format!("in {length}"),
        }
    }

    /// `2026-11-22T03:04:05Z (3 min ago)`.
    pub(crate) fn both(self, now: Time) -> String {
        if self.utc().is_none() {
            return "never".to_owned();
        }
        format!("{} ({})", self.iso(), self.age(now))
    }
}

fn seconds(utc: OffsetDateTime) -> String {
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        utc.year(),
        u8::from(utc.month()),
        utc.day(),
        utc.hour(),
        utc.minute(),
        utc.second()
    )
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.utc() {
            Some(utc) => serializer.serialize_str(&format!("{}.{:03}Z", seconds(utc), utc.millisecond())),
            None => serializer.serialize_none(),
        }
    }
}

/// A length of time in its largest whole unit: `5 s`, `3 min`, `2 h`, `9 days`.
pub(crate) fn span(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0 => format!("{ms} ms"),
        1..60 => format!("{s} s"),
        60..3_600 => format!("{} min", s / 60),
        3_600..172_800 => format!("{} h", s / 3_600),
        _ => format!("{} days", s / 86_400),
    }
}

/// A short measurement: `840 µs`, `84 ms`, `1.27 s`.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_795_316_645_123);

    #[test]
    fn times_are_utc_with_their_age() {
        assert_eq!(NOW.iso(), "2026-11-22T03:04:05Z");
        assert_eq!(
            Time(NOW.0 - 200_000).both(NOW),
            "2026-11-22T03:00:45Z (3 min ago)"
        );
        assert_eq!(Time(NOW.0 + 7_200_000).age(NOW), "in 2 h");
        assert_eq!(NOW.age(NOW), "just now");
        assert_eq!(Time(0).both(NOW), "never");
        assert_eq!(Time(-5).iso(), "never");
        assert_eq!(Time(i64::MAX).iso(), "never");
        assert_eq!(Time(1).age(Time(i64::MIN)), "in 106751991167 days");
    }

    #[test]
    fn json_has_milliseconds_or_null() {
        assert_eq!(
            serde_json::to_string(&NOW).expect("a time"),
            "\"2026-11-22T03:04:05.123Z\""
        );
        assert_eq!(serde_json::to_string(&Time(0)).expect("a time"), "null");
    }

    #[test]
    fn lengths_take_the_largest_unit() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (3_600_000, "1 h"),
            (172_799_000, "47 h"),
            (172_800_000, "2 days"),
        ] {
            assert_eq!(span(ms), text);
        }
        for (us, text) in [
            (0, "0 µs"),
            (999, "999 µs"),
            (84_300, "84 ms"),
            (1_270_000, "1.27 s"),
            (61_000_000, "61.00 s"),
        ] {
            assert_eq!(micros(us), text);
        }
    }
}
