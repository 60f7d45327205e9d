//! Migrations: numbered scripts inside the binary, run once each, all of them in one transaction.

use super::db::{Arg, Tx};
use crate::StoreError;

/// The scripts, the first being version 1. They are never edited once released; a change is a new one.
const SQLITE: &[&str] = &[include_str!("../../migrations/sqlite/0001_init.sql")];
const POSTGRES: &[&str] = &[include_str!("../../migrations/postgres/0001_init.sql")];

/// The schema that this program makes and reads.
pub const SCHEMA_VERSION: i64 = SQLITE.len() as i64;
const _: () = assert!(SQLITE.len() == POSTGRES.len(), "both databases have the same versions");

/// Held while migrating, so that replicas that start together do not do it twice. "nightsh" in ASCII.
const ADVISORY_LOCK: i64 = 0x6e_69_67_68_74_73_68;

/// Brings the schema up to [`SCHEMA_VERSION`]; nothing is changed when it is there or newer.
pub(super) async fn migrate(tx: &mut Tx) -> Result<(), StoreError> {
    let scripts = match tx {
        Tx::Sqlite(_) => SQLITE,
        Tx::Postgres(_) => {
            tx.execute("wait for other migrations", "SELECT pg_advisory_xact_lock($1)", &[Arg::Int(ADVISORY_LOCK)])
                .await?;
            POSTGRES
        }
    };
    let table = "CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT NOT NULL PRIMARY KEY)";
    tx.execute("make the table of schema versions", table, &[]).await?;
    let found = version(tx).await?;
    for (n, script) in (1i64..).zip(scripts).filter(|(n, _)| *n > found) {
        tx.script(&format!("migrate the schema to version {n}"), script).await?;
        let insert = "INSERT INTO schema_versions (version) VALUES ($1)";
        tx.execute("note the schema version", insert, &[Arg::Int(n)]).await?;
    }
    Ok(())
}

/// The schema version; an error when it is newer than this program.
pub(super) async fn version(tx: &mut Tx) -> Result<i64, StoreError> {
    let rows = tx.fetch("read the schema version", "SELECT max(version) FROM schema_versions", &[]).await?;
    let found = rows.first().map(|r| r.opt_int(0)).transpose()?.flatten().unwrap_or(0);
    if found > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema { found, known: SCHEMA_VERSION });
    }
    Ok(found)
}
