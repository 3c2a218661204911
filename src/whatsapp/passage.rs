//! The way through to Meta for calls that are a bot's own affair: bodies go through in pieces, in
//! both directions, and are never held whole. Each call is made once.

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};
use reqwest::{Client, Response, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::graph::{self, GraphError, GraphSettings};
use crate::clock::Clock;
use crate::model::Secret;

/// Calls under way at once; further ones wait.
const AT_ONCE_MAX: usize = 64;
/// How long a call waits for others to end.
const PLACE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Headers that speak of one connection, by RFC 9110, 7.6.1, and what older programs add.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Where calls go through. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Passage {
    client: Client,
    base: Url,
    token: Secret,
    clock: Clock,
    idle: Duration,
    places: Arc<Semaphore>,
}

/// A call to pass on; its token is in place already.
pub struct Passing<S> {
    /// The method.
    pub method: Method,
    /// Path and query, as they came.
    pub target: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body, in pieces.
    pub body: S,
}

/// What Meta answered, with the body still to come.
pub struct Passed<S> {
    /// The status.
    pub status: StatusCode,
    /// The headers that are not of the connection.
    pub headers: HeaderMap,
    /// The body. It ends in an error where Meta breaks off, or is silent for too long.
    pub body: S,
}

/// Why there is no answer. Holds no URL and nothing of what was said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPassed {
    /// Too many calls are under way; this one was not made.
    #[error("too many calls are being passed on to Meta at once")]
    Full,
    /// The path is none.
    #[error("the path of the call can't be read")]
    Target,
    /// No connection, or it broke.
    #[error("{0}")]
    Lost(String),
    /// Nothing has come or gone for too long.
    #[error("nothing has moved for {0:?}")]
    Idle(Duration),
}

impl Passage {
    /// Makes the client; no call is made yet. `settings.timeout` is how long nothing may move.
    ///
    /// # Errors
    /// Settings with which no call can be made.
    pub fn new(settings: &GraphSettings, clock: Clock) -> Result<Self, GraphError> {
        let base = graph::base_url(&settings.base_url)?;
        Ok(Self {
            client: graph::client(settings, &base, HeaderMap::new())?,
            base,
            token: settings.access_token.clone(),
            clock,
            idle: settings.connect_timeout.saturating_add(settings.timeout),
            places: Arc::new(Semaphore::new(AT_ONCE_MAX)),
        })
    }

    /// The token that opens Meta's side.
    pub const fn token(&self) -> &Secret {
        &self.token
    }

    /// Makes the call, once, and answers when the head of Meta's answer is there.
    ///
    /// # Errors
    /// [`NotPassed`]; but for [`NotPassed::Full`] it is open whether Meta has done what was asked.
    pub async fn pass<S, E>(
        &self,
        passing: Passing<S>,
    ) -> Result<Passed<impl Stream<Item = Result<Bytes, NotPassed>> + use<S, E>>, NotPassed>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        let place = Arc::clone(&self.places).acquire_owned();
        let place = self.clock.timeout(PLACE_WAIT_MAX, place).await;
        let Ok(Ok(place)) = place else {
            return Err(NotPassed::Full);
        };
        let moved = watch::Sender::new(());
        let mut moves = moved.subscribe();
        let response = self.call(passing, moved.clone())?;
        let mut response = pin!(response);
        let response = loop {
            tokio::select! {
                response = &mut response => break response.map_err(|error| lost(&error))?,
                // `moved` lives as long as this waits, so it never fails.
                _ = moves.changed() => {}
                () = self.clock.sleep(self.idle) => return Err(NotPassed::Idle(self.idle)),
            }
        };
        drop(moved);
        Ok(Passed {
            status: response.status(),
            headers: of_the_message(response.headers()),
            body: self.pieces(response, place),
        })
    }

    fn call<S, E>(
        &self,
        passing: Passing<S>,
        moved: watch::Sender<()>,
    ) -> Result<impl Future<Output = Result<Response, reqwest::Error>> + use<S, E>, NotPassed>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        let base = self.base.as_str().trim_end_matches('/');
        let url = Url::parse(&format!("{base}{}", passing.target));
        let url = url.map_err(|_| NotPassed::Target)?;
        let mut headers = of_the_message(&passing.headers);
        for ours in [header::HOST, header::EXPECT] {
            headers.remove(ours);
        }
        let has_body = headers.contains_key(header::CONTENT_LENGTH)
            || passing.headers.contains_key(header::TRANSFER_ENCODING);
        let mut request = self.client.request(passing.method, url).headers(headers);
        if has_body {
            let pieces = passing.body.inspect(move |_| {
                moved.send_replace(());
            });
            request = request.body(reqwest::Body::wrap_stream(pieces));
        }
        Ok(request.send())
    }

    fn pieces(
        &self,
        response: Response,
        place: OwnedSemaphorePermit,
    ) -> impl Stream<Item = Result<Bytes, NotPassed>> + use<> {
        let (clock, idle) = (self.clock.clone(), self.idle);
        let begun = Some((response, place));
        stream::unfold(begun, move |under_way| {
            let clock = clock.clone();
            async move {
                let (mut response, place) = under_way?;
                match clock.timeout(idle, response.chunk()).await {
                    Ok(Ok(Some(piece))) => Some((Ok(piece), Some((response, place)))),
                    Ok(Ok(None)) => None,
                    Ok(Err(error)) => Some((Err(lost(&error)), None)),
                    Err(_) => Some((Err(NotPassed::Idle(idle)), None)),
                }
            }
        })
    }
}

/// Without what is said of the connection alone, by its own words as well.
fn of_the_message(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for value in headers.get_all(header::CONNECTION) {
        let names = value.to_str().unwrap_or_default().split(',');
        for name in names.filter_map(|name| name.trim().parse::<HeaderName>().ok()) {
            kept.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        kept.remove(name);
    }
    kept
}

fn lost(error: &reqwest::Error) -> NotPassed {
    NotPassed::Lost(graph::lost(error).into_reason())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::model::Timestamp;

    async fn listener() -> (TcpListener, GraphSettings) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = GraphSettings {
            base_url: format!("http://{}/prefix", listener.local_addr().unwrap()),
            ..GraphSettings::default()
        };
        (listener, settings)
    }

    fn get(target: &str) -> Passing<impl Stream<Item = Result<Bytes, NotPassed>> + use<>> {
        Passing {
            method: Method::GET,
            target: target.to_owned(),
            headers: HeaderMap::new(),
            body: stream::empty(),
        }
    }

    async fn request(listener: &TcpListener) -> (TcpStream, String) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
        }
        (stream, String::from_utf8(head).unwrap())
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_ends_in_an_error() {
        let (listener, settings) = listener().await;
        let passage = Passage::new(&settings, Clock::system()).unwrap();
        let passed = tokio::spawn(async move { passage.pass(get("/v25.0/7?a=%2C")).await });
        let (mut stream, head) = request(&listener).await;
        assert!(
            head.starts_with("GET /prefix/v25.0/7?a=%2C HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(!head.contains("content-length") && !head.contains("transfer-encoding"));
        let half = b"HTTP/1.1 206 Partial Content\r\ncontent-length: 9\r\n\r\nhalf";
        stream.write_all(half).await.unwrap();
        let passed = passed.await.unwrap().expect("the head is there");
        assert_eq!(passed.status, 206);
        let mut body = pin!(passed.body);
        assert_eq!(body.next().await.unwrap().unwrap(), "half");
        drop(stream);
        assert!(matches!(body.next().await, Some(Err(NotPassed::Lost(_)))));
        assert!(body.next().await.is_none());
    }

    #[tokio::test]
    async fn silence_ends_a_call_before_and_within_its_answer() {
        let (listener, settings) = listener().await;
        let clock = Clock::manual(Timestamp(0));
        let idle = settings.connect_timeout + settings.timeout;
        let passage = Passage::new(&settings, clock.clone()).unwrap();
        let silent = passage.clone();
        let silent = tokio::spawn(async move { silent.pass(get("/a")).await.map(drop) });
        let held = request(&listener).await;
        clock.advance(idle);
        assert_eq!(silent.await.unwrap(), Err(NotPassed::Idle(idle)));
        drop(held);

        let half = tokio::spawn(async move { passage.pass(get("/b")).await });
        let (mut stream, _) = request(&listener).await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let body = half.await.unwrap().expect("the head is there").body;
        let rest = tokio::spawn(async move { pin!(body).next().await });
        while !rest.is_finished() {
            clock.advance(idle);
            tokio::task::yield_now().await;
        }
        assert_eq!(rest.await.unwrap(), Some(Err(NotPassed::Idle(idle))));
    }

    #[tokio::test]
    async fn no_more_go_through_at_once_than_have_a_place() {
        let (listener, settings) = listener().await;
        let clock = Clock::manual(Timestamp(0));
        let passage = Passage::new(&settings, clock.clone()).unwrap();
        let _all = passage
            .places
            .clone()
            .acquire_many_owned(AT_ONCE_MAX as u32)
            .await;
        let full = tokio::spawn(async move { passage.pass(get("/a")).await.map(drop) });
        while !full.is_finished() {
            clock.advance(PLACE_WAIT_MAX);
            tokio::task::yield_now().await;
        }
        assert_eq!(full.await.unwrap(), Err(NotPassed::Full));
        drop(listener);
    }

    #[test]
    fn what_is_of_the_connection_stays_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("content-type", "image/png"),
            ("content-encoding", "gzip"),
        ] {
            let name: HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        let kept = of_the_message(&headers);
        let mut names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-encoding", "content-type"]);
    }
}
