//! Durations as text: `100ms`, `5s`, `2h`, `1h 30m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Reads one.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// Writes one as it would be read.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// Reads the text of one.
pub fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is no duration; write it as `100ms`, `5s` or `2h`"))
}

/// Lists of durations.
pub mod list {
    use super::{Deserialize, Deserializer, Duration, Error, Serializer, parse};

    /// Reads a list.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Duration>, D::Error> {
        Vec::<String>::deserialize(deserializer)?
            .iter()
            .map(|text| parse(text).map_err(D::Error::custom))
            .collect()
    }

    /// Writes a list as it would be read.
    pub fn serialize<S: Serializer>(
        durations: &[Duration],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            durations
                .iter()
                .map(|duration| humantime::format_duration(*duration).to_string()),
        )
    }
}

/// Durations of many days, which are written as such: `30d`.
pub mod days {
    use super::{Duration, Serializer};

    pub use super::deserialize;

    const DAY_SECS: u64 = 24 * 60 * 60;

    /// Writes one as it would be read.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = duration.as_secs();
        if duration.subsec_nanos() == 0 && seconds >= DAY_SECS && seconds.is_multiple_of(DAY_SECS) {
            return serializer.collect_str(&format_args!("{}d", seconds / DAY_SECS));
        }
        super::serialize(duration, serializer)
    }
}
