//! What a URL means, and that a wrong one is told without its secrets.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_postgres::config::{self, SslMode, SslNegotiation, TargetSessionAttrs};

use super::*;
use crate::clock::Clock;
use tls::Roots;

fn right(text: &str) -> Address {
    match Address::parse(text) {
        Ok(address) => address,
        Err(error) => panic!("{text}: {error}"),
    }
}

#[test]
fn a_place_names_hosts_ports_and_database_only() {
    let cases = [
        ("postgres://h", "postgres://h:5432/"),
        ("postgres://h/", "postgres://h:5432/"),
        ("postgres://u:s3cr3t@h/d", "postgres://h:5432/d"),
        ("postgresql://u:s3cr3t@h:1/d", "postgres://h:1/d"),
        ("postgres://:s3cr3t@h/d?", "postgres://h:5432/d"),
        ("postgres://s3cr3t@h/d", "postgres://h:5432/d"),
        (
            "postgres://u:s3cr3t@h1:1,h2,[::1]:3,[::2]/d",
            "postgres://h1:1,h2:5432,[::1]:3,[::2]:5432/d",
        ),
        ("postgres://h/d?port=6432", "postgres://h:6432/d"),
        (
            "postgres://h1,h2/d?port=6432",
            "postgres://h1:6432,h2:6432/d",
        ),
        ("postgres://h1,h2/d?port=1,2", "postgres://h1:1,h2:2/d"),
        ("postgres://h1,h2/d?port=1,", "postgres://h1:1,h2:5432/d"),
        ("postgres:///d?host=h1,h2", "postgres://h1:5432,h2:5432/d"),
        ("postgres:///?host=h&dbname=d", "postgres://h:5432/d"),
        ("postgres://u@/d?host=h", "postgres://h:5432/d"),
        (
            "postgres:///d?host=/run/postgresql",
            "postgres://%2Frun%2Fpostgresql:5432/d",
        ),
        (
            "postgres://u:s3cr3t@%2Frun%2Fpostgresql:6/d",
            "postgres://%2Frun%2Fpostgresql:6/d",
        ),
        (
            "postgres:///d?hostaddr=10.0.0.1",
            "postgres://10.0.0.1:5432/d",
        ),
        ("postgres:///d?hostaddr=::1", "postgres://[::1]:5432/d"),
        (
            "postgres://h1,h2/d?hostaddr=10.0.0.1,10.0.0.2",
            "postgres://h1:5432,h2:5432/d",
        ),
        (
            "postgres://h/d%20e%2Ff?password=s3cr3t&user=s3cr3t",
            "postgres://h:5432/d%20e%2Ff",
        ),
    ];
    for (text, place) in cases {
        let address = right(text);
        assert_eq!(address.place(), place, "{text}");
        assert_eq!(address.to_string(), place, "{text}");
        assert_eq!(format!("{address:?}"), format!("Address({place:?})"));
        assert_eq!(right(place).place(), place, "a place is an address");
    }
}

#[test]
fn the_driver_is_told_everything() {
    let address = right("postgres://us%65r:p%40s%3As%2f%25@h1:1,h2:2/d?options=-c%20a%3Db");
    let config = address.config();
    assert_eq!(config.get_user(), Some("user"));
    assert_eq!(config.get_password(), Some(b"p@s:s/%".as_slice()));
    assert_eq!(config.get_dbname(), Some("d"));
    assert_eq!(config.get_options(), Some("-c a=b"));
    assert_eq!(config.get_ports(), [1, 2]);
    let names = ["h1", "h2"].map(|name| config::Host::Tcp(name.to_owned()));
    assert_eq!(config.get_hosts(), names);
    assert_eq!(address.hosts(), 2);
    let socket = right("postgres:///d?host=/run/postgresql");
    let path = config::Host::Unix("/run/postgresql".into());
    assert_eq!(socket.config().get_hosts(), [path]);
}

#[test]
fn what_is_not_said_is_safe() {
    let one = right("postgres://h/d");
    let config = one.config();
    assert_eq!(config.get_application_name(), Some("hapax"));
    assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::Any);
    assert!(config.get_keepalives());
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(30));
    assert_eq!(
        config.get_tcp_user_timeout(),
        Some(&Duration::from_secs(10))
    );
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(5)));
    let two = right("postgres://h1,h2/d");
    let attrs = |address: &Address| address.config().get_target_session_attrs();
    assert_eq!(attrs(&two), TargetSessionAttrs::ReadWrite);
    let any = right("postgres://h1,h2/d?target_session_attrs=any");
    assert_eq!(attrs(&any), TargetSessionAttrs::Any);
    let read_only = right("postgres://h1/d?target_session_attrs=read-only");
    assert_eq!(attrs(&read_only), TargetSessionAttrs::ReadOnly);
}

#[test]
fn the_url_counts_before_the_settings() {
    let limit = |text: &str| {
        let address = right(text).with_connect_timeout(Duration::from_secs(3));
        let session = address.session.get_connect_timeout().copied();
        assert_eq!(session, address.config().get_connect_timeout().copied());
        session.expect("always a limit").as_secs()
    };
    assert_eq!(limit("postgres://h/d"), 3);
    assert_eq!(limit("postgres://h/d?connect_timeout=7"), 7);
    let text = "postgres://h/d?application_name=x&tcp_user_timeout=2500&keepalives=0\
                &keepalives_idle=60&keepalives_interval=6&keepalives_count=2";
    let address = right(text);
    let config = address.config();
    assert_eq!(config.get_application_name(), Some("x"));
    let user_timeout = Duration::from_millis(2_500);
    assert_eq!(config.get_tcp_user_timeout(), Some(&user_timeout));
    assert!(!config.get_keepalives());
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(60));
    assert_eq!(
        config.get_keepalives_interval(),
        Some(Duration::from_secs(6))
    );
    assert_eq!(config.get_keepalives_retries(), Some(2));
}

#[test]
fn tls_is_what_libpq_calls_it() {
    let file = || Some(Roots::File("r.pem".into()));
    let cases = [
        ("", Mode::Prefer, SslMode::Prefer, None),
        ("sslmode=disable", Mode::Disable, SslMode::Disable, None),
        ("sslmode=allow", Mode::Prefer, SslMode::Prefer, None),
        ("sslmode=prefer", Mode::Prefer, SslMode::Prefer, None),
        ("sslmode=require", Mode::Require, SslMode::Require, None),
        ("sslmode=verify-ca", Mode::VerifyCa, SslMode::Require, None),
        (
            "sslmode=verify-full",
            Mode::VerifyFull,
            SslMode::Require,
            None,
        ),
        (
            "sslmode=verify-full&sslrootcert=r.pem",
            Mode::VerifyFull,
            SslMode::Require,
            file(),
        ),
        (
            "sslrootcert=r.pem&sslmode=require",
            Mode::Require,
            SslMode::Require,
            file(),
        ),
        (
            "sslrootcert=system",
            Mode::VerifyFull,
            SslMode::Require,
            Some(Roots::System),
        ),
    ];
    for (query, mode, of_driver, roots) in cases {
        let address = right(&format!("postgres://h/d?{query}"));
        assert_eq!(address.tls.mode, mode, "{query}");
        assert_eq!(address.config().get_ssl_mode(), of_driver, "{query}");
        assert_eq!(address.tls.roots, roots, "{query}");
    }
    let socket = right("postgres:///d?host=/run/postgresql&sslmode=require");
    assert_eq!(socket.tls.mode, Mode::Disable, "as libpq does");
    let client = right("postgres://h/d?sslcert=c.pem&sslkey=k.pem");
    assert_eq!(client.tls.client, Some(("c.pem".into(), "k.pem".into())));
    let direct = right("postgres://h/d?sslmode=require&sslnegotiation=direct");
    let negotiation = direct.config().get_ssl_negotiation();
    assert_eq!(negotiation, SslNegotiation::Direct);
    assert!(direct.tls.is_direct);
}

#[test]
fn what_is_asked_for_and_done_anyway_is_taken() {
    right("postgres://h/d?gssencmode=disable&client_encoding=UTF8");
    right("postgres://h/d?channel_binding=require&load_balance_hosts=random");
}

/// Behind a URL that is right, and what is said of them.
const WRONG_PARAMETERS: &[(&str, &str)] = &[
    (
        "sslmode=on",
        "sslmode: expected disable or allow or prefer or require or verify-ca or verify-full, found \"on\"",
    ),
    (
        "sslmod=require",
        "sslmod: expected a parameter that Hapax knows (docs/configuration.md lists them)",
    ),
    (
        "connect_timeout=0",
        "connect_timeout: expected 1 to 600 seconds, found \"0\"",
    ),
    (
        "connect_timeout=5s",
        "connect_timeout: expected 1 to 600 seconds, found \"5s\"",
    ),
    (
        "tcp_user_timeout=10",
        "tcp_user_timeout: expected 1000 to 600000 milliseconds, found \"10\"",
    ),
    (
        "keepalives=yes",
        "keepalives: expected 0 or 1, found \"yes\"",
    ),
    (
        "keepalives_count=0",
        "keepalives_count: expected 1 to 100, found \"0\"",
    ),
    (
        "target_session_attrs=primary",
        "target_session_attrs: expected any or read-write or read-only, found \"primary\"",
    ),
    (
        "sslkey=k.pem",
        "sslcert: expected the certificate of sslkey",
    ),
    ("sslcert=c.pem", "sslkey: expected the key of sslcert"),
    (
        "sslrootcert=",
        "sslrootcert: expected the path of a file, found nothing",
    ),
    (
        "sslrootcert=r.pem",
        "sslmode: expected verify-full, verify-ca or require beside sslrootcert",
    ),
    (
        "sslrootcert=r.pem&sslmode=prefer",
        "sslmode: expected verify-full, verify-ca or require beside sslrootcert",
    ),
    (
        "sslnegotiation=direct",
        "sslmode: expected require or more beside sslnegotiation=direct",
    ),
    (
        "sslmode=require&sslmode=disable",
        "sslmode: expected it once, here or before the ?",
    ),
    ("host=g", "host: expected it once, here or before the ?"),
    ("dbname=e", "dbname: expected it once, here or before the ?"),
    (
        "user=s3cr3t",
        "user: expected it once, here or before the ?",
    ),
    (
        "password=s3cr3t",
        "password: expected it once, here or before the ?",
    ),
    (
        "port=1,2",
        "port: expected one for all hosts, or as many as there are, which is 1",
    ),
    ("port=0", "port: expected 1 to 65535"),
    (
        "hostaddr=10.0.0.1,10.0.0.2",
        "hostaddr: expected as many as there are hosts, which is 1",
    ),
    (
        "hostaddr=h",
        "hostaddr: expected IP addresses, separated by commas",
    ),
    (
        "gssencmode=require",
        "gssencmode: expected disable or prefer, found \"require\"",
    ),
    (
        "application_name=%",
        "application_name: expected text in UTF-8 without NUL, in which % begins %XX",
    ),
    (
        "application_name=%zz",
        "application_name: expected text in UTF-8 without NUL, in which % begins %XX",
    ),
    (
        "application_name=%ff",
        "application_name: expected text in UTF-8 without NUL, in which % begins %XX",
    ),
    (
        "application_name=a%00",
        "application_name: expected text in UTF-8 without NUL, in which % begins %XX",
    ),
    ("sslmode", "parameters: expected NAME=VALUE, separated by &"),
    (
        "s3cr3t=%",
        "***: expected text in UTF-8 without NUL, in which % begins %XX",
    ),
    (
        "S3cr3t=x",
        "***: expected a parameter that Hapax knows (docs/configuration.md lists them)",
    ),
];

#[test]
fn a_wrong_parameter_is_named_with_what_was_expected_and_found() {
    for &(query, expected) in WRONG_PARAMETERS {
        let text = format!("postgres://u:pw@h/d?{query}");
        let error = Address::parse(&text).expect_err(query);
        assert_eq!(error.to_string(), expected, "{query}");
    }
}

/// And the part that is wrong with them.
const WRONG_URLS: &[(&str, &str)] = &[
    ("s3cr3t", "scheme"),
    ("mysql://u:s3cr3t@h/d", "scheme"),
    ("host=h password=s3cr3t", "scheme"),
    ("postgres://", "host"),
    ("postgres:///d", "host"),
    ("postgres://u:s3cr3t@/d", "host"),
    ("postgres://u:s3cr3t@h1,/d", "host"),
    ("postgres://u:s3cr3t@[::1/d", "host"),
    ("postgres://u:s3cr3t@[::1]x/d", "host"),
    ("postgres://u:s3cr3t@h%2Cg/d", "host"),
    ("postgres://u:s3cr3t@a b/d", "host"),
    ("postgres://u:s3cr3t@h:port/d", "port"),
    ("postgres://u:s3cr3t@h:99999/d", "port"),
    ("postgres://u:s3cr3t@::1/d", "host"),
    // A password with signs that should have been escaped, or without its `@`.
    ("postgres://u:s3cr3t", "port"),
    ("postgres://u:s3cr3t/h/d", "port"),
    ("postgres://u:s3cr3t@s3cr3t@h/d", "user and password"),
    ("postgres://u:1/s3cr3t@h/d", "user and password"),
    ("postgres://u:1?s3cr3t=s3cr3t@h/d", "user and password"),
    ("postgres://u:1/?sslmode=s3cr3t@h/d", "user and password"),
    ("postgres://u:s3cr3t%@h/d", "password"),
    ("postgres://s3cr3t%zz@h/d", "user"),
    ("postgres://u:s3cr3t%00@h/d", "password"),
];

#[test]
fn a_wrong_url_shows_nothing_of_its_secrets() {
    for &(text, part) in WRONG_URLS {
        let error = Address::parse(text).expect_err(text);
        assert_eq!(error.part, part, "{text}: {error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("s3cr3t"), "{text}: {shown}");
    }
}

/// A place on which somebody listens who never says a word.
async fn silent() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let port = listener.local_addr().expect("its address").port();
    (listener, port)
}

#[tokio::test]
async fn each_server_gets_its_time_and_says_why_not() {
    let (_silent, one) = silent().await;
    let (closed, two) = silent().await;
    drop(closed);
    let text = format!("postgres://u:s3cr3t@127.0.0.1:{one},127.0.0.1:{two}/d?sslmode=disable");
    let address = right(&text).with_connect_timeout(Duration::from_millis(20));
    let connector = address.connector(Clock::system()).expect("no files");
    let error = connector.connect().await.expect_err("nobody is there");
    assert_eq!(error.refusals().count(), 1);
    let shown = error.to_string();
    let late = format!("127.0.0.1:{one}: no answer within 20ms; 127.0.0.1:{two}: ");
    assert!(
        shown.starts_with(&late) && shown.contains("refused"),
        "{shown}"
    );
    assert!(!format!("{shown} {error:?} {connector:?}").contains("s3cr3t"));
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = format!("postgres:///d?host={}&user=u", dir.path().display());
    let connector = right(&text).connector(Clock::system()).expect("no files");
    let error = connector.connect().await.expect_err("nobody is there");
    assert!(error.to_string().contains("No such file"), "{error}");
}
