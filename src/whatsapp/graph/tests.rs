//! The client against a server that answers by script, or does not answer.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::model::Timestamp;

const ACCEPTED: &str = r#"{"messages":[{"id":"wamid.1"}]}"#;

fn graph(base_url: String, clock: Clock) -> Graph {
    let settings = GraphSettings {
        base_url,
        access_token: Secret::new("EAAG"),
        ..GraphSettings::default()
    };
    Graph::new(&settings, clock).unwrap()
}

async fn send(graph: &Graph) -> SendVerdict {
    let number = NumberId::from("10/6");
    let recipient = Recipient::Phone("4915".to_owned());
    let body = r#"{"type":"text","text":{"body":"hi"}}"#;
    graph.send(&number, &recipient, body, "tag").await.verdict
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// Reads one request: its head and its body.
async fn request(stream: &mut TcpStream) -> (String, String) {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8(bytes.clone()).unwrap();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.parse::<usize>().unwrap())
            });
            if body.len() == length.unwrap() {
                return (head.to_owned(), body.to_owned());
            }
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
    }
}

/// A server that gives one answer on one connection, then closes it. Afterwards: what it read.
async fn answering(answer: String) -> (String, JoinHandle<(String, String)>) {
    let (listener, url) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = request(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        request
    });
    (url, server)
}

fn http(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn an_accepted_message_went_out_whole() {
    let (url, server) = answering(http("200 OK", "", ACCEPTED)).await;
    let verdict = send(&graph(format!("{url}/prefix/"), Clock::system())).await;
    let wamid = Wamid::from("wamid.1");
    assert_eq!(verdict, SendVerdict::Accepted { wamid });
    let (head, body) = server.await.unwrap();
    assert!(head.starts_with("POST /prefix/v25.0/10%2F6/messages HTTP/1.1"));
    assert!(head.contains("authorization: Bearer EAAG"));
    assert!(head.contains("content-type: application/json"));
    let expected = json!({"messaging_product": "whatsapp", "recipient_type": "individual",
        "to": "+4915", "biz_opaque_callback_data": "tag",
        "type": "text", "text": {"body": "hi"}});
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
}

#[tokio::test]
async fn a_clear_no_carries_metas_advice() {
    let body = r#"{"error":{"code":131056,"message":"to 4915"}}"#;
    let (url, _server) = answering(http("400 Bad Request", "retry-after: 9\r\n", body)).await;
    let SendVerdict::Rejected {
        code, class, after, ..
    } = send(&graph(url, Clock::system())).await
    else {
        panic!("it is a clear no");
    };
    assert_eq!((code, class), (131_056, FailureClass::PairRate));
    assert_eq!(after, Some(Duration::from_secs(9)));
}

#[tokio::test]
async fn a_refused_connection_sent_nothing() {
    let (listener, url) = listener().await;
    drop(listener);
    let verdict = send(&graph(url, Clock::system())).await;
    let reason = "no connection (connection refused)".to_owned();
    assert_eq!(verdict, SendVerdict::Unreachable { reason });
}

#[tokio::test]
async fn a_failed_tls_handshake_sent_nothing() {
    let (listener, url) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"this is no TLS").await.unwrap();
        let mut rest = Vec::new();
        // Ends in an error or at the end, but ends.
        let _ = stream.read_to_end(&mut rest).await;
    });
    let verdict = send(&graph(url.replace("http", "https"), Clock::system())).await;
    assert!(
        matches!(verdict, SendVerdict::Unreachable { .. }),
        "{verdict:?}"
    );
    server.await.unwrap();
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_is_unsure_and_sent_once() {
    let cut = ["", "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{"];
    for answer in cut {
        let (listener, url) = listener().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            drop(stream);
            listener
        });
        let verdict = send(&graph(url, Clock::system())).await;
        assert!(matches!(verdict, SendVerdict::Unsure { .. }), "{verdict:?}");
        assert_no_second_connection(server.await.unwrap());
    }
}

#[tokio::test]
async fn a_reused_connection_that_breaks_is_unsure_and_sent_once() {
    let (listener, url) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        let answer = http("200 OK", "", ACCEPTED);
        stream.write_all(answer.as_bytes()).await.unwrap();
        request(&mut stream).await;
        drop(stream);
        listener
    });
    let graph = graph(url, Clock::system());
    assert!(matches!(send(&graph).await, SendVerdict::Accepted { .. }));
    assert!(matches!(send(&graph).await, SendVerdict::Unsure { .. }));
    assert_no_second_connection(server.await.unwrap());
}

/// The verdict is out, so whatever else the client tried stands in the listener's backlog.
fn assert_no_second_connection(listener: TcpListener) {
    let error = listener.into_std().unwrap().accept().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn silence_is_unsure_when_the_time_is_over() {
    let (listener, url) = listener().await;
    let clock = Clock::manual(Timestamp(0));
    let graph = graph(url, clock.clone());
    let sending = tokio::spawn(async move { send(&graph).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    request(&mut stream).await;
    clock.advance(Duration::from_secs(36));
    let reason = "no answer in time".to_owned();
    assert_eq!(sending.await.unwrap(), SendVerdict::Unsure { reason });
}

#[tokio::test]
async fn redirects_and_endless_answers_are_not_followed() {
    let moved = http(
        "307 Temporary Redirect",
        "location: http://127.0.0.1:9/\r\n",
        "",
    );
    let (url, _server) = answering(moved).await;
    let verdict = send(&graph(url, Clock::system())).await;
    assert!(matches!(verdict, SendVerdict::Rejected { code: 307, .. }));

    let long = http("200 OK", "", &" ".repeat(ANSWER_BYTES_MAX + 1));
    let (listener, url) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        // The client may hang up in the middle of it.
        let _ = stream.write_all(long.as_bytes()).await;
    });
    let verdict = send(&graph(url, Clock::system())).await;
    let reason = "the answer is too long".to_owned();
    assert_eq!(verdict, SendVerdict::Unsure { reason });
    server.await.unwrap();
}

#[tokio::test]
async fn reading_is_marked_with_and_without_typing() {
    let number = NumberId::from("106");
    let wamid = Wamid::from("wamid.1");
    for typing in [false, true] {
        let (url, server) = answering(http("200 OK", "", r#"{"success":true}"#)).await;
        let graph = graph(url, Clock::system());
        assert_eq!(graph.mark_read(&number, &wamid, typing).await, Ok(()));
        let (_, body) = server.await.unwrap();
        let mut expected = json!({"messaging_product": "whatsapp", "status": "read",
            "message_id": "wamid.1"});
        if typing {
            expected["typing_indicator"] = json!({"type": "text"});
        }
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    }
    let refused = http(
        "400 Bad Request",
        "",
        r#"{"error":{"code":131009,"message":"4915"}}"#,
    );
    let (url, _server) = answering(refused).await;
    let result = graph(url, Clock::system())
        .mark_read(&number, &wamid, false)
        .await;
    assert_eq!(
        result.unwrap_err().to_string(),
        "not marked as read: Meta's error 131009: a parameter's value is invalid"
    );
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let make = |base_url: &str, token: &str| {
        let settings = GraphSettings {
            base_url: base_url.to_owned(),
            access_token: Secret::new(token),
            ..GraphSettings::default()
        };
        Graph::new(&settings, Clock::system()).err()
    };
    assert_eq!(make("http://127.0.0.1:1", "EAAG"), None);
    for url in [
        "",
        "graph.facebook.com",
        "ftp://graph.facebook.com",
        "data:x",
    ] {
        assert_eq!(make(url, "EAAG"), Some(GraphError::BaseUrl), "{url}");
    }
    let token = Some(GraphError::AccessToken);
    assert_eq!(make("http://127.0.0.1:1", "EA\nAG"), token);
}

#[test]
fn a_client_prints_no_token() {
    let graph = graph("http://127.0.0.1:1".to_owned(), Clock::system());
    assert!(!format!("{graph:?}").contains("EAAG"));
}
