//! One authority for all, whom nobody else can use, and for one host.

use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{ServerName, UnixTime};

use super::*;

/// 2026-01-01.
const START: Timestamp = Timestamp(1_767_225_600_000);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn mode(path: &Path) -> u32 {
    let about = fs::metadata(path).expect("it is there");
    about.permissions().mode() & 0o777
}

fn open(folder: &Path) -> Result<Authority, AuthorityError> {
    Authority::open(folder, Clock::manual(START))
}

/// What a client that trusts the authority alone says of a certificate.
fn verify(
    authority: &Authority,
    shown: &CertifiedKey,
    host: &str,
    at: Timestamp,
) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).expect("a root");
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = verifier.build().expect("a verifier");
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    let seconds = u64::try_from(at.as_seconds()).expect("after 1970");
    let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let verified = verifier.verify_server_cert(&shown.cert[0], &[], &name, &[], at);
    verified.map(|_| ())
}

#[test]
fn of_many_who_make_one_at_once_all_get_the_same() {
    let folder = folder();
    let path = folder.path().join("deep/ca");
    let prints: Vec<String> = std::thread::scope(|scope| {
        let openers: Vec<_> = (0..16).map(|_| scope.spawn(|| open(&path))).collect();
        let opened = openers
            .into_iter()
            .map(|opener| opener.join().expect("no panic"));
        opened
            .map(|authority| authority.expect("opens").fingerprint())
            .collect()
    });
    assert_eq!(prints.len(), 16);
    assert!(prints.iter().all(|print| *print == prints[0]), "{prints:?}");
    let again = open(&path).expect("opens again");
    assert_eq!(again.fingerprint(), prints[0]);
    let shown = fs::read_to_string(again.certificate_file()).expect("the certificate");
    assert_eq!(shown, again.certificate_pem());
    assert!(!shown.contains("PRIVATE"));
    let files: Vec<_> = fs::read_dir(&path).expect("the folder").collect();
    assert_eq!(files.len(), 2, "nothing else is left: {files:?}");
}

#[test]
fn only_the_owner_may_read_the_key() {
    let folder = folder();
    let path = folder.path().join("ca");
    let authority = open(&path).expect("opens");
    let key = path.join(KEY_FILE);
    assert_eq!((mode(&path), mode(&key)), (0o700, 0o600));
    assert_eq!(mode(&authority.certificate_file()), 0o644);
    assert!(!format!("{authority:?}").contains("key"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("set");
    let said = open(&path).expect_err("is refused").to_string();
    assert!(
        said.contains("mode 640") && said.contains("chmod 600"),
        "{said}"
    );
}

#[test]
fn what_is_no_authority_is_told_and_left_alone() {
    let folder = folder();
    let path = folder.path().join("ca");
    let mut found = Vec::new();
    let one = open(&path).expect("opens");
    let key = fs::read_to_string(path.join(KEY_FILE)).expect("the key");
    let start = key.find("-----BEGIN CERTIFICATE").expect("the certificate");
    let other = open(&folder.path().join("other")).expect("opens");
    let mixed = key[..start].to_owned() + &other.certificate_pem();
    for wrong in [
        String::new(),
        key[..start].to_owned(),
        one.certificate_pem(),
        mixed,
    ] {
        fs::write(path.join(KEY_FILE), &wrong).expect("written");
        let said = open(&path).expect_err("is refused").to_string();
        assert!(said.contains("delete the file"), "{said}");
        found.push(
            said.split("found ")
                .nth(1)
                .expect("what")
                .split(';')
                .next()
                .map(str::to_owned),
        );
        let left = fs::read_to_string(path.join(KEY_FILE)).expect("the file");
        assert_eq!(left, wrong);
    }
    let expected = [
        "no key",
        "no certificate",
        "no key",
        "a certificate of another key",
    ];
    assert_eq!(found, expected.map(|text| Some(text.to_owned())));
}

#[test]
fn it_signs_for_the_host_and_can_for_no_other() {
    let folder = folder();
    let authority = open(&folder.path().join("ca")).expect("opens");
    let leaf = authority.leaf().expect("a certificate");
    verify(&authority, &leaf, HOST, START).expect("it is trusted");
    verify(&authority, &leaf, "example.org", START).expect_err("another host");
    for other in ["example.org", "facebook.com", "127.0.0.1"] {
        let forged = authority.sign(other, START).expect("is signed");
        let said = verify(&authority, &forged, other, START).expect_err("must not be trusted");
        assert!(
            said.to_string().contains("NameConstraint"),
            "{other}: {said}"
        );
    }
    // One below the host is allowed by its constraint, and is Meta's as well.
    let stranger = open(&folder.path().join("stranger")).expect("opens");
    let foreign = stranger.leaf().expect("a certificate");
    verify(&authority, &foreign, HOST, START).expect_err("another authority's");
}

#[test]
fn another_certificate_is_shown_long_before_one_ends() {
    let folder = folder();
    let clock = Clock::manual(START);
    let authority = Authority::open(&folder.path().join("ca"), clock.clone()).expect("opens");
    let serial = |leaf: &CertifiedKey| leaf.cert[0].to_vec();
    let first = authority.leaf().expect("a certificate");
    clock.advance(LEAF_AGE_MAX - Duration::from_secs(1));
    assert_eq!(serial(&authority.leaf().expect("one")), serial(&first));
    clock.advance(Duration::from_secs(1));
    let second = authority.leaf().expect("a certificate");
    assert_ne!(serial(&second), serial(&first));
    verify(&authority, &second, HOST, clock.now()).expect("it is trusted");
    // Whoever keeps a connection for as long has no reason to look again.
    verify(&authority, &first, HOST, clock.now()).expect("the first one still is");
    let end = START.after(LEAF_LIFE + Duration::from_secs(1));
    verify(&authority, &first, HOST, end).expect_err("its day is over");
}
