//! How Go writes values, since the flags are written that way.

use std::time::Duration;

/// A truth value, in the spellings that Go takes.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// An integer: decimal, or with the prefix `0x`, `0o`, `0b` or `0`; `_` between digits then.
pub(crate) fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest.replace('_', ""))
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest.replace('_', ""))
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest.replace('_', ""))
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, lower[1..].replace('_', ""))
    } else {
        (10, lower)
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from_str_radix(&digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

/// A span of time in nanoseconds: `300ms`, `1.5h`, `2h45m`, `-1s`, `0`.
pub(crate) fn nanoseconds(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum: i128 = 0;
    while !rest.is_empty() {
        let whole_len = digits_len(rest);
        let (whole, after) = rest.split_at(whole_len);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits_len(after)),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_len = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        if !whole.is_empty() {
            sum = sum.checked_add(whole.parse::<i128>().ok()?.checked_mul(unit)?)?;
        }
        let mut part = unit;
        // More digits than the unit has nanoseconds say nothing.
        for digit in fraction.bytes() {
            if part < 10 {
                break;
            }
            sum += i128::from(digit - b'0') * part / 10;
            part /= 10;
        }
        rest = after;
    }
    i64::try_from(if negative { -sum } else { sum }).ok()
}

fn digits_len(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// Writes a span of time the way [`nanoseconds`] reads it.
pub(crate) fn write_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |unit: u128, name: &str| {
        let (whole, part) = (nanos / unit, nanos % unit);
        if part == 0 {
            return format!("{whole}{name}");
        }
        let width = unit.ilog10() as usize;
        let digits = format!("{part:0width$}");
        format!("{whole}.{}{name}", digits.trim_end_matches('0'))
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(1_000_000, "ms"),
        1_000_000_000..60_000_000_000 => fraction(1_000_000_000, "s"),
        _ => {
            let seconds = duration.as_secs();
            let below_minute = write_duration(Duration::new(seconds % 60, duration.subsec_nanos()));
            // Below a second Go still writes the unit `s` here; no setting is that fine.
            match (seconds / 3600, seconds / 60 % 60) {
                (0, minutes) => format!("{minutes}m{below_minute}"),
                (hours, minutes) => format!("{hours}h{minutes}m{below_minute}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(nanoseconds("300ms"), Some(300_000_000));
        assert_eq!(nanoseconds("1.5h"), Some(5_400_000_000_000));
        assert_eq!(nanoseconds("2h45m"), Some(9_900_000_000_000));
        assert_eq!(nanoseconds("-1s"), Some(-1_000_000_000));
        assert_eq!(nanoseconds(".5s"), Some(500_000_000));
        assert_eq!(nanoseconds("1.s"), Some(1_000_000_000));
        assert_eq!(nanoseconds("0"), Some(0));
        assert_eq!(nanoseconds("3µs"), Some(3_000));
        for bad in ["", "5", "s", "1 s", "1x", "-", ".s", "99999999999h"] {
            assert_eq!(nanoseconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_written_so_that_they_can_be_read() {
        for (nanos, text) in [
            (0, "0s"),
            (100_000_000, "100ms"),
            (1_500_000_000, "1.5s"),
            (7_200_000_000_000, "2h0m0s"),
            (600_000_000_000, "10m0s"),
            (1_234, "1.234µs"),
        ] {
            assert_eq!(write_duration(Duration::from_nanos(nanos)), text);
            assert_eq!(nanoseconds(text), Some(nanos.cast_signed()));
        }
    }

    #[test]
    fn integers_have_prefixes() {
        assert_eq!(integer("100"), Some(100));
        assert_eq!(integer("-0x10"), Some(-16));
        assert_eq!(integer("010"), Some(8));
        assert_eq!(integer("0"), Some(0));
        for bad in ["", "abc", "1e3", "--1", "1 "] {
            assert_eq!(integer(bad), None, "{bad}");
        }
    }
}
