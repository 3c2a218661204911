//! How property tests run: the same cases in every run, in memory alone, each a short list that
//! fails. Only for tests; holds no property itself.
//!
//! `PROPTEST_CASES` and `PROPTEST_RNG_SEED` ask for more cases and for others.

use proptest::test_runner::{Config, RngSeed};

/// The settings of a property that is tried with so many cases where nobody asks for others.
pub(crate) fn cases(cases: u32) -> Config {
    // What proptest takes from the environment.
    let asked = Config::default();
    let is_asked = asked.cases != DEFAULT_CASES;
    let rng_seed = match asked.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        fixed @ RngSeed::Fixed(_) => fixed,
    };
    Config {
        cases: if is_asked { asked.cases } else { cases },
        rng_seed,
        max_shrink_iters: 2_000,
        // A seed is enough to repeat a failure, so that none need be kept in a file.
        failure_persistence: None,
        ..asked
    }
}

/// What proptest takes where nobody asks for a number.
const DEFAULT_CASES: u32 = 256;
