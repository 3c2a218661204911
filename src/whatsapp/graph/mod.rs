//! The client of Meta's Graph API: one call, one honest verdict.
//!
//! It never sends twice by itself, neither on purpose nor through its HTTP library. When to try
//! again, and whether, is decided by who keeps the ledger.

mod address;
mod answer;
pub mod errors;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::io;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, Url};
use serde_json::json;

use self::answer::Answer;
use crate::clock::Clock;
use crate::model::{FailureClass, GraphAnswer, NumberId, Recipient, Secret, SendVerdict, Wamid};

/// An answer longer than this is not read to its end. Meta's are a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// How long an unused connection is kept. A request on a connection that the other side is just
/// closing fails in a way that leaves it open whether it was read; common servers and proxies
/// close after five seconds or more.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// At most so many unused connections are kept.
const IDLE_CONNECTIONS_MAX: usize = 64;

/// Where the Graph API is and how it is spoken to.
#[derive(Debug, Clone)]
pub struct GraphSettings {
    /// Scheme, host, and a path if there is one.
    pub base_url: String,
    /// For example `v25.0`.
    pub version: String,
    /// The token that may send for the numbers.
    pub access_token: Secret,
    /// The longest wait from the established connection to the last byte of the answer.
    pub timeout: Duration,
    /// The longest wait for a connection: name, TCP and TLS.
    pub connect_timeout: Duration,
}

impl Default for GraphSettings {
    /// Meta's own server, without a token.
    fn default() -> Self {
        Self {
            base_url: "https://graph.facebook.com".to_owned(),
            version: "v25.0".to_owned(),
            access_token: Secret::new(""),
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// Settings with which no call can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// No `http` or `https` URL with a host.
    #[error("the Graph API's base URL must be http or https, such as https://graph.facebook.com")]
    BaseUrl,
    /// Characters that can't stand in a header, such as a line break.
    #[error("the access token holds characters that no token has")]
    AccessToken,
    /// TLS could not be set up: mostly, no root certificates are installed.
    #[error("the HTTPS client cannot be set up: {0}")]
    Tls(String),
}

/// A message was not marked as read; harmless to try again, or to leave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not marked as read: {0}")]
pub struct NotMarked(String);

/// A client of the Graph API. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Graph {
    client: Client,
    base: Url,
    version: String,
    timeout: Duration,
    clock: Clock,
}

/// What became of a send.
#[derive(Debug)]
pub struct Sent {
    /// What it shows.
    pub verdict: SendVerdict,
    /// What Meta answered, as it came, if that is JSON of a size that Meta's answers have.
    pub answer: Option<GraphAnswer>,
}

impl Sent {
    const fn without_answer(verdict: SendVerdict) -> Self {
        Self {
            verdict,
            answer: None,
        }
    }
}

/// A call without an answer.
pub(super) enum Lost {
    /// No connection, so not a byte of the request was written.
    Unreachable(String),
    /// Anything later.
    Unsure(String),
}

impl Lost {
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::Unreachable(reason) | Self::Unsure(reason) => reason,
        }
    }
}

impl Graph {
    /// Makes the client; no call is made yet.
    pub fn new(settings: &GraphSettings, clock: Clock) -> Result<Self, GraphError> {
        let base = base_url(&settings.base_url)?;
        let client = client(settings, &base, headers(&settings.access_token)?)?;
        Ok(Self {
            client,
            base,
            version: settings.version.clone(),
            timeout: settings.connect_timeout.saturating_add(settings.timeout),
            clock,
        })
    }

    /// Sends one message body (as composed, without recipient) and says what became of it.
    /// `tag` goes into `biz_opaque_callback_data` and comes back in every receipt.
    ///
    /// Dropping the future leaves it open whether the message was sent.
    ///
    /// Source: Meta, *Messages API*.
    pub async fn send(
        &self,
        number: &NumberId,
        recipient: &Recipient,
        body: &str,
        tag: &str,
    ) -> Sent {
        let Some(body) = address::addressed(body, recipient, tag) else {
            return Sent::without_answer(SendVerdict::Rejected {
                code: 100,
                class: FailureClass::Refused,
                after: None,
                reason: "the body to send is no JSON object".to_owned(),
            });
        };
        match self.post(number, body).await {
            Ok(answer) => Sent {
                verdict: answer::verdict(&answer),
                answer: answer::kept(answer),
            },
            Err(Lost::Unreachable(reason)) => {
                Sent::without_answer(SendVerdict::Unreachable { reason })
            }
            Err(Lost::Unsure(reason)) => Sent::without_answer(SendVerdict::Unsure { reason }),
        }
    }

    /// Marks a message, and all before it, as read; with `typing` also shows that an answer is
    /// being written, until it comes or 25 seconds have passed.
    ///
    /// Source: Meta, *Mark messages as read*, *Typing indicators*.
    pub async fn mark_read(
        &self,
        number: &NumberId,
        wamid: &Wamid,
        typing: bool,
    ) -> Result<(), NotMarked> {
        let mut body = json!({
            "messaging_product": "whatsapp",
            "status": "read",
            "message_id": wamid.as_str(),
        });
        if typing {
            body["typing_indicator"] = json!({ "type": "text" });
        }
        let answer = self
            .post(number, body.to_string())
            .await
            .map_err(|lost| NotMarked(lost.into_reason()))?;
        if answer.status.is_success() {
            return Ok(());
        }
        let status = || format!("HTTP {}", answer.status.as_u16());
        Err(NotMarked(
            answer::error_in_words(&answer).unwrap_or_else(status),
        ))
    }

    async fn post(&self, number: &NumberId, body: String) -> Result<Answer, Lost> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty();
            path.extend([&self.version, number.as_str(), "messages"]);
        }
        let call = async {
            let request = self.client.post(url).body(body);
            let response = request.send().await.map_err(|error| lost(&error))?;
            read(response).await
        };
        match self.clock.timeout(self.timeout, call).await {
            Ok(answer) => answer,
            Err(_) => Err(Lost::Unsure("no answer in time".to_owned())),
        }
    }
}

pub(super) fn base_url(text: &str) -> Result<Url, GraphError> {
    let url = Url::parse(text).map_err(|_| GraphError::BaseUrl)?;
    let fits = matches!(url.scheme(), "http" | "https") && url.has_host();
    if fits {
        Ok(url)
    } else {
        Err(GraphError::BaseUrl)
    }
}

/// A client that makes each request at most once.
///
/// Read in the sources of reqwest 0.13.5, hyper-util 0.1.21 and hyper 1.12.0: there are two
/// silent repeats. reqwest repeats on an HTTP/2 or HTTP/3 refusal only (`retry.rs`), which
/// `retry::never` turns off. hyper-util repeats a request that was waiting for a pooled
/// connection when that closed (`legacy/client.rs`), and reqwest has no switch for it; it does
/// so only with a request that the connection hands back, and hyper hands back only what was
/// "never even started" (`proto/h1/dispatch.rs`), so not a byte of it was written. Anything
/// later is an error here. `is_connect` is true only of what failed before a connection stood,
/// TLS included; without early data (off by default) no request can be on it yet.
pub(super) fn client(
    settings: &GraphSettings,
    base: &Url,
    headers: HeaderMap,
) -> Result<Client, GraphError> {
    // Fails where one is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("hapax/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .connect_timeout(settings.connect_timeout)
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy();
    if base.scheme() == "http" {
        // So that no root certificates need be there where no TLS is spoken.
        builder = builder.tls_certs_only([]);
    }
    builder
        .build()
        .map_err(|error| GraphError::Tls(innermost(&error)))
}

/// What each call of ours carries.
fn headers(token: &Secret) -> Result<HeaderMap, GraphError> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, bearer(token)?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(headers)
}

fn bearer(token: &Secret) -> Result<HeaderValue, GraphError> {
    let text = format!("Bearer {}", token.expose());
    let mut value = HeaderValue::try_from(text).map_err(|_| GraphError::AccessToken)?;
    value.set_sensitive(true);
    Ok(value)
}

async fn read(mut response: Response) -> Result<Answer, Lost> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| lost(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Lost::Unsure("the answer is too long".to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer {
        status: response.status(),
        after: answer::retry_after(response.headers().get(RETRY_AFTER)),
        body,
    })
}

/// In our own words: an error of the library can hold the URL.
pub(super) fn lost(error: &reqwest::Error) -> Lost {
    let kind = io_kind(error).map(|kind| format!(" ({kind})"));
    let kind = kind.unwrap_or_default();
    if error.is_dns() {
        Lost::Unreachable("the host's name cannot be resolved".to_owned())
    } else if error.is_connect() && error.is_timeout() {
        Lost::Unreachable("no connection in time".to_owned())
    } else if error.is_connect() {
        Lost::Unreachable(format!("no connection{kind}"))
    } else {
        Lost::Unsure(format!("the connection broke before the answer came{kind}"))
    }
}

fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        source = error.source();
    }
    None
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
