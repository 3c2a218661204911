//! Which statuses the pretend Meta reports, unasked, of the messages that it accepted.

use std::time::Duration;

use super::courier::Courier;
use super::meta::Plan;
use super::payload::{Element, StatusOf};
use super::person::Person;
use super::record::Sent;
use super::seed::Draw;
use crate::model::Timestamp;

const NEVER_CHANCE: f64 = 0.05;
const DISORDER_CHANCE: f64 = 0.3;
const STEPS: [&str; 3] = ["sent", "delivered", "read"];

/// Which statuses are reported unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Receipts {
    /// None; tests that say each one themselves.
    #[default]
    None,
    /// `sent`, `delivered`, `read`, each one to four times, now and then in another order, and
    /// for one message in twenty none at all. The number is the longest wait between two.
    Drawn(Duration),
}

/// Reports on a send by chance; never waits.
pub(super) fn report(
    receipts: Receipts,
    courier: &Courier,
    root: &Draw,
    of: (&Sent, &Person),
    at: Timestamp,
) {
    let Receipts::Drawn(step) = receipts else {
        return;
    };
    let (sent, person) = of;
    // By content, so that the order in which sends arrive does not change what is drawn.
    let mut draw = root.fork(&format!("{} {}", sent.recipient, sent.text()));
    if draw.chance(NEVER_CHANCE) {
        return;
    }
    let mut statuses = STEPS;
    if draw.chance(DISORDER_CHANCE) {
        draw.shuffle(&mut statuses);
    }
    let mut wait = Duration::ZERO;
    for status in statuses {
        let plan = Plan::draw(&mut draw, step).after(wait);
        // Dropped when too many are on their way.
        let _ = courier.offer(element(sent, person, status, None, at), &plan);
        wait += draw.duration_below(step);
    }
}

/// The status of a send.
pub(super) fn element(
    sent: &Sent,
    person: &Person,
    status: &str,
    code: Option<i64>,
    at: Timestamp,
) -> Element {
    let of = StatusOf {
        wamid: sent.wamid.as_deref().unwrap_or_default(),
        person,
        status,
        code,
        tag: sent.tag.as_deref(),
    };
    Element::status(&sent.number, &of, at)
}
