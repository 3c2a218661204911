//! Histories of a bot that sends its replies by itself: each attempt may say it in other words, and
//! each thing goes out once.

use super::*;

fn one(plant: impl FnOnce(&mut Story)) -> Vec<(Breach, u64)> {
    let mut story = Story::default();
    plant(&mut story);
    story.judge_sends()
}

/// The `part`-th of two replies.
fn half<'a>(message: &'a str, call: Mark, outgoing: i64, part: usize) -> Send<'a> {
    Send {
        part: (part, 2),
        ..send(message, call, outgoing, 1)
    }
}

/// A bot that says the first of two things, and fails.
fn fails_half_way(story: &mut Story) {
    story.take("a1");
    let asking = story.ask("a1", "turn_a1");
    story.send(&half("a1", asking.number, 1, 1), true, None);
    story.say(asking, 500, 1);
}

#[test]
fn an_attempt_that_ends_what_another_has_begun_is_clean() {
    let found = one(|story| {
        fails_half_way(story);
        // Its first words were taken for those of the attempt before.
        let asking = story.ask("a1", "turn_a1");
        story.send(&half("a1", asking.number, 2, 2), true, None);
        story.say(asking, 200, 2);
    });
    assert_eq!(found, []);
}

#[test]
fn what_two_attempts_have_said_is_double_whatever_the_words() {
    let found = one(|story| {
        fails_half_way(story);
        let asking = story.ask("a1", "turn_a1");
        story.send(&half("a1", asking.number, 2, 1), true, None);
        story.send(&half("a1", asking.number, 3, 2), true, None);
        story.say(asking, 200, 2);
    });
    assert_eq!(found, [(Breach::Double, 1)]);
}

#[test]
fn what_was_taken_and_never_sent_is_missing() {
    let found = one(|story| {
        fails_half_way(story);
        let asking = story.ask("a1", "turn_a1");
        story.say(asking, 200, 2);
    });
    assert_eq!(found, [(Breach::Missing, 1)]);
}

#[test]
fn a_part_that_was_refused_makes_up_for_no_other() {
    let refused = |story: &mut Story, call: Mark, outgoing: i64| {
        story.send(&half("a1", call, outgoing, 1), false, Some(131_026));
        story.dead("outgoing", "turn_a1", Some(outgoing));
    };
    let clean = one(|story| {
        story.take("a1");
        let asking = story.ask("a1", "turn_a1");
        refused(story, asking.number, 1);
        story.send(&half("a1", asking.number, 2, 2), true, None);
        story.say(asking, 500, 2);
        // In other words, and refused once more.
        let asking = story.ask("a1", "turn_a1");
        refused(story, asking.number, 3);
        story.say(asking, 200, 2);
    });
    assert_eq!(clean, []);
    let lost = one(|story| {
        story.take("a1");
        let asking = story.ask("a1", "turn_a1");
        refused(story, asking.number, 1);
        story.say(asking, 500, 1);
        let asking = story.ask("a1", "turn_a1");
        refused(story, asking.number, 3);
        story.say(asking, 200, 2);
    });
    assert_eq!(lost, [(Breach::Missing, 1)], "the second part");
    let refused_by_nobody = one(|story| {
        story.take("a1");
        let asking = story.ask("a1", "turn_a1");
        story.say(asking, 200, 1);
    });
    assert_eq!(refused_by_nobody, [(Breach::Missing, 1)]);
}

#[test]
fn what_fails_later_is_no_reason_to_have_said_it_twice() {
    let twice = |fails_first: bool| {
        one(|story| {
            fails_half_way(story);
            let fail = |story: &mut Story| {
                story.told("1/1", "failed", true);
                story.outgoing(1, "dead", "none");
                story.dead("outgoing", "turn_a1", Some(1));
            };
            if fails_first {
                fail(story);
            }
            let asking = story.ask("a1", "turn_a1");
            story.send(&half("a1", asking.number, 2, 1), true, None);
            story.send(&half("a1", asking.number, 3, 2), true, None);
            story.say(asking, 200, 2);
            if !fails_first {
                fail(story);
            }
        })
    };
    assert_eq!(twice(true), []);
    assert_eq!(twice(false), [(Breach::Double, 1)]);
}

#[test]
fn parts_that_changed_places_are_out_of_order() {
    let found = one(|story| {
        story.take("a1");
        let asking = story.ask("a1", "turn_a1");
        story.send(&half("a1", asking.number, 1, 2), true, None);
        story.send(&half("a1", asking.number, 2, 1), true, None);
        story.say(asking, 200, 2);
    });
    assert_eq!(found, [(Breach::Order, 1)]);
}

#[test]
fn a_doubt_counts_from_when_the_bot_was_called() {
    let found = one(|story| {
        story.take("a1");
        // Cut; what it had said before is in doubt, and it never answered.
        story.ask("a1", "turn_a1");
        story.disturb();
        let asking = story.ask("a1", "turn_a1");
        story.say(asking, 200, 1);
        story.outgoing(1, "dead", "none");
        story.dead("unsure", "turn_a1", Some(1));
    });
    assert_eq!(found, []);
}
