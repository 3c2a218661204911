//! The proxy on real sockets: what it answers for, what it passes on unread, and what it refuses.

use axum::routing::{any, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream as Stream;
use tokio::task::JoinHandle;

use super::*;
use crate::listener::bind;

const LONG: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits {
    connections: 16,
    header: LONG,
    age: LONG,
    drain: LONG,
};

struct Running {
    address: SocketAddr,
    folder: tempfile::TempDir,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

async fn start_at(ip: [u8; 4]) -> Running {
    let listener = bind((ip, 0).into()).await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let (folder, stop) = (
        tempfile::tempdir().expect("a folder"),
        CancellationToken::new(),
    );
    let echo = |request: Request| async move {
        let host = request.headers().get(header::HOST).cloned();
        let host = host.map(|host| host.to_str().unwrap_or_default().to_owned());
        format!("{} {} at {host:?}", request.method(), request.uri())
    };
    let router = Router::new()
        .route("/hello", get(async || "hello"))
        .fallback(any(echo));
    let ca_dir = folder.path().join("ca");
    let proxy = serve(
        listener,
        router,
        ca_dir,
        LIMITS,
        Clock::system(),
        stop.clone(),
    );
    Running {
        address,
        folder,
        stop,
        served: tokio::spawn(proxy),
    }
}

async fn start() -> Running {
    start_at([127, 0, 0, 1]).await
}

impl Running {
    /// Sends a head; answers the stream, and what came up to the end of the answer's head.
    async fn send(&self, head: &str) -> (Stream, String) {
        let port = self.address.port();
        let mut stream = Stream::connect(("127.0.0.1", port))
            .await
            .expect("connects");
        stream.write_all(head.as_bytes()).await.expect("writes");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.expect("an answer"));
        }
        (stream, String::from_utf8(answer).expect("text"))
    }

    /// The whole answer to one request.
    async fn ask(&self, line: &str) -> String {
        let head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let (mut stream, mut answer) = self.send(&head).await;
        stream.read_to_string(&mut answer).await.expect("the rest");
        answer
    }

    async fn connect(&self, target: &str) -> (Stream, String) {
        self.send(&format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"
        ))
        .await
    }
}

/// A host that is not Meta's: says hello, then what it was told.
async fn other_host() -> SocketAddr {
    let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"hello").await.expect("writes");
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    });
    address
}

#[tokio::test]
async fn what_is_sent_to_it_directly_is_the_routers() {
    let running = start().await;
    assert!(running.ask("GET /hello").await.ends_with("hello"));
    let own = format!("GET http://{}/hello", running.address);
    assert!(running.ask(&own).await.ends_with("hello"));
    assert!(
        !running.folder.path().join("ca").exists(),
        "no authority was needed"
    );
}

#[tokio::test]
async fn a_request_in_clear_for_the_host_is_the_routers() {
    let running = start().await;
    for scheme in ["http", "https"] {
        let line = format!("POST {scheme}://graph.facebook.com/v25.0/1/messages?a=b");
        let answer = running.ask(&line).await;
        let expected = "POST /v25.0/1/messages?a=b at Some(\"graph.facebook.com\")";
        assert!(answer.ends_with(expected), "{answer}");
    }
}

#[tokio::test]
async fn a_request_in_clear_for_another_host_is_refused_with_what_to_do() {
    let running = start().await;
    let answer = running.ask("GET https://api.example.org/v1").await;
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    assert!(answer.contains("proxy: false"), "{answer}");
}

#[tokio::test]
async fn another_host_is_reached_unread() {
    let running = start().await;
    let other = other_host().await;
    let (mut stream, answer) = running.connect(&other.to_string()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stream.write_all(b", \x16\x03world").await.expect("writes");
    stream.shutdown().await.expect("ends its half");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.expect("reads");
    assert_eq!(all, b"hello, \x16\x03world");
    assert!(
        !running.folder.path().join("ca").exists(),
        "no authority was needed"
    );
}

#[tokio::test]
async fn a_host_that_is_not_there_is_told() {
    let running = start().await;
    let gone = bind(([127, 0, 0, 1], 0).into()).await.expect("binds");
    let address = gone.local_addr().expect("is bound");
    drop(gone);
    let (_stream, answer) = running.connect(&address.to_string()).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    let (_stream, answer) = running.connect("no-port.example.org").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn it_is_a_proxy_on_loopback_only() {
    let running = start_at([0, 0, 0, 0]).await;
    for target in ["graph.facebook.com:443", "127.0.0.1:9"] {
        let (_stream, answer) = running.connect(target).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
    let answer = running.ask("GET /v1/proxy").await;
    assert!(answer.contains("127.0.0.1"), "{answer}");
    assert!(running.ask("GET /hello").await.ends_with("hello"));
    assert!(!running.folder.path().join("ca").exists());
}

#[tokio::test]
async fn it_tells_what_it_is_and_makes_its_authority_for_that() {
    let running = start().await;
    let answer = running.ask("GET /v1/proxy").await;
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    let told: Description = serde_json::from_str(body).expect("a description");
    let authority = Authority::open(&told.ca_dir, Clock::system()).expect("opens");
    assert_eq!(told.host, HOST);
    assert_eq!(told.ca_sha256, authority.fingerprint());
    let folder = running.folder.path().canonicalize().expect("is there");
    assert_eq!(told.ca_dir, folder.join("ca"));
}

#[tokio::test]
async fn an_authority_that_can_not_be_had_is_told() {
    let running = start().await;
    std::fs::write(running.folder.path().join("ca"), "a file").expect("written");
    let (_stream, answer) = running.connect("graph.facebook.com:443").await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    // It is tried again: what was wrong may have been mended.
    std::fs::remove_file(running.folder.path().join("ca")).expect("deleted");
    let (_stream, answer) = running.connect("graph.facebook.com:443").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_stop_ends_tunnels_and_handshakes() {
    let running = start().await;
    let (mut tunnel, _) = running.connect(&other_host().await.to_string()).await;
    let mut hello = [0; 5];
    tunnel.read_exact(&mut hello).await.expect("hello");
    let (mut handshake, _) = running.connect("graph.facebook.com:443").await;
    running.stop.cancel();
    running.served.await.expect("ends");
    for stream in [&mut tunnel, &mut handshake] {
        let mut rest = Vec::new();
        stream
            .read_to_end(&mut rest)
            .await
            .expect("is closed in order");
        assert_eq!(rest, b"");
    }
}
