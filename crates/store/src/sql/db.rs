//! One face for the two databases: statements with `$1` places, arguments, rows, transactions.
//!
//! Both take the same SQL; what differs (types of columns, one function name, how a head row is locked) is answered
//! here, so that nothing above asks which database it talks to.

use crate::StoreError;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Postgres, Row as _, SqlSafeStr, SqlStr, Sqlite, Transaction};

/// The databases of a store. SQLite has one connection that writes: it allows no second writer anyway, and waiting
/// for a turn costs less than being refused one.
pub(super) enum Db {
    Sqlite { read: SqlitePool, write: SqlitePool },
    Postgres(PgPool),
}

/// A transaction. Dropped without [`Tx::commit`] it is rolled back.
pub(super) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// An argument of a statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arg<'a> {
    Int(i64),
    OptInt(Option<i64>),
    Text(&'a str),
    Blob(&'a [u8]),
}

/// One row of an answer.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// An error of the database with what was being done.
pub(super) fn failed(what: &str) -> impl FnOnce(sqlx::Error) -> StoreError + '_ {
    move |source| StoreError::Database { what: what.into(), source: Box::new(source) }
}

/// Dynamic SQL is put together from constants of this crate only; values are always arguments.
pub(super) fn assembled(sql: String) -> SqlStr {
    AssertSqlSafe(sql).into_sql_str()
}

macro_rules! bound {
    ($db:ty, $sql:expr, $args:expr) => {{
        let mut query = sqlx::query::<$db>($sql);
        for arg in $args {
            query = match *arg {
                Arg::Int(v) => query.bind(v),
                Arg::OptInt(v) => query.bind(v),
                Arg::Text(v) => query.bind(v.to_owned()),
                Arg::Blob(v) => query.bind(v.to_vec()),
            };
        }
        query
    }};
}

impl Db {
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    /// The function that finds a text in another: its place from 1, or 0.
    pub(super) const fn position(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "instr",
            Self::Postgres(_) => "strpos",
        }
    }

    /// Reads outside a transaction.
    pub(super) async fn fetch(
        &self,
        what: &str,
        sql: impl SqlSafeStr,
        args: &[Arg<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite { read, .. } => {
                let rows = bound!(Sqlite, sql, args).fetch_all(read).await.map_err(failed(what))?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgres(pool) => {
                let rows = bound!(Postgres, sql, args).fetch_all(pool).await.map_err(failed(what))?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// Begins to write.
    pub(super) async fn begin(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite { write, .. } => write.begin_with("BEGIN IMMEDIATE").await.map(Tx::Sqlite),
            Self::Postgres(pool) => pool.begin().await.map(Tx::Postgres),
        }
        .map_err(failed("begin to write"))
    }

    /// Begins to read several things as they were at one moment.
    pub(super) async fn snapshot(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite { read, .. } => read.begin().await.map(Tx::Sqlite),
            Self::Postgres(pool) => {
                pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map(Tx::Postgres)
            }
        }
        .map_err(failed("begin to read"))
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { read, write } => {
                read.close().await;
                // Last, so that it is this one that moves the log into the database file.
                write.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Tx {
    /// Suffix of a `SELECT` that keeps other writers from the rows it finds until the end.
    pub(super) const fn for_update(&self) -> &'static str {
        match self {
            // The transaction has the only write lock already.
            Self::Sqlite(_) => "",
            Self::Postgres(_) => " FOR UPDATE",
        }
    }

    pub(super) async fn fetch(
        &mut self,
        what: &str,
        sql: impl SqlSafeStr,
        args: &[Arg<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(tx) => {
                let rows = bound!(Sqlite, sql, args).fetch_all(&mut **tx).await.map_err(failed(what))?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgres(tx) => {
                let rows = bound!(Postgres, sql, args).fetch_all(&mut **tx).await.map_err(failed(what))?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// Runs a statement and returns how many rows it changed.
    pub(super) async fn execute(
        &mut self,
        what: &str,
        sql: impl SqlSafeStr,
        args: &[Arg<'_>],
    ) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(tx) => bound!(Sqlite, sql, args).execute(&mut **tx).await.map(|r| r.rows_affected()),
            Self::Postgres(tx) => bound!(Postgres, sql, args).execute(&mut **tx).await.map(|r| r.rows_affected()),
        }
        .map_err(failed(what))
    }

    /// Runs a script of several statements.
    pub(super) async fn script(&mut self, what: &str, sql: &'static str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => sqlx::raw_sql(sql).execute(&mut **tx).await.map(drop),
            Self::Postgres(tx) => sqlx::raw_sql(sql).execute(&mut **tx).await.map(drop),
        }
        .map_err(failed(what))
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }
        .map_err(failed("commit"))
    }
}

macro_rules! column {
    ($name:ident, $type:ty) => {
        pub(super) fn $name(&self, i: usize) -> Result<$type, StoreError> {
            match self {
                Self::Sqlite(row) => row.try_get(i),
                Self::Postgres(row) => row.try_get(i),
            }
            // Only a foreign hand makes a column hold another type than the migrations gave it.
            .map_err(|e| StoreError::Corrupt(format!("column {i} of a row: {e}")))
        }
    };
}

impl Row {
    column!(int, i64);
    column!(opt_int, Option<i64>);
    column!(text, String);
    column!(blob, Vec<u8>);

    /// An integer that cannot be below zero.
    pub(super) fn count(&self, i: usize) -> Result<u64, StoreError> {
        crate::rows::to_u64("a stored count", self.int(i)?)
    }

    /// A 256-bit hash.
    pub(super) fn hash(&self, i: usize) -> Result<[u8; 32], StoreError> {
        let bytes = self.blob(i)?;
        let n = bytes.len();
        bytes.try_into().map_err(|_| StoreError::Corrupt(format!("a stored hash has {n} bytes, not 32")))
    }
}
