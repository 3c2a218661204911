//! The gate: once in, whatever comes again.

use std::sync::Arc;
use std::time::Duration;

use super::fixture::{Fixture, message, notice, phone, receipt};
use crate::model::{Answer, EventKind};
use crate::store::{ARRIVAL_LOG_MAX, Answered, FailedArrival, Verdict};

pub(in crate::store) async fn an_event_is_accepted_once(f: Fixture) {
    let first = f.append_one(message(phone("1"), "a")).await;
    assert_eq!(
        (first.verdict, first.kind),
        (Verdict::Accepted, EventKind::Message)
    );
    let (conversation, seq) = first.place.expect("a new message has a place");
    assert_eq!(seq, 1);
    let again = f.append_one(message(phone("1"), "a")).await;
    assert!(matches!(again.verdict, Verdict::Duplicate { count: 2, .. }));
    assert_eq!(again.place, None);
    let next = f.append_one(message(phone("1"), "b")).await;
    assert_eq!(
        next.place,
        Some((conversation, 2)),
        "a duplicate takes no place"
    );
}

pub(in crate::store) async fn a_duplicate_inside_one_delivery_is_refused(f: Fixture) {
    let twice = vec![
        message(phone("1"), "a"),
        notice("n"),
        message(phone("1"), "a"),
    ];
    let appended = f.append(twice).await;
    assert_eq!(appended.events[0].verdict, Verdict::Accepted);
    assert_eq!(appended.events[1].verdict, Verdict::Accepted);
    assert!(matches!(
        appended.events[2].verdict,
        Verdict::Duplicate { count: 2, .. }
    ));
}

pub(in crate::store) async fn a_duplicate_tells_what_was_answered_before(f: Fixture) {
    let delivery = f.delivery(vec![message(phone("1"), "a")]);
    let answer = Answer {
        status: 200,
        latency: Duration::from_micros(1_500),
    };
    let answered = Answered {
        delivery: delivery.id,
        at: delivery.at,
        events: 1,
        answer,
    };
    f.store.append(Arc::new(delivery)).await.expect("appended");
    f.store.answered(answered);
    f.wait(3);
    let again = f.append_one(message(phone("1"), "a")).await;
    // The answer may be recorded after this transaction; the next one sees it for certain.
    f.wait(4);
    let third = f
        .append(vec![message(phone("1"), "a"), notice("n")])
        .await
        .events
        .remove(0);
    assert!(matches!(again.verdict,
        Verdict::Duplicate { count: 2, gap, .. } if gap == Duration::from_secs(3)));
    let Verdict::Duplicate {
        count: 3,
        gap,
        previous: None,
        ..
    } = third.verdict
    else {
        panic!("the second arrival was never answered: {third:?}");
    };
    assert_eq!(gap, Duration::from_secs(4));
    let arrivals = f
        .store
        .arrivals(third.key)
        .await
        .expect("read")
        .expect("known");
    assert_eq!(arrivals.count, 3);
    assert_eq!(arrivals.log.len(), 3);
    assert_eq!(arrivals.log[0].answer, Some(answer));
}

pub(in crate::store) async fn the_arrival_log_keeps_the_last_ones(f: Fixture) {
    let mut key = None;
    for _ in 0..40 {
        key = Some(f.append_one(message(phone("1"), "a")).await.key);
        f.wait(1);
    }
    let arrivals = f
        .store
        .arrivals(key.expect("appended"))
        .await
        .expect("read")
        .expect("known");
    assert_eq!(arrivals.count, 40);
    assert_eq!(arrivals.log.len() as i64, ARRIVAL_LOG_MAX);
    assert_eq!(
        arrivals.log.last().map(|last| last.at),
        Some(arrivals.last_at)
    );
    assert_eq!(
        arrivals.last_at.since(arrivals.first_at),
        Duration::from_secs(39)
    );
    assert_eq!(
        arrivals.log[0].at.since(arrivals.first_at),
        Duration::from_secs(8)
    );
}

pub(in crate::store) async fn an_arrival_that_could_not_be_stored_is_remembered(f: Fixture) {
    let event = message(phone("1"), "a");
    let answer = Answer {
        status: 503,
        latency: Duration::from_millis(9),
    };
    let failed = FailedArrival {
        key: event.key,
        at: f.clock.now(),
        answer,
    };
    f.wait(2);
    let mut delivery = f.delivery(vec![event.clone()]);
    delivery.failed_before = vec![failed];
    let accepted = f
        .store
        .append(Arc::new(delivery))
        .await
        .expect("appended")
        .events
        .remove(0);
    assert_eq!(
        accepted.verdict,
        Verdict::Accepted,
        "a failed arrival is not a first one"
    );
    let arrivals = f
        .store
        .arrivals(event.key)
        .await
        .expect("read")
        .expect("known");
    assert_eq!(arrivals.count, 2);
    assert_eq!(arrivals.log[0].answer, Some(answer));
    let mut again = f.delivery(vec![event]);
    again.failed_before = vec![failed];
    let again = f
        .store
        .append(Arc::new(again))
        .await
        .expect("appended")
        .events
        .remove(0);
    assert!(
        matches!(again.verdict, Verdict::Duplicate { count: 4, previous: Some(previous), .. }
        if previous == answer)
    );
}

pub(in crate::store) async fn only_messages_take_a_place(f: Fixture) {
    let events = vec![
        notice("n"),
        receipt("w", "sent", None),
        message(phone("1"), "a"),
        notice("m"),
    ];
    let appended = f.append(events).await;
    let places: Vec<Option<i64>> = appended
        .events
        .iter()
        .map(|event| event.place.map(|(_, seq)| seq))
        .collect();
    assert_eq!(places, [None, None, Some(1), None]);
    assert_eq!(f.claim().await.len(), 1);
}

pub(in crate::store) async fn a_thousand_appends_at_once_lose_nothing(f: Fixture) {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let delivery = f.delivery(vec![message(
            phone(&(n % 7).to_string()),
            &(n / 2).to_string(),
        )]);
        let store = f.store();
        tasks.spawn(async move { store.append(Arc::new(delivery)).await });
    }
    let mut accepted = 0;
    while let Some(appended) = tasks.join_next().await {
        let appended = appended.expect("no panic").expect("appended");
        accepted += usize::from(appended.events[0].verdict == Verdict::Accepted);
    }
    assert_eq!(accepted, 500);
    assert_eq!(f.store.backlog().await.expect("read").messages_pending, 500);
}
