//! Any sequence of drafts: what was accepted folds to what is kept, and every kind keeps the same.

use crate::data::*;
use crate::kinds::{Db, Kind};
use nightshift_model::{EventKind, IncidentStatus, JournalDraft, Phase, Severity, journal};
use nightshift_store::{IncidentFilter, Store, audit};
use proptest::prelude::*;

fn drafts() -> impl Strategy<Value = Vec<Vec<JournalDraft>>> {
    let host = prop_oneof!["web[0-3]", "\\PC{0,6}", Just("we\0b".to_owned())];
    let event = (0..9u8, 1..5u64, 0..60i64, any::<f64>(), any::<bool>(), host);
    let draft = event.prop_map(|(which, n, secs, score, flag, host)| {
        let mut symptom = anomaly(n * 100 + secs as u64 % 7, &host);
        symptom.score = score;
        symptom.phase = if flag { Phase::Closed } else { Phase::Update };
        symptom.explanation.observed = Some(score);
        symptom.entity.synthetic = flag;
        let why = host.clone();
        match which {
            0..=2 => {
                let event =
                    EventKind::Opened { number: n, title: host, anomaly: Box::new(symptom), recurrence_of: None };
                draft(n, secs, event)
            }
            3 => draft(n, secs, EventKind::AnomalyJoined { anomaly: Box::new(symptom), why }),
            4 => draft(n, secs, EventKind::StormJoined { count: 3, open: 2, closed: 1 }),
            5 => assessed(n, secs, score),
            6 => ranked(n, secs),
            7 => draft(n, secs, EventKind::Resolved { why }),
            _ => draft(n, secs, EventKind::Absorbed { other: id(9), anomalies: vec![symptom] }),
        }
    });
    prop::collection::vec(prop::collection::vec(draft, 1..4), 1..25)
}

fn filters() -> impl Strategy<Value = IncidentFilter> {
    let status = prop::collection::vec(prop::sample::select(IncidentStatus::ALL.to_vec()), 0..3);
    let severity = prop::collection::vec(prop::sample::select(Severity::ALL.to_vec()), 0..3);
    let text = || prop::option::of(prop_oneof!["web[0-3]", "\\PC{0,2}", Just("full".to_owned())]);
    let time = || prop::option::of((0..60i64).prop_map(at));
    (status, severity, text(), time(), time(), text(), any::<bool>(), prop::option::of(0..6u64), 0..4usize).prop_map(
        |(status, severity, entity, since, until, text, synthetic, before_number, limit)| IncidentFilter {
            status,
            severity,
            entity,
            since,
            until,
            text,
            synthetic,
            before_number,
            limit,
        },
    )
}

async fn lived(commits: &[Vec<JournalDraft>], filters: &[IncidentFilter]) {
    let mut dbs = Vec::new();
    for kind in [Kind::Memory, Kind::Sqlite] {
        let db = Db::new(kind).await.unwrap();
        let store = db.open().await;
        dbs.push((db, store));
    }
    for commit in commits {
        let mut answers = Vec::new();
        for (_, store) in &dbs {
            let before = store.chain_head(T).await.unwrap();
            let answer = store.commit(T, journal(commit.clone())).await.map_err(|e| e.to_string());
            let moved = store.chain_head(T).await.unwrap().count - before.count;
            assert_eq!(moved, answer.as_ref().map_or(0, |events| events.len() as u64));
            answers.push(answer);
        }
        assert_eq!(answers[0], answers[1], "every kind accepts and refuses the same");
    }
    for (db, store) in &dbs {
        let report = audit::verify(&**store, T, None).await.unwrap();
        assert!(report.is_ok(), "{:?}: {report:?}", db.kind);
        for n in 1..5 {
            let events = store.incident_journal(T, id(n)).await.unwrap();
            assert_eq!(store.incident(T, id(n)).await.unwrap(), events.iter().fold(None, journal::apply));
        }
    }
    for filter in filters {
        let [memory, sqlite] = [&dbs[0].1, &dbs[1].1];
        let want = memory.incidents(T, filter).await.unwrap();
        assert_eq!(sqlite.incidents(T, filter).await.unwrap(), want, "{filter:?}");
    }
    dbs[1].1.close().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_projection_is_the_fold_whatever_happens(
        commits in drafts(),
        filters in prop::collection::vec(filters(), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(lived(&commits, &filters));
    }

    #[test]
    fn no_bytes_panic_a_reader_of_exports(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        audit::fuzz_audit_export(&bytes);
    }

    /// One byte of a good export changed: refused, or (a space, a letter of an escape) it says the same chain.
    #[test]
    fn a_changed_export_never_passes_for_another_chain(at in any::<prop::sample::Index>(), xor in 1u8..) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (file, head) = runtime.block_on(async {
            let store = nightshift_store::MemoryStore::new();
            store.commit(T, journal(history())).await.unwrap();
            let mut file = Vec::new();
            audit::export(&store, T, &mut file).await.unwrap();
            (file, store.chain_head(T).await.unwrap())
        });
        let mut changed = file.clone();
        changed[at.index(file.len())] ^= xor;
        if let Ok(summary) = audit::verify_export(&changed[..], None) {
            prop_assert_eq!(summary.head, head);
        }
    }
}
