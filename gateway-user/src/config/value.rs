//! How single values are written: durations, addresses, prefixes, ranges.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

/// A value as TOML has it.
pub(super) trait Value: Sized {
    /// What is expected, in words that end "expected …".
    const EXPECTED: &'static str;

    /// The value, if it is one.
    fn from_toml(value: &DeValue<'_>) -> Option<Self>;

    /// The value as an operator would write it.
    fn show(&self) -> String;
}

/// A [`Value`] that is a string which some parser understands.
macro_rules! text_value {
    ($type:ty, $expected:literal, $parse:expr, $show:expr) => {
        impl Value for $type {
            const EXPECTED: &'static str = $expected;

            fn from_toml(value: &DeValue<'_>) -> Option<$type> {
                value.as_str().and_then($parse)
            }

            fn show(&self) -> String {
                let show: fn(&$type) -> String = $show;
                show(self)
            }
        }
    };
}

text_value!(
    String,
    "a string that is not empty",
    |text: &str| (!text.is_empty()).then(|| text.to_owned()),
    |text| format!("{text:?}")
);
text_value!(
    PathBuf,
    "an absolute path",
    |text: &str| text.starts_with('/').then(|| PathBuf::from(text)),
    |path| path.display().to_string()
);
text_value!(
    Duration,
    "a duration such as \"250ms\" or \"30s\"",
    |text: &str| humantime::parse_duration(text).ok(),
    |span| humantime::format_duration(*span).to_string()
);
text_value!(
    SocketAddr,
    "an address and port such as \"10.0.0.1:80\" or \"[2001:db8::1]:80\"",
    |text: &str| text.parse().ok(),
    SocketAddr::to_string
);
/// Where a backend is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AskedAt {
    /// At one port.
    Port(SocketAddr),
    /// At the port that the client asked for.
    SamePort(IpAddr),
}

text_value!(
    AskedAt,
    "an address and port such as \"10.0.0.1:80\" or \"[2001:db8::1]:80\", or at L4 an address alone, \
     which is asked at the port that the client asked for",
    |text: &str| {
        if let Ok(addr) = text.parse() {
            return Some(AskedAt::Port(addr));
        }
        let alone = text.strip_suffix(":*").unwrap_or(text);
        let bare = alone.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        bare.unwrap_or(alone).parse().ok().map(AskedAt::SamePort)
    },
    |asked| match asked {
        AskedAt::Port(addr) => addr.to_string(),
        AskedAt::SamePort(ip) => ip.to_string(),
    }
);

text_value!(
    IpAddr,
    "an address such as \"10.0.0.1\" or \"2001:db8::1\"",
    |text: &str| text.parse().ok(),
    IpAddr::to_string
);
text_value!(
    IpNet,
    "a prefix such as \"10.0.0.0/8\" or \"2001:db8::/32\"",
    |text: &str| text.parse().ok(),
    IpNet::to_string
);
text_value!(
    RangeInclusive<u16>,
    "a range of ports such as \"10000-32767\"",
    |text: &str| {
        let (first, last) = text.split_once('-')?;
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    },
    |range| format!("{}-{}", range.start(), range.end())
);

/// An amount of bytes.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Size(pub(super) usize);

/// What sizes are written in, the largest first.
const SIZE_UNITS: [(&str, usize); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

text_value!(
    Size,
    "a size such as \"256KiB\" or \"1MiB\"",
    |text: &str| {
        let (number, unit) =
            SIZE_UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)))?;
        number.trim_end().parse::<usize>().ok()?.checked_mul(*unit).map(Size)
    },
    |size| {
        let (unit, bytes) = SIZE_UNITS
            .iter()
            .find(|(_, bytes)| size.0 >= *bytes && size.0.is_multiple_of(*bytes))
            .unwrap_or(&SIZE_UNITS[3]);
        format!("{}{unit}", size.0 / bytes)
    }
);

/// Longest name: it is written beside every metric.
const NAME_LEN_MAX: usize = 64;

/// What something is called in logs, metric labels and queries. Without a slash, which stands
/// between a pool's name and a backend's, and without anything that a terminal would act on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name(pub(super) String);

text_value!(
    Name,
    "a name of up to 64 letters, digits and any of -_.:",
    |text: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        let fits = (1..=NAME_LEN_MAX).contains(&text.len()) && text.chars().all(is_plain);
        fits.then(|| Name(text.to_owned()))
    },
    |name| format!("{:?}", name.0)
);

/// A program, by its absolute path, and its arguments, as a list: no shell takes it apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommandLine {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
}

impl Value for CommandLine {
    const EXPECTED: &'static str = "a list of a program's absolute path and its arguments, such as \
                                    [\"/usr/local/bin/restart\", \"--now\"]";

    fn from_toml(value: &DeValue<'_>) -> Option<CommandLine> {
        let words = value.as_array()?.iter().map(|word| word.get_ref().as_str());
        let words: Vec<&str> = words.collect::<Option<_>>()?;
        let (program, args) = words.split_first()?;
        let args = args.iter().map(|word| (*word).to_owned()).collect();
        program.starts_with('/').then(|| CommandLine { program: PathBuf::from(program), args })
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_toml(value: &DeValue<'_>) -> Option<bool> {
        value.as_bool()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u32 {
    const EXPECTED: &'static str = "a whole number, not negative";

    fn from_toml(value: &DeValue<'_>) -> Option<u32> {
        let integer = value.as_integer()?;
        u32::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for f64 {
    const EXPECTED: &'static str = "a number";

    fn from_toml(value: &DeValue<'_>) -> Option<f64> {
        let number = match value {
            DeValue::Float(float) => float.as_str().parse().ok()?,
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).ok()? as f64
            }
            _ => return None,
        };
        number.is_finite().then_some(number)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}
