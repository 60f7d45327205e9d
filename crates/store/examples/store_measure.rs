//! Measures a store: commits, lists and verification over 10,000 incidents.
//!
//! ```text
//! cargo run --release -p nightshift-store --example store_measure
//! NIGHTSHIFT_TEST_POSTGRES=postgres://… cargo run --release -p nightshift-store --example store_measure
//! ```
//!
//! SQLite is measured in a folder of its own under the system's temporary folder, which must be a real disk for the
//! figures of commits to mean anything. PostgreSQL is measured in a schema that is dropped afterwards.

#![expect(clippy::unwrap_used, reason = "a measurement that fails has nothing to report")]

#[path = "../tests/conformance/data.rs"]
#[expect(dead_code, reason = "shared with the conformance suite, which uses all of it")]
mod data;

use data::*;
use nightshift_model::{IncidentStatus, ManualClock, Timestamp};
use nightshift_store::{Commit, HeadFiles, IncidentFilter, SqlStore, Store, audit};
use std::sync::Arc;
use std::time::Instant;

const INCIDENTS: u64 = 10_000;

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().unwrap();
    let heads = || Some(HeadFiles::in_data_dir(dir.path()));
    let path = dir.path().join("measure.db");
    let sqlite = SqlStore::open_sqlite(&path, heads(), &ManualClock::at(Timestamp(0))).await.unwrap();
    measure(Arc::new(sqlite)).await;
    println!("  file: {} MiB", std::fs::metadata(&path).unwrap().len() >> 20);

    let Ok(server) = std::env::var("NIGHTSHIFT_TEST_POSTGRES") else {
        return println!("SKIPPED: postgres, because NIGHTSHIFT_TEST_POSTGRES is not set");
    };
    use sqlx::Connection;
    let mut admin = sqlx::PgConnection::connect(&server).await.unwrap();
    let drop = "DROP SCHEMA IF EXISTS nightshift_measure CASCADE";
    sqlx::raw_sql(drop).execute(&mut admin).await.unwrap();
    sqlx::raw_sql("CREATE SCHEMA nightshift_measure").execute(&mut admin).await.unwrap();
    let url = format!("{server}?options[search_path]=nightshift_measure");
    measure(Arc::new(SqlStore::open_postgres(&url, 8, None).await.unwrap())).await;
    sqlx::raw_sql(drop).execute(&mut admin).await.unwrap();
}

async fn measure(store: Arc<dyn Store>) {
    println!("{}", store.kind());
    let commit = |n: u64| Commit {
        anomalies: vec![anomaly(n, &format!("web{}", n % 300))],
        ..journal([opened(n, &format!("web{}", n % 300)), assessed(n, 10, (n % 100) as f64 / 100.0), ranked(n, 20)])
    };

    let one = INCIDENTS / 5;
    let started = Instant::now();
    for n in 1..=one {
        store.commit(T, commit(n)).await.unwrap();
    }
    rate("commits one after the other (3 events, 1 anomaly)", one, started);

    let started = Instant::now();
    let mut tasks = Vec::new();
    for task in 0..32u64 {
        let store = Arc::clone(&store);
        let numbers = (one + 1..=INCIDENTS).filter(move |n| n % 32 == task);
        let commits = numbers.map(commit).collect::<Vec<_>>();
        tasks.push(tokio::spawn(async move {
            for commit in commits {
                store.commit(T, commit).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    rate("commits of 32 tasks", INCIDENTS - one, started);
    store.commit(T, journal([status(17, 99, IncidentStatus::Escalated)])).await.unwrap();

    let f = IncidentFilter::default;
    for (what, filter) in [
        ("newest 100", f()),
        ("page of 100 in the middle", IncidentFilter { before_number: Some(INCIDENTS / 2), ..f() }),
        ("one rare status", IncidentFilter { status: vec![IncidentStatus::Escalated], ..f() }),
        ("critical", IncidentFilter { severity: vec![nightshift_model::Severity::Critical], ..f() }),
        ("an entity by name", IncidentFilter { entity: Some("web17".into()), ..f() }),
        ("a text that one has (scan)", IncidentFilter { text: Some("zahlung 17 ".into()), ..f() }),
        ("a text that none has (scan)", IncidentFilter { text: Some("no such words".into()), ..f() }),
        ("all 10,000", IncidentFilter { limit: 10_000, ..f() }),
    ] {
        let mut times = Vec::new();
        let mut found = 0;
        for _ in 0..11 {
            let started = Instant::now();
            found = store.incidents(T, &filter).await.unwrap().len();
            times.push(started.elapsed());
        }
        times.sort_unstable();
        println!("  list {what}: {found} in {:.1} ms (median of 11)", times[5].as_secs_f64() * 1e3);
    }
    let started = Instant::now();
    let report = audit::verify(&*store, T, None).await.unwrap();
    assert!(report.is_ok(), "{report:?}");
    rate("links verified, projection compared", report.links, started);
    let started = Instant::now();
    store.rebuild(T).await.unwrap();
    rate("incidents rebuilt", INCIDENTS, started);
    store.close().await.unwrap();
}

fn rate(what: &str, n: u64, started: Instant) {
    let secs = started.elapsed().as_secs_f64();
    println!("  {what}: {n} in {secs:.2} s, {:.0}/s", n as f64 / secs);
}
