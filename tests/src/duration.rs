//! Durations on command lines: a number and a unit, such as `250ms` or `1.5s`.

use std::time::Duration;

/// Reads `us`, `ms`, `s` or `m`.
///
/// # Errors
/// No number, no unit, or a negative number.
pub fn parse(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let second = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("`{text}`: write a number and us, ms, s or m, such as 250ms")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{text}`: `{number}` is no number"))?;
    Duration::try_from_secs_f64(number * second).map_err(|error| format!("`{text}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood() {
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse("80us"), Ok(Duration::from_micros(80)));
    }

    #[test]
    fn mistakes_are_named() {
        for text in ["", "5", "ms", "-1s", "5h", "1.2.3s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
