//! From the places to one text a setting: which name counts, which place wins, what is unknown.
//!
//! Does not look at what a text means.

use std::collections::BTreeMap;
use std::path::Path;

use super::fault::Fault;
use super::keys::{Alias, KEYS, Key, Place, is_postgres, nearest_env, nearest_key};
use super::sources::{EnvFile, Origin, Sources, read_env_file, read_file};
use crate::guard;
use crate::proxy::environment;

/// The text of one setting, and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// Every setting that is set.
#[derive(Default)]
pub(super) struct Gathered {
    /// By key; none of the texts is empty.
    pub(super) settings: BTreeMap<&'static str, Setting>,
    /// What is wrong already.
    pub(super) faults: Vec<Fault>,
    /// What an operator should know.
    pub(super) notes: Vec<String>,
    /// A place could not be read, so that what seems not to be set may well be.
    pub(super) incomplete: bool,
    /// Per key, a variable that was set but may not be taken from where it stands.
    pub(super) passed_over: BTreeMap<&'static str, &'static str>,
}

/// One place with variables.
struct Layer<'a> {
    variables: &'a [(String, String)],
    file: Option<&'a Path>,
}

impl Layer<'_> {
    /// The last variable of this name that is not empty.
    fn get(&self, name: &str) -> Option<Setting> {
        let (_, value) = self.variables.iter().rfind(|(known, _)| known == name)?;
        let text = value.trim();
        let origin = match self.file {
            Some(path) => Origin::EnvFile {
                path: path.to_owned(),
                name: name.to_owned(),
            },
            None => Origin::Environment(name.to_owned()),
        };
        (!text.is_empty()).then(|| Setting {
            text: text.to_owned(),
            origin,
        })
    }

    const fn holds(&self, place: Place) -> bool {
        match place {
            Place::Anywhere => true,
            Place::EnvFile => self.file.is_some(),
            Place::Environment => self.file.is_none(),
        }
    }
}

/// Reads all places.
pub(super) fn gather(sources: &Sources) -> Gathered {
    let mut gathered = Gathered::default();
    if let Some(path) = &sources.file {
        gathered.take_file(path);
    }
    let env_file = match &sources.env_file {
        Some(path) => gathered.open_env_file(path),
        None => EnvFile::default(),
    };
    let layers = [
        Layer {
            variables: &sources.env,
            file: None,
        },
        Layer {
            variables: &env_file.variables,
            file: sources.env_file.as_deref(),
        },
    ];
    for key in KEYS {
        gathered.take_variable(key, &layers);
    }
    gathered.mention_database_url(&layers);
    for layer in &layers {
        gathered.mention_unknown(layer);
    }
    gathered
}

impl Gathered {
    fn take_file(&mut self, path: &Path) {
        match read_file(path) {
            Ok(table) => {
                self.notes
                    .push(format!("settings are read from {}", path.display()));
                self.take_table(path, "", table);
            }
            Err(error) => self.unreadable(path, error.reason),
        }
    }

    fn take_table(&mut self, path: &Path, prefix: &str, table: toml::Table) {
        for (name, value) in table {
            let name = format!("{prefix}{name}");
            let is_section = KEYS.iter().any(|key| {
                key.name
                    .strip_prefix(&name)
                    .is_some_and(|rest| rest.starts_with('.'))
            });
            match (Key::find(&name), value) {
                (Some(key), value) => self.take_value(path, key, value),
                (None, toml::Value::Table(table)) if is_section => {
                    self.take_table(path, &format!("{name}."), table);
                }
                (None, _) => self.unknown_key(path, name),
            }
        }
    }

    fn take_value(&mut self, path: &Path, key: &'static Key, value: toml::Value) {
        let kind = value.type_str();
        let Some(text) = plain_text(value, key.list) else {
            self.faults.push(Fault {
                key: key.name.to_owned(),
                environment: Some(key.env),
                expected: "a text, a number, true or false".to_owned(),
                found: format!("a TOML {kind} in {}", path.display()),
                mend: "write it as one text in quotes".to_owned(),
            });
            return;
        };
        let text = text.trim();
        if !text.is_empty() {
            let setting = Setting {
                text: text.to_owned(),
                origin: Origin::File(path.to_owned()),
            };
            self.settings.insert(key.name, setting);
        }
    }

    fn unknown_key(&mut self, path: &Path, name: String) {
        let mend = match nearest_key(&name) {
            Some(key) => format!("did you mean {}?", key.name),
            None => "remove it; `hapax config --default` lists every key".to_owned(),
        };
        self.faults.push(Fault {
            key: name,
            environment: None,
            expected: "a key that Hapax knows".to_owned(),
            found: format!("an unknown key in {}", path.display()),
            mend,
        });
    }

    fn open_env_file(&mut self, path: &Path) -> EnvFile {
        let file = match read_env_file(path) {
            Ok(file) => file,
            Err(error) => {
                self.unreadable(path, error.reason);
                return EnvFile::default();
            }
        };
        self.notes
            .push(format!("settings are read from {}", path.display()));
        for line in &file.broken {
            let ours = KEYS.iter().find(|key| {
                let mut names = key.aliases.iter().map(|alias| alias.name).chain([key.env]);
                names.any(|name| line.names.iter().any(|known| known == name))
            });
            let place = format!("line {} of {}", line.number, path.display());
            match ours {
                Some(key) => self.faults.push(Fault {
                    key: key.name.to_owned(),
                    environment: Some(key.env),
                    expected: "NAME=value, in quotes where the value holds spaces".to_owned(),
                    found: format!("a line that can't be read: {place}"),
                    mend: "close every quote, and quote values that hold spaces".to_owned(),
                }),
                None => self
                    .notes
                    .push(format!("{place} can't be read and is passed over")),
            }
        }
        file
    }

    fn unreadable(&mut self, path: &Path, reason: String) {
        self.incomplete = true;
        self.faults.push(Fault {
            key: path.display().to_string(),
            environment: None,
            expected: "a file that can be read".to_owned(),
            found: reason,
            mend: "correct the file or its path, or start without naming it".to_owned(),
        });
    }

    /// A setting's own name counts before its aliases, wherever they stand; of one name, the
    /// environment counts before the env-file; all of them before the file.
    fn take_variable(&mut self, key: &'static Key, layers: &[Layer<'_>]) {
        if let Some(setting) = layers.iter().find_map(|layer| layer.get(key.env)) {
            self.settings.insert(key.name, setting);
            return;
        }
        let mut taken: Option<Setting> = None;
        for layer in layers {
            for alias in key.aliases {
                let Some(setting) = self.alias_in(key, alias, layer) else {
                    continue;
                };
                match &taken {
                    None => taken = Some(setting),
                    Some(first) if first.text != setting.text => self.notes.push(format!(
                        "{} and {} both stand for {} and differ: the first is taken",
                        first.origin, setting.origin, key.env
                    )),
                    Some(_) => {}
                }
            }
        }
        if let Some(setting) = taken {
            self.notes
                .push(format!("{} is taken from {}", key.env, setting.origin));
            self.settings.insert(key.name, setting);
        }
    }

    fn alias_in(
        &mut self,
        key: &'static Key,
        alias: &'static Alias,
        layer: &Layer<'_>,
    ) -> Option<Setting> {
        let found = layer.get(alias.name)?;
        if !layer.holds(alias.place) {
            if alias.place == Place::EnvFile {
                self.passed_over.insert(key.name, alias.name);
            } else {
                self.notes.push(format!(
                    "{} is taken for the bot's own and passed over; set {} instead",
                    found.origin, key.env
                ));
            }
            return None;
        }
        let Some(text) = (alias.take)(&found.text) else {
            self.notes.push(format!(
                "{} has not the form of {} and is passed over",
                found.origin, key.env
            ));
            return None;
        };
        Some(Setting { text, ..found })
    }

    /// A bot's database is no place to put a ledger without being asked.
    fn mention_database_url(&mut self, layers: &[Layer<'_>]) {
        if self.settings.contains_key("store.url") {
            return;
        }
        let found = layers.iter().find_map(|layer| layer.get("DATABASE_URL"));
        if let Some(setting) = found.filter(|setting| is_postgres(&setting.text)) {
            self.notes.push(format!(
                "{} names a PostgreSQL database and is passed over, since it may be the bot's own; \
                 to keep the ledger there, set HAPAX_STORE to the same; it is in {}",
                setting.origin,
                super::DEFAULT_STORE
            ));
        }
    }

    fn mention_unknown(&mut self, layer: &Layer<'_>) {
        for (name, value) in layer.variables {
            let is_sabotage = cfg!(feature = "sabotage") && name == guard::VARIABLE;
            // Set for a bot, which may be a gateway of its own.
            let is_told = [environment::RUN_URL, environment::RUN_PROXY].contains(&name.as_str());
            let known = is_sabotage || is_told || KEYS.iter().any(|key| key.env == name);
            if known || !name.starts_with("HAPAX_") || is_from_kubernetes(name, value) {
                continue;
            }
            let hint = match nearest_env(name) {
                Some(key) => format!("; did you mean {}?", key.env),
                None => String::new(),
            };
            let place = match layer.file {
                Some(path) => path.display().to_string(),
                None => "environment".to_owned(),
            };
            self.notes
                .push(format!("{name} ({place}) is unknown and ignored{hint}"));
        }
    }
}

/// Kubernetes describes each service of a namespace in variables named after it, also to a pod
/// of that service: <https://kubernetes.io/docs/concepts/services-networking/service/>.
fn is_from_kubernetes(name: &str, value: &str) -> bool {
    let is_address = value.starts_with("tcp://") || value.starts_with("udp://");
    (name.ends_with("_PORT") && is_address) || name.contains("_SERVICE_") || name.contains("_PORT_")
}

fn plain_text(value: toml::Value, list: bool) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        toml::Value::Array(values) if list => {
            let texts: Option<Vec<String>> = values
                .into_iter()
                .map(|value| value.as_str().map(str::to_owned))
                .collect();
            texts.map(|texts| texts.join(","))
        }
        toml::Value::Array(_) | toml::Value::Table(_) | toml::Value::Datetime(_) => None,
    }
}
