//! Opening, closing, being killed, and other versions of the program.

use crate::data::*;
use crate::kinds::{Db, Kind};
use nightshift_model::{ManualClock, Timestamp};
use nightshift_store::{HeadFiles, SCHEMA_VERSION, SqlStore, Store, StoreError, audit};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

#[tokio::test]
async fn a_closed_database_is_there_again_and_a_second_process_is_told_who_has_it() {
    let db = Db::new(Kind::Sqlite).await.unwrap();
    let store = db.open_sqlite().await.unwrap();
    store.commit(T, journal(history())).await.unwrap();
    match db.open_sqlite().await.map(drop) {
        Err(StoreError::Locked(who)) => {
            assert!(who.contains("nightshift.db") && who.contains(&std::process::id().to_string()), "{who}");
        }
        other => panic!("{other:?}"),
    }
    store.close().await.unwrap();
    assert!(store.commit(T, journal([opened(9, "x")])).await.is_err(), "closed is closed");
    let store = db.open_sqlite().await.unwrap();
    assert_eq!(store.chain_head(T).await.unwrap().count, 4);
    assert!(audit::verify(&store, T, db.heads().read(T).unwrap()).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_reader_sees_a_running_store_and_writes_nothing() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let Some(db) = Db::new(kind).await else { continue };
        let store = db.open().await;
        store.commit(T, journal(history())).await.unwrap();
        let reader = db.open_reader().await.unwrap();
        let report = audit::verify(&reader, T, None).await.unwrap();
        assert!(report.is_ok() && report.links == 4, "{report:?}");
        assert!(reader.commit(T, journal([opened(9, "x")])).await.is_err());
        store.commit(T, journal([opened(3, "x")])).await.unwrap();
        assert_eq!(reader.chain_head(T).await.unwrap().count, 5);
        reader.close().await.unwrap();
        store.close().await.unwrap();
        db.drop_schema().await;
    }
    let missing = SqlStore::read_sqlite(Path::new("/nonexistent/nightshift.db")).await;
    assert!(matches!(missing.map(drop), Err(StoreError::Database { .. })));
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let Some(db) = Db::new(kind).await else { continue };
        db.open().await.close().await.unwrap();
        db.open().await.close().await.unwrap();
        let newer = SCHEMA_VERSION + 1;
        db.sql(&format!("INSERT INTO schema_versions (version) VALUES ({newer})")).await;
        match db.try_open_again().await {
            Err(StoreError::NewerSchema { found, known }) => assert_eq!((found, known), (newer, SCHEMA_VERSION)),
            other => panic!("{other:?}"),
        }
        db.sql(&format!("DELETE FROM schema_versions WHERE version = {newer}")).await;
        db.open().await.close().await.unwrap();
        db.drop_schema().await;
    }
}

#[tokio::test]
async fn a_projection_of_another_version_is_made_anew() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let Some(db) = Db::new(kind).await else { continue };
        let store = db.open().await;
        store.commit(T, journal(history())).await.unwrap();
        let want = store.incidents(T, &Default::default()).await.unwrap();
        store.close().await.unwrap();
        db.sql("UPDATE incidents SET text = 'as it was made before', severity = 0; UPDATE settings SET value = 0")
            .await;
        let store = db.open().await;
        assert_eq!(store.incidents(T, &Default::default()).await.unwrap(), want);
        assert!(audit::verify(&*store, T, None).await.unwrap().is_ok());
        store.close().await.unwrap();
        db.drop_schema().await;
    }
}

#[tokio::test]
async fn replicas_that_start_together_migrate_once_and_write_one_chain() {
    let Some(db) = Db::new(Kind::Postgres).await else { return };
    let (a, b, c) = tokio::join!(db.open(), db.open(), db.open());
    let mut tasks = Vec::new();
    for (k, store) in [a, b, c].into_iter().enumerate() {
        tasks.push(tokio::spawn(async move {
            for n in 0..20 {
                let n = k as u64 * 100 + n + 1;
                for tenant in if k == 1 { [T, "other"] } else { ["other", T] } {
                    store.commit(tenant, journal([opened(n, "web1")])).await.unwrap();
                }
            }
            store.close().await.unwrap();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let store = db.open().await;
    for tenant in [T, "other"] {
        let report = audit::verify(&*store, tenant, db.heads().read(tenant).unwrap()).await.unwrap();
        assert!(report.is_ok() && report.links == 60, "{report:?}");
    }
    store.close().await.unwrap();
    db.drop_schema().await;
}

#[tokio::test]
async fn postgres_that_is_not_there_is_an_error_with_the_address_and_without_the_password() {
    let refused = SqlStore::open_postgres("postgres://u:hush@127.0.0.1:1/d", 1, None).await.map(drop).unwrap_err();
    let text = format!("{refused} {refused:?}");
    assert!(text.contains("127.0.0.1:1") && !text.contains("hush"), "{text}");
    assert!(refused.is_transient());
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains("refused"), "the reason, not that a pool timed out: {cause}");
    let wrong = SqlStore::open_postgres("mysql://u:hush@h/d", 1, None).await.map(drop).unwrap_err();
    assert!(!format!("{wrong} {wrong:?}").contains("hush"), "{wrong:?}");
}

/// The server ends our connections, as a restart does: once while nothing is under way, once in the middle of a commit.
#[tokio::test]
async fn postgres_that_drops_connections_costs_at_most_the_commit_under_way() {
    let Some(db) = Db::new(Kind::Postgres).await else { return };
    let store = db.open().await;
    store.commit(T, journal([opened(1, "web1")])).await.unwrap();
    let ours = format!(
        "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND pid IN (SELECT pid FROM pg_locks \
         WHERE relation = '{}.chain_heads'::regclass)",
        db.schema()
    );

    // Somebody holds the head; the commit waits for it, and then its connection is gone.
    let mut holder = db.connect_postgres().await;
    sqlx::raw_sql("BEGIN; SELECT * FROM chain_heads FOR UPDATE").execute(&mut holder).await.unwrap();
    let waiting = tokio::spawn({
        let store = std::sync::Arc::clone(&store);
        async move { store.commit(T, journal([opened(2, "web2")])).await }
    });
    let mut other = db.connect_postgres().await;
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid IN ({ours})"
    );
    // Until it waits, and until it is gone.
    while !waiting.is_finished() {
        sqlx::raw_sql(sqlx::AssertSqlSafe(end.clone())).execute(&mut other).await.unwrap();
        tokio::task::yield_now().await;
    }
    let failed = waiting.await.unwrap().unwrap_err();
    assert!(failed.is_transient(), "{failed}");
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();

    assert_eq!(store.last_incident_number(T).await.unwrap(), 1);
    store.commit(T, journal([opened(2, "web2")])).await.unwrap();
    let report = audit::verify(&*store, T, None).await.unwrap();
    assert!(report.is_ok() && report.links == 2, "{report:?}");
    store.close().await.unwrap();
    db.drop_schema().await;
}

/// Set for the process that `kill_9_loses_no_acknowledged_commit` starts: the folder it writes in.
const CHILD: &str = "NIGHTSHIFT_STORE_TEST_CHILD";

/// Commits as fast as it can and says each number that was acknowledged, until it is killed.
#[tokio::test]
#[ignore = "no test by itself: kill_9_loses_no_acknowledged_commit starts it"]
async fn child_that_commits_until_killed() {
    let folder = std::env::var_os(CHILD).expect("only to be started with its folder");
    let folder = Path::new(&folder);
    let heads = Some(HeadFiles::in_data_dir(folder));
    let clock = ManualClock::at(Timestamp(0));
    let store = SqlStore::open_sqlite(&folder.join("nightshift.db"), heads, &clock).await.unwrap();
    let next = store.last_incident_number(T).await.unwrap() + 1;
    for n in next.. {
        store.commit(T, journal([opened(n, "web1"), assessed(n, 5, 0.5)])).await.unwrap();
        println!("acknowledged {n}");
    }
}

#[tokio::test]
async fn kill_9_loses_no_acknowledged_commit() {
    let db = Db::new(Kind::Sqlite).await.unwrap();
    let mut acknowledged = 0u64;
    for round in 1..=4u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::child_that_commits_until_killed", "--nocapture", "--ignored"])
            .env(CHILD, db.file().parent().unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // A different number of commits in each round, and then wherever it is by the time the signal comes.
        let number = |line: &String| line.strip_prefix("acknowledged ").and_then(|n| n.parse::<u64>().ok());
        let enough = acknowledged + round * 7;
        acknowledged = lines.by_ref().find_map(|l| number(&l).filter(|n| *n >= enough)).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged = lines.filter_map(|l| number(&l)).last().unwrap_or(acknowledged);

        let store = db.open_sqlite().await.unwrap();
        let kept = store.last_incident_number(T).await.unwrap();
        assert!(kept >= acknowledged, "acknowledged {acknowledged}, kept {kept}");
        let report = audit::verify(&store, T, db.heads().read(T).unwrap()).await.unwrap();
        assert!(report.is_ok(), "{report:?}");
        assert_eq!(report.links, kept * 2, "whole commits only");
        store.close().await.unwrap();
        acknowledged = kept;
    }
}
