//! How the bot's calls of Graph get to where they are to go. The one place that knows.

use std::path::Path;

use crate::app::Running;
use crate::clock::Clock;
use crate::simulator::Graph;

/// A way that is open.
pub(super) struct Way {
    variables: Vec<(String, String)>,
}

impl Way {
    /// Straight to the pretend Graph API.
    pub(super) async fn to_graph(
        graph: &Graph,
        _folder: &Path,
        _clock: &Clock,
    ) -> Result<Self, String> {
        graph.be_lenient();
        Ok(Self {
            variables: vec![("WHATSAPP_API_URL".to_owned(), graph.url())],
        })
    }

    /// Through Hapax.
    pub(super) async fn through(
        _gateway: &Running,
        graph: &Graph,
        folder: &Path,
        clock: &Clock,
    ) -> Result<Self, String> {
        Self::to_graph(graph, folder, clock).await
    }

    /// What the bot is told of it.
    pub(super) fn variables(&self) -> &[(String, String)] {
        &self.variables
    }

    pub(super) async fn close(self) {}
}
