//! Medians, quantiles and roundings of what was measured.

use std::time::Duration;

use crate::store::Commits;

/// Of some rounds; not a number where there are none.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The one of the `sorted` that `share` of them don't exceed.
pub(super) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

/// Three digits behind the point.
pub(super) fn round3(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// In thousandths of a second.
pub(super) const fn millis(of: Duration) -> f64 {
    of.as_secs_f64() * 1000.0
}

/// The commits that came after `before`.
pub(super) const fn commits_since(before: Commits, after: Commits) -> Commits {
    Commits {
        commits: after.commits - before.commits,
        writes: after.writes - before.writes,
    }
}

/// How many operations one commit carried; zero where there was none.
pub(super) fn mean_batch(of: Commits) -> f64 {
    of.writes as f64 / of.commits.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles_are_values_that_were_measured() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert!(median([]).is_nan());
        let sorted: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(quantile(&sorted, 0.0), Duration::from_millis(1));
        assert_eq!(quantile(&sorted, 0.99), Duration::from_millis(99));
        assert_eq!(quantile(&sorted, 1.0), Duration::from_millis(100));
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }
}
