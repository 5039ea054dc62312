//! How many files the process may have open: connections are files too, and the usual soft limit of
//! 1,024 is less than what the configuration can ask for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// For everything else: logs, the certificate's files, the broker, the ops port, timers.
const SPARE: u64 = 128;

/// What one connection to a database can have open: on `SQLite` the file, its log and its index.
const PER_DATABASE_CONNECTION: u64 = 3;

/// Raises the soft limit to what the configuration can need, as far as the hard one lets us, and
/// says so where that is not enough: connections then wait, or fail, before their limits are reached.
pub(super) fn allow(config: &Config) {
    let needed = needed(config);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(wanted) = raised(current, maximum, needed) else {
        return;
    };
    let limit = Rlimit {
        current: Some(wanted),
        maximum,
    };
    let allowed = match setrlimit(Resource::Nofile, limit) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files stays as it is");
            current.unwrap_or(wanted)
        }
    };
    if allowed < needed {
        tracing::warn!(
            allowed,
            needed,
            "fewer files may be open than the configuration can need: raise the limit \
             (`ulimit -n`, `LimitNOFILE=`), or lower api.max_connections or dispatch.concurrency"
        );
    }
}

/// The most that can be open at once: clients of the API; requests to receivers, and as many
/// connections again that are kept for the next; the database.
fn needed(config: &Config) -> u64 {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let database = u64::from(config.database.max_connections);
    count(config.api.max_connections)
        .saturating_add(count(config.dispatch.concurrency).saturating_mul(2))
        .saturating_add(database.saturating_mul(PER_DATABASE_CONNECTION))
        .saturating_add(SPARE)
}

/// The soft limit to ask for; `None` where it is enough as it is. No limit is written `None`.
fn raised(soft: Option<u64>, hard: Option<u64>, needed: u64) -> Option<u64> {
    let soft = soft.unwrap_or(u64::MAX);
    let hard = hard.unwrap_or(u64::MAX);
    (soft < needed).then(|| needed.min(hard).max(soft))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_needed_and_allowed_and_never_lowered() {
        for (soft, hard, expected) in [
            (Some(1_024), Some(4_096), Some(2_000)),
            (Some(1_024), None, Some(2_000)),
            (Some(1_024), Some(1_500), Some(1_500)),
            (Some(1_024), Some(1_024), Some(1_024)),
            (Some(2_000), Some(4_096), None),
            (Some(8_192), Some(8_192), None),
            (None, None, None),
        ] {
            assert_eq!(raised(soft, hard, 2_000), expected, "{soft:?} {hard:?}");
        }
    }

    #[test]
    fn what_is_needed_follows_the_configuration() {
        let mut config = Config::default();
        let usual = needed(&config);
        config.api.max_connections += 10;
        config.dispatch.concurrency += 10;
        assert_eq!(needed(&config), usual + 30);
        config.api.max_connections = usize::MAX;
        assert_eq!(needed(&config), u64::MAX);
    }
}
