//! How the bot's calls of Graph get to where they are to go, though the address of Graph may be
//! built in: through a proxy that answers for it. The one place that knows.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::environment::NUMBER;
use crate::app::Running;
use crate::clock::Clock;
use crate::config::Sources;
use crate::listener::Limits;
use crate::proxy::environment::{Surroundings, Variables, prepare};
use crate::proxy::{self, Authority};
use crate::simulator::Graph;

/// The folder of a column's certificate authority.
pub(super) const AUTHORITY: &str = "ca";

const LIMITS: Limits = Limits {
    connections: 1024,
    header: Duration::from_secs(10),
    age: Duration::from_secs(3600),
    drain: Duration::from_secs(1),
};
const ASK_MAX: Duration = Duration::from_secs(10);

/// A way that is open.
pub(super) struct Way {
    variables: Variables,
    /// What serves it; nothing where Hapax does.
    served: Option<(JoinHandle<()>, CancellationToken)>,
}

impl Way {
    /// Straight to the pretend Graph API.
    pub(super) async fn to_graph(
        graph: &Graph,
        folder: &Path,
        clock: &Clock,
    ) -> Result<Self, String> {
        graph.be_lenient();
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = bound.map_err(|error| format!("no port: {error}"))?;
        let address = listener.local_addr();
        let address = address.map_err(|error| format!("no port: {error}"))?;
        let variables = variables(address, folder, clock)?;
        let stop = CancellationToken::new();
        let (ca_dir, clock) = (folder.join(AUTHORITY), clock.clone());
        let router = graph.router();
        let served = proxy::serve(listener, router, ca_dir, LIMITS, clock, stop.clone());
        Ok(Self {
            variables,
            served: Some((tokio::spawn(served), stop)),
        })
    }

    /// Through Hapax, if it takes sends; else straight to the pretend Graph API.
    pub(super) async fn through(
        gateway: &Running,
        graph: &Graph,
        folder: &Path,
        clock: &Clock,
    ) -> Result<Self, String> {
        if !takes_sends(gateway.bot, clock).await? {
            return Self::to_graph(graph, folder, clock).await;
        }
        Ok(Self {
            variables: variables(gateway.bot, folder, clock)?,
            served: None,
        })
    }

    /// What the bot is told of it.
    pub(super) const fn variables(&self) -> &Variables {
        &self.variables
    }

    /// Ends it.
    pub(super) async fn close(self) {
        if let Some((serving, stop)) = self.served {
            stop.cancel();
            // It panicked, which ends it as well.
            let _ = serving.await;
        }
    }
}

fn variables(address: SocketAddr, folder: &Path, clock: &Clock) -> Result<Variables, String> {
    let authority = Authority::open(&folder.join(AUTHORITY), clock.clone());
    let authority = authority.map_err(|error| error.to_string())?;
    let sources = Sources::from_process(None, None);
    let before: Variables = sources.env.into_iter().collect();
    let url = format!("http://{address}");
    let around = Surroundings {
        proxy: &url,
        base_url: &url,
        authority: &authority,
    };
    prepare(&before, around).map_err(|error| error.to_string())
}

/// Whether sends are taken on the bot side of a gateway: what is not there answers 404.
async fn takes_sends(bot_side: SocketAddr, clock: &Clock) -> Result<bool, String> {
    let http = reqwest::Client::builder().no_proxy().build();
    let http = http.map_err(|error| format!("no HTTP client: {error}"))?;
    let url = format!("http://{bot_side}/v23.0/{NUMBER}/messages");
    let asked = clock.timeout(ASK_MAX, http.post(url).body("{}").send());
    let answer = asked.await.map_err(|error| error.to_string())?;
    let answer = answer.map_err(|error| error.to_string())?;
    Ok(answer.status() != reqwest::StatusCode::NOT_FOUND)
}
