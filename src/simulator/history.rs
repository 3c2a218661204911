//! The record, shared by all who speak on the wire, with counters to watch and waits that end
//! by an event. It must not judge what it records.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::person::Person;
use super::record::{Asked, Asking, Record, Sent, UnderWay};
use super::seen;
use crate::clock::{Clock, Elapsed};

/// Counters over the whole run, for a line on the terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// POSTs made.
    pub deliveries: u64,
    /// POSTs answered with something other than 200, or not at all.
    pub failed: u64,
    /// Distinct messages posted.
    pub messages: u64,
    /// Distinct statuses posted.
    pub statuses: u64,
    /// Elements that had been posted before.
    pub duplicates: u64,
    /// Calls of the bot, where it records them.
    pub calls: u64,
    /// Sends that the pretend Graph API accepted.
    pub replies: u64,
    /// Messages that were answered 200 and have no reply yet.
    pub waiting: u64,
}

/// The shared record.
#[derive(Debug)]
pub struct History {
    inner: Mutex<Inner>,
    progress: watch::Sender<Progress>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Inner {
    record: Record,
    on_reply: HashMap<String, oneshot::Sender<()>>,
}

impl History {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            progress: watch::Sender::default(),
            // Only for when something was, never for how long to wait.
            clock: Clock::system(),
        })
    }

    /// Makes people known by all their ids.
    pub fn introduce<'a>(&self, people: impl IntoIterator<Item = &'a Person>) {
        let mut inner = self.lock();
        for person in people {
            inner.record.introduce(person);
        }
    }

    /// A body is about to be posted. [`History::answered`] must follow, also on failure.
    pub fn posting(&self, body: &[u8]) -> UnderWay {
        let elements = seen::read(body);
        let began_at = self.clock.boottime();
        let (under_way, added) = self.lock().record.posting(elements, began_at);
        self.progress.send_modify(|progress| {
            progress.deliveries += 1;
            progress.messages += added.messages;
            progress.statuses += added.statuses;
            progress.duplicates += added.duplicates;
        });
        under_way
    }

    /// What came of a POST: the answer's status, or `None` when there was no answer.
    pub fn answered(&self, under_way: UnderWay, status: Option<u16>, latency: Duration) {
        let waiting = {
            let mut inner = self.lock();
            inner.record.answered(under_way, status, latency);
            inner.record.waiting()
        };
        self.progress.send_modify(|progress| {
            progress.failed += u64::from(status != Some(200));
            progress.waiting = waiting as u64;
        });
    }

    /// A delivery used all its attempts.
    pub fn undelivered(&self) {
        self.lock().record.undelivered += 1;
    }

    /// The bot is asked. [`History::said`] must follow, also when the call is cut.
    pub fn asked(&self, asked: Asked) -> Asking {
        let asking = self.lock().record.asked(asked);
        self.progress.send_modify(|progress| progress.calls += 1);
        asking
    }

    /// The bot has answered with so many replies, or its call was cut.
    pub fn said(&self, asking: Asking, status: Option<u16>, replies: usize) {
        let ended_at = self.clock.boottime();
        self.lock().record.said(asking, ended_at, status, replies);
        // Whoever waits for calm must see this, too.
        self.progress.send_modify(|_| ());
    }

    /// A call asked for a message to be sent.
    pub fn sent(&self, sent: Sent) {
        let accepted = sent.accepted;
        let waiting = {
            let mut inner = self.lock();
            for wamid in inner.record.sent(sent) {
                // Nobody may be waiting for this one any more.
                let _ = inner.on_reply.remove(&wamid).map(|waiter| waiter.send(()));
            }
            inner.record.waiting()
        };
        self.progress.send_modify(|progress| {
            progress.replies += u64::from(accepted);
            progress.waiting = waiting as u64;
        });
    }

    /// Ends when the message has its reply. Ask before the message is posted.
    pub fn reply_to(&self, wamid: &str) -> oneshot::Receiver<()> {
        let (waiter, replied) = oneshot::channel();
        self.lock().on_reply.insert(wamid.to_owned(), waiter);
        replied
    }

    /// Looks at the record. Others wait meanwhile, so `look` must be short.
    pub fn read<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.lock().record)
    }

    /// Empties the record, so that an endless run stays small; the people stay known and the
    /// counters go on.
    pub fn take(&self) -> Record {
        let mut inner = self.lock();
        inner.on_reply.clear();
        inner.record.take()
    }

    /// The counters now.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// The counters as they change.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Waits until the record is as wanted, looking after each change.
    ///
    /// # Errors
    /// When it is not within `limit`.
    pub async fn wait_until(
        &self,
        clock: &Clock,
        limit: Duration,
        mut wanted: impl FnMut(&Record) -> bool,
    ) -> Result<(), Elapsed> {
        let mut changes = self.watch();
        let wait = async {
            while !self.read(&mut wanted) {
                // The sender is a field of `self`, so this does not fail.
                let _ = changes.changed().await;
            }
        };
        clock.timeout(limit, wait).await
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while looking leaves the record whole: every change is made in one step.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Timestamp;
    use crate::simulator::payload::{Element, single};

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn counters_and_waits_follow_what_crosses_the_wire() {
        let history = History::new();
        let clock = Clock::system();
        let ann = Person::by_phone("15550000001");
        let body = single(&Element::text("n", &ann, "wamid.A", Timestamp(0), "hi"));
        let replied = history.reply_to("wamid.A");
        let waiter = tokio::spawn({
            let (history, clock) = (Arc::clone(&history), clock.clone());
            async move {
                history
                    .wait_until(&clock, LIMIT, |r| !r.sends.is_empty())
                    .await
            }
        });

        let under_way = history.posting(&body);
        history.answered(under_way, None, Duration::ZERO);
        let under_way = history.posting(&body);
        history.answered(under_way, Some(200), Duration::ZERO);
        assert_eq!(history.progress().waiting, 1);
        history.sent(Sent {
            at_order: 0,
            at: Duration::ZERO,
            number: "n".to_owned(),
            recipient: "15550000001".to_owned(),
            body: json!({ "text": { "body": "hi" } }),
            wamid: None,
            tag: None,
            accepted: true,
            refused: None,
            is_clear: true,
            answers: Vec::new(),
            expected: false,
        });

        assert_eq!(replied.await, Ok(()));
        assert_eq!(waiter.await.unwrap(), Ok(()));
        let expected = Progress {
            deliveries: 2,
            failed: 1,
            messages: 1,
            duplicates: 1,
            replies: 1,
            ..Progress::default()
        };
        assert_eq!(history.progress(), expected);
        assert_eq!(
            history.wait_until(&clock, Duration::ZERO, |_| false).await,
            Err(Elapsed)
        );
    }
}
