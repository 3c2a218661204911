//! What callers are answered, and how they wait, on a ledger whose time is moved by hand.

use axum::body::to_bytes;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tower::ServiceExt;

use super::*;
use crate::model::Timestamp;
use crate::store::sqlite::{SqliteSettings, SqliteStore};

const ANN: &str = "/v1/threads/100/4915112345";
const SETTINGS: ThreadSettings = ThreadSettings {
    create_timeout: Duration::from_secs(20),
    wait_max: Duration::from_secs(10),
    body_timeout: Duration::from_secs(5),
    store_wait_max: Duration::from_secs(60),
};
/// By which time is moved on while somebody waits.
const STEP: Duration = Duration::from_millis(10);

#[derive(Clone)]
struct Side {
    router: Router,
    store: SharedStore,
    clock: Clock,
    stop: CancellationToken,
    _folder: Arc<TempDir>,
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Side {
    fn new(token: Option<&str>, only_number: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = Clock::manual(Timestamp(1_800_000_000_000));
        let settings = SqliteSettings {
            path: folder.path().join("hapax.db"),
            queue_max: 16,
            wal_max: 1 << 20,
        };
        let store = SqliteStore::open(&settings, clock.clone()).expect("a new file opens");
        let store: SharedStore = Arc::new(store);
        let stop = CancellationToken::new();
        let parts = ThreadParts {
            store: Arc::clone(&store),
            clock: clock.clone(),
            token: token.map(Secret::new),
            only_number: only_number.map(NumberId::from),
            stop: stop.clone(),
        };
        Self {
            router: router(parts, SETTINGS),
            store,
            clock,
            stop,
            _folder: Arc::new(folder),
        }
    }

    async fn send(&self, request: Request) -> Answer {
        let answer = self.router.clone().oneshot(request).await;
        let answer = answer.expect("infallible");
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        let body = serde_json::from_slice(&body).expect("JSON");
        Answer {
            status,
            headers,
            body,
        }
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send(request(method, path, body)).await
    }

    /// Somebody asks and waits.
    fn waiting(&self, path: &str) -> JoinHandle<Answer> {
        let (side, request) = (self.clone(), request("PUT", path, ""));
        tokio::spawn(async move { side.send(request).await })
    }

    /// Whatever others have asked the ledger before is answered.
    async fn caught_up(&self) {
        for _ in 0..3 {
            tokio::task::yield_now().await;
            self.ask("GET", ANN, "").await;
        }
    }

    /// Lets time go on until one who waits is answered; answers how long that took.
    async fn until_answered(&self, waiting: JoinHandle<Answer>) -> (Answer, Duration) {
        let before = self.clock.boottime();
        self.caught_up().await;
        while !waiting.is_finished() {
            self.clock.advance(STEP);
            self.caught_up().await;
        }
        let answer = waiting.await.expect("no panic");
        (answer, self.clock.boottime().saturating_sub(before))
    }
}

fn request(method: &str, path: &str, body: &str) -> Request {
    let request = Request::builder().method(method).uri(path);
    let request = request.header(header::CONTENT_TYPE, "application/json");
    request.body(body.to_owned().into()).expect("a request")
}

fn state(answer: &Answer) -> (u16, &str, i64) {
    let state = answer.body["state"].as_str().unwrap_or_default();
    let version = answer.body["version"].as_i64().unwrap_or_default();
    (answer.status.as_u16(), state, version)
}

#[tokio::test]
async fn a_thread_is_made_told_forgotten_and_remembered() {
    let side = Side::new(None, None);
    let made = side.ask("PUT", ANN, "").await;
    let expected =
        json!({"thread": null, "version": 1, "state": "create", "expires_in_ms": 20_000});
    assert_eq!((made.status, made.body), (StatusCode::OK, expected));
    let complete = format!("{ANN}/complete");
    let thread = r#"{"version":1,"thread":"thr_a"}"#;
    let ready = json!({"thread": "thr_a", "version": 1, "state": "ready"});
    for _ in 0..2 {
        let completed = side.ask("POST", &complete, thread).await;
        assert_eq!(
            (completed.status, &completed.body),
            (StatusCode::OK, &ready)
        );
    }
    assert_eq!(side.ask("PUT", ANN, "").await.body, ready);
    let forgotten = side.ask("DELETE", ANN, "").await;
    let none = json!({"thread": null, "version": 2, "state": "none"});
    assert_eq!((forgotten.status, forgotten.body), (StatusCode::OK, none));
    let shown = side.ask("GET", ANN, "").await.body;
    assert_eq!(shown["number"], "100");
    assert_eq!(
        (&shown["thread"], &shown["state"]),
        (&Value::Null, &json!("none"))
    );
    let at = "2027-01-15T08:00:00Z";
    let past = json!([{"thread": "thr_a", "version": 1, "since": at, "until": at}]);
    assert_eq!(shown["history"], past);
    assert!(!shown.to_string().contains("4915"), "{shown}");

    let late = side
        .ask("POST", &complete, r#"{"version":2,"thread":"thr_b"}"#)
        .await;
    assert_eq!(late.status, StatusCode::CONFLICT);
    assert_eq!(late.body["error"]["code"], "late");
    let orphans = side
        .ask("GET", "/v1/threads/orphans?limit=5", "")
        .await
        .body;
    let conversation = &shown["conversation"];
    let expected = json!({"orphans": [{"number": "100", "conversation": conversation,
        "version": 2, "thread": "thr_b", "at": at}]});
    assert_eq!(orphans, expected);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_in_words() {
    let side = Side::new(None, Some("100"));
    let known = side.ask("PUT", ANN, "").await;
    assert_eq!(state(&known), (200, "create", 1));
    let complete = format!("{ANN}/complete");
    let long = format!(r#"{{"version":1,"thread":"{}"}}"#, "a".repeat(9_000));
    let cases = [
        ("PUT", "/v1/threads/abc/4915112345", "", 400, "wrong_number"),
        (
            "PUT",
            "/v1/threads/101/4915112345",
            "",
            404,
            "unknown_number",
        ),
        ("PUT", "/v1/threads/100/Ann", "", 400, "wrong_contact"),
        ("PUT", "/v1/threads/100/%FF", "", 400, "wrong_path"),
        ("PUT", "/v1/threads/100/cv_7", "", 404, "unknown_contact"),
        ("GET", "/v1/threads/100/4915199999", "", 404, "no_thread"),
        ("DELETE", "/v1/threads/100/US.7", "", 404, "no_thread"),
        ("PUT", &format!("{ANN}?wait=10"), "", 400, "wrong_query"),
        ("PUT", &format!("{ANN}?wiat=1s"), "", 400, "wrong_query"),
        ("PATCH", ANN, "", 405, "wrong_method"),
        ("PUT", "/v1/threads/orphans", "", 405, "wrong_method"),
        ("GET", "/v1/threads/orphans?limit=0", "", 400, "wrong_query"),
        ("GET", "/v1/elsewhere", "", 404, "not_found"),
        ("GET", "/v1/threads/100", "", 404, "not_found"),
        ("POST", &complete, "", 400, "wrong_body"),
        (
            "POST",
            &complete,
            r#"{"version":1,"thread":""}"#,
            400,
            "wrong_thread",
        ),
        ("POST", &complete, &long, 413, "wrong_body"),
        (
            "POST",
            "/v1/threads/100/4915199999/complete",
            r#"{"version":1,"thread":"a"}"#,
            404,
            "unknown_contact",
        ),
    ];
    for (method, path, body, status, code) in cases {
        let answer = side.ask(method, path, body).await;
        let error = &answer.body["error"];
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {error}");
        assert_eq!(error["code"], code, "{method} {path}: {error}");
        let message = error["message"].as_str().expect("words");
        assert!(message.contains("expected") && message.contains("found"));
        assert!(!message.contains("4915"), "{message}");
    }
    let mut keyed = request("PUT", ANN, "");
    let value = "a b\u{e9}".parse().expect("a value");
    keyed.headers_mut().insert("idempotency-key", value);
    assert_eq!(side.send(keyed).await.body["error"]["code"], "wrong_key");
}

#[tokio::test]
async fn without_the_token_nothing_is_told() {
    let side = Side::new(Some("right"), None);
    for (method, path) in [
        ("PUT", ANN),
        ("GET", "/v1/threads/orphans"),
        ("PATCH", ANN),
        ("GET", "/v2"),
    ] {
        for shown in [None, Some("Bearer wrong"), Some("right"), Some("Bearer ")] {
            let mut request = request(method, path, "");
            if let Some(shown) = shown {
                let value = shown.parse().expect("a value");
                request.headers_mut().insert(header::AUTHORIZATION, value);
            }
            let answer = side.send(request).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} {shown:?}");
            assert_eq!(answer.body["error"]["code"], "unauthorized");
        }
    }
    let mut request = request("PUT", ANN, "");
    let value = "Bearer right".parse().expect("a value");
    request.headers_mut().insert(header::AUTHORIZATION, value);
    assert_eq!(side.send(request).await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_waits_gets_the_thread_as_soon_as_it_is_known() {
    let side = Side::new(None, None);
    assert_eq!(state(&side.ask("PUT", ANN, "").await), (200, "create", 1));
    let waiting = side.waiting(ANN);
    side.caught_up().await;
    let other = side.ask("PUT", &format!("{ANN}?wait=0s"), "").await;
    assert_eq!(state(&other), (202, "pending", 1));
    assert_eq!(other.headers[header::RETRY_AFTER], "1");
    let body = r#"{"version":1,"thread":"thr_a"}"#;
    side.ask("POST", &format!("{ANN}/complete"), body).await;
    let (answer, took) = side.until_answered(waiting).await;
    assert_eq!(state(&answer), (200, "ready", 1));
    assert_eq!(answer.body["thread"], "thr_a");
    assert!(took <= 2 * LOOK, "{took:?}");
}

/// Longer than a look that a hint has brought about.
const LOOK: Duration = Duration::from_millis(100);

#[tokio::test]
async fn who_waits_gets_the_right_when_it_ends_or_is_taken_away() {
    let side = Side::new(None, None);
    side.ask("PUT", ANN, "").await;
    side.clock.advance(Duration::from_secs(15));
    let (answer, took) = side.until_answered(side.waiting(ANN)).await;
    assert_eq!(state(&answer), (200, "create", 2));
    assert!(took >= Duration::from_secs(5), "{took:?}");
    assert!(took <= Duration::from_secs(5) + LOOK, "{took:?}");

    let waiting = side.waiting(ANN);
    side.caught_up().await;
    side.ask("DELETE", ANN, "").await;
    let (answer, _) = side.until_answered(waiting).await;
    assert_eq!(state(&answer), (200, "create", 4));
}

#[tokio::test]
async fn a_wait_has_an_end_and_a_drain_ends_it_at_once() {
    let side = Side::new(None, None);
    side.ask("PUT", ANN, "").await;
    let path = format!("{ANN}?wait=2s");
    let (answer, took) = side.until_answered(side.waiting(&path)).await;
    assert_eq!(state(&answer), (202, "pending", 1));
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert!(took <= Duration::from_secs(2) + LOOK, "{took:?}");

    let waiting = side.waiting(ANN);
    side.caught_up().await;
    side.stop.cancel();
    let (answer, took) = side.until_answered(waiting).await;
    assert_eq!(state(&answer), (202, "pending", 1));
    assert!(took <= LOOK, "{took:?}");
}

#[tokio::test]
async fn no_more_wait_at_a_time_than_there_is_room_for() {
    let side = Side::new(None, None);
    side.ask("PUT", ANN, "").await;
    let all: Vec<_> = (0..=WAITING_MAX).map(|_| side.waiting(ANN)).collect();
    while !all.iter().any(JoinHandle::is_finished) {
        tokio::task::yield_now().await;
    }
    let (early, others): (Vec<_>, Vec<_>) = all.into_iter().partition(JoinHandle::is_finished);
    assert_eq!(early.len(), 1);
    for answered in early {
        let answer = answered.await.expect("no panic");
        assert_eq!(state(&answer), (202, "pending", 1), "to be asked again");
    }
    let body = r#"{"version":1,"thread":"thr_a"}"#;
    side.ask("POST", &format!("{ANN}/complete"), body).await;
    for waiting in others {
        let (answer, _) = side.until_answered(waiting).await;
        assert_eq!(state(&answer), (200, "ready", 1));
    }
}

#[tokio::test]
async fn a_ledger_that_does_not_answer_is_told_as_that() {
    let side = Side::new(None, None);
    side.store.close().await;
    for method in ["PUT", "GET", "DELETE"] {
        let answer = side.ask(method, ANN, "").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{method}");
        assert_eq!(answer.body["error"]["code"], "unavailable");
        assert_eq!(answer.headers[header::RETRY_AFTER], "1");
    }
}
