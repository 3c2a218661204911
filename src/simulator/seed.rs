//! All chance of the simulator, from one number: the same seed draws the same run.
//!
//! Concurrency must not change what is drawn, so whoever runs on its own takes a stream of its
//! own by label. Nothing here reads a source of real randomness.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// A stream of draws.
#[derive(Clone)]
pub struct Draw {
    key: [u8; 32],
    stream: ChaCha8Rng,
}

impl Draw {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self::from_key(Sha256::digest(seed.to_le_bytes()).into())
    }

    /// An independent stream. It depends on this stream's origin and on `label`, not on what was
    /// drawn so far.
    pub fn fork(&self, label: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(label.as_bytes());
        Self::from_key(hash.finalize().into())
    }

    fn from_key(key: [u8; 32]) -> Self {
        Self {
            key,
            stream: ChaCha8Rng::from_seed(key),
        }
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.stream.next_u64()
    }

    /// A number below `n`, each as likely as the others to within 2⁻⁶⁴ `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        let product = u128::from(self.number()) * u128::from(n);
        (product >> 64) as u64
    }

    /// A number from `low` to `high`, both included; `low` when they are the wrong way round.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True with probability `p`: never for 0 and below, always for 1 and above.
    pub fn chance(&mut self, p: f64) -> bool {
        // 53 bits are what an f64 holds exactly.
        let unit = (self.number() >> 11) as f64 / (1_u64 << 53) as f64;
        unit < p
    }

    /// A duration of less than `limit`, in whole microseconds.
    pub fn duration_below(&mut self, limit: Duration) -> Duration {
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(micros))
    }

    /// One of `items`.
    ///
    /// # Panics
    /// When there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Brings `items` into any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// `bytes` drawn bytes as upper-case hexadecimal digits, the look of Meta's inner ids.
    pub fn hex(&mut self, bytes: usize) -> String {
        let mut drawn = vec![0; bytes];
        self.stream.fill_bytes(&mut drawn);
        hex::encode_upper(drawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_run() {
        let draws = |seed| {
            let mut draw = Draw::new(seed);
            (draw.number(), draw.below(1000), draw.hex(4))
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
    }

    #[test]
    fn a_fork_does_not_depend_on_what_was_drawn_before() {
        let mut used = Draw::new(7);
        used.number();
        let fresh = Draw::new(7);
        assert_eq!(used.fork("ann").number(), fresh.fork("ann").number());
        assert_ne!(fresh.fork("ann").number(), fresh.fork("bob").number());
        assert_ne!(
            fresh.fork("a").fork("b").number(),
            fresh.fork("b").fork("a").number()
        );
    }

    #[test]
    fn draws_stay_in_their_range() {
        let mut draw = Draw::new(1);
        let mut seen = [0_u32; 6];
        for _ in 0..6000 {
            seen[draw.between(1, 6) as usize - 1] += 1;
        }
        assert!(seen.iter().all(|&n| (800..1200).contains(&n)), "{seen:?}");
        assert_eq!(draw.below(0), 0);
        assert!(!draw.chance(0.0));
        assert!(draw.chance(1.0));
        let hits = (0..10_000).filter(|_| draw.chance(0.25)).count();
        assert!((2300..2700).contains(&hits), "{hits}");
    }

    #[test]
    fn a_shuffle_keeps_what_it_moves() {
        let mut items = [1, 2, 3, 4, 5, 6, 7, 8];
        Draw::new(3).shuffle(&mut items);
        assert_ne!(items, [1, 2, 3, 4, 5, 6, 7, 8]);
        items.sort_unstable();
        assert_eq!(items, [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
