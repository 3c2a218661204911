//! Reads the sources and the pages as text, and holds what no compiler holds: which module may
//! import which, where Meta's words and SQL may stand, and that the pages speak of what exists.
//!
//! Knows Rust no further than comments, strings and braces. A check that is in the way of
//! something better may be changed together with the rule in `CONTRIBUTING.md`.

mod crash_points;
mod project;
mod reader;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hapax::telemetry::logging::FIELDS;

use self::project::{found, mentions, pages, quoted, read, root, sources};
use self::source::Source;

/// Every top-level module and its level. A module imports modules of a lower level only.
const LEVELS: [(&str, u8); 22] = [
    ("model", 0),
    ("clock", 1),
    ("crash_point", 1),
    ("guard", 1),
    ("listener", 2),
    ("telemetry", 2),
    ("whatsapp", 2),
    ("handler", 3),
    ("proxy", 3),
    ("store", 3),
    ("egress", 4),
    ("ingress", 4),
    ("janitor", 4),
    ("relay", 4),
    ("sender", 4),
    ("threads", 4),
    ("worker", 4),
    ("admin", 5),
    ("config", 5),
    ("simulator", 5),
    ("app", 6),
    ("cli", 7),
];
/// Modules that import less than their level allows: a handler sees neither ledger nor Meta, and
/// the simulator is the other side of the wire.
const ONLY: [(&str, &[&str]); 2] = [
    ("handler", &["clock", "model"]),
    ("simulator", &["clock", "model"]),
];
/// Modules that only one other may import.
const ONLY_BY: [(&str, &str); 1] = [("simulator", "cli")];

const FILE_LINES_MAX: usize = 600;
const LINE_CHARS_MAX: usize = 100;

#[test]
fn a_module_imports_lower_levels_only() {
    let mut faults = Vec::new();
    for source in sources(&["src"]) {
        let Some(owner) = source.module.first().filter(|_| !source.is_root()) else {
            continue;
        };
        for (line, name) in source.imports() {
            if let Some(why) = forbids(owner, &name) {
                faults.push(format!("{}:{line}: {why}", source.path));
            }
        }
    }
    none(
        &faults,
        "an import goes up or sideways. Move what both need further down, or let the two meet \
         in the store (ARCHITECTURE.md, The map)",
    );
}

#[test]
fn every_module_has_a_level() {
    let named: BTreeSet<String> = LEVELS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let there: BTreeSet<String> = sources(&["src"])
        .iter()
        .filter(|source| !source.is_root())
        .filter_map(|source| source.module.first().cloned())
        .collect();
    assert_eq!(there, named, "the table of levels in this file is not true");
}

#[test]
fn every_file_says_what_it_is_for() {
    let opens = |source: &Source| source.text.starts_with("//!");
    let faults: Vec<String> = sources(&["src", "tests", "examples"])
        .iter()
        .filter(|source| !opens(source))
        .map(|source| format!("{}:1: no //! at the top", source.path))
        .collect();
    none(
        &faults,
        "a file opens with //!: what it is for and what it must not do",
    );
}

#[test]
fn files_and_lines_are_short() {
    let mut faults = Vec::new();
    for source in sources(&["src", "tests", "examples"]) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            let path = &source.path;
            faults.push(format!("{path}: {lines} lines, at most {FILE_LINES_MAX}"));
        }
        for (index, (text, code)) in source.text.lines().zip(source.code.lines()).enumerate() {
            let comment = text.trim_start();
            // A row of a table and an address can't be broken; a string may be left whole.
            let is_prose = comment.starts_with("//")
                && !comment.trim_start_matches(['/', '!', ' ']).starts_with('|')
                && !comment.contains("://");
            let chars = if is_prose { text } else { code }.chars().count();
            if chars > LINE_CHARS_MAX {
                let line = index + 1;
                faults.push(format!("{}:{line}: {chars} characters", source.path));
            }
        }
    }
    none(&faults, "too long to read: split the file, break the line");
}

#[test]
fn every_file_is_part_of_the_program() {
    let all = sources(&["src", "tests"]);
    let there: BTreeSet<&str> = all.iter().map(|source| source.path.as_str()).collect();
    let mut reached = BTreeSet::new();
    for source in &all {
        if source.is_root() {
            reached.insert(source.path.clone());
        }
        let path = Path::new(&source.path);
        let parent = path.parent().expect("a file lies in a folder");
        let folder = match path.file_stem().and_then(|stem| stem.to_str()) {
            Some(stem) if stem != "mod" && !source.is_root() => parent.join(stem),
            _ => parent.to_owned(),
        };
        for name in source.declared_files() {
            for file in [format!("{name}.rs"), format!("{name}/mod.rs")] {
                reached.insert(folder.join(file).to_string_lossy().into_owned());
            }
        }
    }
    let faults: Vec<String> = there
        .into_iter()
        .filter(|path| !reached.contains(*path))
        .map(|path| format!("{path}: no `mod` line leads here"))
        .collect();
    none(&faults, "a file that is never compiled");
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not find itself.
    let words = [
        ["FIX", "ME"].concat(),
        ["TO", "DO"].concat(),
        ["todo", "!"].concat(),
        ["unimplemented", "!"].concat(),
        ["#[ig", "nore"].concat(),
    ];
    none(
        &mentions(&["src", "tests", "examples"], &words),
        "finish it, or say in the commit and the change log what is not there",
    );
}

#[test]
fn no_page_speaks_of_a_place_outside() {
    let words = [["../sha", "red"].concat(), ["/wo", "rk/"].concat()];
    let mut faults = mentions(&["src", "tests", "examples"], &words);
    for (path, text) in pages() {
        faults.extend(found(&path, &text, &words));
    }
    none(
        &faults,
        "this path exists on one machine only; say it in the project's own words",
    );
}

#[test]
fn only_the_store_knows_sql() {
    let words = ["SELECT ", "INSERT ", "UPDATE ", "DELETE FROM "];
    let mut faults = Vec::new();
    for source in sources(&["src", "examples"]) {
        if source.module.first().is_some_and(|name| name == "store") {
            continue;
        }
        for (line, string) in &source.strings {
            if words.iter().any(|word| string.contains(word)) {
                faults.push(format!("{}:{line}: SQL", source.path));
            }
        }
    }
    none(
        &faults,
        "SQL stands in src/store only: name it as a verb of `Store` there",
    );
}

#[test]
fn only_whatsapp_knows_metas_json() {
    let words = ["biz_opaque_callback_data", "messaging_product"];
    let mut faults = Vec::new();
    for source in sources(&["src", "examples"]) {
        let owner = source.module.first().map(String::as_str);
        if matches!(owner, Some("whatsapp" | "simulator")) {
            continue;
        }
        let strings = source
            .strings
            .iter()
            .map(|(line, text)| (*line, text.as_str()));
        let code = source.code.lines().enumerate();
        let code = code.map(|(index, text)| (index + 1, text));
        for (line, text) in strings.chain(code) {
            if words.iter().any(|word| text.contains(word)) {
                faults.push(format!("{}:{line}: a field of Meta's", source.path));
            }
        }
    }
    none(
        &faults,
        "Meta's JSON is read and written in src/whatsapp only",
    );
}

#[test]
fn the_log_fields_are_those_of_the_list() {
    let listed: BTreeSet<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
    let mut used = BTreeMap::new();
    for source in sources(&["src"]) {
        for (line, name) in source.log_fields() {
            used.insert(name, format!("{}:{line}", source.path));
        }
    }
    let mut faults: Vec<String> = used
        .iter()
        .filter(|(name, _)| !listed.contains(name.as_str()))
        .map(|(name, place)| format!("{place}: `{name}` is not in telemetry's FIELDS"))
        .collect();
    // Written by the format of the lines, not by a line.
    let known = |name: &str| name == "process.pid" || used.contains_key(name);
    let unused = listed.into_iter().filter(|name| !known(name));
    faults.extend(unused.map(|name| format!("src/telemetry/logging.rs: no line has `{name}`")));
    none(
        &faults,
        "one name per thing: add it to FIELDS and to docs/operations.md, or take the name that \
         is there",
    );
}

#[test]
fn the_map_names_what_exists() {
    let text = read("ARCHITECTURE.md");
    let quoted = quoted(&text);
    let mut faults: Vec<String> = LEVELS
        .iter()
        .filter(|(name, _)| {
            let (folder, file) = (format!("{name}/"), format!("{name}.rs"));
            !quoted
                .iter()
                .any(|(_, path)| *path == folder || *path == file)
        })
        .map(|(name, _)| format!("ARCHITECTURE.md: the module {name} is missing"))
        .collect();
    for (line, path) in quoted {
        let looks_like_a_path = (path.contains('/') && !path.starts_with('/'))
            || [".rs", ".md", ".toml", ".sql"]
                .iter()
                .any(|end| path.ends_with(end));
        let is_plain = path
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
        let is_there = root().join(path).exists() || root().join("src").join(path).exists();
        if looks_like_a_path && is_plain && !is_there {
            faults.push(format!("ARCHITECTURE.md:{line}: there is no {path}"));
        }
    }
    none(&faults, "the map is not true");
}

#[test]
fn every_link_leads_somewhere() {
    let mut faults = Vec::new();
    for (path, text) in pages() {
        let folder = root().join(&path);
        let folder = folder.parent().expect("a page lies in a folder");
        for (index, line) in text.lines().enumerate() {
            for link in line.split("](").skip(1) {
                let target = link.split([')', '#']).next().unwrap_or_default();
                let is_ours = !target.is_empty() && !target.contains(':');
                if is_ours && path.ends_with(".md") && !folder.join(target).exists() {
                    faults.push(format!("{path}:{}: no {target}", index + 1));
                }
            }
        }
    }
    none(&faults, "a link that leads nowhere");
}

/// Why `owner` must not import `name`.
fn forbids(owner: &str, name: &str) -> Option<String> {
    let level = |of: &str| {
        LEVELS
            .iter()
            .find(|(known, _)| *known == of)
            .map(|(_, level)| *level)
    };
    if owner == name {
        return None;
    }
    let (Some(mine), Some(theirs)) = (level(owner), level(name)) else {
        return Some(format!(
            "{owner} imports {name}, which is not in the table of levels"
        ));
    };
    if theirs >= mine {
        return Some(format!(
            "{owner} (level {mine}) imports {name} (level {theirs})"
        ));
    }
    let only = ONLY.iter().find(|(known, _)| *known == owner);
    if only.is_some_and(|(_, allowed)| !allowed.contains(&name)) {
        return Some(format!("{owner} may import no {name}"));
    }
    let only_by = ONLY_BY
        .iter()
        .find(|(known, by)| *known == name && *by != owner);
    only_by.map(|(_, by)| format!("{owner} imports {name}, which is for {by} alone"))
}

/// Fails with everything that was found, and with how to mend it.
fn none(faults: &[String], mend: &str) {
    assert!(faults.is_empty(), "{mend}:\n  {}\n", faults.join("\n  "));
}

#[test]
fn the_table_of_levels_can_refuse() {
    for (owner, name) in [
        ("sender", "worker"),
        ("store", "ingress"),
        ("handler", "whatsapp"),
        ("app", "simulator"),
        ("store", "nothing"),
    ] {
        assert!(forbids(owner, name).is_some(), "{owner} imports {name}");
    }
    assert!(forbids("sender", "store").is_none() && forbids("cli", "simulator").is_none());
}
