//! What a bot is told, by what it would have had.

use crate::clock::Clock;

use super::*;

const OURS: &str = "http://127.0.0.1:8081";
const OTHER: &str = "-----BEGIN CERTIFICATE-----\nonetwothreefour\n-----END CERTIFICATE-----\n";

struct Place {
    folder: tempfile::TempDir,
    authority: Authority,
    roots: String,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let roots = folder.path().join("other.pem");
        std::fs::write(&roots, OTHER).expect("written");
        let authority = Authority::open(&folder.path().join("ca"), Clock::system());
        Self {
            authority: authority.expect("an authority"),
            roots: roots.to_str().expect("UTF-8").to_owned(),
            folder,
        }
    }

    /// With roots of its own, so that none of the system are needed.
    fn prepare(&self, before: &[(&str, &str)]) -> Result<Variables, EnvironmentError> {
        let roots = ("SSL_CERT_FILE", self.roots.as_str());
        let pairs = [roots].into_iter().chain(before.iter().copied());
        let before = pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let around = Surroundings {
            proxy: OURS,
            base_url: OURS,
            authority: &self.authority,
        };
        prepare(&before, around)
    }

    fn told(&self, before: &[(&str, &str)]) -> Variables {
        self.prepare(before).expect("it can be told")
    }

    fn refused(&self, before: &[(&str, &str)]) -> String {
        self.prepare(before).expect_err("it is refused").to_string()
    }
}

#[test]
fn a_bot_is_told_the_proxy_whom_to_trust_and_the_address() {
    let place = Place::new();
    let told = place.told(&[]);
    assert_eq!(told["HTTPS_PROXY"], OURS);
    assert_eq!(told["https_proxy"], OURS);
    assert!(!told.contains_key("HTTP_PROXY") && !told.contains_key("http_proxy"));
    assert_eq!(told["NO_PROXY"], "localhost,127.0.0.1,::1");
    assert_eq!(told["no_proxy"], told["NO_PROXY"]);
    for name in BASE_URL_NAMES {
        assert_eq!(told[name], OURS, "{name}");
    }
    let ours = place.authority.certificate_pem();
    for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
        let bundle = std::fs::read_to_string(&told[name]).expect("a file");
        assert_eq!(bundle, format!("{OTHER}{ours}"), "{name}");
    }
    let node = std::fs::read_to_string(&told["NODE_EXTRA_CA_CERTS"]).expect("a file");
    assert_eq!(node, ours);
    let preload = place.authority.folder().join("preload.cjs");
    assert_eq!(
        told["NODE_OPTIONS"],
        format!("--require {}", preload.display())
    );
    assert_eq!(std::fs::read_to_string(preload).expect("a file"), PRELOAD);
}

#[test]
fn what_was_set_is_kept() {
    let place = Place::new();
    let another = place.folder.path().join("another.pem");
    std::fs::write(&another, OTHER.replace("onetwothreefour", "fivesixseven")).expect("written");
    let another = another.to_str().expect("UTF-8");
    let told = place.told(&[
        ("NO_PROXY", "example.org, 10.0.0.0/8"),
        ("no_proxy", "localhost,.example.net"),
        ("GRAPH_API_URL", "https://graph.facebook.com/v25.0"),
        ("WHATSAPP_API_URL", ""),
        ("NODE_OPTIONS", "--max-old-space-size=512"),
        ("NODE_EXTRA_CA_CERTS", another),
        ("CURL_CA_BUNDLE", another),
    ]);
    let excepted = "localhost,127.0.0.1,::1,example.org,10.0.0.0/8,.example.net";
    assert_eq!(told["NO_PROXY"], excepted);
    assert!(!told.contains_key("GRAPH_API_URL"));
    assert_eq!(told["WHATSAPP_API_URL"], OURS, "an empty one is none");
    assert!(told["NODE_OPTIONS"].starts_with("--max-old-space-size=512 --require /"));
    let holds = |name: &str, text: &str| {
        let bundle = std::fs::read_to_string(&told[name]).expect("a file");
        bundle.contains(text)
    };
    for name in [
        "NODE_EXTRA_CA_CERTS",
        "CURL_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
    ] {
        assert!(
            holds(name, "fivesixseven") && !holds(name, "onetwothreefour"),
            "{name}"
        );
    }
    assert!(holds("SSL_CERT_FILE", "onetwothreefour") && !holds("SSL_CERT_FILE", "fivesixseven"));
}

#[test]
fn to_be_told_again_changes_nothing() {
    let place = Place::new();
    let once = place.told(&[]);
    let pairs: Vec<_> = once
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let again = place.told(&pairs);
    for (name, value) in &again {
        assert_eq!(once.get(name), Some(value), "{name}");
    }
    // The base URLs are set already.
    assert_eq!(again.len(), once.len() - BASE_URL_NAMES.len());
}

#[test]
fn a_proxy_that_is_there_is_not_passed_over() {
    let place = Place::new();
    for name in OTHER_PROXIES {
        let said = place.refused(&[(name, "http://ann:hunter2@10.0.0.1:3128")]);
        assert!(
            said.starts_with(name) && !said.contains("hunter2"),
            "{said}"
        );
    }
    place.told(&[("HTTPS_PROXY", ""), ("https_proxy", OURS)]);
}

#[test]
fn an_exception_for_the_host_is_told() {
    let place = Place::new();
    for entry in [
        "*",
        "graph.facebook.com",
        ".facebook.com",
        "*.facebook.com",
        "Facebook.com",
        "com",
        "graph.facebook.com:443",
    ] {
        let said = place.refused(&[("NO_PROXY", &format!("example.org,{entry}"))]);
        assert!(
            said.starts_with("NO_PROXY") && said.contains(entry),
            "{said}"
        );
    }
    place.told(&[("NO_PROXY", "book.com,api.facebook.com,notfacebook.com")]);
}

#[test]
fn roots_that_are_none_are_told() {
    let place = Place::new();
    let said = place.refused(&[("CURL_CA_BUNDLE", "/nowhere.pem")]);
    assert!(
        said.starts_with("CURL_CA_BUNDLE") && said.contains("/nowhere.pem"),
        "{said}"
    );
    let empty = place.folder.path().join("empty");
    std::fs::create_dir(&empty).expect("made");
    let said = place.refused(&[("REQUESTS_CA_BUNDLE", empty.to_str().expect("UTF-8"))]);
    assert!(said.contains("no certificate in it"), "{said}");
}

#[test]
fn a_folder_of_roots_is_read_each_once() {
    let place = Place::new();
    let many = place.folder.path().join("many");
    std::fs::create_dir(&many).expect("made");
    std::fs::write(many.join("a.pem"), OTHER).expect("written");
    std::fs::write(many.join("0123abcd.0"), OTHER).expect("written");
    std::fs::write(many.join("README"), "none").expect("written");
    let told = place.told(&[("REQUESTS_CA_BUNDLE", many.to_str().expect("UTF-8"))]);
    let bundle = std::fs::read_to_string(&told["REQUESTS_CA_BUNDLE"]).expect("a file");
    let ours = place.authority.certificate_pem();
    assert_eq!(bundle, format!("{OTHER}{ours}"));
}

#[test]
fn node_is_told_a_path_as_it_reads_one() {
    assert_eq!(node_options("", "/a/p.cjs"), "--require /a/p.cjs");
    let quoted = "--require \"/my \\\"bot\\\"/p.cjs\"";
    assert_eq!(node_options("", "/my \"bot\"/p.cjs"), quoted);
    let twice = node_options(&node_options("-r x", "/a b"), "/a b");
    assert_eq!(twice, "-r x --require \"/a b\"");
}
