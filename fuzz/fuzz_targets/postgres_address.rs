//! Any text as an address of PostgreSQL: an address or a fault, its place is an address of the
//! same place, and a password is shown by neither.

#![no_main]

use hapax::store::postgres::Address;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    check(text);
    check(&format!("postgres://{text}"));
    // A password of ours, before whatever comes.
    for address in [
        format!("postgres://u:ZYXWVUTS{text}@h/d"),
        format!("postgres://u:{text}ZYXWVUTS@h/d"),
        format!("postgres://h/d?password=ZYXWVUTS&{text}"),
    ] {
        if text.contains("ZYXWVUTS") {
            continue;
        }
        let shown = match Address::parse(&address) {
            Ok(address) => format!("{address} {address:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains("ZYXWVUTS"), "{shown}");
    }
});

fn check(text: &str) {
    let Ok(address) = Address::parse(text) else {
        return;
    };
    assert!(address.hosts() > 0);
    let again = Address::parse(address.place()).expect("a place is an address");
    assert_eq!(again.place(), address.place());
    assert_eq!(again.hosts(), address.hosts());
    assert_eq!(
        again.config().get_dbname().unwrap_or_default(),
        address.config().get_dbname().unwrap_or_default()
    );
}
