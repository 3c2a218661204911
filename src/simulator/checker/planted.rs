//! Histories of a recorded bot, each with one fault planted: every breach is found, by its own
//! name, and a history without one is clean.

mod sent;

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::model::{OutgoingId, StoreId, Tag};
use crate::simulator::accounts::{DeadLetter, Outgoing};
use crate::simulator::record::{Asked, Asking, Mark, Sent, UnderWay};
use crate::simulator::reference::Reference;
use crate::simulator::seen::Seen;

/// A history written step by step. Names are short: message `a1` is of person `a`.
#[derive(Default)]
struct Story {
    record: Record,
    accounts: Accounts,
    posts: Vec<(String, UnderWay)>,
}

/// An attempt to send; what is said of it later names it by its id.
struct Send<'a> {
    to: &'a str,
    message: &'a str,
    call: Mark,
    part: (usize, usize),
    outgoing: i64,
    attempt: u32,
}

impl Story {
    fn post(&mut self, message: &str) {
        let person = &message[..1];
        let seen = Seen::Message {
            wamid: message.to_owned(),
            aliases: vec![person.to_owned(), format!("US.{person}")],
            text: None,
        };
        let (under_way, _) = self.record.posting(vec![seen], Duration::ZERO);
        self.posts.push((message.to_owned(), under_way));
    }

    fn answered(&mut self, name: &str) {
        let at = self.posts.iter().position(|(n, _)| n == name).unwrap();
        let under_way = self.posts.remove(at).1;
        self.record.answered(under_way, Some(200), Duration::ZERO);
    }

    /// A message that is posted once and taken.
    fn take(&mut self, message: &str) {
        self.post(message);
        self.answered(message);
    }

    fn ask(&mut self, message: &str, turn: &str) -> Asking {
        self.record.asked(Asked {
            began: 0,
            began_at: Duration::ZERO,
            ended: None,
            ended_at: None,
            status: None,
            replies: 0,
            conversation: format!("cv_{}", &message[..1]),
            turn: turn.to_owned(),
            wamids: vec![message.to_owned()],
            is_signed: true,
        })
    }

    fn say(&mut self, asking: Asking, status: u16, replies: usize) -> Mark {
        self.record
            .said(asking, Duration::ZERO, Some(status), replies);
        asking.number
    }

    /// The bot is asked about a message, and says one thing.
    fn reply(&mut self, message: &str) -> Mark {
        let asking = self.ask(message, &format!("turn_{message}"));
        self.say(asking, 200, 1)
    }

    fn send(&mut self, send: &Send<'_>, accepted: bool, refused: Option<i64>) {
        let reference = Reference {
            wamid: send.message.to_owned(),
            call: send.call,
            part: send.part.0,
            parts: send.part.1,
        };
        let id = format!("{}/{}", send.outgoing, send.attempt);
        let tag = Tag {
            store: StoreId(1),
            outgoing: OutgoingId(send.outgoing),
            attempt: send.attempt,
        };
        self.record.sent(Sent {
            at_order: 0,
            at: Duration::ZERO,
            number: "n".to_owned(),
            recipient: send.to.to_owned(),
            body: json!({ "text": { "body": reference.to_string() } }),
            wamid: accepted.then_some(id),
            tag: Some(tag.to_string()),
            accepted,
            refused,
            is_clear: accepted || refused.is_some(),
            answers: Vec::new(),
            expected: false,
        });
        self.outgoing(
            send.outgoing,
            if accepted { "sent" } else { "dead" },
            "none",
        );
    }

    fn accept(&mut self, message: &str, call: Mark, outgoing: i64) {
        self.send(&send(message, call, outgoing, 1), true, None);
    }

    fn outgoing(&mut self, id: i64, state: &str, rank: &str) {
        let id = OutgoingId(id).to_string();
        self.accounts.outgoing.retain(|known| known.id != id);
        self.accounts.outgoing.push(Outgoing {
            id,
            turn: String::new(),
            state: state.to_owned(),
            attempt: 1,
            rank: rank.to_owned(),
        });
    }

    fn told(&mut self, id: &str, status: &str, answered: bool) {
        let seen = Seen::Status {
            wamid: id.to_owned(),
            status: status.to_owned(),
            participant: None,
            code: None,
            is_tagged: true,
        };
        let (under_way, _) = self.record.posting(vec![seen], Duration::ZERO);
        let status = answered.then_some(200);
        self.record.answered(under_way, status, Duration::ZERO);
    }

    fn dead(&mut self, kind: &str, turn: &str, outgoing: Option<i64>) {
        self.accounts.dead_letters.push(DeadLetter {
            kind: kind.to_owned(),
            turn: turn.to_owned(),
            outgoing: outgoing.map(|id| OutgoingId(id).to_string()),
            reason: String::new(),
        });
    }

    /// Something was broken all the time.
    fn disturb(&mut self) {
        let second = Duration::from_secs(1);
        self.accounts.disturbed.push((Duration::ZERO, second));
    }

    /// Every breach by name, with its count.
    fn judge(self) -> Vec<(Breach, u64)> {
        Self::found(&check(&self.record, &Terms::Answers(self.accounts)))
    }

    /// The same, of a bot that sends by itself.
    fn judge_sends(self) -> Vec<(Breach, u64)> {
        Self::found(&check(&self.record, &Terms::Sends(self.accounts)))
    }

    fn found(report: &Report) -> Vec<(Breach, u64)> {
        let found = report.breaches();
        found.map(|(breach, found)| (breach, found.count)).collect()
    }
}

fn send(message: &str, call: Mark, outgoing: i64, attempt: u32) -> Send<'_> {
    Send {
        to: &message[..1],
        message,
        call,
        part: (1, 1),
        outgoing,
        attempt,
    }
}

/// A message that was handled as it should be.
fn handled(story: &mut Story, message: &str, outgoing: i64) -> Mark {
    story.take(message);
    let call = story.reply(message);
    story.accept(message, call, outgoing);
    call
}

fn one(plant: impl FnOnce(&mut Story)) -> Vec<(Breach, u64)> {
    let mut story = Story::default();
    plant(&mut story);
    story.judge()
}

#[test]
fn a_history_without_a_fault_is_clean() {
    let found = one(|story| {
        handled(story, "a1", 1);
        handled(story, "b1", 2);
        handled(story, "a2", 3);
        story.told("1/1", "read", true);
        story.outgoing(1, "sent", "read");
        // Deliberate silence, and a refusal with its dead letter.
        story.take("a3");
        let asking = story.ask("a3", "turn_a3");
        story.say(asking, 204, 0);
        story.take("a4");
        let asking = story.ask("a4", "turn_a4");
        story.say(asking, 422, 0);
        story.dead("turn", "turn_a4", None);
        // A reply of which nobody learnt whether it went out.
        story.take("b2");
        story.reply("b2");
        story.dead("unsure", "turn_b2", Some(9));
        story.outgoing(9, "dead", "none");
        story.disturb();
    });
    assert_eq!(found, []);
}

#[test]
fn what_fails_on_the_way_and_is_tried_again_is_clean() {
    let found = one(|story| {
        story.take("a1");
        // Cut, and asked again.
        story.ask("a1", "turn_a1");
        let call = story.reply("a1");
        // Refused at first.
        story.send(&send("a1", call, 1, 1), false, Some(131_056));
        story.send(&send("a1", call, 1, 2), true, None);
        story.outgoing(1, "sent", "none");
        // Accepted, then failed, and told so.
        story.take("a2");
        let call = story.reply("a2");
        story.accept("a2", call, 2);
        story.told("2/1", "failed", true);
        story.outgoing(2, "dead", "none");
        story.dead("outgoing", "turn_a2", Some(2));
    });
    assert_eq!(found, []);
}

#[test]
fn a_message_that_came_to_nothing_is_missing() {
    let never_asked = one(|story| story.take("a1"));
    assert_eq!(never_asked, [(Breach::Missing, 1)]);
    let never_sent = one(|story| {
        story.take("a1");
        story.reply("a1");
    });
    assert_eq!(never_sent, [(Breach::Missing, 1)]);
    let half_sent = one(|story| {
        story.take("a1");
        let asking = story.ask("a1", "turn_a1");
        let call = story.say(asking, 200, 2);
        let mut first = send("a1", call, 1, 1);
        first.part = (1, 2);
        story.send(&first, true, None);
    });
    assert_eq!(half_sent, [(Breach::Missing, 1)]);
    let refused_in_silence = one(|story| {
        story.take("a1");
        let asking = story.ask("a1", "turn_a1");
        story.say(asking, 422, 0);
    });
    assert_eq!(refused_in_silence, [(Breach::Missing, 1)]);
    let failed_in_silence = one(|story| {
        handled(story, "a1", 1);
        story.told("1/1", "failed", true);
        story.outgoing(1, "dead", "none");
    });
    assert_eq!(failed_in_silence, [(Breach::Missing, 1)]);
}

#[test]
fn a_dead_letter_that_the_wire_does_not_bear_out_is_missing() {
    let buried_alive = one(|story| {
        story.take("a1");
        story.reply("a1");
        story.dead("outgoing", "turn_a1", Some(1));
    });
    assert_eq!(buried_alive, [(Breach::Missing, 1)], "Meta refused nothing");
    let too_soon = one(|story| {
        story.take("a1");
        let call = story.reply("a1");
        story.send(&send("a1", call, 1, 1), false, Some(131_056));
        story.dead("outgoing", "turn_a1", Some(1));
    });
    assert_eq!(
        too_soon,
        [(Breach::Missing, 1)],
        "Meta said later, not never"
    );
    let given_up = one(|story| {
        story.take("a1");
        let asking = story.ask("a1", "turn_a1");
        story.say(asking, 204, 0);
        story.dead("turn", "turn_a1", None);
    });
    assert_eq!(given_up, [(Breach::Missing, 1)], "the bot refused nothing");
    let of_the_other_part = one(|story| {
        story.take("a1");
        let asking = story.ask("a1", "turn_a1");
        let call = story.say(asking, 200, 2);
        let mut first = send("a1", call, 1, 1);
        first.part = (1, 2);
        story.send(&first, true, None);
        story.outgoing(1, "dead", "none");
        story.dead("unsure", "turn_a1", Some(1));
        story.disturb();
    });
    let missing = [(Breach::Missing, 1)];
    assert_eq!(of_the_other_part, missing, "the first part has arrived");
}

#[test]
fn a_doubt_that_nothing_explains_is_missing() {
    let unsure = |story: &mut Story| {
        story.take("a1");
        story.reply("a1");
        story.outgoing(1, "dead", "none");
        story.dead("unsure", "turn_a1", Some(1));
    };
    assert_eq!(one(unsure), [(Breach::Missing, 1)], "nothing was broken");
    let never_marked = one(|story| {
        unsure(story);
        story.disturb();
        story.accounts.outgoing[0].attempt = 0;
    });
    assert_eq!(never_marked, [(Breach::Missing, 1)]);
    let answered = one(|story| {
        handled(story, "a1", 1);
        story.outgoing(1, "dead", "none");
        story.dead("unsure", "turn_a1", Some(1));
    });
    assert_eq!(answered, [(Breach::Missing, 1)], "Meta answered at once");
    let mute = one(|story| {
        handled(story, "a1", 1);
        story.record.sends[0].is_clear = false;
        story.outgoing(1, "dead", "none");
        story.dead("unsure", "turn_a1", Some(1));
    });
    assert_eq!(mute, [], "Meta took it and never answered");
}

#[test]
fn two_effects_of_one_message_are_found() {
    let two_answers = one(|story| {
        handled(story, "a1", 1);
        let again = story.reply("a1");
        story.accept("a1", again, 2);
    });
    assert_eq!(two_answers, [(Breach::Double, 1)]);
    let one_answer_twice = one(|story| {
        let call = handled(story, "a1", 1);
        story.accept("a1", call, 2);
    });
    assert_eq!(one_answer_twice, [(Breach::Double, 1)]);
}

#[test]
fn a_send_on_a_guess_is_found_though_only_one_of_them_arrived() {
    let found = one(|story| {
        story.take("a1");
        let call = story.reply("a1");
        // Its answer was lost; it had not gone out, but who could know?
        story.send(&send("a1", call, 1, 1), false, None);
        story.send(&send("a1", call, 1, 2), true, None);
        story.outgoing(1, "sent", "none");
    });
    assert_eq!(found, [(Breach::DoubleSend, 1)]);
    let the_same_attempt = one(|story| {
        story.take("a1");
        let call = story.reply("a1");
        story.send(&send("a1", call, 1, 1), false, Some(131_056));
        story.send(&send("a1", call, 1, 1), true, None);
    });
    assert_eq!(the_same_attempt, [(Breach::DoubleSend, 1)]);
}

#[test]
fn what_changes_places_is_out_of_order() {
    let replies = one(|story| {
        story.take("a1");
        story.take("a2");
        let (first, second) = (story.reply("a1"), story.reply("a2"));
        story.accept("a2", second, 2);
        story.accept("a1", first, 1);
    });
    assert_eq!(replies, [(Breach::Order, 1)]);
    let questions = one(|story| {
        story.take("a1");
        story.take("a2");
        let (second, first) = (story.reply("a2"), story.reply("a1"));
        story.accept("a1", first, 1);
        story.accept("a2", second, 2);
    });
    assert_eq!(questions, [(Breach::Order, 1)]);
    let parts = one(|story| {
        story.take("a1");
        let asking = story.ask("a1", "turn_a1");
        let call = story.say(asking, 200, 2);
        for (outgoing, part) in [(1, 2), (2, 1)] {
            let mut send = send("a1", call, outgoing, 1);
            send.part = (part, 2);
            story.send(&send, true, None);
        }
    });
    assert_eq!(parts, [(Breach::Order, 1)]);
}

#[test]
fn two_effective_turns_at_once_overlap() {
    let found = one(|story| {
        // Written at the same moment, so that either may be first.
        story.post("a1");
        story.post("a2");
        story.answered("a1");
        story.answered("a2");
        let first = story.ask("a1", "turn_a1");
        let second = story.ask("a2", "turn_a2");
        let calls = [story.say(first, 200, 1), story.say(second, 200, 1)];
        story.accept("a1", calls[0], 1);
        story.accept("a2", calls[1], 2);
    });
    assert_eq!(found, [(Breach::Overlap, 1)]);
    let fenced = one(|story| {
        story.take("a1");
        // A paused node's call goes on beside the one that counts.
        let late = story.ask("a1", "turn_a1");
        let call = story.reply("a1");
        story.say(late, 200, 1);
        story.accept("a1", call, 1);
    });
    assert_eq!(fenced, [], "the late call has no effect");
}

#[test]
fn replies_to_nobody_or_to_the_wrong_person_are_unexpected() {
    let found = one(|story| {
        handled(story, "a1", 1);
        handled(story, "b1", 2);
        let mut wrong = send("b1", 0, 3, 1);
        wrong.to = "a";
        story.send(&wrong, true, None);
    });
    assert_eq!(found, [(Breach::Unexpected, 1)]);
    let notice = one(|story| {
        let seen = Seen::Notice {
            wamid: "a1".to_owned(),
        };
        story.record.posting(vec![seen], Duration::ZERO);
        story.reply("a1");
    });
    assert_eq!(notice, [(Breach::Unexpected, 1)]);
    let untagged = one(|story| {
        handled(story, "a1", 1);
        story.record.sends[0].tag = None;
        story.accounts.outgoing.clear();
    });
    assert_eq!(untagged, [(Breach::Unexpected, 1)]);
}

#[test]
fn one_person_with_two_conversations_is_split() {
    let found = one(|story| {
        handled(story, "a1", 1);
        story.take("a2");
        let asking = story.ask("a2", "turn_a2");
        story.record.calls[1].conversation = "cv_other".to_owned();
        let call = story.say(asking, 200, 1);
        story.accept("a2", call, 2);
    });
    assert_eq!(found, [(Breach::Split, 1)]);
    let shared = one(|story| {
        handled(story, "a1", 1);
        story.take("b1");
        let asking = story.ask("b1", "turn_b1");
        story.record.calls[1].conversation = "cv_a".to_owned();
        let call = story.say(asking, 200, 1);
        story.accept("b1", call, 2);
    });
    assert_eq!(shared, [(Breach::Split, 1)]);
}

#[test]
fn a_turn_whose_messages_change_is_found() {
    let found = one(|story| {
        story.post("a1");
        story.take("a2");
        story.answered("a1");
        story.ask("a1", "turn_a1");
        let asking = story.ask("a1", "turn_a1");
        story.record.calls[1].wamids.push("a2".to_owned());
        story.say(asking, 204, 0);
    });
    assert_eq!(found, [(Breach::Changed, 1)]);
    let two_turns = one(|story| {
        story.take("a1");
        story.ask("a1", "turn_a1");
        let asking = story.ask("a1", "turn_other");
        story.say(asking, 204, 0);
    });
    assert_eq!(two_turns, [(Breach::Changed, 1)]);
}

#[test]
fn what_receipts_told_must_be_known() {
    let behind = one(|story| {
        handled(story, "a1", 1);
        story.told("1/1", "read", true);
        story.told("1/1", "sent", true);
        story.outgoing(1, "sent", "sent");
    });
    assert_eq!(behind, [(Breach::Receipt, 1)]);
    let not_told = one(|story| {
        handled(story, "a1", 1);
        story.told("1/1", "read", false);
    });
    assert_eq!(not_told, [], "nobody answered that delivery 200");
    let never_sent = one(|story| {
        story.take("a1");
        let asking = story.ask("a1", "turn_a1");
        story.say(asking, 204, 0);
        story.outgoing(1, "sent", "none");
    });
    assert_eq!(never_sent, [(Breach::Receipt, 1)]);
    let failed = one(|story| {
        handled(story, "a1", 1);
        story.told("1/1", "failed", true);
        story.dead("outgoing", "turn_a1", Some(1));
    });
    assert_eq!(failed, [(Breach::Receipt, 2)], "still said to be sent");
    let unknown = one(|story| {
        handled(story, "a1", 1);
        story.accounts.outgoing.clear();
    });
    assert_eq!(unknown, [(Breach::Receipt, 1)], "the ledger forgot a send");
    let not_closed = one(|story| {
        handled(story, "a1", 1);
        story.record.sends[0].is_clear = false;
        story.dead("unsure", "turn_a1", Some(1));
    });
    assert_eq!(
        not_closed,
        [(Breach::Receipt, 1)],
        "sent, and still a dead letter"
    );
    let failed_after_all = one(|story| {
        handled(story, "a1", 1);
        story.told("1/1", "delivered", true);
        story.told("1/1", "failed", true);
        story.outgoing(1, "sent", "delivered");
    });
    assert_eq!(failed_after_all, [], "the person has it");
    let buried = one(|story| {
        handled(story, "a1", 1);
        story.record.sends[0].is_clear = false;
        story.told("1/1", "delivered", true);
        story.outgoing(1, "dead", "delivered");
        story.dead("unsure", "turn_a1", Some(1));
    });
    assert_eq!(buried, [(Breach::Receipt, 1)]);
}

#[test]
fn an_unsigned_call_and_an_open_end_are_found() {
    let unsigned = one(|story| {
        handled(story, "a1", 1);
        story.record.calls[0].is_signed = false;
    });
    assert_eq!(unsigned, [(Breach::Unsigned, 1)]);
    let open = one(|story| {
        handled(story, "a1", 1);
        story.accounts.messages_pending = 1;
        story.accounts.outgoing_open = 2;
    });
    assert_eq!(open, [(Breach::Unsettled, 2)]);
}
