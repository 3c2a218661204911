//! The counting, on planted histories: each fault that is planted must be found, and no other.

use super::*;
use crate::simulator::ai::{Thread, Threads};

/// Three messages of Ann, two of Ben, all answered once and in order; marks are ten apart.
fn clean() -> Played {
    let message = |person, token: &str, posted| Message {
        person,
        token: token.to_owned(),
        posted,
        is_taken: true,
        settled: Some(posted + 9),
    };
    let reply = |person, token: &str, at| Reply {
        person,
        tokens: vec![token.to_owned()],
        at,
    };
    Played {
        messages: vec![
            message(0, "#aa", 10),
            message(0, "#ab", 20),
            message(0, "#ac", 30),
            message(1, "#ba", 10),
            message(1, "#bb", 20),
        ],
        replies: vec![
            reply(0, "#aa", 15),
            reply(1, "#ba", 16),
            reply(0, "#ab", 25),
            reply(1, "#bb", 26),
            reply(0, "#ac", 35),
        ],
        ..Played::default()
    }
}

/// The same from a bot that quotes nothing.
fn mute() -> Played {
    let mut played = clean();
    for reply in &mut played.replies {
        reply.tokens.clear();
    }
    played
}

fn threads(of: &[&[&str]]) -> Threads {
    let thread = |tokens: &&[&str]| Thread {
        tokens: tokens.iter().map(|token| (*token).to_owned()).collect(),
    };
    Threads {
        conversations: of.iter().map(thread).collect(),
        ..Threads::default()
    }
}

fn counted(played: &Played) -> Counts {
    count(played, &Threads::default(), 1)
}

const CLEAN: Counts = Counts {
    messages: 5,
    replies: 5,
    double_answers: 0,
    split_threads: None,
    out_of_order: Some(0),
    unquoted: 0,
    missing: 0,
    answered_late: 0,
    threads: 0,
};

/// The same of replies that quote nothing.
fn untold(counts: Counts) -> Counts {
    Counts {
        out_of_order: None,
        unquoted: counts.replies,
        ..counts
    }
}

#[test]
fn nothing_is_found_where_nothing_is_planted() {
    assert_eq!(counted(&clean()), CLEAN);
    assert_eq!(counted(&mute()), untold(CLEAN));
    assert!(CLEAN.is_told() && !untold(CLEAN).is_told());
    assert!(CLEAN.is_clean() && !CLEAN.works_after_answering());
    let kept = threads(&[&["#aa", "#ab", "#ac"], &["#ba", "#bb"], &[]]);
    let counts = count(&clean(), &kept, 1);
    assert_eq!((counts.split_threads, counts.threads), (Some(0), 3));
    assert!(counts.is_clean());
}

#[test]
fn a_second_answer_is_found_once_however_often_it_comes() {
    let mut played = clean();
    for at in [50, 60] {
        let again = Reply {
            at,
            ..played.replies[2].clone()
        };
        played.replies.push(again);
    }
    let found = Counts {
        replies: 7,
        double_answers: 1,
        ..CLEAN
    };
    assert_eq!(counted(&played), found);
    assert!(!found.is_clean());
}

#[test]
fn of_replies_that_quote_nothing_those_beyond_one_a_message_are_found() {
    let mut played = mute();
    for at in [50, 60] {
        let again = Reply {
            at,
            ..played.replies[2].clone()
        };
        played.replies.push(again);
    }
    assert_eq!(
        counted(&played),
        untold(Counts {
            replies: 7,
            double_answers: 2,
            ..CLEAN
        })
    );
    // Another person's surplus makes up for nobody's want.
    played.replies.retain(|reply| reply.person == 0);
    let found = Counts {
        replies: 5,
        double_answers: 2,
        missing: 2,
        ..CLEAN
    };
    assert_eq!(counted(&played), untold(found));
}

#[test]
fn a_missing_answer_is_found() {
    let mut played = clean();
    played.replies.remove(2);
    let found = Counts {
        replies: 4,
        missing: 1,
        ..CLEAN
    };
    assert_eq!(counted(&played), found);
    assert!(!found.is_clean());
    let mut played = mute();
    played.replies.remove(2);
    assert_eq!(counted(&played), untold(found));
}

#[test]
fn an_answer_to_another_persons_message_answers_nothing() {
    let mut played = clean();
    played.replies[2].person = 1;
    let found = Counts {
        missing: 1,
        double_answers: 1,
        ..CLEAN
    };
    assert_eq!(counted(&played), found);
}

#[test]
fn answers_in_another_order_are_found() {
    let mut played = clean();
    played.replies[0].at = 27;
    assert_eq!(counted(&played).out_of_order, Some(1));
    // After both of the later ones it is still one message that came too late.
    played.replies[0].at = 40;
    played.replies.rotate_left(1);
    let found = Counts {
        out_of_order: Some(1),
        answered_late: 1,
        ..CLEAN
    };
    assert_eq!(counted(&played), found);
    assert!(!found.is_clean());
}

#[test]
fn a_second_answer_that_is_late_is_not_out_of_order() {
    let mut played = clean();
    let again = Reply {
        at: 90,
        ..played.replies[0].clone()
    };
    played.replies.push(again);
    assert_eq!(counted(&played).out_of_order, Some(0));
}

#[test]
fn a_split_thread_is_found_once_for_each_person() {
    let split = threads(&[&["#aa"], &["#ab"], &["#aa", "#ac"], &["#ba", "#bb"]]);
    let counts = count(&clean(), &split, 1);
    assert_eq!((counts.split_threads, counts.threads), (Some(1), 4));
    assert!(!counts.is_clean());
    // Strangers in one thread are another fault, and not split.
    let shared = threads(&[&["#aa", "#ab", "#ac", "#ba", "#bb", "#zz"]]);
    assert_eq!(count(&clean(), &shared, 1).split_threads, Some(0));
    let chained = Threads {
        conversations: Vec::new(),
        chains: split.conversations,
        ..Threads::default()
    };
    assert_eq!(count(&clean(), &chained, 1).split_threads, Some(1));
}

#[test]
fn a_bot_that_answers_first_and_works_afterwards_is_known_by_it() {
    let mut played = clean();
    for message in &mut played.messages[..3] {
        message.settled = Some(message.posted + 1);
    }
    let counts = counted(&played);
    assert_eq!(counts.answered_late, 3);
    assert!(counts.works_after_answering() && counts.is_clean());
    // What was given up was not answered first.
    played.messages[0].is_taken = false;
    assert!(!counted(&played).works_after_answering());
}

#[test]
fn a_bot_that_answers_in_two_messages_answers_once() {
    let twice = |tokens: fn(&Reply) -> Vec<String>| {
        let mut played = clean();
        let mut second = played.replies.clone();
        for reply in &mut second {
            reply.at += 1;
            reply.tokens = tokens(reply);
        }
        played.replies.extend(second);
        played
    };
    for mut played in [twice(|reply| reply.tokens.clone()), twice(|_| Vec::new())] {
        let found = |played: &Played, each| count(played, &Threads::default(), each);
        assert_eq!(
            found(&played, 2),
            Counts {
                replies: 10,
                ..CLEAN
            }
        );
        assert_eq!(found(&played, 1).double_answers, 5);
        // A third one is one too many.
        played.replies.push(played.replies[9].clone());
        assert_eq!(found(&played, 2).double_answers, 1);
    }
}
