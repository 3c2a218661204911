//! The run of a trial: everybody writes at their own pace, and what crossed the wire is put
//! together afterwards. Judges nothing.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::script::{Line, Writer};
use super::{COPIES_MAX, Message, Played, Reply, Trial};
use crate::clock::Clock;
use crate::simulator::history::History;
use crate::simulator::meta::{Meta, Plan};
use crate::simulator::payload::{Element, single};
use crate::simulator::person::Person;
use crate::simulator::record::{Mark, Record, Sent};
use crate::simulator::token;

/// What Meta calls an answer that is not a message of its own.
const REACTION: &str = "reaction";

/// What everybody who writes has in common.
struct Stage {
    meta: Meta,
    history: Arc<History>,
    clock: Clock,
    number: String,
    plan: Plan,
    patience: std::time::Duration,
}

/// When all copies of a message had been answered or given up; by its id.
type Settled = HashMap<String, Mark>;

pub(super) async fn play(trial: &Trial, writers: Vec<Writer>) -> Played {
    let settings = &trial.settings;
    let stage = Arc::new(Stage {
        meta: trial.meta.clone(),
        history: Arc::clone(&trial.history),
        clock: trial.clock.clone(),
        number: settings.number.clone(),
        plan: Plan::at_once(settings.copies.clamp(1, COPIES_MAX)),
        patience: settings.patience,
    });
    let writers: Vec<Arc<Writer>> = writers.into_iter().map(Arc::new).collect();
    let mut writing = JoinSet::new();
    for writer in &writers {
        writing.spawn(write(Arc::clone(writer), Arc::clone(&stage)));
    }
    let mut settled = Settled::new();
    while let Some(some) = writing.join_next().await {
        settled.extend(some.unwrap_or_default());
    }
    calm_down(trial, &writers).await;
    trial
        .history
        .read(|record| put_together(record, &writers, &settled))
}

/// One person writes; returns when all of it has been answered or given up.
async fn write(writer: Arc<Writer>, stage: Arc<Stage>) -> Settled {
    let mut posting = JoinSet::new();
    for line in &writer.lines {
        stage.clock.sleep(line.pause).await;
        let at = stage.clock.now();
        let element = Element::text(&stage.number, &writer.person, &line.wamid, at, &line.text);
        let seen = stage.history.read(|record| record.sends.len());
        posting.spawn(post(
            single(&element),
            line.wamid.clone(),
            Arc::clone(&stage),
        ));
        if line.waits {
            answer(&writer.person, line, seen, &stage).await;
        }
    }
    posting.join_all().await.into_iter().collect()
}

async fn post(body: Bytes, wamid: String, stage: Arc<Stage>) -> (String, Mark) {
    stage.meta.deliver(body, &stage.plan).await;
    (wamid, stage.history.read(Record::mark))
}

/// Waits for an answer to this message, but not for ever.
async fn answer(person: &Person, line: &Line, seen: usize, stage: &Stage) {
    let mut next = seen;
    let is_answered = |record: &Record| {
        let new = record.sends.get(next..).unwrap_or_default();
        next = record.sends.len();
        new.iter().any(|sent| {
            let is_theirs = person.aliases().any(|alias| alias == sent.recipient);
            let tokens = tokens(sent);
            is_theirs && is_reply(sent) && (tokens.is_empty() || tokens.contains(&line.token))
        })
    };
    let clock = &stage.clock;
    // Who got none writes on.
    let _ = stage
        .history
        .wait_until(clock, stage.patience, is_answered)
        .await;
}

/// Ends when everything is answered and all is calm, or when nothing has happened for too long.
async fn calm_down(trial: &Trial, writers: &[Arc<Writer>]) {
    let mut changes = trial.history.watch();
    let (mut seen, mut missing) = (usize::MAX, 0);
    loop {
        changes.borrow_and_update();
        let sends = trial.history.read(|record| record.sends.len());
        if sends != seen {
            let look = |record: &Record| put_together(record, writers, &Settled::new());
            missing = super::counts::missing(&trial.history.read(look));
            seen = sends;
        }
        let limit = match missing {
            0 => trial.settings.calm,
            _ => trial.settings.missing_after,
        };
        let changed = trial.clock.timeout(limit, changes.changed()).await;
        if changed.is_err() {
            return;
        }
    }
}

fn is_reply(sent: &Sent) -> bool {
    sent.accepted && sent.body["type"] != REACTION
}

/// The tokens that a reply quotes, wherever in it.
fn tokens(sent: &Sent) -> Vec<String> {
    token::find(&sent.body.to_string())
}

fn put_together(record: &Record, writers: &[Arc<Writer>], settled: &Settled) -> Played {
    let mut by_alias = HashMap::new();
    let mut messages = Vec::new();
    for (person, writer) in writers.iter().enumerate() {
        by_alias.extend(writer.person.aliases().map(|alias| (alias, person)));
        for line in &writer.lines {
            // What was never posted is no message.
            let Some(said) = record.message(&line.wamid) else {
                continue;
            };
            messages.push(Message {
                person,
                token: line.token.clone(),
                posted: said.posted,
                is_taken: said.answered.is_some(),
                settled: settled.get(&line.wamid).copied(),
            });
        }
    }
    let by_wamid: HashMap<&str, &str> = writers
        .iter()
        .flat_map(|writer| &writer.lines)
        .map(|line| (line.wamid.as_str(), line.token.as_str()))
        .collect();
    let replies = record.sends.iter().filter(|sent| is_reply(sent));
    let replies = replies.filter_map(|sent| {
        let mut tokens = tokens(sent);
        let quoted = sent.body["context"]["message_id"].as_str();
        if let (true, Some(token)) = (tokens.is_empty(), quoted.and_then(|id| by_wamid.get(id))) {
            tokens.push((*token).to_owned());
        }
        Some(Reply {
            person: *by_alias.get(sent.recipient.as_str())?,
            tokens,
            at: sent.at_order,
        })
    });
    Played {
        replies: replies.collect(),
        messages,
        undelivered: record.undelivered,
        refused: record.sends.iter().filter(|sent| !sent.accepted).count() as u64,
    }
}
