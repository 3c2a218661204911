//! One file of Rust: what it imports, declares and logs. Knows the language no further than names
//! and brackets.

use std::path::Path;

use crate::reader::Reader;

/// One file of Rust.
pub(crate) struct Source {
    /// From the root of the project.
    pub(crate) path: String,
    /// The names from the crate to the module; empty for the root of a crate.
    pub(crate) module: Vec<String>,
    pub(crate) text: String,
    /// The text without comments and without what stands in strings, line by line.
    pub(crate) code: String,
    /// What stands in strings, with the lines in which they begin.
    pub(crate) strings: Vec<(usize, String)>,
}

impl Source {
    pub(crate) fn new(path: String, text: String) -> Self {
        let below = Path::new(&path).components().skip(1);
        let mut module: Vec<String> = below
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect();
        if let Some(file) = module.pop() {
            let stem = file.trim_end_matches(".rs");
            if !["lib", "main", "mod"].contains(&stem) {
                module.push(stem.to_owned());
            }
        }
        let Reader { code, strings, .. } = Reader::read(&text);
        Self {
            path,
            module,
            text,
            code,
            strings,
        }
    }

    /// Whether it is the root of a crate.
    pub(crate) fn is_root(&self) -> bool {
        let parts: Vec<&str> = self.path.split('/').collect();
        match parts.as_slice() {
            ["src", file] => ["lib.rs", "main.rs"].contains(file),
            ["tests", file] => *file != "mod.rs",
            ["tests", _, file] => *file == "main.rs",
            _ => false,
        }
    }

    fn line_of(&self, at: usize) -> usize {
        1 + self.code[..at].matches('\n').count()
    }

    /// The top-level modules that are named, by `crate::` or by enough of `super::`.
    pub(crate) fn imports(&self) -> Vec<(usize, String)> {
        let mut imports = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            let names = names(&self.code[at + "crate::".len()..]);
            imports.extend(names.into_iter().map(|name| (self.line_of(at), name)));
        }
        for (at, _) in self.code.match_indices("super::") {
            let mut rest = &self.code[at..];
            let mut climbed = 0;
            while let Some(next) = rest.strip_prefix("super::") {
                climbed += 1;
                rest = next;
            }
            let starts = !self.code[..at].ends_with("super::");
            if starts && climbed >= self.module.len() + self.inline_depth(at) {
                imports.extend(names(rest).into_iter().map(|name| (self.line_of(at), name)));
            }
        }
        imports
    }

    /// How many `mod name { … }` of this file surround a place.
    fn inline_depth(&self, at: usize) -> usize {
        let opened = self.code[..at].match_indices("mod ");
        let holds = |&(start, _): &(usize, &str)| {
            let head = &self.code[start..at];
            let name = head.find('{').filter(|open| !head[..*open].contains(';'));
            name.is_some_and(|open| inside(&self.code[start + open..], 0) > at - start - open)
        };
        opened.filter(holds).count()
    }

    /// The names of `mod name;` lines.
    pub(crate) fn declared_files(&self) -> Vec<String> {
        let lines = self.code.lines().map(str::trim);
        let name = |line: &str| {
            let (before, name) = line.strip_suffix(';')?.rsplit_once("mod ")?;
            (before.is_empty() || before.starts_with("pub")).then(|| name.to_owned())
        };
        lines.filter_map(name).collect()
    }

    /// The fields of every line that is logged, tests apart.
    pub(crate) fn log_fields(&self) -> Vec<(usize, String)> {
        let end = self
            .code
            .find("#[cfg(test)]\nmod ")
            .unwrap_or(self.code.len());
        let mut fields = Vec::new();
        for (at, _) in self.code[..end].match_indices("!(") {
            let before = &self.code[..at];
            let name = before
                .rsplit(|c: char| !c.is_alphanumeric() && c != '$')
                .next();
            let levels = ["trace", "debug", "info", "warn", "error", "$level"];
            if !name.is_some_and(|name| levels.contains(&name)) {
                continue;
            }
            let arguments = &self.code[at + 1..at + 1 + inside(&self.code[at + 1..], 0)];
            let named = split(&arguments[1..]).into_iter().filter_map(field_name);
            fields.extend(named.map(|name| (self.line_of(at), name)));
        }
        fields
    }
}

/// The name of a field, given an argument of a logging macro; `None` for the message.
fn field_name(argument: &str) -> Option<String> {
    let argument = argument.trim();
    if argument.is_empty() || argument.starts_with(['"', '$']) {
        return None;
    }
    let name = match argument.split_once(" =") {
        Some((name, _)) => name,
        None => argument.trim_start_matches(['%', '?']),
    };
    Some(name.trim().to_owned())
}

/// The first names of what follows `crate::`: one, or those of a group in braces.
fn names(rest: &str) -> Vec<String> {
    let first = |text: &str| -> String {
        let is_name = |c: &char| c.is_alphanumeric() || *c == '_';
        text.trim_start().chars().take_while(is_name).collect()
    };
    match rest.strip_prefix('{') {
        Some(group) => split(&group[..inside(rest, 0).saturating_sub(1)])
            .into_iter()
            .map(first)
            .filter(|name| !name.is_empty())
            .collect(),
        None => vec![first(rest)],
    }
}

/// Where the bracket that opens at `open` is closed.
fn inside(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices().skip_while(|(at, _)| *at < open) {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 1 => return at,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Splits at the commas that stand in no bracket.
fn split(list: &str) -> Vec<&str> {
    let mut depth = 0;
    list.split(|c| {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

#[test]
fn imports_are_found_however_they_are_written() {
    let text = "use crate::{\n clock::{Clock, A},\n store,\n};\n fn f() { crate::app::start() }\n\
                use super::super::worker::X;\nuse super::pace;\nmod tests {\n use super::y;\n\
                use super::super::z;\n use super::super::super::admin;\n}\nuse super::super::cli;";
    let source = Source::new("src/sender/pace.rs".to_owned(), text.to_owned());
    let names: Vec<String> = source.imports().into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["clock", "store", "app", "worker", "admin", "cli"]);
}

#[test]
fn log_fields_are_found_however_they_are_written() {
    let text = "info!(a.b = %x.y(1, 2), lease.epoch, %error,\n c = d == 1, \"text, e = 1\");\n\
                $level!(f = $g, $text); format!(h = 1);\n#[cfg(test)]\nmod tests { warn!(i = 1) }";
    let source = Source::new("src/x.rs".to_owned(), text.to_owned());
    let names: Vec<String> = source
        .log_fields()
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    assert_eq!(names, ["a.b", "lease.epoch", "error", "c", "f"]);
}
