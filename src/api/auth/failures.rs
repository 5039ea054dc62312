//! Wrong keys, counted by the address that shows them, in this process.
//!
//! An address that has shown too many is refused before the database is asked. A key that was valid
//! here a moment ago is heard all the same: behind one address there may be a whole office, and one
//! wrong script in it must not shut the others out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::api::neighbourhood::neighbourhood;
use crate::domain::ids::ApiKeyId;
use crate::domain::key_text::{KeyDigest, KeyText};

/// The window that failures are counted in; it opens with the first.
const WINDOW: Duration = Duration::from_mins(1);

/// How long a key is known after it was valid.
const KNOWN_FOR: Duration = Duration::from_hours(1);

/// So many entries are kept without a look at which are over, in each table.
const FEW: usize = 1_024;

/// The most of each; beyond it the tables are emptied: whoever can fill them must not fill the
/// memory.
const MANY: usize = 100_000;

/// Who failed, and who is known.
#[derive(Debug)]
pub(super) struct Failures {
    limit: u32,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    failed: HashMap<IpAddr, Failed>,
    known: HashMap<ApiKeyId, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    since: Duration,
    count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    digest: KeyDigest,
    until: Duration,
}

impl Failures {
    /// At most so many failures a minute from each address.
    pub(super) fn new(limit: u32) -> Self {
        Self {
            limit,
            tables: Mutex::default(),
        }
    }

    /// How long a request from this address, with this key, has to wait; `None` when it is heard.
    pub(super) fn wait(
        &self,
        address: IpAddr,
        key: Option<&KeyText>,
        now: Duration,
    ) -> Option<Duration> {
        let tables = self.lock();
        let failed = tables.failed.get(&neighbourhood(address))?;
        let rest = (failed.since + WINDOW).checked_sub(now)?;
        if failed.count < self.limit || rest.is_zero() {
            return None;
        }
        let known = key.is_some_and(|key| tables.knows(key, now));
        (!known).then_some(rest)
    }

    /// A key was shown that is not valid.
    pub(super) fn failed(&self, address: IpAddr, key: Option<&KeyText>, now: Duration) {
        let mut tables = self.lock();
        if let Some(key) = key
            && tables.knows(key, now)
        {
            // It was revoked, or its time is over.
            tables.known.remove(&key.id());
        }
        make_room(&mut tables.failed, |failed| failed.since + WINDOW > now);
        let failed = tables
            .failed
            .entry(neighbourhood(address))
            .or_insert(Failed {
                since: now,
                count: 0,
            });
        if now >= failed.since + WINDOW {
            *failed = Failed {
                since: now,
                count: 0,
            };
        }
        failed.count = failed.count.saturating_add(1);
    }

    /// A key was shown that is valid.
    pub(super) fn succeeded(&self, key: &KeyText, now: Duration) {
        let mut tables = self.lock();
        make_room(&mut tables.known, |known| known.until > now);
        let known = Known {
            digest: key.digest(),
            until: now + KNOWN_FOR,
        };
        tables.known.insert(key.id(), known);
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // A poisoned table is still one: nothing is half written under this lock.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// Whether this very key was valid here a while ago.
    fn knows(&self, key: &KeyText, now: Duration) -> bool {
        let known = self.known.get(&key.id());
        known.is_some_and(|known| known.until > now && key.digest().proves(Some(&known.digest)))
    }
}

/// Drops what is over, each time the table has filled its room.
fn make_room<K, V>(table: &mut HashMap<K, V>, lasts: impl Fn(&V) -> bool) {
    if table.len() >= FEW && table.len() == table.capacity() {
        table.retain(|_, entry| lasts(entry));
        if table.len() >= MANY {
            table.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::domain::ids::new_id;

    fn key(byte: u8) -> KeyText {
        KeyText::generate(new_id(DateTime::UNIX_EPOCH, [byte; 10]), [byte; 20])
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_waits_after_too_many_failures_and_a_known_key_does_not() {
        let failures = Failures::new(3);
        let (office, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let start = Duration::from_secs(100);
        failures.succeeded(&key(1), start);
        for _ in 0..3 {
            assert_eq!(failures.wait(office, None, start), None);
            failures.failed(office, Some(&key(2)), start);
        }
        let later = start + Duration::from_secs(20);
        assert_eq!(
            failures.wait(office, Some(&key(2)), later),
            Some(Duration::from_secs(40))
        );
        assert_eq!(
            failures.wait(office, None, later),
            Some(Duration::from_secs(40))
        );
        assert_eq!(failures.wait(office, Some(&key(1)), later), None, "known");
        assert_eq!(failures.wait(other, Some(&key(2)), later), None);
        assert_eq!(failures.wait(office, None, start + WINDOW), None);

        let imitation = KeyText::generate(key(1).id(), [9; 20]);
        assert!(failures.wait(office, Some(&imitation), later).is_some());
        failures.failed(office, Some(&key(1)), later);
        assert!(
            failures.wait(office, Some(&key(1)), later).is_some(),
            "revoked"
        );
    }

    #[test]
    fn a_house_on_ipv6_is_one_address() {
        let failures = Failures::new(1);
        failures.failed(address("2001:db8:1:2::3"), None, Duration::ZERO);
        let wait = |text| failures.wait(address(text), None, Duration::ZERO).is_some();
        assert!(wait("2001:db8:1:2:ffff::1"));
        assert!(!wait("2001:db8:1:3::3"));
        failures.failed(address("::ffff:192.0.2.7"), None, Duration::ZERO);
        assert!(wait("192.0.2.7"));
    }

    #[test]
    fn many_addresses_do_not_fill_the_memory() {
        let failures = Failures::new(1);
        for number in 0..2 * u32::try_from(MANY).unwrap() {
            failures.failed(IpAddr::from(number.to_be_bytes()), None, Duration::ZERO);
        }
        assert!(failures.lock().failed.len() <= 2 * MANY);
    }
}
