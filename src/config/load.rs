//! Reading the configuration: the layers, laid over each other, and what is wrong with them.
//!
//! Each layer is read into whole keys (`dispatch.lease`) with the place they came from, checked
//! against the [`Shape`], and handed to the `config` crate, which lays them over each other. So
//! every error can name the key and its place, and none repeats a value that may be a secret.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use config::{Source, Value};

use super::shape::{Kind, Shape};
use super::{Config, check};

/// What the names of our environment variables begin with.
const PREFIX: &str = "FORGE_";

/// The variable that names the file, where no flag does. It is no key of the configuration.
const FILE_VARIABLE: &str = "FORGE_CONFIG";

/// Where a value came from, so that who set it can find it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A TOML file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// `--set` on the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("by default"),
            Self::File(path) => write!(f, "in {}", path.display()),
            Self::Variable(name) => write!(f, "in {name}"),
            Self::Flag => f.write_str("in --set"),
        }
    }
}

/// A key whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` ({origin}): {reason}")]
pub struct KeyError {
    /// The whole key: `dispatch.lease`.
    pub key: String,
    /// Where its value came from.
    pub origin: Origin,
    /// The rule it breaks. Never holds a secret.
    pub reason: String,
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or is no TOML.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it. Never quotes it: it may hold a secret.
        reason: String,
    },

    /// Keys that do not exist, or whose values cannot be used: all that were found.
    #[error("{}", lines(.0))]
    Keys(Vec<KeyError>),
}

fn lines(errors: &[KeyError]) -> String {
    let lines: Vec<String> = errors.iter().map(KeyError::to_string).collect();
    lines.join("\n")
}

impl Config {
    /// Reads the configuration: defaults < file < environment < overrides (`KEY=VALUE`, the key in
    /// full). Of the environment only what begins with `FORGE_` is looked at; `FORGE_CONFIG` names
    /// the file where `file` does not.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &[String],
    ) -> Result<Self, ConfigError> {
        let mut variables: BTreeMap<String, String> = environment
            .into_iter()
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        let named = variables.remove(FILE_VARIABLE).filter(|n| !n.is_empty());
        let mut layers = Layers::new();
        if let Some(path) = file.map(Path::to_owned).or(named.map(PathBuf::from)) {
            layers.add_file(&path)?;
        }
        for (name, text) in variables {
            let key = name[PREFIX.len()..].to_lowercase().replace("__", ".");
            layers.add_text(&key, &text, Origin::Variable(name));
        }
        for text in overrides {
            match text.split_once('=') {
                Some((key, value)) => layers.add_text(key.trim(), value, Origin::Flag),
                None => layers.wrong("--set", Origin::Flag, "must be written KEY=VALUE"),
            }
        }
        layers.finish()
    }
}

/// The environment of this process: the one place that reads it. What is not UTF-8 keeps its
/// place, spoilt, so that its key is still named.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| {
        (
            name.to_string_lossy().into_owned(),
            value.to_string_lossy().into_owned(),
        )
    })
}

/// All values set so far, with their places, and all errors.
#[derive(Debug)]
struct Layers {
    shape: Shape,
    values: BTreeMap<String, Value>,
    origins: BTreeMap<String, Origin>,
    errors: Vec<KeyError>,
}

impl Layers {
    fn new() -> Self {
        Self {
            shape: Shape::new(),
            values: BTreeMap::new(),
            origins: BTreeMap::new(),
            errors: Vec::new(),
        }
    }

    fn wrong(&mut self, key: &str, origin: Origin, reason: impl Into<String>) {
        self.errors.push(KeyError {
            key: key.to_owned(),
            origin,
            reason: reason.into(),
        });
    }

    /// Puts a value over what was set before it.
    fn set(&mut self, key: &str, origin: Origin, kind: Kind, value: Option<Value>) {
        match value {
            Some(value) => {
                self.values.insert(key.to_owned(), value);
                self.origins.insert(key.to_owned(), origin);
            }
            None => self.wrong(key, origin, kind.rule()),
        }
    }

    fn add_text(&mut self, key: &str, text: &str, origin: Origin) {
        match self.shape.kind(key) {
            Some(kind) => {
                let value = kind.read(text, &origin.to_string());
                self.set(key, origin, kind, value);
            }
            None if self.shape.is_section(key) => {
                self.wrong(key, origin, "is a section, set its keys one by one");
            }
            None => {
                let reason = self.shape.unknown(key);
                self.wrong(key, origin, reason);
            }
        }
    }

    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let wrong = |reason: String| ConfigError::File {
            path: path.to_owned(),
            reason,
        };
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let table = text
            .parse::<toml::Table>()
            .map_err(|error| wrong(not_toml(&text, &error)))?;
        self.add_table("", table, &Origin::File(path.to_owned()));
        Ok(())
    }

    fn add_table(&mut self, section: &str, table: toml::Table, origin: &Origin) {
        for (name, value) in table {
            let key = match section {
                "" => name,
                _ => format!("{section}.{name}"),
            };
            match (self.shape.kind(&key), value) {
                (Some(kind), value) => {
                    let value = kind.take(value, &origin.to_string());
                    self.set(&key, origin.clone(), kind, value);
                }
                (None, toml::Value::Table(table)) if self.shape.is_section(&key) => {
                    self.add_table(&key, table, origin);
                }
                (None, _) if self.shape.is_section(&key) => {
                    self.wrong(&key, origin.clone(), "is a section, not a value");
                }
                (None, _) => {
                    let reason = self.shape.unknown(&key);
                    self.wrong(&key, origin.clone(), reason);
                }
            }
        }
    }

    fn finish(mut self) -> Result<Config, ConfigError> {
        if !self.errors.is_empty() {
            return Err(ConfigError::Keys(self.errors));
        }
        let values = Values(self.values.clone().into_iter().collect());
        let config = config::Config::builder()
            .add_source(values)
            .build()
            .and_then(config::Config::try_deserialize::<Config>);
        let config = match config {
            Ok(config) => config,
            Err(error) => {
                let (key, reason) = explain(error);
                let origin = self.origin(&key);
                self.wrong(&key, origin, reason);
                return Err(ConfigError::Keys(self.errors));
            }
        };
        for (key, reason) in check::problems(&config) {
            let origin = self.origin(key);
            self.wrong(key, origin, reason);
        }
        if self.errors.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Keys(self.errors))
        }
    }

    /// Where a key's value came from; an item of a list came from where the list did.
    fn origin(&self, key: &str) -> Origin {
        let list = key.split('[').next().unwrap_or(key);
        self.origins.get(list).cloned().unwrap_or(Origin::Default)
    }
}

/// The values by their whole keys, as the `config` crate takes them.
#[derive(Clone, Debug)]
struct Values(HashMap<String, Value>);

impl Source for Values {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<HashMap<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

/// The key and the rule of an error that a value's own type raised.
fn explain(error: config::ConfigError) -> (String, String) {
    match error {
        config::ConfigError::Type { expected, key, .. } => {
            (key.unwrap_or_default(), format!("must be {expected}"))
        }
        config::ConfigError::At { error, key, .. } => (key.unwrap_or_default(), error.to_string()),
        other => (String::new(), other.to_string()),
    }
}

/// What is wrong and where, without the line itself.
fn not_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.matches('\n').count() + 1);
    format!("line {line}: {}", error.message().replace('\n', ", "))
}

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
