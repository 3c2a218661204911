//! A bot that has `graph.facebook.com` built in reaches Hapax when it is started by `hapax run`,
//! whatever it is written in; other hosts it reaches as before, and whoever was not started so
//! trusts nothing that Hapax signs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use hapax::clock::Clock;
use hapax::listener::{self, Limits};
use hapax::proxy::{Authority, HOST};
use hapax::simulator::elsewhere::{media, pattern};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use rustix::process::{Pid, Signal, kill_process};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::provided::{free_port, offered};
use crate::scene::says;
use crate::talk::field;
use crate::world::{LIMIT, NUMBER, Node, TOKEN, World};

const EXIT_SETTINGS: i32 = 2;
/// As curl says that it does not trust a certificate.
const EXIT_UNTRUSTED: i32 = 60;

/// A host that is not Meta's, with a certificate that an authority of its own has signed. On an
/// address of this machine that no program takes for one.
struct Other {
    url: String,
    /// Who signs for it, as PEM.
    authority: String,
    /// Requests that were made within its own TLS.
    asked: Arc<AtomicUsize>,
}

const OTHER: &str = "127.0.0.2";

impl Other {
    async fn start() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = named("another authority");
        let root = params.self_signed(&key).expect("an authority");
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([OTHER.to_owned()]).expect("parameters");
        params.distinguished_name = named(OTHER);
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &issuer).expect("a certificate");
        let private = PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], private.into());
        let acceptor = TlsAcceptor::from(Arc::new(config.expect("a certificate and its key")));
        let listener = TcpListener::bind((OTHER, 0)).await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let answer = async move || {
            count.fetch_add(1, Ordering::Relaxed);
            Json(json!({"host": "another"}))
        };
        tokio::spawn(serve(
            listener,
            acceptor,
            Router::new().route("/", get(answer)),
        ));
        let file = pem(root.der());
        Self {
            url: format!("https://{address}/"),
            authority: file,
            asked,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

fn pem(certificate: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, router: Router) {
    let limits = Limits {
        connections: 64,
        header: LIMIT,
        age: LIMIT,
        drain: LIMIT,
    };
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                let (clock, stop) = (Clock::system(), CancellationToken::new());
                listener::connection(stream, router, limits, clock, stop).await;
            }
        });
    }
}

/// A gateway, another host, and a folder in which a bot lives. The bot's programs trust the other
/// host already.
struct Scene {
    node: Node,
    bot_side: SocketAddr,
    other: Other,
    home: PathBuf,
    world: World,
}

impl Scene {
    async fn new() -> Self {
        // Whoever was first in this process; every client needs one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let world = World::new();
        let node = world.node(&[]).await;
        let line = node.logged(|line| says(line, "serving")).await;
        let bot_side = field(&line, "bot").parse();
        let other = Other::start().await;
        let home = world.folder.path().join("the bot's");
        std::fs::create_dir(&home).expect("a folder");
        std::fs::write(home.join("roots.pem"), &other.authority).expect("written");
        Self {
            bot_side: bot_side.expect("an address"),
            node,
            other,
            home,
            world,
        }
    }

    /// `hapax run` as somebody types it who lives elsewhere, and has no secret of the gateway.
    fn run(&self, arguments: &[&str]) -> Command {
        let roots = self.home.join("roots.pem");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
        command
            .env_clear()
            .env("PATH", path())
            .env("HOME", &self.home)
            .env("HAPAX_BOT_LISTEN", self.bot_side.to_string())
            .env("SSL_CERT_FILE", &roots)
            .env("NODE_EXTRA_CA_CERTS", &roots)
            .current_dir(&self.home)
            .arg("run")
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn variables(&self) -> BTreeMap<String, String> {
        let out = succeeded(self.run(&["--print-env"])).await;
        let pair = |line: &str| {
            let (name, value) = line.split_once('=').expect("NAME=value");
            (name.to_owned(), value.to_owned())
        };
        out.lines().map(pair).collect()
    }

    fn authority(&self) -> Authority {
        let folder = self.world.folder.path().join("hapax-ca");
        Authority::open(&folder, Clock::system()).expect("the gateway's authority")
    }

    /// The thread that the gateway knows of somebody, asked without any proxy.
    async fn thread(&self, phone: &str) -> Value {
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        let url = format!("http://{}/v1/threads/{NUMBER}/{phone}", self.bot_side);
        let answer = client.get(url).send().await.expect("an answer");
        let known: Value = answer.json().await.expect("JSON");
        known["thread"].clone()
    }

    /// Every client has made a thread at the gateway, has sent a message that came to Meta by way
    /// of it, and has reached the other host.
    async fn check(&self, out: &str, clients: usize) {
        let mut seen = 0;
        for line in out.lines().filter(|line| line.starts_with("{\"phone\"")) {
            let said: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(said["other"], json!({"host": "another"}), "{line}");
            let phone = said["phone"].as_str().expect("a phone number");
            let thread = said["thread"].as_str().expect("a thread");
            assert_eq!(self.thread(phone).await, thread, "{line}");
            let sent = self.world.graph.accepted();
            let sent = sent.iter().filter(|sent| sent.recipient == phone);
            let sent: Vec<_> = sent
                .map(|sent| (sent.text(), sent.wamid.as_deref()))
                .collect();
            assert_eq!(sent, [(thread, said["sent"].as_str())], "{line}");
            seen += 1;
        }
        assert_eq!(seen, clients, "{out}");
        assert!(self.other.asked() >= clients, "in its own TLS");
    }
}

/// Where programs are: a setting of the machine, and the same for all.
#[expect(
    clippy::disallowed_methods,
    reason = "a setting of the tests, not of Hapax"
)]
fn path() -> String {
    std::env::var("PATH").expect("there is a PATH")
}

async fn ended(mut command: Command) -> Output {
    let output = Clock::system().timeout(LIMIT, command.output()).await;
    output.expect("it ends in time").expect("it runs")
}

async fn succeeded(command: Command) -> String {
    let output = ended(command).await;
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn left_out(what: &str) {
    eprintln!("not run: {what} (./test --all provides it)");
}

fn client(variables: &BTreeMap<String, String>, roots: &str) -> reqwest::Client {
    let roots = reqwest::Certificate::from_pem_bundle(roots.as_bytes()).expect("certificates");
    let proxy = reqwest::Proxy::https(&variables["HTTPS_PROXY"]).expect("a proxy");
    let client = reqwest::Client::builder().proxy(proxy).timeout(LIMIT);
    client.tls_certs_only(roots).build().expect("a client")
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_comes_here_another_host_is_reached_unread_and_nobody_else_trusts_it() {
    let scene = Scene::new().await;
    let variables = scene.variables().await;
    let bundle = std::fs::read_to_string(&variables["SSL_CERT_FILE"]).expect("the roots");
    let ours = scene.authority().certificate_pem();
    assert_eq!(
        bundle.matches("BEGIN").count(),
        2,
        "what was there, and one more"
    );

    let bot = client(&variables, &bundle);
    let url = format!("https://{HOST}/v1/threads/orphans");
    let answer = bot.get(&url).send().await.expect("an answer");
    assert_eq!(answer.version(), reqwest::Version::HTTP_11);
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!(body["orphans"], json!([]), "{body}");

    let answer = bot.get(&scene.other.url).send().await.expect("an answer");
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!((body, scene.other.asked()), (json!({"host": "another"}), 1));
    // Whoever trusts Hapax alone sees that it is the other host's own certificate.
    let stranger = client(&variables, &ours);
    stranger
        .get(&url)
        .send()
        .await
        .expect("the host that it signs for");
    let refused = stranger.get(&scene.other.url).send().await;
    assert!(refused.is_err() && scene.other.asked() == 1, "{refused:?}");

    // And who was not told of it does not trust it.
    let outside = client(&variables, &scene.other.authority);
    outside
        .get(&scene.other.url)
        .send()
        .await
        .expect("an answer");
    let refused = outside.get(&url).send().await.expect_err("is not trusted");
    assert!(
        format!("{refused:?}").contains("UnknownIssuer"),
        "{refused:?}"
    );
    scene
        .node
        .logged(|line| field(line, "message").contains("did not accept hapax"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn media_go_through_the_proxy_in_pieces() {
    const LENGTH: u64 = 16 << 20;
    const HELD_MAX: u64 = 8 << 20;
    let scene = Scene::new().await;
    let variables = scene.variables().await;
    let roots = std::fs::read_to_string(&variables["SSL_CERT_FILE"]).expect("the roots");
    let bot = client(&variables, &roots);
    let up = async |length: u64| {
        let body = reqwest::Body::wrap_stream(media(length).into_data_stream());
        let call = bot.post(format!("https://{HOST}/v25.0/{NUMBER}/media"));
        let call = call.header("content-type", "multipart/form-data; boundary=x");
        let answer = call.bearer_auth(TOKEN).body(body).send().await;
        answer.expect("it is answered").status()
    };
    // So that what is made once is there already.
    assert_eq!(up(1 << 16).await, 200);
    let before = scene.node.high_water();
    assert_eq!(up(LENGTH).await, 200);
    let calls = scene.world.graph.elsewhere();
    let call = calls.last().expect("Meta was called");
    assert!(
        call.is_pattern && call.length == LENGTH,
        "{} bytes",
        call.length
    );

    let down = bot.get(format!("https://{HOST}/media/{LENGTH}"));
    let mut down = down
        .bearer_auth(TOKEN)
        .send()
        .await
        .expect("it is answered");
    let mut length = 0;
    while let Some(piece) = down.chunk().await.expect("it comes whole") {
        let is_right = |(at, byte): (u64, &u8)| pattern(at) == *byte;
        assert!((length..).zip(&piece).all(is_right));
        length += piece.len() as u64;
    }
    assert_eq!(length, LENGTH);
    let held = scene.node.high_water() - before;
    assert!(held < HELD_MAX, "{held} bytes more were held");
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_is_led_here_and_not_outside() {
    let scene = Scene::new().await;
    if ended_with_nothing("curl").await {
        return left_out("curl");
    }
    let graph = "https://graph.facebook.com/v1/threads/orphans";
    let arguments = ["--", "curl", "-sS", "-m", "60", graph];
    let out = succeeded(scene.run(&arguments)).await;
    assert_eq!(out, "{\"orphans\":[]}");
    let arguments = ["curl", "-sSv", "-m", "60", &scene.other.url];
    let output = ended(scene.run(&arguments)).await;
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(out, "{\"host\":\"another\"}", "{err}");
    assert!(
        err.contains(&format!("CONNECT {OTHER}:")),
        "through the tunnel: {err}"
    );

    let mut outside = Command::new("curl");
    outside.args(["-sS", "-m", "60", "-x", &scene.bot_side.to_string(), graph]);
    assert_eq!(ended(outside).await.status.code(), Some(EXIT_UNTRUSTED));
}

async fn ended_with_nothing(program: &str) -> bool {
    let tried = Command::new(program).arg("--version").output().await;
    tried.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_in_python_are_led_here() {
    let Some(python) = offered("TEST_PYTHON") else {
        return left_out("the HTTP clients of Python");
    };
    let scene = Scene::new().await;
    let script = scripts().join("calls.py");
    let script = script.to_str().expect("UTF-8");
    let arguments = [&*python, script, NUMBER, TOKEN, &scene.other.url];
    scene
        .check(&succeeded(scene.run(&arguments)).await, 6)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_in_node_are_led_here() {
    let Some(modules) = offered("TEST_NODE_MODULES") else {
        return left_out("the HTTP clients of Node.js");
    };
    let scene = Scene::new().await;
    symlink(modules, scene.home.join("node_modules")).expect("a link");
    for script in ["calls.mjs", "calls.cjs"] {
        std::fs::copy(scripts().join(script), scene.home.join(script)).expect("copied");
    }
    let arguments = ["node", "calls.mjs", NUMBER, TOKEN, &scene.other.url];
    scene
        .check(&succeeded(scene.run(&arguments)).await, 7)
        .await;

    // By way of npm, which is a program for Node.js itself and starts a shell.
    let start = format!("node calls.cjs {NUMBER} {TOKEN} {}", scene.other.url);
    let package = json!({"name": "bot", "scripts": {"start": start}}).to_string();
    std::fs::write(scene.home.join("package.json"), package).expect("written");
    let out = succeeded(scene.run(&["npm", "start", "--silent"])).await;
    scene.check(&out, 3).await;
    let proxy = format!("http://{}", scene.bot_side);
    let said = format!("{{\"own\":null,\"child\":\"{proxy} {proxy}\"}}");
    assert!(out.lines().any(|line| line == said), "{out}");
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_ends_as_if_nobody_had_started_it() {
    let scene = Scene::new().await;
    let output = ended(scene.run(&["--", "sh", "-c", "echo out; exit 7"])).await;
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(7), "out\n".into())
    );
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains(&format!("http://{}", scene.bot_side)),
        "{said}"
    );

    // With the signals that it is sent, and as the child of who has started it.
    for (signal, expected) in [(Signal::TERM, Some(9)), (Signal::INT, Some(8))] {
        // A signal that comes just before a shell waits is seen when that wait is over.
        let waits = "for _ in $(seq 60); do sleep 1; done";
        let script = format!("trap 'exit 9' TERM; trap 'exit 8' INT; echo $$; {waits}");
        let mut command = scene.run(&["sh", "-c", &script]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("it runs");
        let out = child.stdout.take().expect("is piped");
        let line = BufReader::new(out)
            .lines()
            .next_line()
            .await
            .expect("a line");
        let pid: i32 = line.expect("its number").parse().expect("a number");
        assert_eq!(child.id().map(|id| id as i32), Some(pid));
        kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("is sent");
        let ended = Clock::system().timeout(LIMIT, child.wait()).await;
        assert_eq!(ended.expect("in time").expect("ends").code(), expected);
    }
    let output = ended(scene.run(&["sh", "-c", "kill -KILL $$"])).await;
    assert_eq!(output.status.signal(), Some(Signal::KILL.as_raw()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_can_not_be_started_is_told_as_a_shell_tells_it() {
    let scene = Scene::new().await;
    let output = ended(scene.run(&["no-such-program", "--port", "1"])).await;
    assert_eq!(output.status.code(), Some(127));
    assert!(text(&output.stderr).contains("found no no-such-program"));
    let file = scene.home.join("roots.pem");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("set");
    let output = ended(scene.run(&["./roots.pem"])).await;
    assert_eq!(output.status.code(), Some(126));
    assert!(text(&output.stderr).contains("./roots.pem"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_is_told_before_the_bot_starts() {
    let scene = Scene::new().await;
    let refused = async |mut command: Command, words: &[&str]| {
        command.arg("--print-env");
        let output = ended(command).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(EXIT_SETTINGS), "{said}");
        assert_eq!(text(&output.stdout), "");
        for word in words {
            assert!(said.contains(word), "{word}: {said}");
        }
    };
    let nobody = format!("http://127.0.0.1:{}", free_port());
    refused(scene.run(&["--url", &nobody]), &["hapax serve", &nobody]).await;
    let admin = format!("http://{}", scene.node.admin);
    refused(scene.run(&["--url", &admin]), &["404", &admin]).await;
    refused(scene.run(&["--url", "http://10.0.0.1:8081"]), &["loopback"]).await;
    let mut proxied = scene.run(&[]);
    proxied.env("HTTPS_PROXY", "http://10.0.0.1:3128");
    refused(proxied, &["HTTPS_PROXY", "env -u HTTPS_PROXY"]).await;

    // The authority has been made by now; another one would make no bot work.
    let known = scene.authority();
    let folder = known.folder().to_str().expect("UTF-8");
    std::fs::create_dir(scene.home.join("empty")).expect("a folder");
    refused(scene.run(&["--ca-dir", "empty"]), &["empty", folder]).await;
    refused(scene.run(&["--ca-dir", "nowhere"]), &["nowhere", folder]).await;
    assert!(!scene.home.join("nowhere").exists());
    assert!(!scene.home.join("empty/key.pem").exists());
    let other = scene.home.join("other");
    Authority::open(&other, Clock::system()).expect("another authority");
    refused(scene.run(&["--ca-dir", "other"]), &["another one", folder]).await;
    succeeded(scene.run(&["--ca-dir", folder, "--print-env"])).await;
}

/// Nothing that bots keep open holds up a stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_stops_in_order_with_bots_behind_it() {
    let mut scene = Scene::new().await;
    let variables = scene.variables().await;
    let bundle = std::fs::read_to_string(&variables["SSL_CERT_FILE"]).expect("the roots");
    let bot = client(&variables, &bundle);
    for url in [
        format!("https://{HOST}/v1/threads/orphans"),
        scene.other.url.clone(),
    ] {
        let answer = bot.get(url).send().await.expect("an answer");
        answer.bytes().await.expect("all of it");
    }
    let clock = Clock::system();
    let stopped = clock
        .timeout(LIMIT + Duration::from_secs(1), scene.node.stop())
        .await;
    assert!(stopped.expect("in time").success());
    assert!(
        !scene.node.log_text().contains("was cut"),
        "{}",
        scene.node.log_text()
    );
}
