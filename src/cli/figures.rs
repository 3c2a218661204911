//! Reads figures back from the admin listener, as any monitoring would.

use std::net::SocketAddr;

/// What `/metrics` said at one moment.
pub(super) struct Figures(String);

impl Figures {
    /// Asks an admin listener without a token; `None` when it does not answer.
    pub(super) async fn fetch(admin: SocketAddr) -> Option<Self> {
        let client = reqwest::Client::builder().no_proxy().build().ok()?;
        let url = format!("http://{admin}/metrics");
        let text = client.get(url).send().await.ok()?.text().await.ok()?;
        Some(Self(text))
    }

    /// The sum of all samples of `name` that carry `label` (`key="value"`), or of all.
    pub(super) fn sum(&self, name: &str, label: &str) -> u64 {
        let samples = self.0.lines().filter(|line| !line.starts_with('#'));
        let value = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix(name)?;
            let is_whole_name = rest.starts_with([' ', '{']);
            if !is_whole_name || !rest.contains(label) {
                return None;
            }
            line.rsplit(' ').next()?.parse().ok()
        };
        samples.filter_map(value).sum::<f64>() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_name_and_label() {
        let text = "# HELP a_total x\na_total{kind=\"message\",verdict=\"duplicate\"} 3\n\
                    a_total{kind=\"status\",verdict=\"duplicate\"} 4\n\
                    a_total{kind=\"status\",verdict=\"accepted\"} 5\na_total_more 9\nb 7\n";
        let figures = Figures(text.to_owned());
        assert_eq!(figures.sum("a_total", "verdict=\"duplicate\""), 7);
        assert_eq!(figures.sum("a_total", ""), 12);
        assert_eq!(figures.sum("b", ""), 7);
    }
}
