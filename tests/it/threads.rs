//! One conversation has one AI thread, whoever asks first, on whichever node, by whatever name; and
//! what was made for nothing is listed.

use std::time::Duration;

use hapax::simulator::person::Person;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::engines::on_each_engine;
use crate::scene::says;
use crate::talk::{Talk, field, is_of};
use crate::world::{LIMIT, NUMBER, Node, World};

on_each_engine!(
    of_forty_callers_on_two_nodes_one_makes_the_thread_and_all_get_it,
    who_comes_after_a_dead_caller_makes_it_and_the_late_one_is_listed,
    a_request_that_comes_again_has_its_right_until_that_is_taken_away,
    one_person_has_one_thread_by_phone_and_by_user_id,
);

const CALLERS: usize = 40;
const PHONE: &str = "15550001";
const BSUID: &str = "US.1";
const SECRET: &str = "the-bot's-own-token";

/// The side of a node that bots ask.
#[derive(Clone)]
struct Side {
    client: reqwest::Client,
    url: String,
    token: Option<&'static str>,
    key: Option<&'static str>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    body: Value,
}

impl Side {
    async fn of(node: &Node) -> Self {
        // Whoever was first in this process; every client needs one, though it speaks no TLS.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let line = node.logged(|line| says(line, "serving")).await;
        let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build();
        Self {
            client: client.expect("a client"),
            url: format!("http://{}/v1/threads", field(&line, "bot")),
            token: None,
            key: None,
        }
    }

    fn with_key(&self, key: &'static str) -> Self {
        Self {
            key: Some(key),
            ..self.clone()
        }
    }

    async fn send(&self, method: Method, path: &str, body: &str) -> Answer {
        let mut request = self
            .client
            .request(method, format!("{}/{path}", self.url))
            .body(body.to_owned());
        if let Some(token) = self.token {
            request = request.bearer_auth(token);
        }
        if let Some(key) = self.key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await.expect("it is answered");
        let status = answer.status().as_u16();
        if status == 202 || status == 503 {
            assert_eq!(answer.headers()["retry-after"], "1");
        }
        let body = answer.json().await.expect("JSON");
        Answer { status, body }
    }

    async fn put(&self, contact: &str, wait: &str) -> Answer {
        let path = format!("{NUMBER}/{contact}?wait={wait}");
        self.send(Method::PUT, &path, "").await
    }

    /// Asks again until it is not somebody else who makes the thread.
    async fn ask(&self, contact: &str) -> Answer {
        loop {
            let answer = self.put(contact, "10s").await;
            if answer.status != 202 {
                assert_eq!(answer.status, 200, "{answer:?}");
                return answer;
            }
        }
    }

    async fn complete(&self, contact: &str, version: i64, thread: &str) -> Answer {
        let body = json!({"version": version, "thread": thread}).to_string();
        let path = format!("{NUMBER}/{contact}/complete");
        self.send(Method::POST, &path, &body).await
    }

    async fn get(&self, contact: &str) -> Answer {
        let path = format!("{NUMBER}/{contact}");
        self.send(Method::GET, &path, "").await
    }

    async fn delete(&self, contact: &str) -> Answer {
        let path = format!("{NUMBER}/{contact}");
        self.send(Method::DELETE, &path, "").await
    }

    /// Versions and ids of what was made for nothing, newest first.
    async fn orphans(&self) -> Vec<Value> {
        let answer = self.send(Method::GET, "orphans?limit=50", "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let orphans = answer.body["orphans"].as_array().expect("a list");
        let told = |orphan: &Value| json!([orphan["version"], orphan["thread"]]);
        orphans.iter().map(told).collect()
    }
}

impl Answer {
    fn state(&self) -> (&str, i64) {
        let state = self.body["state"].as_str().unwrap_or_default();
        (state, self.body["version"].as_i64().unwrap_or_default())
    }

    fn expires_in_ms(&self) -> u64 {
        let left = self.body["expires_in_ms"].as_u64();
        left.expect("a right has an end")
    }

    fn is_ready(&self, version: i64, thread: &str) {
        let expected = json!({"thread": thread, "version": version, "state": "ready"});
        assert_eq!((self.status, &self.body), (200, &expected));
    }

    fn is_refused(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body["error"]["code"], code, "{}", self.body);
    }
}

/// Two nodes on one ledger, and the sides of both.
async fn two(world: &World, settings: &[(&str, &str)]) -> ([Node; 2], [Side; 2]) {
    let nodes = [world.node(settings).await, world.node(settings).await];
    let sides = [Side::of(&nodes[0]).await, Side::of(&nodes[1]).await];
    (nodes, sides)
}

async fn of_forty_callers_on_two_nodes_one_makes_the_thread_and_all_get_it(world: World) {
    let (nodes, sides) = two(&world, &[]).await;
    let (told, mut rights) = mpsc::channel(CALLERS);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (side, told) = (sides[caller % 2].clone(), told.clone());
        callers.spawn(async move {
            let answer = side.ask(PHONE).await;
            if answer.state().0 == "create" {
                told.send(answer).await.expect("the test listens");
                return None;
            }
            Some(answer)
        });
    }
    let right = rights.recv().await.expect("one may make it");
    let expected = json!({"thread": null, "version": 1, "state": "create",
                          "expires_in_ms": right.expires_in_ms()});
    assert_eq!(right.body, expected);
    for side in &sides {
        let other = side.put(PHONE, "0s").await;
        assert_eq!((other.status, other.state()), (202, ("pending", 1)));
    }
    let completed = sides[1].complete(PHONE, 1, "thr_abc").await;
    completed.is_ready(1, "thr_abc");
    let answers: Vec<Answer> = callers.join_all().await.into_iter().flatten().collect();
    assert_eq!(answers.len(), CALLERS - 1, "one alone made it");
    for answer in &answers {
        answer.is_ready(1, "thr_abc");
    }
    assert_eq!(sides[0].orphans().await, Vec::<Value>::new());
    for node in &nodes {
        let log = node.log_text();
        assert!(!log.contains(PHONE) && !log.contains("thr_abc"), "{log}");
    }
}

/// Long enough for what a test does within a right, and no longer than one can wait for its end.
const SHORT: [(&str, &str); 1] = [("HAPAX_THREAD_CREATE_TIMEOUT", "4s")];

async fn who_comes_after_a_dead_caller_makes_it_and_the_late_one_is_listed(world: World) {
    let ([mut first, _second], sides) = two(&world, &SHORT).await;
    let right = sides[0].ask(PHONE).await;
    assert_eq!(right.state(), ("create", 1));
    // With the caller goes the node that gave the right: it is the ledger that knows of it.
    first.kill().await;
    let side = &sides[1];
    assert_eq!(side.put(PHONE, "0s").await.state(), ("pending", 1));
    let next = side.ask(PHONE).await;
    assert_eq!(next.state(), ("create", 2));
    assert_eq!(side.orphans().await, [json!([1, null])], "never learnt");
    let late = side.complete(PHONE, 1, "thr_late").await;
    late.is_refused(409, "late");
    assert_eq!(side.orphans().await, [json!([1, "thr_late"])]);
    side.complete(PHONE, 2, "thr_2").await.is_ready(2, "thr_2");
    side.complete(PHONE, 2, "thr_2").await.is_ready(2, "thr_2");
    side.ask(PHONE).await.is_ready(2, "thr_2");
    side.complete(PHONE, 2, "thr_other")
        .await
        .is_refused(409, "late");
    let orphans = side.orphans().await;
    assert_eq!(orphans, [json!([2, "thr_other"]), json!([1, "thr_late"])]);
}

async fn a_request_that_comes_again_has_its_right_until_that_is_taken_away(world: World) {
    let (_nodes, sides) = two(&world, &[]).await;
    let [one, other] = [0, 1].map(|at: usize| sides[at].with_key("turn-1"));
    let right = one.ask(PHONE).await;
    assert_eq!(right.state(), ("create", 1));
    let again = other.put(PHONE, "10s").await;
    assert_eq!(again.state(), ("create", 1), "at once, on the other node");
    assert!(again.expires_in_ms() <= right.expires_in_ms());
    let another = sides[0].with_key("turn-2").put(PHONE, "0s").await;
    assert_eq!(another.state(), ("pending", 1));

    let waiting = tokio::spawn({
        let side = sides[1].clone();
        async move { side.ask(PHONE).await }
    });
    let forgotten = sides[0].delete(PHONE).await;
    let none = json!({"thread": null, "version": 2, "state": "none"});
    assert_eq!((forgotten.status, forgotten.body), (200, none));
    let next = waiting.await.expect("no panic");
    assert_eq!(next.state(), ("create", 3));
    one.complete(PHONE, 1, "thr_1")
        .await
        .is_refused(409, "late");
    assert_eq!(one.orphans().await, [json!([1, "thr_1"])]);
    one.complete(PHONE, 3, "thr_3").await.is_ready(3, "thr_3");

    assert_eq!(sides[1].delete(PHONE).await.state(), ("none", 4));
    let known = sides[0].get(PHONE).await;
    assert_eq!((known.status, known.state()), (200, ("none", 4)));
    let past = &known.body["history"][0];
    assert_eq!(
        (&past["thread"], &past["version"]),
        (&json!("thr_3"), &json!(3))
    );
    assert!(past["since"].is_string() && past["until"].is_string());
    sides[0].get("15559999").await.is_refused(404, "no_thread");
}

async fn one_person_has_one_thread_by_phone_and_by_user_id(world: World) {
    let node = world.node(&[]).await;
    let side = Side::of(&node).await;
    // Somebody who has never written yet.
    assert_eq!(side.ask(&format!("+{PHONE}")).await.state(), ("create", 1));
    side.complete(PHONE, 1, "thr_ann")
        .await
        .is_ready(1, "thr_ann");
    let stranger = side.ask(BSUID).await;
    assert_eq!(
        stranger.state(),
        ("create", 1),
        "nothing shows yet who that is"
    );
    side.complete(BSUID, 1, "thr_lost")
        .await
        .is_ready(1, "thr_lost");

    let talk = Talk::with(&world, &node, 1);
    let key = talk.say(&Person::by_both(PHONE, "US.2"), "hello").await;
    let accepted = |line: &Value| is_of(line, key) && field(line, "verdict") == "accepted";
    let line = node.logged(accepted).await;
    let known = side.get(PHONE).await.body;
    assert_eq!(known["conversation"], field(&line, "conversation.id"));
    for name in ["conversation", "contact"] {
        let id = known[name].as_str().expect("an id");
        side.ask(id).await.is_ready(1, "thr_ann");
    }
    side.ask("US.2").await.is_ready(1, "thr_ann");
    side.ask(BSUID).await.is_ready(1, "thr_lost");
    world.settle(&node).await;
    assert!(!node.log_text().contains(PHONE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_demanded_and_what_cannot_be_meant_is_refused() {
    let world = World::new();
    let node = world.node(&[("HAPAX_BOT_TOKEN", SECRET)]).await;
    let outside = Side::of(&node).await;
    outside
        .put(PHONE, "0s")
        .await
        .is_refused(401, "unauthorized");
    outside.get("orphans").await.is_refused(401, "unauthorized");
    let wrong = Side {
        token: Some("another"),
        ..outside.clone()
    };
    wrong.put(PHONE, "0s").await.is_refused(401, "unauthorized");

    let side = Side {
        token: Some(SECRET),
        ..outside
    };
    side.put("Ann", "0s").await.is_refused(400, "wrong_contact");
    side.put("0015550001", "0s")
        .await
        .is_refused(400, "wrong_contact");
    side.put(PHONE, "10").await.is_refused(400, "wrong_query");
    side.put("cv_7", "0s")
        .await
        .is_refused(404, "unknown_contact");
    let path = "my-number/15550001";
    let answer = side.send(Method::PUT, path, "").await;
    answer.is_refused(400, "wrong_number");
    side.get(PHONE).await.is_refused(404, "no_thread");
    side.delete(PHONE).await.is_refused(404, "no_thread");
    let refused = side.complete(PHONE, 1, "thr_a").await;
    refused.is_refused(404, "unknown_contact");
    assert_eq!(side.ask(PHONE).await.state(), ("create", 1));
    for (version, thread) in [(0, "thr_a"), (1, ""), (1, "a\nb")] {
        assert_eq!(side.complete(PHONE, version, thread).await.status, 400);
    }
    side.complete(PHONE, 1, "thr_a").await.is_ready(1, "thr_a");
    assert_eq!(side.orphans().await, Vec::<Value>::new());
    assert!(!node.log_text().contains(SECRET));
}

/// A wait is as long as is asked for, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_and_is_to_be_taken_up_again() {
    let world = World::new();
    let node = world.node(&[]).await;
    let side = Side::of(&node).await;
    assert_eq!(side.ask(PHONE).await.state(), ("create", 1));
    let before = world.clock.boottime();
    let answer = side.put(PHONE, "300ms").await;
    assert_eq!((answer.status, answer.state()), (202, ("pending", 1)));
    let took = world.clock.boottime().saturating_sub(before);
    assert!(took >= Duration::from_millis(300), "{took:?}");
}
