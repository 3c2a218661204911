//! Any file, env-file and variables: settings or faults, no secret shown, and what is printed is
//! read as the same. The three parts stand behind each other, parted by lines of `----`.

#![no_main]

use std::cell::RefCell;
use std::path::PathBuf;

use hapax::config::{self, Loaded, Origins, Sources};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// The required secrets. In capitals, which no other setting is right with.
const SECRETS: [(&str, &str); 3] = [
    ("WHATSAPP_ACCESS_TOKEN", "ZYXWVUTSRQPONMLKJ1"),
    ("WHATSAPP_APP_SECRET", "ZYXWVUTSRQPONMLKJ2"),
    ("WHATSAPP_VERIFY_TOKEN", "ZYXWVUTSRQPONMLKJ3"),
];
const SECRET: &str = "ZYXWVUTSRQPONMLKJ";
const PART: &str = "\n----\n";

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

fn write(name: &str, text: &str) -> PathBuf {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a folder"));
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    })
}

fn read(file: &str, env_file: Option<&str>, variables: &str) -> Result<Loaded, String> {
    let mut env: Vec<(String, String)> = vec![("HAPAX_HANDLER".into(), "echo".into())];
    env.extend(SECRETS.map(|(name, value)| (name.to_owned(), value.to_owned())));
    env.extend(variables.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        // The secrets themselves are set above, and nothing else.
        let is_secret = name.starts_with("WHATSAPP_") && value.contains(SECRET);
        (!is_secret).then(|| (name.to_owned(), value.to_owned()))
    }));
    let sources = Sources {
        file: Some(write("hapax.toml", file)),
        env_file: env_file.map(|text| write("env", text)),
        env,
    };
    let _ = config::load_store(sources.clone());
    config::load(sources).map_err(|faults| format!("{faults} {faults:?}"))
}

fuzz_target!(|text: &str| {
    // In the input itself it may stand anywhere.
    if text.contains(SECRET) {
        return;
    }
    let mut parts = text.splitn(3, PART);
    let file = parts.next().unwrap_or_default();
    let env_file = parts.next();
    let variables = parts.next().unwrap_or_default();
    match read(file, env_file, variables) {
        Ok(first) => {
            let printed = config::render(&first.config, &Origins::default());
            let notes = first.notes.join("\n");
            assert!(
                !format!("{printed} {notes} {first:?}").contains(SECRET),
                "{printed}"
            );
            // A query is not printed, so that it can't be read again.
            if printed.contains("?***") {
                return;
            }
            let handler = format!("HAPAX_HANDLER={}", first.config.handler.as_str());
            match read(&printed, None, &handler) {
                Ok(second) => {
                    assert_eq!(config::render(&second.config, &Origins::default()), printed);
                }
                Err(faults) => panic!("{faults}\n{printed}"),
            }
        }
        Err(faults) => assert!(!faults.contains(SECRET), "{faults}"),
    }
});
