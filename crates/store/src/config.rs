//! Which store, as the configuration says it.

use crate::head::HeadFiles;
use crate::{MemoryStore, SqlStore, Store, StoreError};
use nightshift_config::SecretString;
use nightshift_model::Clock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where incidents, their journal and the other rows that outlive a process are kept.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StoreConfig {
    /// A file in the data folder. One process at a time.
    Sqlite(SqliteConfig),
    /// A PostgreSQL server, for more than one replica.
    Postgres(PostgresConfig),
    /// Nothing outlives the process: for trying things out.
    Memory,
}

/// SQLite.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SqliteConfig {
    /// The database file; `nightshift.db` in the data folder when not given. A relative one is taken from there.
    pub path: Option<PathBuf>,
}

/// PostgreSQL.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:5432/database`; `options[search_path]=NAME` chooses a schema, `sslmode=verify-full` checks the server.
    #[schemars(extend("format" = "uri"))]
    pub url: SecretString,
    /// Connections at most; one of them writes.
    #[serde(default = "max_connections")]
    #[schemars(range(min = 2, max = 100))]
    pub max_connections: u32,
}

const fn max_connections() -> u32 {
    8
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self::Sqlite(SqliteConfig::default())
    }
}

impl StoreConfig {
    /// Opens the store, makes what is missing and migrates it. `data_dir` takes the SQLite file and, for both
    /// databases, the noted heads of the chains; `clock` says since when it is locked.
    ///
    /// # Errors
    /// `Locked`, `NewerSchema`, or `Database` when it cannot be opened.
    pub async fn build(&self, data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError> {
        let heads = Some(HeadFiles::in_data_dir(data_dir));
        Ok(match self {
            Self::Sqlite(config) => {
                Arc::new(SqlStore::open_sqlite(&config.file(data_dir), heads, clock.as_ref()).await?)
            }
            Self::Postgres(config) => {
                Arc::new(SqlStore::open_postgres(config.url.expose(), config.max_connections, heads).await?)
            }
            Self::Memory => Arc::new(MemoryStore::new()),
        })
    }

    /// Opens the store to make and withdraw tokens, and to change the models, also beside a process that has it.
    ///
    /// # Errors
    /// As [`Self::build`], without `Locked`; `Database` for a store in memory, which no other process can reach.
    pub async fn build_for_tokens(&self, data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError> {
        if matches!(self, Self::Memory) {
            return Err(in_memory("its tokens end with it, use the one in its data folder"));
        }
        match (self.build(data_dir, clock).await, self) {
            (Err(StoreError::Locked(_)), Self::Sqlite(config)) => {
                Ok(Arc::new(SqlStore::open_sqlite_beside(&config.file(data_dir)).await?))
            }
            (opened, _) => opened,
        }
    }

    /// Opens the store to be read only, beside a process that writes it: for `audit verify` and `audit export`.
    ///
    /// # Errors
    /// `Database` when there is none, when it is older than this program, or in memory; `NewerSchema`.
    pub async fn build_reader(&self, data_dir: &Path) -> Result<Arc<dyn Store>, StoreError> {
        Ok(match self {
            Self::Sqlite(config) => Arc::new(SqlStore::read_sqlite(&config.file(data_dir)).await?),
            Self::Postgres(config) => {
                Arc::new(SqlStore::read_postgres(config.url.expose(), config.max_connections).await?)
            }
            Self::Memory => return Err(in_memory("ask its API")),
        })
    }
}

fn in_memory(instead: &str) -> StoreError {
    StoreError::Database {
        what: "open the store".into(),
        source: format!("a store in memory can only be used by its own process: {instead}").into(),
    }
}

impl SqliteConfig {
    fn file(&self, data_dir: &Path) -> PathBuf {
        data_dir.join(self.path.as_deref().unwrap_or(Path::new("nightshift.db")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_have_the_names_that_people_write() {
        let read = |json: &str| serde_json::from_str::<StoreConfig>(json).unwrap();
        assert!(matches!(read(r#"{"type":"memory"}"#), StoreConfig::Memory));
        let StoreConfig::Sqlite(c) = read(r#"{"type":"sqlite"}"#) else { panic!("not sqlite") };
        assert_eq!(c.file(Path::new("/d")), Path::new("/d/nightshift.db"));
        let StoreConfig::Sqlite(c) = read(r#"{"type":"sqlite","path":"/x/y.db"}"#) else { panic!("not sqlite") };
        assert_eq!(c.file(Path::new("/d")), Path::new("/x/y.db"));
        let StoreConfig::Postgres(c) = read(r#"{"type":"postgres","url":"postgres://u:hunter2@h/d"}"#) else {
            panic!("not postgres")
        };
        assert_eq!(c.max_connections, 8);
        assert_eq!(c.url.expose(), "postgres://u:hunter2@h/d");
        assert!(!format!("{c:?}").contains("hunter2") && !serde_json::to_string(&c).unwrap().contains("hunter2"));
        assert!(serde_json::from_str::<StoreConfig>(r#"{"type":"postgres"}"#).is_err(), "there is no default server");
    }
    #[tokio::test]
    async fn what_is_in_memory_is_out_of_reach_for_others() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(nightshift_model::ManualClock::at(nightshift_model::Timestamp(0)));
        for opened in [
            StoreConfig::Memory.build_for_tokens(folder.path(), clock).await,
            StoreConfig::Memory.build_reader(folder.path()).await,
        ] {
            assert!(
                matches!(opened, Err(StoreError::Database { source, .. }) if source.to_string().contains("own process"))
            );
        }
    }
}
