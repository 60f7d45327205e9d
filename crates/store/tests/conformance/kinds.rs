//! The kinds under test, each test with a database of its own.

use nightshift_model::{ManualClock, Timestamp};
use nightshift_store::{HeadFiles, MemoryStore, SqlStore, Store};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Sqlite,
    Postgres,
}

/// A database of one test, which may be opened several times.
pub(crate) struct Db {
    pub(crate) kind: Kind,
    memory: Arc<MemoryStore>,
    dir: tempfile::TempDir,
    /// URL of the server, of our schema on it, and the schema's name.
    postgres: Option<(String, String, String)>,
}

/// Runs the body once per kind, as tests of their own: `NAME::memory`, `NAME::sqlite`, `NAME::postgres`.
#[macro_export]
macro_rules! each_kind {
    ($(#[doc = $doc:literal])* async fn $name:ident($db:ident: Db) $body:block) => {
        mod $name {
            #[allow(unused_imports, reason = "what the body uses differs")]
            use super::*;
            use $crate::kinds::{Db, Kind};

            async fn run($db: &Db) $body

            #[tokio::test]
            async fn memory() {
                run(&Db::new(Kind::Memory).await.unwrap()).await;
            }

            #[tokio::test]
            async fn sqlite() {
                run(&Db::new(Kind::Sqlite).await.unwrap()).await;
            }

            #[tokio::test]
            async fn postgres() {
                if let Some(db) = Db::new(Kind::Postgres).await {
                    run(&db).await;
                    db.drop_schema().await;
                }
            }
        }
    };
}

impl Db {
    /// An empty one; `None` (and a loud line) when there is no server for it.
    pub(crate) async fn new(kind: Kind) -> Option<Self> {
        let mut db = Self { kind, memory: Arc::default(), dir: tempfile::tempdir().unwrap(), postgres: None };
        if kind == Kind::Postgres {
            let Ok(server) = std::env::var("NIGHTSHIFT_TEST_POSTGRES") else {
                // Past the capture of the test harness: a skipped test must be seen.
                let line = "SKIPPED: NIGHTSHIFT_TEST_POSTGRES is not set (testenv/postgres/up sets it)\n";
                std::io::stderr().write_all(line.as_bytes()).unwrap();
                return None;
            };
            static NEXT: AtomicU64 = AtomicU64::new(0);
            let schema = format!("t{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let sep = if server.contains('?') { '&' } else { '?' };
            let url = format!("{server}{sep}options[search_path]={schema}");
            let mut conn = PgConnection::connect(&server).await.unwrap();
            let create = AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
            sqlx::raw_sql(create).execute(&mut conn).await.unwrap();
            db.postgres = Some((server, url, schema));
        }
        Some(db)
    }

    pub(crate) fn heads(&self) -> HeadFiles {
        HeadFiles::in_data_dir(self.dir.path())
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("nightshift.db")
    }

    /// Opens it, as a process that starts does. In memory it is always the same one.
    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        match &self.postgres {
            _ if self.kind == Kind::Memory => Arc::clone(&self.memory) as _,
            None => Arc::new(self.open_sqlite().await.unwrap()),
            Some((_, url, _)) => Arc::new(SqlStore::open_postgres(url, 4, Some(self.heads())).await.unwrap()),
        }
    }

    pub(crate) async fn open_sqlite(&self) -> Result<SqlStore, nightshift_store::StoreError> {
        SqlStore::open_sqlite(&self.file(), Some(self.heads()), &ManualClock::at(Timestamp(0))).await
    }

    pub(crate) async fn try_open_again(&self) -> Result<(), nightshift_store::StoreError> {
        match &self.postgres {
            Some((_, url, _)) => SqlStore::open_postgres(url, 2, None).await.map(drop),
            None => self.open_sqlite().await.map(drop),
        }
    }

    pub(crate) async fn open_reader(&self) -> Option<SqlStore> {
        match &self.postgres {
            _ if self.kind == Kind::Memory => None,
            None => Some(SqlStore::read_sqlite(&self.file()).await.unwrap()),
            Some((_, url, _)) => Some(SqlStore::read_postgres(url, 2).await.unwrap()),
        }
    }

    /// Runs statements as somebody with access to the database would, past the store.
    pub(crate) async fn sql(&self, statements: &str) {
        let sql = AssertSqlSafe(statements.to_owned());
        match &self.postgres {
            Some((_, url, _)) => {
                let mut conn = PgConnection::connect(url).await.unwrap();
                sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
                conn.close().await.unwrap();
            }
            None => {
                let url = format!("sqlite://{}", self.file().display());
                let mut conn = SqliteConnection::connect(&url).await.unwrap();
                sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
                conn.close().await.unwrap();
            }
        }
    }

    /// Bytes as the database writes them in a statement.
    pub(crate) fn literal(&self, bytes: &[u8]) -> String {
        let hex = bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        if self.kind == Kind::Postgres { format!("'\\x{hex}'::bytea") } else { format!("X'{hex}'") }
    }

    pub(crate) fn schema(&self) -> &str {
        self.postgres.as_ref().map_or("", |(_, _, schema)| schema)
    }

    pub(crate) async fn connect_postgres(&self) -> PgConnection {
        let (_, url, _) = self.postgres.as_ref().unwrap();
        PgConnection::connect(url).await.unwrap()
    }

    pub(crate) async fn drop_schema(&self) {
        if let Some((server, _, schema)) = &self.postgres {
            let mut conn = PgConnection::connect(server).await.unwrap();
            let drop = AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"));
            sqlx::raw_sql(drop).execute(&mut conn).await.unwrap();
        }
    }
}
