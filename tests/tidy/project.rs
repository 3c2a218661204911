//! The files of the project as text, and words in them.

use std::path::{Path, PathBuf};

use crate::source::Source;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below a folder of the project, in order.
pub(crate) fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            files(&path, into);
        } else {
            into.push(path);
        }
    }
}

fn relative(path: &Path) -> String {
    let inner = path.strip_prefix(root()).expect("below the root");
    inner.to_string_lossy().into_owned()
}

pub(crate) fn sources(folders: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    folders
        .iter()
        .for_each(|folder| files(&root().join(folder), &mut paths));
    let rust = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs"));
    rust.map(|path| relative(path))
        .map(|path| Source::new(path.clone(), read(&path)))
        .collect()
}

/// Every page and script: what is neither Rust nor made by a tool.
pub(crate) fn pages() -> Vec<(String, String)> {
    let mut paths = Vec::new();
    ["docs", ".ci"]
        .iter()
        .for_each(|folder| files(&root().join(folder), &mut paths));
    let top = std::fs::read_dir(root()).expect("the root can be read");
    paths.extend(
        top.filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let end = path.extension().and_then(|end| end.to_str());
                path.is_file() && (matches!(end, Some("md" | "toml")) || path.ends_with("test"))
            }),
    );
    paths
        .iter()
        .map(|path| relative(path))
        .map(|path| (path.clone(), read(&path)))
        .collect()
}

/// What stands in backticks, fenced blocks apart, with its line.
pub(crate) fn quoted(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut quoted = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            quoted.extend(
                line.split('`')
                    .skip(1)
                    .step_by(2)
                    .map(|word| (index + 1, word)),
            );
        }
    }
    quoted
}

pub(crate) fn found(path: &str, text: &str, words: &[String]) -> Vec<String> {
    let hit = |line: &str| {
        words
            .iter()
            .find(|word| line.contains(word.as_str()))
            .cloned()
    };
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(index, line)| Some(format!("{path}:{}: {}", index + 1, hit(line)?)))
        .collect()
}

pub(crate) fn mentions(folders: &[&str], words: &[String]) -> Vec<String> {
    let sources = sources(folders);
    sources
        .iter()
        .flat_map(|source| found(&source.path, &source.text, words))
        .collect()
}
