//! Commits: all or nothing, once, in order, apart by tenant.

use crate::data::*;
use crate::each_kind;
use nightshift_model::journal::{self, CHAIN_START, chain_hash};
use nightshift_model::{IncidentStatus, Phase};
use nightshift_store::{
    Commit, CommitFault, Cursor, Document, EMPTY_HEAD, IncidentFilter, MemoryStore, Store, StoreError,
};
use std::sync::Arc;

fn cursor(next_offset: u64) -> Cursor {
    Cursor { consumer: "diagnose".into(), topic: "anomalies.detected".into(), partition: 3, next_offset }
}

fn document(key: &str, body: Option<&str>) -> Document {
    Document { collection: "topology.entity".into(), key: key.into(), body: body.map(Into::into) }
}

each_kind! {
    async fn events_get_their_places_and_fold_into_incidents(db: Db) {
        let store = db.open().await;
        assert_eq!(store.chain_head(T).await.unwrap(), EMPTY_HEAD);
        let first = store.commit(T, journal(history())).await.unwrap();
        let second = store.commit(T, journal([status(2, 30, IncidentStatus::Resolved)])).await.unwrap();
        let all = [first, second].concat();
        assert_eq!(all.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(store.journal(T, 1, 100).await.unwrap(), all);
        assert_eq!(store.journal(T, 3, 2).await.unwrap(), all[2..4]);

        let mut hash = CHAIN_START;
        for (link, event) in store.chain(T, 1, 100).await.unwrap().iter().zip(&all) {
            hash = chain_hash(&hash, &link.body);
            assert_eq!((link.seq, link.hash, link.body.clone()), (event.seq, hash, event.to_body()));
        }
        let head = store.chain_head(T).await.unwrap();
        assert_eq!((head.count, head.hash), (5, hash));

        let of_first = store.incident_journal(T, id(1)).await.unwrap();
        assert_eq!(of_first.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 4]);
        let folded = of_first.iter().fold(None, journal::apply).unwrap();
        assert_eq!(store.incident(T, id(1)).await.unwrap(), Some(folded.clone()));
        assert_eq!(store.incident_by_number(T, 1).await.unwrap(), Some(folded));
        assert_eq!(store.incident_by_number(T, 3).await.unwrap(), None);
        assert_eq!(store.incident_by_number(T, u64::MAX).await.unwrap(), None);
        assert_eq!(store.last_incident_number(T).await.unwrap(), 2);
    }
}

each_kind! {
    async fn a_commit_that_is_refused_leaves_nothing(db: Db) {
        let store = db.open().await;
        let mut nan = assessed(1, 10, 0.5);
        if let nightshift_model::EventKind::Assessed { score, .. } = &mut nan.event {
            *score = f64::NAN;
        }
        let mut infinite = anomaly(9, "web1");
        infinite.explanation.features.insert("z".into(), f64::INFINITY);
        let good = || Commit {
            journal: vec![opened(1, "web1")],
            anomalies: vec![anomaly(1, "web1")],
            changes: vec![change(1, 1)],
            documents: vec![document("web1", Some("{}"))],
            cursors: vec![cursor(7)],
            expects: Vec::new(),
        };
        let with_draft = |d| { let mut c = good(); c.journal.push(d); c };
        let refused = [
            (with_draft(assessed(2, 10, 0.5)), "never opened"),
            (with_draft(nan), "cannot be read back"),
            (with_draft(opened(0, "zero")), "begin at 1"),
            (Commit { anomalies: vec![infinite], ..good() }, "cannot be read back"),
            (Commit { cursors: vec![cursor(u64::MAX)], ..good() }, "too large"),
            (Commit { documents: vec![Document { collection: "a\0b".into(), ..document("k", None) }], ..good() }, "NUL"),
            (Commit { documents: vec![document(&"k".repeat(3000), Some("{}"))], ..good() }, "at most 2048"),
        ];
        for (commit, why) in refused {
            let orphan = why == "never opened";
            match store.commit(T, commit).await {
                Err(StoreError::Refused(_)) if orphan => panic!("{why}: the trait promises `Corrupt`"),
                Err(StoreError::Refused(text) | StoreError::Corrupt(text)) => assert!(text.contains(why), "{text}"),
                other => panic!("{why}: {other:?}"),
            }
        }
        for tenant in ["", "a\nb"] {
            assert!(matches!(store.commit(tenant, good()).await, Err(StoreError::Refused(_))));
        }
        for again in [opened(1, "web1"), { let mut d = opened(1, "web1"); d.incident = id(5); d }] {
            let twice = store.commit(T, with_draft(again)).await;
            assert!(matches!(twice, Err(StoreError::Exists(_))), "{twice:?}");
        }
        assert_eq!(store.chain_head(T).await.unwrap(), EMPTY_HEAD);
        assert_eq!(store.tenants().await.unwrap(), [""; 0]);
        assert_eq!(store.incidents(T, &IncidentFilter::default()).await.unwrap(), []);
        assert_eq!(store.anomalies(T, &Default::default()).await.unwrap(), []);
        assert_eq!(store.changes(T, at(0), 10).await.unwrap(), []);
        assert_eq!(store.documents(T, "topology.entity").await.unwrap(), []);
        assert_eq!(store.cursors(T, "diagnose").await.unwrap(), []);

        store.commit(T, good()).await.unwrap();
        assert_eq!(store.cursors(T, "diagnose").await.unwrap(), [cursor(7)]);
        let twice = store.commit(T, Commit { cursors: vec![cursor(8)], ..journal([opened(1, "web1")]) }).await;
        assert!(matches!(twice, Err(StoreError::Exists(_))), "{twice:?}");
        assert_eq!(store.cursors(T, "diagnose").await.unwrap(), [cursor(7)], "a cursor moves with its commit or not");
        assert!(store.commit(T, Commit::default()).await.unwrap().is_empty());
    }
}

each_kind! {
    async fn later_rows_replace_or_join_earlier_ones(db: Db) {
        let store = db.open().await;
        let nul_key = "host.name=we\0b";
        let first = Commit {
            anomalies: vec![anomaly(1, "web1")],
            changes: vec![change(1, 1), change(1, 99)],
            documents: vec![document("b", Some("1")), document("a", Some("2")), document(nul_key, Some("3"))],
            cursors: vec![cursor(1), cursor(5)],
            ..Commit::default()
        };
        store.commit(T, first).await.unwrap();
        let mut over = anomaly(1, "web1");
        over.phase = Phase::Closed;
        let second = Commit {
            anomalies: vec![over.clone()],
            changes: vec![change(1, 50)],
            documents: vec![document("b", None), document("a", Some("4")), document("never", None)],
            cursors: vec![cursor(4)],
            ..Commit::default()
        };
        store.commit(T, second).await.unwrap();
        assert_eq!(store.anomaly(T, over.id).await.unwrap(), Some(over));
        assert_eq!(store.changes(T, at(0), 10).await.unwrap(), [change(1, 1)], "the first told stays");
        let kept = store.documents(T, "topology.entity").await.unwrap();
        assert_eq!(kept, [document("a", Some("4")), document(nul_key, Some("3"))]);
        assert_eq!(store.cursors(T, "diagnose").await.unwrap(), [cursor(4)], "a consumer may go back");
        assert_eq!(store.tenants().await.unwrap(), [T]);
    }
}

each_kind! {
    async fn tenants_never_mix(db: Db) {
        let store = db.open().await;
        let other = "other";
        let all = |host: &str| Commit {
            journal: vec![opened(1, host)],
            anomalies: vec![anomaly(1, host)],
            changes: vec![change(1, 1)],
            documents: vec![document("k", Some(host))],
            cursors: vec![cursor(1)],
            expects: Vec::new(),
        };
        store.commit(T, all("mine")).await.unwrap();
        store.commit(other, all("theirs")).await.unwrap();
        for (tenant, host) in [(T, "mine"), (other, "theirs")] {
            let inc = store.incident(tenant, id(1)).await.unwrap().unwrap();
            assert_eq!((inc.tenant.as_str(), inc.title.as_str()), (tenant, format!("{host} is slow").as_str()));
            let found = store.anomalies(tenant, &Default::default()).await.unwrap();
            assert_eq!(found.iter().map(|a| a.entity.id.name()).collect::<Vec<_>>(), [host]);
            assert_eq!(store.chain_head(tenant).await.unwrap().count, 1);
            assert_eq!(store.journal(tenant, 1, 9).await.unwrap()[0].tenant, tenant);
            assert_eq!(store.documents(tenant, "topology.entity").await.unwrap(), [document("k", Some(host))]);
        }
        assert_eq!(store.incident("nobody", id(1)).await.unwrap(), None);
        assert_eq!(store.prune("nobody", at(1000)).await.unwrap(), 0);
        assert_eq!(store.tenants().await.unwrap(), [T, other]);
    }
}

each_kind! {
    async fn commits_of_eight_tasks_make_one_whole_chain(db: Db) {
        let store = db.open().await;
        let mut tasks = Vec::new();
        for task in 0..8u64 {
            let store = Arc::clone(&store);
            tasks.push(tokio::spawn(async move {
                for k in 0..10u64 {
                    let n = task * 10 + k + 1;
                    store.commit(T, journal([opened(n, "web1"), assessed(n, 9, 0.6)])).await.unwrap();
                    // Refused in the middle of the others' groups: takes none of them with it.
                    let twice = store.commit(T, journal([assessed(n, 10, 0.7), opened(n, "web1")])).await;
                    assert!(matches!(twice, Err(StoreError::Exists(_))), "{twice:?}");
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let report = nightshift_store::audit::verify(&*store, T, None).await.unwrap();
        assert!(report.is_ok(), "{report:?}");
        assert_eq!(report.links, 160);
        let events = store.journal(T, 1, 1000).await.unwrap();
        for pair in events.chunks(2) {
            assert_eq!(pair[0].incident, pair[1].incident, "events of one commit stay together");
        }
    }
}

each_kind! {
    async fn pruning_keeps_what_is_open_and_every_incident(db: Db) {
        let store = db.open().await;
        let mut closed_old = anomaly(1, "a");
        closed_old.phase = Phase::Closed;
        let mut closed_new = anomaly(100, "b");
        closed_new.phase = Phase::Closed;
        let commit = Commit {
            journal: vec![opened(1, "a")],
            anomalies: vec![closed_old, closed_new.clone(), anomaly(2, "c")],
            changes: vec![change(1, 1), change(2, 50)],
            ..Commit::default()
        };
        store.commit(T, commit).await.unwrap();
        assert_eq!(store.prune(T, at(50)).await.unwrap(), 2);
        assert_eq!(store.anomalies(T, &Default::default()).await.unwrap(), [closed_new, anomaly(2, "c")]);
        assert_eq!(store.changes(T, at(0), 9).await.unwrap(), [change(2, 50)]);
        assert!(store.incident(T, id(1)).await.unwrap().is_some());
        assert_eq!(store.prune(T, at(50)).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn injected_faults_fail_the_nth_commit_before_or_after_its_effect() {
    let store = MemoryStore::new();
    store.fail_commit(2, CommitFault::BeforeEffect);
    store.fail_commit(3, CommitFault::AfterEffect);
    let mut failed = Vec::new();
    for n in 1..=4 {
        match store.commit(T, journal([opened(n, "web1")])).await {
            Ok(_) => {}
            Err(e) => {
                assert!(e.is_transient(), "{e}");
                failed.push(n);
            }
        }
    }
    assert_eq!(failed, [2, 3]);
    let kept = store.incidents(T, &IncidentFilter::default()).await.unwrap();
    assert_eq!(kept.iter().map(|i| i.number).collect::<Vec<_>>(), [4, 3, 1]);
}

// LEASE-1
each_kind! {
    async fn a_commit_that_expects_another_document_writes_nothing(db: Db) {
        let store = db.open().await;
        let lease = |body: Option<&str>| document("lease", body);
        let put = |was: Option<&str>, to: &str| Commit {
            documents: vec![lease(Some(to))],
            expects: vec![lease(was)],
            ..Commit::default()
        };
        store.commit(T, put(None, "a 1")).await.unwrap();
        let late = Commit { journal: history(), ..put(None, "b 1") };
        assert!(matches!(store.commit(T, late).await, Err(StoreError::Conflict(what)) if what.contains("lease")));
        assert_eq!(store.chain_head(T).await.unwrap(), EMPTY_HEAD);
        store.commit(T, put(Some("a 1"), "b 2")).await.unwrap();
        // The one that lost it can write no more, whatever it writes.
        let zombie = Commit { journal: history(), expects: vec![lease(Some("a 1"))], ..Commit::default() };
        assert!(matches!(store.commit(T, zombie).await, Err(StoreError::Conflict(_))));
        let owner = Commit { journal: history(), expects: vec![lease(Some("b 2"))], ..Commit::default() };
        assert_eq!(store.commit(T, owner).await.unwrap().len(), history().len());
    }
}

each_kind! {
    async fn rows_of_the_tenant_are_in_the_chain_and_of_no_incident(db: Db) {
        let store = db.open().await;
        let switched = |incident| journal::JournalDraft {
            incident,
            at: nightshift_model::Timestamp::from_secs(5),
            actor: "ann".into(),
            event: nightshift_model::EventKind::KillSwitched { on: true, why: "drill".into() },
        };
        let mut rows = history();
        rows.push(switched(journal::TENANT_WIDE));
        let n = rows.len();
        store.commit(T, journal(rows)).await.unwrap();
        assert_eq!(store.journal(T, 1, 100).await.unwrap().len(), n);
        assert_eq!(store.check_projection(T, 10).await.unwrap(), Vec::<String>::new());
        store.rebuild(T).await.unwrap();
        assert_eq!(store.last_incident_number(T).await.unwrap(), 2);
        assert_eq!(store.incident(T, journal::TENANT_WIDE).await.unwrap(), None);
        // Neither may pass for the other.
        assert!(matches!(store.commit(T, journal([switched(id(1))])).await, Err(StoreError::Refused(_))));
        let mut stray = status(1, 30, IncidentStatus::Resolved);
        stray.incident = journal::TENANT_WIDE;
        assert!(matches!(store.commit(T, journal([stray])).await, Err(StoreError::Refused(_))));
    }
}
