//! The delivering side of Meta: posts signed bodies to a webhook, several copies if told so, and
//! again with back-off until it is answered 200. Every POST goes into the history.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::history::History;
use super::payload::sign;
use super::seed::Draw;
use crate::clock::Clock;
use crate::model::{Backoff, Secret};

/// The most copies of one delivery that a plan draws.
pub const COPIES_MAX: u64 = 4;

/// Where and how Meta delivers.
#[derive(Debug, Clone)]
pub struct MetaSettings {
    /// The webhook; of several addresses each POST goes to the next one, as through a balancer.
    pub webhook_urls: Vec<String>,
    /// Signs every body.
    pub app_secret: Secret,
    /// At most so many POSTs at the same time; the others wait their turn.
    pub under_way_max: usize,
    /// A POST without an answer after this is taken for failed.
    pub answer_limit: Duration,
    /// Between the attempts of one delivery. Meta's own reaches over seven days; scale it down.
    pub backoff: Backoff,
    /// After so many attempts a delivery is given up and reported as undelivered.
    pub attempts_max: u32,
}

impl MetaSettings {
    /// 64 at a time, 10 s for an answer, twelve attempts over about 20 s.
    pub fn new(webhook_url: impl Into<String>, app_secret: Secret) -> Self {
        Self {
            webhook_urls: vec![webhook_url.into()],
            app_secret,
            under_way_max: 64,
            answer_limit: Duration::from_secs(10),
            backoff: Backoff {
                first: Duration::from_millis(20),
                factor: 2,
                max: Duration::from_secs(4),
            },
            attempts_max: 12,
        }
    }
}

/// When the copies of a delivery are posted, counted from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(Vec<Duration>);

impl Plan {
    /// One copy, now.
    pub fn once() -> Self {
        Self::at_once(1)
    }

    /// `copies` at the same moment.
    pub fn at_once(copies: usize) -> Self {
        Self(vec![Duration::ZERO; copies])
    }

    /// A copy at each offset.
    pub const fn at(offsets: Vec<Duration>) -> Self {
        Self(offsets)
    }

    /// One to four copies, each at the same moment or up to `late` after it.
    pub fn draw(draw: &mut Draw, late: Duration) -> Self {
        let copies = draw.between(1, COPIES_MAX);
        let together = draw.chance(0.5);
        let offset = |copy| {
            if copy == 0 || together || draw.chance(0.3) {
                Duration::ZERO
            } else {
                draw.duration_below(late)
            }
        };
        Self((0..copies).map(offset).collect())
    }

    /// The same, `wait` later.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.into_iter().map(|offset| offset + wait).collect())
    }

    /// The offsets.
    pub fn offsets(&self) -> &[Duration] {
        &self.0
    }
}

/// What came of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivered {
    /// Copies that were answered 200 in the end.
    pub copies: u32,
    /// Copies that were given up.
    pub undelivered: u32,
}

/// Why Meta cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// The HTTP client cannot be built.
    #[error("cannot build the HTTP client: {0}")]
    Client(#[source] reqwest::Error),
    /// The webhook did not echo the challenge with status 200.
    #[error("the webhook did not pass the verification handshake (status {status:?})")]
    Handshake {
        /// What it answered, if it did.
        status: Option<u16>,
    },
}

/// The delivering side. Clones share everything.
#[derive(Debug, Clone)]
pub struct Meta(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: MetaSettings,
    history: Arc<History>,
    clock: Clock,
    http: reqwest::Client,
    room: Semaphore,
    posts: AtomicUsize,
}

impl Meta {
    /// Prepares to deliver; posts nothing yet.
    ///
    /// # Errors
    /// [`MetaError::Client`].
    pub fn new(
        settings: MetaSettings,
        history: Arc<History>,
        clock: Clock,
    ) -> Result<Self, MetaError> {
        // Fails where the process has installed a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(MetaError::Client)?;
        let room = Semaphore::new(settings.under_way_max);
        Ok(Self(Arc::new(Inner {
            settings,
            history,
            clock,
            http,
            room,
            posts: AtomicUsize::new(0),
        })))
    }

    /// What was posted, shared with whoever records the other side.
    pub fn history(&self) -> &Arc<History> {
        &self.0.history
    }

    /// Asks the webhook to prove itself, as Meta does when a callback URL is saved; at each of its
    /// addresses.
    ///
    /// # Errors
    /// [`MetaError::Handshake`].
    pub async fn verify_handshake(&self, verify_token: &Secret) -> Result<(), MetaError> {
        for url in &self.0.settings.webhook_urls {
            self.verify_at(url, verify_token).await?;
        }
        Ok(())
    }

    async fn verify_at(&self, url: &str, verify_token: &Secret) -> Result<(), MetaError> {
        const CHALLENGE: &str = "1158201444";
        let query = [
            ("hub.mode", "subscribe"),
            ("hub.challenge", CHALLENGE),
            ("hub.verify_token", verify_token.expose()),
        ];
        let mut url =
            reqwest::Url::parse(url).map_err(|_| MetaError::Handshake { status: None })?;
        url.query_pairs_mut().extend_pairs(query);
        let ask = async {
            let answer = self.0.http.get(url).send().await.ok()?;
            Some((answer.status().as_u16(), answer.text().await.ok()?))
        };
        let limit = self.0.settings.answer_limit;
        match self.0.clock.timeout(limit, ask).await.ok().flatten() {
            Some((200, body)) if body == CHALLENGE => Ok(()),
            answer => Err(MetaError::Handshake {
                status: answer.map(|(status, _)| status),
            }),
        }
    }

    /// Posts a body in the copies of `plan`, each again until it is answered 200 or given up.
    /// Returns when all are done; dropped earlier, it posts no more.
    pub async fn deliver(&self, body: Bytes, plan: &Plan) -> Delivered {
        let mut copies = JoinSet::new();
        for offset in plan.offsets().iter().copied() {
            let (meta, body) = (self.clone(), body.clone());
            copies.spawn(async move { meta.deliver_copy(body, offset).await });
        }
        let mut delivered = Delivered::default();
        while let Some(copy) = copies.join_next().await {
            if copy.unwrap_or(false) {
                delivered.copies += 1;
            } else {
                delivered.undelivered += 1;
            }
        }
        delivered
    }

    /// Posts a body once, without any other attempt. `None`: no answer.
    pub async fn post(&self, body: Bytes) -> Option<u16> {
        let signature = sign(self.0.settings.app_secret.expose(), &body);
        self.post_signed(body, &signature).await
    }

    /// Posts a body once under any signature, to play somebody who is not Meta.
    pub async fn post_signed(&self, body: Bytes, signature: &str) -> Option<u16> {
        let inner = &*self.0;
        // The semaphore is never closed.
        let _place = inner.room.acquire().await.ok()?;
        let under_way = inner.history.posting(&body);
        let started = inner.clock.boottime();
        let post = inner
            .http
            .post(self.next_url())
            .header(CONTENT_TYPE, "application/json")
            .header("X-Hub-Signature-256", signature)
            .body(body);
        let exchange = async {
            let answer = post.send().await.ok()?;
            let status = answer.status().as_u16();
            // Read to the end, so that the connection can be used again.
            answer.bytes().await.ok().map(|_| status)
        };
        let limit = inner.settings.answer_limit;
        let status = inner.clock.timeout(limit, exchange).await.ok().flatten();
        let latency = inner.clock.boottime().saturating_sub(started);
        inner.history.answered(under_way, status, latency);
        status
    }

    fn next_url(&self) -> &str {
        let urls = &self.0.settings.webhook_urls;
        &urls[self.0.posts.fetch_add(1, Ordering::Relaxed) % urls.len()]
    }

    /// Waits until another POST could begin at once.
    pub(super) async fn room(&self) {
        // The place is given back at once: this is only for pacing.
        let _ = self.0.room.acquire().await;
    }

    async fn deliver_copy(&self, body: Bytes, offset: Duration) -> bool {
        if !offset.is_zero() {
            self.0.clock.sleep(offset).await;
        }
        let settings = &self.0.settings;
        for attempt in 1..=settings.attempts_max {
            if self.post(body.clone()).await == Some(200) {
                return true;
            }
            if attempt < settings.attempts_max {
                self.0.clock.sleep(settings.backoff.wait(attempt, 0)).await;
            }
        }
        self.0.history.undelivered();
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use axum::Router;
    use axum::extract::RawQuery;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::get;

    use super::*;
    use crate::model::Timestamp;
    use crate::simulator::payload::{Element, single};
    use crate::simulator::person::Person;
    use crate::simulator::server::{Port, Server};

    /// A webhook that answers 503 so many times before it answers 200.
    fn webhook(failures: u32) -> (Port, Server) {
        let calls = Arc::new(AtomicU32::new(0));
        let receive = move |headers: HeaderMap, body: Bytes| async move {
            let signature = headers["x-hub-signature-256"].to_str().unwrap();
            assert_eq!(signature, sign("secret", &body));
            if calls.fetch_add(1, Ordering::SeqCst) < failures {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::OK
            }
        };
        let verify = |RawQuery(query): RawQuery| async move {
            let query = query.unwrap();
            assert!(query.starts_with("hub.mode=subscribe&"), "{query}");
            if query.ends_with("hub.verify_token=right") {
                (StatusCode::OK, "1158201444")
            } else {
                (StatusCode::FORBIDDEN, "")
            }
        };
        let port = Port::reserve().unwrap();
        let router = Router::new().route("/webhook", get(verify).post(receive));
        let server = Server::start(&port, router, Clock::system(), Duration::ZERO).unwrap();
        (port, server)
    }

    fn meta(port: &Port) -> Meta {
        let url = format!("http://{}/webhook", port.addr());
        let mut settings = MetaSettings::new(url, Secret::new("secret"));
        settings.backoff.first = Duration::from_millis(1);
        settings.attempts_max = 4;
        Meta::new(settings, History::new(), Clock::system()).unwrap()
    }

    fn body() -> Bytes {
        let ann = Person::by_phone("15550000001");
        single(&Element::text("n", &ann, "wamid.A", Timestamp(0), "hi"))
    }

    #[tokio::test]
    async fn what_is_not_answered_200_comes_again() {
        let (port, server) = webhook(2);
        let meta = meta(&port);
        let delivered = meta.deliver(body(), &Plan::once()).await;
        assert_eq!((delivered.copies, delivered.undelivered), (1, 0));
        let statuses: Vec<Option<u16>> = meta
            .history()
            .read(|r| r.posted.iter().map(|p| p.status).collect());
        assert_eq!(statuses, [Some(503), Some(503), Some(200)]);
        server.stop().await;
    }

    #[tokio::test]
    async fn an_answer_that_never_is_200_is_given_up_and_told() {
        let (port, server) = webhook(u32::MAX);
        let meta = meta(&port);
        let delivered = meta.deliver(body(), &Plan::once()).await;
        assert_eq!((delivered.copies, delivered.undelivered), (0, 1));
        meta.history().read(|record| {
            assert_eq!((record.posted.len(), record.undelivered), (4, 1));
        });
        server.stop().await;
        assert_eq!(meta.post(body()).await, None, "nobody listens any more");
    }

    #[tokio::test]
    async fn a_plan_is_that_many_copies() {
        let (port, server) = webhook(0);
        let meta = meta(&port);
        meta.deliver(body(), &Plan::at_once(3)).await;
        let late = Plan::at(vec![Duration::from_millis(2)]);
        meta.deliver(body(), &late).await;
        assert_eq!(meta.history().read(|r| r.messages[0].copies), 4);
        server.stop().await;
    }

    #[tokio::test]
    async fn the_handshake_tells_a_right_token_from_a_wrong_one() {
        let (port, server) = webhook(0);
        let meta = meta(&port);
        meta.verify_handshake(&Secret::new("right")).await.unwrap();
        let refused = meta.verify_handshake(&Secret::new("wrong")).await;
        assert!(matches!(
            refused,
            Err(MetaError::Handshake { status: Some(403) })
        ));
        server.stop().await;
    }

    #[test]
    fn drawn_plans_are_one_to_four_copies_and_start_now() {
        let mut draw = Draw::new(1);
        let late = Duration::from_millis(50);
        let plans: Vec<Plan> = (0..200).map(|_| Plan::draw(&mut draw, late)).collect();
        for copies in 1..=4 {
            assert!(plans.iter().any(|plan| plan.offsets().len() == copies));
        }
        assert!(plans.iter().all(|plan| plan.offsets()[0].is_zero()));
        assert!(
            plans
                .iter()
                .all(|plan| plan.offsets().iter().all(|o| *o < late))
        );
    }
}
