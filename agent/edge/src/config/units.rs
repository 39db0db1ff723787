//! Durations and sizes as people write them. A number without a unit is refused: it has cost others nights.

use std::time::Duration;

/// `200ms`, `2s`, `5min`, `12h`, `30d`: a whole number and its unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// `64KB`, `512MB`, `2GB`: a whole number and its unit, in powers of 1024.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "B" => 1,
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_number_with_a_unit_is_a_duration() {
        for (text, expected) in [
            ("200ms", Some(Duration::from_millis(200))),
            ("2 s", Some(Duration::from_secs(2))),
            ("5min", Some(Duration::from_secs(300))),
            ("30d", Some(Duration::from_secs(30 * 86_400))),
            ("2", None),
            ("s", None),
            ("-2s", None),
            ("2m", None),
            ("99999999999999999999d", None),
            ("9999999999999999999d", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, expected) in
            [("64KB", Some(65_536)), ("2GB", Some(2_147_483_648)), ("64", None), ("64k", None)]
        {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
