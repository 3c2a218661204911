//! Carries single elements to the webhook: each in its own number of copies, and by chance
//! several elements in one POST, put together anew for every copy, as Meta does.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::meta::{Meta, Plan};
use super::payload::{Element, Layout, delivery};
use super::seed::Draw;
use crate::clock::{Clock, Elapsed};

const MESSAGES_MAX: usize = 512;
const STATUSES_MAX: usize = 4096;
const READY_MAX: usize = 256;
const BATCH_MAX: u64 = 8;
const BATCH_CHANCE: f64 = 0.25;
const LINGER_MAX: Duration = Duration::from_millis(30);

/// The carrier. Clones share everything.
#[derive(Clone)]
pub struct Courier(Arc<Inner>);

struct Inner {
    ready: mpsc::Sender<Copy>,
    messages: Arc<Semaphore>,
    statuses: Arc<Semaphore>,
    under_way: Arc<watch::Sender<usize>>,
    copies: TaskTracker,
    stop: CancellationToken,
    clock: Clock,
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Courier")
    }
}

/// One copy on its way.
struct Copy {
    element: Arc<Element>,
    parcel: Arc<Parcel>,
}

/// What the copies of one element share; gives its place back when the last one is done.
struct Parcel {
    answered: Mutex<Option<oneshot::Sender<()>>>,
    under_way: Arc<watch::Sender<usize>>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Parcel {
    fn drop(&mut self) {
        self.under_way.send_modify(|count| *count -= 1);
    }
}

impl Parcel {
    fn was_answered(&self) {
        let waiter = self
            .answered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Whoever handed it over may not wait.
        let _ = waiter.map(|waiter| waiter.send(()));
    }
}

/// Ends when a copy of the element has been answered 200.
#[derive(Debug)]
pub struct Answered(oneshot::Receiver<()>);

impl Answered {
    /// Whether it was answered 200 in the end: `false` when every copy was given up.
    pub async fn wait(self) -> bool {
        self.0.await.is_ok()
    }
}

impl Courier {
    /// Starts to carry for `meta`; `draw` decides what goes together.
    pub fn start(meta: Meta, draw: Draw, clock: Clock) -> Self {
        let (ready, waiting) = mpsc::channel(READY_MAX);
        let inner = Inner {
            ready,
            messages: Arc::new(Semaphore::new(MESSAGES_MAX)),
            statuses: Arc::new(Semaphore::new(STATUSES_MAX)),
            under_way: Arc::default(),
            copies: TaskTracker::new(),
            stop: CancellationToken::new(),
            clock: clock.clone(),
        };
        let sorter = Sorter {
            meta,
            draw,
            clock,
            waiting,
            posts: inner.copies.clone(),
        };
        // The sorter ends with the token only; it holds no clone of the courier.
        let stop = inner.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled_owned(sorter.run()).await });
        Self(Arc::new(inner))
    }

    /// Hands over a message; waits while too many are on their way. The sender of a reply must
    /// not wait here: see [`Courier::offer`].
    pub async fn hand_over(&self, element: Element, plan: &Plan) -> Option<Answered> {
        let place = Arc::clone(&self.0.messages).acquire_owned().await.ok()?;
        Some(self.carry(element, plan, place))
    }

    /// Hands over a status without ever waiting. `None` when too many are on their way: it is
    /// dropped, which Meta's promises allow.
    pub fn offer(&self, element: Element, plan: &Plan) -> Option<Answered> {
        let place = Arc::clone(&self.0.statuses).try_acquire_owned().ok()?;
        Some(self.carry(element, plan, place))
    }

    /// Waits until nothing is on its way. Only who has stopped handing over may ask.
    ///
    /// # Errors
    /// When something still is after `limit`.
    pub async fn drain(&self, limit: Duration) -> Result<(), Elapsed> {
        let mut under_way = self.0.under_way.subscribe();
        let idle = under_way.wait_for(|count| *count == 0);
        // The sender is a field of `self`, so the wait itself does not fail.
        self.0.clock.timeout(limit, idle).await.map(drop)
    }

    /// Drops what is on its way and returns when nothing runs any more.
    pub async fn stop(&self) {
        self.0.messages.close();
        self.0.statuses.close();
        self.0.stop.cancel();
        self.0.copies.close();
        self.0.copies.wait().await;
    }

    fn carry(&self, element: Element, plan: &Plan, place: OwnedSemaphorePermit) -> Answered {
        let (answered, first) = oneshot::channel();
        let element = Arc::new(element);
        self.0.under_way.send_modify(|count| *count += 1);
        let parcel = Arc::new(Parcel {
            answered: Mutex::new(Some(answered)),
            under_way: Arc::clone(&self.0.under_way),
            _place: place,
        });
        for offset in plan.offsets().iter().copied() {
            let copy = Copy {
                element: Arc::clone(&element),
                parcel: Arc::clone(&parcel),
            };
            let inner = Arc::clone(&self.0);
            self.0.copies.spawn(async move {
                let make_ready = async {
                    if !offset.is_zero() {
                        inner.clock.sleep(offset).await;
                    }
                    // Fails only when the sorter has ended; then the copy is dropped as well.
                    let _ = inner.ready.send(copy).await;
                };
                inner.stop.run_until_cancelled(make_ready).await;
            });
        }
        Answered(first)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Puts copies together and posts them.
struct Sorter {
    meta: Meta,
    draw: Draw,
    clock: Clock,
    waiting: mpsc::Receiver<Copy>,
    posts: TaskTracker,
}

impl Sorter {
    async fn run(mut self) {
        let stop = CancellationToken::new();
        // Dropped with this future: what is being posted ends with it.
        let _guard = stop.clone().drop_guard();
        loop {
            // Copies pile up behind a slow webhook, and so have a chance to go together.
            self.meta.room().await;
            let Some(first) = self.waiting.recv().await else {
                return;
            };
            let batch = self.batch(first).await;
            let layout = *self.draw.pick(&Layout::ALL);
            let (meta, stop) = (self.meta.clone(), stop.clone());
            self.posts.spawn(async move {
                stop.run_until_cancelled(post(&meta, batch, layout)).await;
            });
        }
    }

    async fn batch(&mut self, first: Copy) -> Vec<Copy> {
        let mut batch = vec![first];
        if !self.draw.chance(BATCH_CHANCE) {
            return batch;
        }
        let size = self.draw.between(2, BATCH_MAX) as usize;
        let linger = self.draw.duration_below(LINGER_MAX);
        if let Ok(Some(second)) = self.clock.timeout(linger, self.waiting.recv()).await {
            batch.push(second);
        }
        while batch.len() < size {
            match self.waiting.try_recv() {
                Ok(copy) => batch.push(copy),
                Err(_) => break,
            }
        }
        batch
    }
}

async fn post(meta: &Meta, batch: Vec<Copy>, layout: Layout) {
    let elements: Vec<&Element> = batch.iter().map(|copy| &*copy.element).collect();
    let body = delivery(&elements, layout);
    if meta.deliver(body, &Plan::once()).await.copies > 0 {
        for copy in &batch {
            copy.parcel.was_answered();
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::post;

    use super::*;
    use crate::model::{Secret, Timestamp};
    use crate::simulator::history::History;
    use crate::simulator::meta::MetaSettings;
    use crate::simulator::person::Person;
    use crate::simulator::server::{Port, Server};

    const LIMIT: Duration = Duration::from_secs(20);

    fn start(status: StatusCode) -> (Port, Server, Meta, Courier) {
        let port = Port::reserve().unwrap();
        let router = Router::new().route("/", post(async move || status));
        let clock = Clock::system();
        let server = Server::start(&port, router, clock.clone(), Duration::ZERO).unwrap();
        let url = format!("http://{}/", port.addr());
        let mut settings = MetaSettings::new(url, Secret::new("secret"));
        settings.attempts_max = 2;
        let meta = Meta::new(settings, History::new(), clock.clone()).unwrap();
        let courier = Courier::start(meta.clone(), Draw::new(1), clock);
        (port, server, meta, courier)
    }

    fn message(n: usize) -> Element {
        let ann = Person::by_phone("15550000001");
        Element::text("n", &ann, &format!("wamid.{n}"), Timestamp(0), "hi")
    }

    #[tokio::test]
    async fn everything_arrives_in_its_copies_and_some_of_it_together() {
        let (_port, server, meta, courier) = start(StatusCode::OK);
        let mut answered = Vec::new();
        for n in 0..100 {
            let plan = Plan::at_once(1 + n % 4);
            answered.push(courier.hand_over(message(n), &plan).await.unwrap());
        }
        for answered in answered {
            assert!(answered.wait().await);
        }
        courier.drain(LIMIT).await.unwrap();
        meta.history().read(|record| {
            assert_eq!(record.messages.len(), 100);
            let copies: u64 = record.messages.iter().map(|said| said.copies).sum();
            assert_eq!(copies, 250);
            let sizes = || record.posted.iter().map(|posted| posted.events);
            assert!(sizes().any(|events| events == 1) && sizes().any(|events| events > 2));
        });
        courier.stop().await;
        assert!(courier.hand_over(message(0), &Plan::once()).await.is_none());
        server.stop().await;
    }

    #[tokio::test]
    async fn what_is_given_up_is_told() {
        let (_port, server, meta, courier) = start(StatusCode::SERVICE_UNAVAILABLE);
        let answered = courier.hand_over(message(1), &Plan::once()).await.unwrap();
        assert!(!answered.wait().await);
        courier.drain(LIMIT).await.unwrap();
        assert_eq!(meta.history().read(|record| record.undelivered), 1);
        courier.stop().await;
        server.stop().await;
    }

    #[tokio::test]
    async fn a_stop_leaves_nothing_waiting() {
        let (_port, server, _meta, courier) = start(StatusCode::OK);
        let late = Plan::at(vec![Duration::from_secs(3600)]);
        let answered = courier.hand_over(message(1), &late).await.unwrap();
        courier.stop().await;
        assert!(!answered.wait().await);
        server.stop().await;
    }
}
