//! Randomness, as a thing that is handed in: ids, secrets, nonces and jitter come from here.

use std::fmt;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use type_safe_id::{StaticType, TypeSafeId};

use crate::domain::ids;

/// A source of random numbers; clones share it.
#[derive(Clone)]
pub struct Entropy(Source);

#[derive(Clone)]
enum Source {
    /// The thread's generator, seeded by the operating system: fit for secrets.
    System,
    /// A repeatable sequence, for tests and for the story of `demo`: never for secrets.
    Seeded(Arc<Mutex<StdRng>>),
}

impl Entropy {
    /// The generator that production uses.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// The same sequence for the same seed, for tests and for the story of `demo`.
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(
            seed,
        )))))
    }

    /// `N` random bytes.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the ambient generator"
    )]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match &self.0 {
            Source::System => rand::rng().fill_bytes(&mut bytes),
            Source::Seeded(rng) => rng
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .fill_bytes(&mut bytes),
        }
        bytes
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&self) -> f64 {
        // 53 bits: what the mantissa holds.
        #[expect(
            clippy::cast_precision_loss,
            reason = "53 bits fit the mantissa exactly"
        )]
        let numerator = (u64::from_le_bytes(self.bytes()) >> 11) as f64;
        numerator / 9_007_199_254_740_992.0
    }

    /// A new id of any of our kinds, made at `now`.
    pub fn id<T: StaticType>(&self, now: DateTime<Utc>) -> TypeSafeId<T> {
        ids::new_id(now, self.bytes())
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_the_system_does_not() {
        assert_eq!(Entropy::seeded(1).bytes::<16>(), Entropy::seeded(1).bytes());
        assert_ne!(Entropy::system().bytes::<16>(), Entropy::system().bytes());
    }

    #[test]
    fn a_unit_is_below_one() {
        let entropy = Entropy::seeded(2);
        assert!((0..1_000).all(|_| (0.0..1.0).contains(&entropy.unit())));
    }
}
