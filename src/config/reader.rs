//! Takes settings out one by one, parsed, and collects what is wrong with them.
//!
//! A faulty setting yields its default, so that reading goes on and finds the next fault; what
//! was read is thrown away when there is any.

use std::collections::{BTreeMap, BTreeSet};

use super::fault::{Fault, Faults};
use super::gather::{Gathered, Setting};
use super::keys::{Fallback, KEYS, Key, Shown};
use super::sources::Origin;
use super::value::Expected;
use crate::model::Secret;

/// Settings on their way from text to value.
pub(super) struct Reader {
    gathered: Gathered,
    unsound: BTreeSet<&'static str>,
}

impl Reader {
    pub(super) const fn new(gathered: Gathered) -> Self {
        Self {
            gathered,
            unsound: BTreeSet::new(),
        }
    }

    /// A setting that has a default.
    pub(super) fn value<T>(&mut self, name: &str, parse: fn(&str) -> Result<T, Expected>) -> T {
        let key = Key::named(name);
        self.parsed(key, parse).unwrap_or_else(|| {
            let Fallback::Text(text) = key.fallback else {
                unreachable!("{name} has no default in the table")
            };
            match parse(text) {
                Ok(value) => value,
                Err(expected) => unreachable!("the default of {name} is not {expected}"),
            }
        })
    }

    /// A setting that may be missing.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        parse: fn(&str) -> Result<T, Expected>,
    ) -> Option<T> {
        self.parsed(Key::named(name), parse)
    }

    /// A secret that may be missing.
    pub(super) fn secret(
        &mut self,
        name: &str,
        parse: fn(&str) -> Result<String, Expected>,
    ) -> Option<Secret> {
        self.optional(name, parse).map(Secret::new)
    }

    /// A secret that must be there; `what` tells where to get it.
    pub(super) fn required_secret(
        &mut self,
        name: &str,
        parse: fn(&str) -> Result<String, Expected>,
        what: &str,
    ) -> Secret {
        let secret = self.secret(name, parse);
        if secret.is_none() {
            let key = Key::named(name);
            let hint = self.gathered.passed_over.get(name).map(|other| {
                format!(
                    "; {other} is set in the environment, but so common a name is taken only \
                     from --env-file"
                )
            });
            let mend = format!("set {}{}", key.env, hint.unwrap_or_default());
            self.missing(name, what, mend);
        }
        secret.unwrap_or_else(|| Secret::new(""))
    }

    /// Adds a fault for a setting that is needed and not there.
    pub(super) fn missing(&mut self, name: &str, expected: &str, mend: String) {
        let key = Key::named(name);
        if !self.gathered.incomplete && self.is_sound(&[name]) && !self.is_set(name) {
            self.add(key, "nothing".to_owned(), expected.to_owned(), mend);
        }
    }

    /// Adds a fault unless `holds`, a relation between `name` and the settings `others`. Says
    /// nothing where one of them is faulty by itself.
    pub(super) fn relation(
        &mut self,
        holds: bool,
        name: &str,
        others: &[&str],
        expected: impl Into<String>,
    ) {
        if holds || !self.is_sound(&[name]) || !self.is_sound(others) {
            return;
        }
        let key = Key::named(name);
        let found = self.found(key);
        let keys: Vec<&str> = std::iter::once(name)
            .chain(others.iter().copied())
            .collect();
        let mend = format!("change {}", keys.join(" or "));
        self.add(key, found, expected.into(), mend);
    }

    /// Whether somebody set it.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.gathered.settings.contains_key(name)
    }

    /// Whether none of these settings has a fault so far.
    pub(super) fn is_sound(&self, names: &[&str]) -> bool {
        names.iter().all(|name| !self.unsound.contains(name))
    }

    /// Where each setting came from, and the notes; or all faults.
    pub(super) fn finish(self) -> Result<(BTreeMap<&'static str, Origin>, Vec<String>), Faults> {
        let Gathered {
            settings,
            mut faults,
            notes,
            ..
        } = self.gathered;
        if faults.is_empty() {
            let origin = |(name, setting): (&'static str, Setting)| (name, setting.origin);
            return Ok((settings.into_iter().map(origin).collect(), notes));
        }
        let place = |fault: &Fault| KEYS.iter().position(|key| key.name == fault.key);
        faults.sort_by_key(place);
        Err(Faults(faults))
    }

    fn parsed<T>(
        &mut self,
        key: &'static Key,
        parse: fn(&str) -> Result<T, Expected>,
    ) -> Option<T> {
        let setting = self.gathered.settings.get(key.name)?;
        let problem = match spoilt(setting) {
            Some(problem) => problem,
            None => match parse(&setting.text) {
                Ok(value) => return Some(value),
                Err(expected) => expected,
            },
        };
        let found = self.found(key);
        let mend = match key.fallback {
            Fallback::Text(default) => {
                format!("correct it, or remove it: the default is {default}")
            }
            Fallback::Open => "correct it, or remove it".to_owned(),
            Fallback::Required => "correct it".to_owned(),
        };
        self.add(key, found, problem.into_owned(), mend);
        None
    }

    /// What stands there, as far as it may be shown, and where.
    fn found(&self, key: &Key) -> String {
        match (self.gathered.settings.get(key.name), key.fallback) {
            (Some(setting), _) => format!("{} from {}", key.show(&setting.text), setting.origin),
            (None, Fallback::Text(default)) => format!("{default:?}, the default"),
            (None, Fallback::Open | Fallback::Required) => "nothing".to_owned(),
        }
    }

    fn add(&mut self, key: &'static Key, found: String, expected: String, mend: String) {
        self.unsound.insert(key.name);
        self.gathered.faults.push(Fault {
            key: key.name.to_owned(),
            environment: Some(key.env),
            expected,
            found,
            mend,
        });
    }
}

/// What was lost or added on the way to us, whatever the setting means.
fn spoilt(setting: &Setting) -> Option<Expected> {
    let text = &setting.text;
    let wrapped = |quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    if text.contains('\u{fffd}') {
        return Some("text in UTF-8".into());
    }
    if matches!(setting.origin, Origin::Environment(_)) && (wrapped('"') || wrapped('\'')) {
        return Some("the value without quotes around it (`docker --env-file` keeps them)".into());
    }
    None
}

/// How a setting may be shown once it is known to be right.
pub(super) fn may_show(key: &Key) -> bool {
    match key.shown {
        Shown::Plain | Shown::Address | Shown::WhenRight => true,
        Shown::Secret => false,
    }
}
