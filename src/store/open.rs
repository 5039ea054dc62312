//! Opening the store that the configuration names, under the master key that belongs to it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use super::vault::{MasterKey, Vault};
use super::{Result, Store, StoreError};
use crate::clock::Clock;
use crate::config::Config;
use crate::entropy::Entropy;

/// The master key's file, beside a database file, where nothing names another.
const KEY_FILE: &str = "master.key";

/// Which database a URL names.
enum Location {
    /// A file of ours.
    File(PathBuf),
    /// A server.
    Server,
}

impl Location {
    fn of(url: &SecretString) -> Self {
        match url.expose_secret().strip_prefix("sqlite://") {
            Some(path) => Self::File(PathBuf::from(path)),
            None => Self::Server,
        }
    }
}

/// Opens the store. Its schema is not looked at: call [`super::Maintenance::migrate`].
///
/// A server that is away is no error yet. A database file is made where there is none, and its
/// master key with it; an existing one whose key is missing is refused, since a new key could not
/// open what is sealed in it.
pub async fn open(
    config: &Config,
    clock: Arc<dyn Clock>,
    entropy: &Entropy,
) -> Result<Arc<dyn Store>> {
    let location = Location::of(&config.database.url);
    let key = master_key(config, &location, entropy)?;
    let vault = Vault::new(&key, entropy.clone());
    let connections = config.database.max_connections;
    Ok(match location {
        Location::File(path) => {
            Arc::new(SqliteStore::open(&path, connections, vault, clock).await?)
        }
        Location::Server => Arc::new(PostgresStore::connect(
            &config.database.url,
            connections,
            vault,
            clock,
            entropy,
        )?),
    })
}

fn master_key(config: &Config, location: &Location, entropy: &Entropy) -> Result<MasterKey> {
    if let Some(key) = &config.master_key {
        return MasterKey::parse(key.expose_secret());
    }
    let named = config.secrets.master_key_file.as_deref();
    match location {
        Location::Server => {
            let path = named.ok_or(StoreError::MasterKey(
                "is missing: set FORGE_MASTER_KEY, or secrets.master_key_file",
            ))?;
            MasterKey::read(path)?.ok_or_else(|| missing(path))
        }
        Location::File(database) => {
            let beside = database.with_file_name(KEY_FILE);
            let path = named.unwrap_or(&beside);
            // Asked in this order: the key is made before the database, so whoever sees the
            // database of another process that starts just now sees its key as well.
            let existed = database.exists();
            match MasterKey::read(path)? {
                Some(key) => Ok(key),
                None if existed => Err(missing(path)),
                None => {
                    make_directory(path)?;
                    MasterKey::create(path, entropy)
                }
            }
        }
    }
}

fn missing(path: &Path) -> StoreError {
    StoreError::Configuration(format!(
        "master key: {} is missing; a new key could not open what is sealed in this database",
        path.display()
    ))
}

/// What lies beside a master key is nobody else's to read.
fn make_directory(path: &Path) -> Result<()> {
    let Some(directory) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) else {
        return Ok(());
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error: io::Error| {
            StoreError::Configuration(format!("{}: {error}", directory.display()))
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn config(dir: &Path) -> Config {
        let mut config = Config::default();
        let url = format!("sqlite://{}/data/forge.db", dir.display());
        config.database.url = SecretString::from(url);
        config
    }

    fn key(config: &Config) -> Result<MasterKey> {
        master_key(
            config,
            &Location::of(&config.database.url),
            &Entropy::seeded(1),
        )
    }

    #[test]
    fn the_first_start_makes_a_key_that_only_its_owner_can_read() {
        let dir = tempfile::tempdir().unwrap();
        key(&config(dir.path())).unwrap();
        let mode = |path: &str| {
            let metadata = fs::metadata(dir.path().join(path)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(mode("data"), 0o700);
        assert_eq!(mode("data/master.key"), 0o600);
    }

    #[test]
    fn a_database_whose_key_is_missing_is_refused_and_gets_no_new_key() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::write(dir.path().join("data/forge.db"), "").unwrap();
        let error = key(&config(dir.path())).unwrap_err();
        assert!(
            error.to_string().contains("master.key is missing"),
            "{error}"
        );
        assert!(!dir.path().join("data/master.key").exists());
    }

    #[test]
    fn a_key_in_the_configuration_goes_before_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.secrets.master_key_file = Some(dir.path().join("there/own.key"));
        key(&config).unwrap();
        assert!(dir.path().join("there/own.key").exists());
        config.master_key = Some(SecretString::from("not a key"));
        assert!(matches!(key(&config), Err(StoreError::MasterKey(_))));
    }

    #[test]
    fn a_server_needs_a_key_that_exists() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.database.url = SecretString::from("postgres://db/forge");
        let error = key(&config).unwrap_err();
        assert!(error.to_string().contains("FORGE_MASTER_KEY"), "{error}");

        config.secrets.master_key_file = Some(dir.path().join("none.key"));
        let error = key(&config).unwrap_err();
        assert!(error.to_string().contains("none.key is missing"), "{error}");
        assert!(!dir.path().join("none.key").exists());
    }
}
