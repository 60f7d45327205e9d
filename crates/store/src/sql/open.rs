//! Opening the databases.

use super::SqlStore;
use super::db::{Db, failed};
use super::migrate;
use super::writer::{QUEUE_MAX, Writer};
use crate::StoreError;
use crate::head::HeadFiles;
use nightshift_model::{Clock, Timestamp};
use parking_lot::Mutex;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Connections that read a SQLite database; each has a thread.
const SQLITE_READERS: u32 = 4;
/// How long a statement waits for a lock that somebody else (a backup, a reader that recovers) has for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection to PostgreSQL is waited for.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The right to a database file; ends when it is dropped or its process dies.
pub(super) struct FileLock(#[expect(dead_code, reason = "held, not used: closing it unlocks")] File);

impl FileLock {
    /// Takes the lock and notes who has it, for the message that the next one gets.
    fn take(database: &Path, now: Timestamp) -> Result<Self, StoreError> {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let io = |source: std::io::Error| StoreError::Database {
            what: format!("lock `{}`", Path::new(&path).display()),
            source: Box::new(source),
        };
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who has it is a courtesy: an unreadable note changes nothing.
                drop(file.take(200).read_to_string(&mut holder));
                let holder = holder.lines().next().filter(|l| !l.is_empty()).map(|l| format!(" ({l})"));
                return Err(StoreError::Locked(format!("{}{}", database.display(), holder.unwrap_or_default())));
            }
            Err(TryLockError::Error(e)) => return Err(io(e)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        writeln!(file, "process {}, since {now}", std::process::id()).map_err(io)?;
        Ok(Self(file))
    }
}

impl SqlStore {
    /// Opens (and makes, and migrates) a SQLite database. One process at a time.
    ///
    /// Commits survive a loss of power: the log is flushed before each is acknowledged. The heads of chains are noted
    /// in `heads`.
    ///
    /// # Errors
    /// `Locked` when another process has it, `NewerSchema` when a newer program made it.
    pub async fn open_sqlite(path: &Path, heads: Option<HeadFiles>, clock: &dyn Clock) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| StoreError::Database {
                what: format!("make the folder `{}`", folder.display()),
                source: Box::new(e),
            })?;
        }
        let lock = Arc::new(FileLock::take(path, clock.now())?);
        let writing = sqlite_options(path).create_if_missing(true);
        let write =
            SqlitePoolOptions::new().max_connections(1).min_connections(1).idle_timeout(None).max_lifetime(None);
        let write = write.connect_with(writing).await.map_err(failed(&format!("open `{}`", path.display())))?;
        let read = sqlite_readers(path).await?;
        Self::start(Db::Sqlite { read, write }, heads, Some(lock)).await
    }

    /// Opens a SQLite database to be read only, beside a process that has it open. Nothing is made or migrated.
    ///
    /// # Errors
    /// `Database` when there is none, `NewerSchema` when a newer program made it.
    pub async fn read_sqlite(path: &Path) -> Result<Self, StoreError> {
        there(path)?;
        let read = sqlite_readers(path).await?;
        Self::reader(Db::Sqlite { write: read.clone(), read }).await
    }

    /// Opens a SQLite database to make and withdraw tokens beside the process that has it. Nothing is made or migrated.
    /// Tokens are in no chain and nobody keeps them in memory for long, so a second writer harms no one; for all else
    /// use [`Self::open_sqlite`].
    ///
    /// # Errors
    /// As [`Self::read_sqlite`].
    pub(crate) async fn open_sqlite_beside(path: &Path) -> Result<Self, StoreError> {
        there(path)?;
        let write = SqlitePoolOptions::new().max_connections(1).connect_with(sqlite_options(path)).await;
        let write = write.map_err(failed(&format!("open `{}`", path.display())))?;
        let reader = Self::reader(Db::Sqlite { read: sqlite_readers(path).await?, write }).await?;
        let (jobs, waiting) = tokio::sync::mpsc::channel(QUEUE_MAX);
        let task = tokio::spawn(Writer::new(Arc::clone(&reader.db), None, None).run(waiting));
        *reader.writer.lock() = Some((jobs, task));
        Ok(reader)
    }

    /// Connects to (and migrates) a PostgreSQL database. Any number of processes at a time.
    ///
    /// # Errors
    /// `Database` when the URL is wrong or nobody answers, `NewerSchema` when a newer program made the schema.
    pub async fn open_postgres(url: &str, connections: u32, heads: Option<HeadFiles>) -> Result<Self, StoreError> {
        let pool = postgres(url, connections, false).await?;
        Self::start(Db::Postgres(pool), heads, None).await
    }

    /// Connects to a PostgreSQL database to read only. Nothing is migrated.
    ///
    /// # Errors
    /// As [`Self::open_postgres`].
    pub async fn read_postgres(url: &str, connections: u32) -> Result<Self, StoreError> {
        Self::reader(Db::Postgres(postgres(url, connections, true).await?)).await
    }

    async fn start(db: Db, heads: Option<HeadFiles>, lock: Option<Arc<FileLock>>) -> Result<Self, StoreError> {
        let mut tx = db.begin().await?;
        migrate::migrate(&mut tx).await?;
        super::work::project(&mut tx).await?;
        tx.commit().await?;
        let db = Arc::new(db);
        let (jobs, waiting) = tokio::sync::mpsc::channel(QUEUE_MAX);
        let task = tokio::spawn(Writer::new(Arc::clone(&db), heads, lock.clone()).run(waiting));
        Ok(Self { db, writer: Mutex::new(Some((jobs, task))), lock: Mutex::new(lock) })
    }

    async fn reader(db: Db) -> Result<Self, StoreError> {
        let found = migrate::version(&mut db.snapshot().await?).await?;
        if found < migrate::SCHEMA_VERSION {
            return Err(StoreError::Database {
                what: format!("read schema version {found}"),
                source: "it is older than this program: start `nightshift run` once, which migrates it".into(),
            });
        }
        Ok(Self { db: Arc::new(db), writer: Mutex::new(None), lock: Mutex::new(None) })
    }
}

/// What the database says of a file that is not there tells nobody what to do.
fn there(path: &Path) -> Result<(), StoreError> {
    if path.exists() {
        return Ok(());
    }
    Err(StoreError::Database {
        what: format!("open `{}`", path.display()),
        source: "it is not there: the first `nightshift run` makes it, --data names another folder".into(),
    })
}

fn sqlite_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // FULL, not NORMAL: an acknowledged commit is on the disk, not only in the cache of the system.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
}

async fn sqlite_readers(path: &Path) -> Result<sqlx::SqlitePool, StoreError> {
    SqlitePoolOptions::new()
        .max_connections(SQLITE_READERS)
        .connect_with(sqlite_options(path).pragma("query_only", "ON"))
        .await
        .map_err(failed(&format!("open `{}`", path.display())))
}

async fn postgres(url: &str, connections: u32, read_only: bool) -> Result<sqlx::PgPool, StoreError> {
    let mut options =
        PgConnectOptions::from_str(url).map_err(failed("read the PostgreSQL URL"))?.application_name("nightshift");
    // A plan kept from when a table was empty scans it whole until the server next looks at it: measured, 10,000
    // incidents into new tables took three times as long. To plan each statement costs some 50 µs.
    options = options.options([("plan_cache_mode", "force_custom_plan")]);
    if read_only {
        options = options.options([("default_transaction_read_only", "on")]);
    }
    let at = format!("connect to PostgreSQL at {}:{}", options.get_host(), options.get_port());
    // The pool tries again until its time is over and then says only that; one connection says at once what is wrong.
    let first = tokio::time::timeout(ACQUIRE_TIMEOUT, PgConnection::connect_with(&options));
    let first = first.await.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(failed(&at))?;
    first.close().await.map_err(failed(&at))?;
    PgPoolOptions::new()
        .max_connections(connections.max(1))
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(options)
        .await
        .map_err(failed(&at))
}
