//! Which statuses the pretend Meta reports, unasked, of the messages that it accepted.

use std::time::Duration;

use super::courier::Courier;
use super::meta::Plan;
use super::payload::{Element, StatusOf};
use super::person::Person;
use super::record::Sent;
use super::reference::about;
use super::seed::Draw;
use crate::model::Timestamp;

const STEPS: [&str; 3] = ["sent", "delivered", "read"];
/// Undeliverable: nothing of it reaches the person, and another try would be no better.
const FAILED_CODE: i64 = 131_026;
const MEMBERS: [&str; 2] = ["15550000901", "15550000902"];

/// Which statuses are reported unasked.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Receipts {
    /// None; tests that say each one themselves.
    #[default]
    None,
    /// `sent`, `delivered`, `read`, each one to four times; of a group, for each member.
    Drawn(Odds),
}

/// How often receipts are not what one hopes for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Odds {
    /// The longest wait between two.
    pub step: Duration,
    /// Of a message none is reported at all.
    pub never: f64,
    /// They come in another order.
    pub disorder: f64,
    /// The message fails after it was accepted.
    pub failed: f64,
    /// They do not carry the tag of the send: only the id that Meta gave tells what they are of.
    pub untagged: f64,
}

impl Odds {
    /// Mostly in order, all tagged, none failed; for one message in twenty none.
    pub const fn mild(step: Duration) -> Self {
        Self {
            step,
            never: 0.05,
            disorder: 0.3,
            failed: 0.0,
            untagged: 0.0,
        }
    }
}

/// Reports on a send by chance; never waits.
pub(super) fn report(
    receipts: Receipts,
    courier: &Courier,
    root: &Draw,
    of: (&Sent, &Person),
    at: Timestamp,
) {
    let Receipts::Drawn(odds) = receipts else {
        return;
    };
    let (sent, person) = of;
    // By content, so that the order in which sends arrive does not change what is drawn.
    let mut draw = root.fork(&format!("{} {}", sent.recipient, about(sent.text())));
    if draw.chance(odds.never) {
        return;
    }
    let is_group = person.group.is_some();
    let mut statuses: Vec<&str> = match (!is_group && draw.chance(odds.failed), draw.chance(0.2)) {
        (true, false) => vec!["sent", "failed"],
        // Seen of Meta: called failed, though the person has it.
        (true, true) => vec!["sent", "delivered", "failed"],
        (false, _) => STEPS.to_vec(),
    };
    if draw.chance(odds.disorder) {
        draw.shuffle(&mut statuses);
    }
    let mut sent = sent.clone();
    if draw.chance(odds.untagged) {
        sent.tag = None;
    }
    let members: &[Option<&str>] = match is_group {
        true => &MEMBERS.map(Some),
        false => &[None],
    };
    let mut wait = Duration::ZERO;
    for status in statuses {
        let code = (status == "failed").then_some(FAILED_CODE);
        for member in members {
            let plan = Plan::draw(&mut draw, odds.step).after(wait);
            let said = Said {
                status,
                code,
                participant: *member,
            };
            // Dropped when too many are on their way.
            let _ = courier.offer(element(&sent, person, &said, at), &plan);
        }
        wait += draw.duration_below(odds.step);
    }
}

/// What is said of a send.
pub(super) struct Said<'a> {
    pub(super) status: &'a str,
    pub(super) code: Option<i64>,
    pub(super) participant: Option<&'a str>,
}

/// The status of a send.
pub(super) fn element(sent: &Sent, person: &Person, said: &Said<'_>, at: Timestamp) -> Element {
    let of = StatusOf {
        wamid: sent.wamid.as_deref().unwrap_or_default(),
        person,
        status: said.status,
        code: said.code,
        tag: sent.tag.as_deref(),
        participant: said.participant,
    };
    Element::status(&sent.number, &of, at)
}
