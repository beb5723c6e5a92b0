//! Draws: the same ones under the same seed, whatever else is drawn meanwhile.

use std::hash::{BuildHasher as _, RandomState};

/// The seed that the environment names, else a fresh one.
pub(crate) fn from_environment() -> u64 {
    let named = std::env::var("AEGIS_SEED").ok().and_then(|seed| seed.parse().ok());
    named.unwrap_or_else(|| RandomState::new().hash_one(0))
}

/// A sequence of draws of its own: `SplitMix64` (Steele, Lea and Flood, 2014).
#[derive(Debug)]
pub(crate) struct Draws(u64);

impl Draws {
    /// The sequence that a seed gives to this name.
    pub(crate) fn of(seed: u64, name: &[&str], number: u64) -> Self {
        let mut draws = Self(seed);
        for part in name {
            // FNV-1a: the standard library's hashes may differ between releases.
            let hash = part.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            draws.0 = draws.next() ^ hash;
        }
        draws.0 = draws.next() ^ number;
        draws
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between 0 and 1, without 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are all that is left")]
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_repeated_by_their_seed_name_and_number_and_by_nothing_less() {
        let first = |seed, name, number| Draws::of(seed, &[name], number).next();
        assert_eq!(first(1, "a", 0), first(1, "a", 0));
        assert_ne!(first(1, "a", 0), first(2, "a", 0));
        assert_ne!(first(1, "a", 0), first(1, "b", 0));
        assert_ne!(first(1, "a", 0), first(1, "a", 1));
        assert_ne!(Draws::of(1, &["a", "b"], 0).next(), Draws::of(1, &["b", "a"], 0).next());
    }

    #[test]
    fn fractions_are_spread_evenly() {
        let mut draws = Draws::of(7, &[], 0);
        let below = |limit| (0..10_000).filter(|_| draws.fraction() < limit).count();
        let counts: Vec<_> = [0.1, 0.5, 0.9].into_iter().map(below).collect();
        assert!((900..1_100).contains(&counts[0]), "{counts:?}");
        assert!((4_800..5_200).contains(&counts[1]), "{counts:?}");
        assert!((8_900..9_100).contains(&counts[2]), "{counts:?}");
    }
}
