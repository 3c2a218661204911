//! Where settings come from, and the reading of each place into plain names and texts.
//!
//! Knows the forms of the places, not what the settings mean.

use std::cell::Cell;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The file that is used when none is named.
pub const DEFAULT_FILE: &str = "hapax.toml";

/// The places to read settings from, the weakest first.
#[derive(Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// A file of `NAME=value` lines, for example the bot's own `.env`.
    pub env_file: Option<PathBuf>,
    /// The environment of the process.
    pub env: Vec<(String, String)>,
}

impl Sources {
    /// The places of this process: its environment, and `hapax.toml` in the working directory
    /// where no `file` is named and that one exists.
    pub fn from_process(file: Option<PathBuf>, env_file: Option<PathBuf>) -> Self {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let default = || Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists());
        Self {
            file: file.or_else(default),
            env_file,
            env: std::env::vars_os()
                .map(|(name, value)| (lossy(name), lossy(value)))
                .collect(),
        }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("env_file", &self.env_file)
            .finish_non_exhaustive()
    }
}

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: the default holds.
    Default,
    /// This file.
    File(PathBuf),
    /// This variable of an env-file.
    EnvFile {
        /// The file.
        path: PathBuf,
        /// The variable.
        name: String,
    },
    /// This variable of the environment.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::EnvFile { path, name } => write!(f, "{name} ({})", path.display()),
            Self::Environment(name) => write!(f, "{name} (environment)"),
        }
    }
}

/// A file that can't be read as what it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// What is wrong with it, without any of its content.
    pub(super) reason: String,
}

/// What an env-file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct EnvFile {
    /// Its variables, in their order; of two with one name the later one counts.
    pub(super) variables: Vec<(String, String)>,
    /// Lines that can't be read.
    pub(super) broken: Vec<BrokenLine>,
}

/// A line of an env-file that can't be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BrokenLine {
    /// Its number, from 1.
    pub(super) number: usize,
    /// The names that are set in it, and in the lines that an open quote draws in with it.
    pub(super) names: Vec<String>,
}

/// Reads a TOML file.
pub(super) fn read_file(path: &Path) -> Result<toml::Table, Unreadable> {
    let text = read_text(path)?;
    toml::from_str(&text).map_err(|error: toml::de::Error| {
        // The error's own form quotes the line, which may hold a secret.
        let start = error.span().map_or(0, |span| span.start);
        let line = line_number(&text, start);
        Unreadable {
            reason: format!("line {line} is not TOML: {}", error.message()),
        }
    })
}

/// Reads an env-file, as far as it can be read.
pub(super) fn read_env_file(path: &Path) -> Result<EnvFile, Unreadable> {
    Ok(parse_env_file(&read_text(path)?))
}

fn read_text(path: &Path) -> Result<String, Unreadable> {
    let text = std::fs::read_to_string(path).map_err(|error| Unreadable {
        reason: error.to_string(),
    })?;
    let without_mark = text.strip_prefix('\u{feff}').map(str::to_owned);
    Ok(without_mark.unwrap_or(text))
}

fn parse_env_file(text: &str) -> EnvFile {
    let mut file = EnvFile::default();
    let read = Cell::new(0);
    let lines = OneByOne { text, read: &read };
    let mut lines = dotenvy::Iter::new(lines);
    loop {
        let start = read.get();
        match lines.next() {
            Some(Ok(variable)) => file.variables.push(variable),
            Some(Err(dotenvy::Error::LineParse(..))) => {
                file.broken.extend(broken_line(text, start, read.get()));
            }
            Some(Err(_)) | None => return file,
        }
    }
}

/// The error of a line names neither its number nor always its name, but it is the one that was
/// read last: from the first line that says anything, to where the reader stands.
fn broken_line(text: &str, start: usize, end: usize) -> Option<BrokenLine> {
    let says_nothing = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let lines = text.get(start..end)?.split_inclusive('\n');
    let passed_over: usize = lines
        .take_while(|line| says_nothing(line))
        .map(str::len)
        .sum();
    let broken = text.get(start + passed_over..end)?;
    (!broken.is_empty()).then(|| BrokenLine {
        number: line_number(text, start + passed_over),
        names: broken.lines().filter_map(name_set_in).collect(),
    })
}

/// A text that is read one line at a time, so that who reads it stands where it has read to.
struct OneByOne<'a> {
    text: &'a str,
    read: &'a Cell<usize>,
}

impl Read for OneByOne<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let rest = self
            .text
            .as_bytes()
            .get(self.read.get()..)
            .unwrap_or_default();
        let line = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(rest.len(), |at| at + 1);
        let length = line.min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        self.read.set(self.read.get() + length);
        Ok(length)
    }
}

/// The name that a line of an env-file sets.
fn name_set_in(line: &str) -> Option<String> {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, _) = line.split_once('=')?;
    Some(name.trim().to_owned())
}

/// The number of the line, from 1, in which byte `at` stands.
fn line_number(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_env_file_is_read_as_far_as_possible() {
        let file = parse_env_file(
            "# the bot's own\nexport A=1\nNAME=My Bot\nB='two words' # why\nC=\nTITLE=My Bot\n\
             A=3\nOPEN=\"never closed\nD=4\n",
        );
        let pairs: Vec<_> = file
            .variables
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [("A", "1"), ("B", "two words"), ("C", ""), ("A", "3")]
        );
        let broken: Vec<_> = file
            .broken
            .iter()
            .map(|line| (line.number, &line.names[..]))
            .collect();
        assert_eq!(
            broken,
            [
                (3, &["NAME".to_owned()][..]),
                (6, &["TITLE".to_owned()][..]),
                (8, &["OPEN".to_owned(), "D".to_owned()][..]),
            ]
        );
    }

    #[test]
    fn a_broken_line_is_not_taken_for_another_that_says_the_same() {
        let file = parse_env_file("# My Bot\nNAME='My Bot'\n\nHAPAX_LOG=My Bot\nA=1\n  ");
        let broken = BrokenLine {
            number: 4,
            names: vec!["HAPAX_LOG".to_owned()],
        };
        assert_eq!(file.broken, [broken]);
        assert_eq!(file.variables.len(), 2);
    }

    #[test]
    fn a_file_that_is_not_toml_is_not_quoted() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("hapax.toml");
        std::fs::write(&path, "\n[whatsapp]\naccess_token = \"EAAG-secret\n").expect("written");
        let error = read_file(&path).expect_err("the string is open");
        assert!(
            error.reason.starts_with("line 3 is not TOML"),
            "{}",
            error.reason
        );
        assert!(!error.reason.contains("EAAG"), "{}", error.reason);
    }

    #[test]
    fn sources_print_no_value() {
        let sources = Sources {
            env: vec![("TOKEN".into(), "EAAG".into())],
            ..Sources::default()
        };
        assert!(!format!("{sources:?}").contains("EAAG"));
    }
}
