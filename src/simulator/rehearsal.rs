//! People who write to a gateway while the pretend Meta delivers every message one to four
//! times, until enough is written or it is told to stop; then the verdict.
//!
//! [`Rehearsal::run`] judges, and expects a gateway whose bot echoes; [`Rehearsal::play`] leaves
//! that to others. All it knows of the gateway is its webhook.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::acts::{self, Scene, Variety};
use super::checker::{Report, Terms, check};
use super::courier::Courier;
use super::graph::Graph;
use super::history::{History, Progress};
use super::meta::{Meta, MetaError, MetaSettings, Plan};
use super::payload::{Element, Side, wamid};
use super::person::{Person, Phrases};
use super::receipts::{Odds, Receipts};
use super::seed::Draw;
use crate::clock::Clock;
use crate::model::{Backoff, Secret};

const PEOPLE_MAX: usize = 100_000;
/// After so many messages the record is judged and emptied, so that an endless run stays small.
const ACT_MESSAGES: u64 = 20_000;
const BURST_CHANCE: f64 = 0.15;
const BURST_MAX: u64 = 5;
const PATIENT_CHANCE: f64 = 0.3;
const GROUP_CHANCE: f64 = 0.1;
/// What is judged in one piece has to fit into memory.
const PLAY_MAX: u64 = 1_000_000;
const HANDSHAKES_MAX: u32 = 50;
const HANDSHAKE_PAUSE: Duration = Duration::from_millis(100);
const DRAIN_MAX: Duration = Duration::from_secs(120);
const SETTLE_MAX: Duration = Duration::from_secs(300);

/// What is rehearsed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Decides who writes what, when, and how often it is delivered.
    pub seed: u64,
    /// How many people write; from 1 to 100,000.
    pub people: usize,
    /// How many messages they write together; `None`: until stopped.
    pub messages: Option<u64>,
    /// Messages a second, of all people together; `None`: as fast as the gateway answers.
    pub rate: Option<f64>,
    /// How much later than the first copy another copy may be posted.
    pub late: Duration,
    /// Whether people only write, or do whatever one can do in WhatsApp; with an echoing bot they
    /// only write.
    pub variety: Variety,
    /// What is reported of the replies.
    pub receipts: Odds,
    /// How long Meta tries to deliver what is not answered 200: its seven days, made shorter.
    pub redelivery: Duration,
    /// How long Meta waits for an answer.
    pub answer_limit: Duration,
    /// The gateway's webhook; of several addresses each POST goes to the next one.
    pub webhook_urls: Vec<String>,
    /// Signs the deliveries.
    pub app_secret: Secret,
    /// For the handshake with which the run begins.
    pub verify_token: Secret,
    /// The business number (`phone_number_id`) that is written to.
    pub number: String,
    /// How long nothing at all may happen before missing replies are called missing; also how
    /// long a patient person waits for a reply.
    pub patience: Duration,
    /// How long nothing may happen at the end of a run that looks complete: a second reply
    /// that comes later is not seen.
    pub calm: Duration,
}

impl Settings {
    /// To watch: 20 people, 20 messages a second, until stopped.
    pub fn live(webhook_url: impl Into<String>, app_secret: Secret, verify_token: Secret) -> Self {
        let late = Duration::from_secs(2);
        Self {
            seed: 1,
            people: 20,
            messages: None,
            rate: Some(20.0),
            late,
            variety: Variety::Texts,
            receipts: Odds::mild(late),
            redelivery: Duration::from_secs(20),
            answer_limit: Duration::from_secs(10),
            webhook_urls: vec![webhook_url.into()],
            app_secret,
            verify_token,
            number: "106540352242922".to_owned(),
            patience: Duration::from_secs(10),
            calm: Duration::from_millis(300),
        }
    }

    /// To prove: so many messages, as fast as the gateway answers.
    #[must_use]
    pub const fn counted(mut self, messages: u64) -> Self {
        self.messages = Some(messages);
        self.rate = None;
        self.late = Duration::from_millis(100);
        self.receipts.step = self.late;
        self
    }

    fn meta(&self) -> MetaSettings {
        let backoff = Backoff {
            first: Duration::from_millis(20),
            factor: 2,
            max: self.redelivery / 5,
        };
        let mut attempts_max = 1;
        let mut tried = Duration::ZERO;
        while tried < self.redelivery {
            tried += backoff.wait(attempts_max, 0).max(Duration::from_millis(1));
            attempts_max += 1;
        }
        MetaSettings {
            webhook_urls: self.webhook_urls.clone(),
            answer_limit: self.answer_limit,
            backoff,
            attempts_max,
            ..MetaSettings::new("", self.app_secret.clone())
        }
    }
}

/// One run, ready to begin.
#[derive(Debug)]
pub struct Rehearsal {
    settings: Settings,
    meta: Meta,
    courier: Courier,
    history: Arc<History>,
    clock: Clock,
}

impl Rehearsal {
    /// Prepares a run whose replies come to `graph`, which from now on reports statuses to the
    /// webhook. Needs a Tokio runtime; writes nothing yet.
    ///
    /// # Errors
    /// [`MetaError::Client`].
    pub fn new(settings: Settings, graph: &Graph, clock: Clock) -> Result<Self, MetaError> {
        let history = Arc::clone(graph.history());
        let meta = Meta::new(settings.meta(), Arc::clone(&history), clock.clone())?;
        let draw = Draw::new(settings.seed).fork("courier");
        let courier = Courier::start(meta.clone(), draw, clock.clone());
        graph.report_to(courier.clone(), Receipts::Drawn(settings.receipts));
        Ok(Self {
            settings,
            meta,
            courier,
            history,
            clock,
        })
    }

    /// The counters as they change, for a line on the terminal.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.history.watch()
    }

    /// Runs until enough is written or `stop` is cancelled, waits for what is owed, and judges.
    /// Nothing runs any more when it returns. Empties the history first; afterwards it holds the
    /// last 20,000 messages at most.
    ///
    /// # Errors
    /// [`MetaError::Handshake`]: the webhook does not answer as it should; nothing was written.
    pub async fn run(&self, stop: &CancellationToken) -> Result<Report, MetaError> {
        self.meta
            .verify_handshake(&self.settings.verify_token)
            .await?;
        self.history.take();
        let mut writers = self.writers();
        let mut left = self.settings.messages;
        let mut report = Report::default();
        while left != Some(0) && !stop.is_cancelled() {
            let act = left.unwrap_or(u64::MAX).min(ACT_MESSAGES);
            left = left.map(|left| left - act);
            writers = self.act(writers, act, stop).await;
            self.settle().await;
            // The last act stays in the history, to be looked at after the run.
            let ended = left == Some(0) || stop.is_cancelled();
            report.absorb(match ended {
                true => self.history.read(|record| check(record, &Terms::Echo)),
                false => check(&self.history.take(), &Terms::Echo),
            });
        }
        self.courier.stop().await;
        Ok(report)
    }

    /// Lets everything be written, up to a million messages, and returns when each has been
    /// answered 200 or given up. Judges nothing, and receipts are still on their way: let the
    /// gateway settle, [`Rehearsal::end`], and judge the history then. Empties the history first.
    ///
    /// # Errors
    /// [`MetaError::Handshake`]: the webhook does not answer as it should; nothing was written.
    pub async fn play(&self, stop: &CancellationToken) -> Result<(), MetaError> {
        self.shake_hands().await?;
        self.history.take();
        self.onboard().await;
        let messages = self.settings.messages.unwrap_or(PLAY_MAX).min(PLAY_MAX);
        self.act(self.writers(), messages, stop).await;
        Ok(())
    }

    /// Waits until nothing is on its way any more, receipts included, for as long as Meta tries.
    /// What still is then is given up.
    pub async fn quiet(&self) {
        // What is given up shows in the report.
        let _ = self.courier.drain(self.settings.redelivery * 2).await;
    }

    /// Ends whatever still runs.
    pub async fn end(&self) {
        self.courier.stop().await;
    }

    /// A gateway that does not answer at all may be starting: somebody tries again.
    async fn shake_hands(&self) -> Result<(), MetaError> {
        let token = &self.settings.verify_token;
        for _ in 1..HANDSHAKES_MAX {
            match self.meta.verify_handshake(token).await {
                Err(MetaError::Handshake { status: None }) => {}
                known => return known,
            }
            self.clock.sleep(HANDSHAKE_PAUSE).await;
        }
        self.meta.verify_handshake(token).await
    }

    /// What Meta brings along when a number joins that was used on a phone before.
    async fn onboard(&self) {
        if self.settings.variety == Variety::Texts {
            return;
        }
        let mut draw = Draw::new(self.settings.seed).fork("old messages");
        let scene = Scene {
            number: &self.settings.number,
            person: &Person::draw(0, &mut draw),
            at: self.clock.now(),
        };
        let old = acts::history(&scene, &mut draw);
        // Refused only once the courier is stopped.
        let _ = self.courier.hand_over(old, &Plan::at_once(2)).await;
    }

    fn writers(&self) -> Vec<Writer> {
        let root = Draw::new(self.settings.seed);
        let people = self.settings.people.clamp(1, PEOPLE_MAX);
        let mut crowd = root.fork("people");
        let writers: Vec<Writer> = (0..people)
            .map(|index| {
                let mut draw = root.fork(&format!("person {index}"));
                let mut person = Person::draw(index, &mut crowd);
                let meets = self.settings.variety == Variety::All && draw.chance(GROUP_CHANCE);
                if meets {
                    person = person.in_group(index);
                }
                Writer {
                    person,
                    last: None,
                    phrases: Phrases::new(draw.fork("phrases"), index as u64 + 1, people as u64),
                    draw,
                }
            })
            .collect();
        self.history
            .introduce(writers.iter().map(|writer| &writer.person));
        writers
    }

    /// Lets everybody write their share of `messages`; where there are fewer messages than people,
    /// the next ones write next time.
    async fn act(
        &self,
        writers: Vec<Writer>,
        messages: u64,
        stop: &CancellationToken,
    ) -> Vec<Writer> {
        let people = writers.len() as u64;
        let (all, some) = (messages / people, messages % people);
        let stage = Arc::new(self.stage(people));
        let mut writing = JoinSet::new();
        for (index, mut writer) in writers.into_iter().enumerate() {
            let share = all + u64::from((index as u64) < some);
            let (stage, stop) = (Arc::clone(&stage), stop.clone());
            writing.spawn(async move {
                stop.run_until_cancelled(writer.write(share, &stage)).await;
                (index, writer)
            });
        }
        let mut done = writing.join_all().await;
        done.sort_by_key(|(index, _)| *index);
        done.rotate_left(some as usize);
        done.into_iter().map(|(_, writer)| writer).collect()
    }

    fn stage(&self, people: u64) -> Stage {
        let gap = self.settings.rate.filter(|rate| *rate > 0.0).map(|rate| {
            let seconds = people as f64 / rate;
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
        });
        Stage {
            courier: self.courier.clone(),
            history: Arc::clone(&self.history),
            clock: self.clock.clone(),
            number: self.settings.number.clone(),
            variety: self.settings.variety,
            late: self.settings.late,
            patience: self.settings.patience,
            gap,
        }
    }

    /// Waits until every message has its reply and all is calm, or until nothing has happened
    /// for as long as patience lasts.
    async fn settle(&self) {
        // What is still under way after these limits shows in the report.
        let _ = self.courier.drain(DRAIN_MAX).await;
        let _ = self.clock.timeout(SETTLE_MAX, self.calm_down()).await;
        let _ = self.courier.drain(DRAIN_MAX).await;
    }

    async fn calm_down(&self) {
        let mut changes = self.history.watch();
        loop {
            let limit = match changes.borrow_and_update().waiting {
                0 => self.settings.calm,
                _ => self.settings.patience,
            };
            if self.clock.timeout(limit, changes.changed()).await.is_err() {
                return;
            }
        }
    }
}

/// What everybody who writes has in common.
struct Stage {
    courier: Courier,
    history: Arc<History>,
    clock: Clock,
    number: String,
    variety: Variety,
    late: Duration,
    patience: Duration,
    /// From one message of a person to the next, on average.
    gap: Option<Duration>,
}

/// One person at the keyboard.
struct Writer {
    person: Person,
    /// The message before.
    last: Option<String>,
    phrases: Phrases,
    draw: Draw,
}

impl Writer {
    async fn write(&mut self, messages: u64, stage: &Stage) {
        let mut left = messages;
        while left > 0 {
            let burst = if self.draw.chance(BURST_CHANCE) {
                self.draw.between(2, BURST_MAX).min(left)
            } else {
                1
            };
            self.pause(burst, stage).await;
            let Some(replied) = self.burst(burst, stage).await else {
                // The courier was stopped.
                return;
            };
            if self.draw.chance(PATIENT_CHANCE) {
                // A reply that does not come is for the checker to tell.
                let _ = stage.clock.timeout(stage.patience, replied).await;
            }
            left -= burst;
        }
    }

    /// Writes several messages without waiting between them, then waits until all of them have
    /// been answered 200. Returns the wait for the reply to the last.
    async fn burst(
        &mut self,
        messages: u64,
        stage: &Stage,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let mut answers = Vec::new();
        let mut replied = None;
        for _ in 0..messages {
            let wamid = wamid(&self.person, Side::Person, &mut self.draw);
            let text = self.phrases.say();
            let shown = self.person.as_shown(&mut self.draw);
            let plan = Plan::draw(&mut self.draw, stage.late);
            let scene = Scene {
                number: &stage.number,
                person: &shown,
                at: stage.clock.now(),
            };
            let element = self.does(stage.variety, &scene, &wamid, &text);
            replied = Some(stage.history.reply_to(&wamid));
            answers.push(stage.courier.hand_over(element, &plan).await?);
            if stage.variety == Variety::All
                && let Some(notice) = acts::notice(&scene, &text, &mut self.draw)
            {
                stage.courier.hand_over(notice, &plan).await?;
            }
            self.last = Some(wamid);
        }
        for answer in answers {
            answer.wait().await;
        }
        let replied = replied?;
        Some(async move {
            // An error: the record was emptied, nobody is told any more.
            let _ = replied.await;
        })
    }

    fn does(&mut self, variety: Variety, scene: &Scene<'_>, wamid: &str, text: &str) -> Element {
        match variety {
            Variety::Texts => Element::text(scene.number, scene.person, wamid, scene.at, text),
            Variety::All => {
                let before = self.last.as_deref();
                acts::message(scene, wamid, text, before, &mut self.draw)
            }
        }
    }

    async fn pause(&mut self, messages: u64, stage: &Stage) {
        let Some(gap) = stage.gap else {
            return;
        };
        let mean = gap.saturating_mul(u32::try_from(messages).unwrap_or(u32::MAX));
        let pause = (mean / 2).saturating_add(self.draw.duration_below(mean));
        stage.clock.sleep(pause).await;
    }
}

#[cfg(test)]
mod tests;
