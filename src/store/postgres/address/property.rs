//! What reading an address promises of any text: an address or a fault, never a password.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::model::property;

/// A password that is found wherever it is shown; in no case that a name is shown in.
const PASSWORD: &str = "Zyxwv";

fn shown(read: &Result<Address, AddressError>) -> String {
    match read {
        Ok(address) => format!("{address} {address:?} {}", address.place()),
        Err(error) => format!("{error} {error:?}"),
    }
}

/// Any text, without the letters of the password's first half.
fn noise() -> impl Strategy<Value = String> {
    "[a-w0-9@:/?#%&=,.\\[\\] é\0+_-]{0,8}"
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9.-]{0,9}",
        Just("[::1]".to_owned()),
        Just("%2Frun%2Fpostgresql".to_owned()),
        Just("10.0.0.1".to_owned()),
    ]
}

fn parameter() -> impl Strategy<Value = String> {
    let names = vec![
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "sslnegotiation",
        "channel_binding",
        "connect_timeout",
        "tcp_user_timeout",
        "keepalives",
        "keepalives_idle",
        "options",
        "application_name",
        "target_session_attrs",
        "load_balance_hosts",
        "client_encoding",
        "sslpassword",
    ];
    let values = vec![
        "",
        "a",
        "a,b",
        "%2Ftmp",
        "1",
        "60",
        "5432,5433",
        "10.0.0.1",
        "::1,::2",
        "disable",
        "prefer",
        "require",
        "verify-full",
        "system",
        "direct",
        "any",
        "random",
        "UTF8",
        "%00",
        "%C3%A9%20",
    ];
    (select(names), select(values)).prop_map(|(name, value)| format!("{name}={value}"))
}

/// An address with `who` in the place of user and password.
fn address(who: &'static str) -> impl Strategy<Value = String> {
    let hosts = prop::collection::vec((host(), prop::option::of(any::<u16>())), 0..3);
    let database = prop::option::of("[a-z %2F]{0,6}");
    let parameters = prop::collection::vec(parameter(), 0..4);
    (hosts, database, parameters).prop_map(move |(hosts, database, parameters)| {
        let one = |(host, port): (String, Option<u16>)| match port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        };
        let hosts: Vec<String> = hosts.into_iter().map(one).collect();
        let mut text = format!("postgres://{who}{}", hosts.join(","));
        database
            .iter()
            .for_each(|name| text.push_str(&format!("/{name}")));
        if !parameters.is_empty() {
            text.push_str(&format!("?{}", parameters.join("&")));
        }
        text
    })
}

proptest! {
    #![proptest_config(property::cases(384))]

    #[test]
    fn any_text_is_an_address_or_a_fault(text in "\\PC*", noise in noise()) {
        let _ = Address::parse(&text);
        let _ = Address::parse(&format!("postgres://{text}"));
        let _ = Address::parse(&format!("postgresql://{noise}"));
    }

    #[test]
    fn a_place_is_an_address_of_the_same_place(text in address("u:pw@")) {
        if let Ok(address) = Address::parse(&text) {
            let again = Address::parse(address.place());
            let place = again.map(|again| (again.place().to_owned(), again.hosts()));
            prop_assert_eq!(place, Ok((address.place().to_owned(), address.hosts())));
        }
    }

    #[test]
    fn a_password_is_not_shown(
        right in address("u:Zyxwv@"),
        named in address(""),
        before in noise(),
        colon in "[:@/]?",
        around in [noise(), noise()],
    ) {
        let separator = if named.contains('?') { '&' } else { '?' };
        for text in [right, format!("{named}{separator}password={PASSWORD}")] {
            let read = Address::parse(&text);
            prop_assert!(!shown(&read).contains(PASSWORD), "{} {}", text, shown(&read));
            if let Ok(address) = read {
                prop_assert_eq!(address.config().get_password(), Some(PASSWORD.as_bytes()));
            }
        }
        // Signs too many in the place of user and password, whose end still says `@`.
        let who = format!("{before}{colon}{}{PASSWORD}{}", around[0], around[1]);
        let read = Address::parse(&format!("postgres://{who}@h/d"));
        prop_assert!(!shown(&read).contains(PASSWORD), "{} {}", who, shown(&read));
    }

    #[test]
    fn a_password_of_any_signs_comes_through(password in "\\PC{1,12}", database in "\\PC{1,8}") {
        let (who, which) = (url::encoded(&password), url::encoded(&database));
        let address = Address::parse(&format!("postgres://u:{who}@h/{which}"));
        let address = address.expect("everything is escaped");
        prop_assert_eq!(address.config().get_password(), Some(password.as_bytes()));
        prop_assert_eq!(address.config().get_dbname(), Some(&*database));
        prop_assert_eq!(address.place(), format!("postgres://h:5432/{which}"));
    }
}
