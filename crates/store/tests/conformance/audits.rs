//! Exports, imports, and heads outside the database.

use crate::data::*;
use crate::each_kind;
use crate::kinds::{Db, Kind};
use nightshift_model::IncidentStatus;
use nightshift_store::audit::{self, ExportError, FaultKind};
use nightshift_store::{ChainHead, Store};

async fn exported(store: &dyn Store) -> Vec<u8> {
    let mut file = Vec::new();
    audit::export(store, T, &mut file).await.unwrap();
    file
}

#[tokio::test]
async fn a_chain_of_each_kind_verifies_in_each_other() {
    let mut stores = Vec::new();
    let mut dbs = Vec::new();
    for kind in [Kind::Memory, Kind::Sqlite, Kind::Postgres] {
        if let Some(db) = Db::new(kind).await {
            stores.push(db.open().await);
            dbs.push(db);
        }
    }
    let mut exports = Vec::new();
    for store in &stores {
        store.commit(T, journal(history())).await.unwrap();
        exports.push(exported(&**store).await);
    }
    for (export, from) in exports.iter().zip(&dbs) {
        let head = audit::verify_export(&export[..], None).unwrap().head;
        for kind in [Kind::Memory, Kind::Sqlite, Kind::Postgres] {
            let Some(db) = Db::new(kind).await else { continue };
            let to = db.open().await;
            assert_eq!(audit::import(&*to, &export[..]).await.unwrap().head, head);
            let report = audit::verify(&*to, T, Some(head)).await.unwrap();
            assert!(report.is_ok(), "{:?} to {kind:?}: {report:?}", from.kind);
            assert_eq!(&exported(&*to).await, export, "the same bytes come out again");
            let lived = stores[0].incident(T, id(1)).await.unwrap();
            assert_eq!(to.incident(T, id(1)).await.unwrap(), lived);
            // The imported one is lived in.
            to.commit(T, journal([status(2, 50, IncidentStatus::Resolved)])).await.unwrap();
            assert!(audit::verify(&*to, T, Some(head)).await.unwrap().is_ok());
            db.drop_schema().await;
        }
    }
    for db in dbs {
        db.drop_schema().await;
    }
}

each_kind! {
    async fn an_import_goes_on_where_it_broke_off_and_refuses_another_chain(db: Db) {
        let full = nightshift_store::MemoryStore::new();
        full.commit(T, journal(history())).await.unwrap();
        let export = exported(&full).await;
        let store = db.open().await;
        store.append_links(T, full.chain(T, 1, 2).await.unwrap()).await.unwrap();
        audit::import(&*store, &export[..]).await.unwrap();
        audit::import(&*store, &export[..]).await.unwrap();
        assert_eq!(store.chain_head(T).await.unwrap(), full.chain_head(T).await.unwrap());

        let other = nightshift_store::MemoryStore::new();
        other.commit(T, journal([opened(1, "elsewhere"), opened(2, "x")])).await.unwrap();
        let refused = audit::import(&*store, &exported(&other).await[..]).await;
        assert!(matches!(refused, Err(ExportError::Refused(_))), "{refused:?}");
        // Links that do not continue the chain, at the door that an import uses.
        for links in [full.chain(T, 4, 1).await.unwrap(), other.chain(T, 1, 9).await.unwrap()] {
            assert!(store.append_links(T, links).await.is_err());
        }
        let report = audit::verify(&*store, T, None).await.unwrap();
        assert!(report.is_ok() && report.links == 4, "{report:?}");
    }
}

each_kind! {
    async fn rebuilding_gives_the_same_incidents(db: Db) {
        let store = db.open().await;
        store.commit(T, journal(history())).await.unwrap();
        let before = store.incidents(T, &Default::default()).await.unwrap();
        store.rebuild(T).await.unwrap();
        assert_eq!(store.incidents(T, &Default::default()).await.unwrap(), before);
        assert!(audit::verify(&*store, T, None).await.unwrap().is_ok());
        store.rebuild("nobody").await.unwrap();
    }
}

async fn for_each_database(test: impl AsyncFn(&Db)) {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        if let Some(db) = Db::new(kind).await {
            test(&db).await;
            db.drop_schema().await;
        }
    }
}

#[tokio::test]
async fn the_head_outside_follows_and_shows_a_cut_tail() {
    for_each_database(async |db| {
        let store = db.open().await;
        for draft in history() {
            store.commit(T, journal([draft])).await.unwrap();
        }
        let head = store.chain_head(T).await.unwrap();
        store.close().await.unwrap();
        assert_eq!(db.heads().read(T).unwrap(), Some(head), "closing notes the last head");

        // Cut cleanly: chain, note of the end and projection all agree that the last event never was.
        let cut = "DELETE FROM incident_events WHERE seq = 4";
        let drop_trigger = match db.kind {
            Kind::Postgres => "DROP TRIGGER incident_events_no_change ON incident_events",
            _ => "DROP TRIGGER incident_events_no_delete",
        };
        let new_end = "UPDATE chain_heads SET count = 3, hash = (SELECT hash FROM incident_events WHERE seq = 3)";
        db.sql(&format!("{drop_trigger}; {cut}; {new_end}")).await;
        let store = db.open().await;
        store.rebuild(T).await.unwrap();
        assert!(audit::verify(&*store, T, None).await.unwrap().is_ok(), "nothing inside tells");
        let report = audit::verify(&*store, T, Some(head)).await.unwrap();
        assert_eq!(report.faults.iter().map(|f| (f.kind, f.seq)).collect::<Vec<_>>(), [(FaultKind::CutTail, Some(4))]);

        // Life goes on, past where the note was: the evidence stays, and now it is another chain.
        store.commit(T, journal([opened(3, "x"), opened(4, "y")])).await.unwrap();
        store.close().await.unwrap();
        assert_eq!(db.heads().read(T).unwrap(), Some(head), "a note that contradicts the chain is never replaced");
        let store = db.open().await;
        let report = audit::verify(&*store, T, Some(head)).await.unwrap();
        assert_eq!(report.faults.iter().map(|f| f.kind).collect::<Vec<_>>(), [FaultKind::Rewritten]);
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn all_tenants_are_verified_those_that_vanished_too() {
    for_each_database(async |db| {
        let store = db.open().await;
        for tenant in ["a", "b", "gone"] {
            store.commit(tenant, journal(history())).await.unwrap();
        }
        store.close().await.unwrap();
        let triggers = match db.kind {
            Kind::Postgres => "DROP TRIGGER incident_events_no_change ON incident_events",
            _ => "DROP TRIGGER incident_events_no_delete",
        };
        let gone = ["incident_events", "chain_heads", "incidents"]
            .map(|table| format!("DELETE FROM {table} WHERE tenant = 'gone'"))
            .join("; ");
        db.sql(&format!("{triggers}; {gone}")).await;
        std::fs::write(db.heads().path("b"), "nonsense\n").unwrap();
        let store = db.open().await;
        assert_eq!(store.tenants().await.unwrap(), ["a", "b"]);
        let reports = audit::verify_all(&*store, &db.heads()).await.unwrap();
        let found = reports.iter().map(|r| (r.tenant.as_str(), r.faults.first().map(|f| f.kind))).collect::<Vec<_>>();
        let want = [("a", None), ("b", Some(FaultKind::HeadFile)), ("gone", Some(FaultKind::CutTail))];
        assert_eq!(found, want);

        // A file that is not a head is left alone: perhaps somebody can still read it.
        store.commit("b", journal([opened(3, "x")])).await.unwrap();
        store.close().await.unwrap();
        assert_eq!(std::fs::read_to_string(db.heads().path("b")).unwrap(), "nonsense\n");
    })
    .await;
}

#[tokio::test]
async fn a_head_that_is_behind_is_no_fault_and_moves_on() {
    for_each_database(async |db| {
        let store = db.open().await;
        store.commit(T, journal(history())).await.unwrap();
        let early = store.chain_head(T).await.unwrap();
        store.commit(T, journal([opened(3, "x")])).await.unwrap();
        let report = audit::verify(&*store, T, Some(early)).await.unwrap();
        assert!(report.is_ok() && report.outside_head, "{report:?}");
        store.close().await.unwrap();
        let store = db.open().await;
        store.commit(T, journal([opened(4, "y")])).await.unwrap();
        let head = store.chain_head(T).await.unwrap();
        store.close().await.unwrap();
        assert_eq!(db.heads().read(T).unwrap(), Some(head));
    })
    .await;
}

#[tokio::test]
async fn an_export_that_was_changed_is_refused_with_the_line() {
    let store = nightshift_store::MemoryStore::new();
    store.commit(T, journal(history())).await.unwrap();
    let whole = String::from_utf8(exported(&store).await).unwrap();
    let lines = whole.lines().collect::<Vec<_>>();
    let join = |lines: &[&str]| lines.iter().map(|l| format!("{l}\n")).collect::<String>();
    let head = store.chain_head(T).await.unwrap();
    let long = "x".repeat(audit::EXPORT_LINE_BYTES_MAX + 1);
    let table = [
        (String::new(), "line 1: the file is empty"),
        ("\n".into(), "line 1: is not the first line"),
        ("{}\n".into(), "line 1: is not the first line"),
        (join(&[&lines[0].replace("chain\":1", "chain\":2")]), "line 1: is an export of version 2"),
        (join(&[&lines[0].replace(T, "a\\nb")]), "line 1: refuse the tenant name"),
        (join(&[&lines[0].replace("\"hash\":\"", "\"hash\":\"z")]), "line 1: its hash"),
        (join(&[lines[0], "[]"]), "line 2: is not a link"),
        (join(&[lines[0], &lines[1].replace("\"seq\"", "\"x\":1,\"seq\"")]), "line 2: is not a link"),
        (join(&[lines[0], &lines[1].replace("\"body\":\"", "\"body\":\"*")]), "line 2: its body is not base64"),
        (join(&[lines[0], &lines[1].replace("\"hash\":\"", "\"hash\":\"A")]), "line 2: its hash"),
        (whole.trim_end().to_owned(), "line 5: ends early"),
        (join(&lines[..4]), "it ends at 3"),
        (join(&[lines[0], lines[1], lines[3], lines[4]]), "line 3: link 2: after link 1 comes 3"),
        (join(&[lines[0], lines[1], lines[1]]), "line 3: link 2: after link 1 comes 1"),
        (join(&[lines[0], lines[1], &lines[3].replace("\"seq\":3", "\"seq\":2")]), "line 3: link 2: its hash does not"),
        (join(&[&lines[0].replace(T, "other"), lines[1]]), "line 2: link 1: its body is link 1 of tenant `default`"),
        (join(&[lines[0], &long]), "line 2: is longer than"),
    ];
    for (file, why) in table {
        let error = audit::verify_export(file.as_bytes(), None).unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
        let empty = nightshift_store::MemoryStore::new();
        assert!(audit::import(&empty, file.as_bytes()).await.is_err(), "{why}");
    }
    assert_eq!(audit::verify_export(whole.as_bytes(), Some(head)).unwrap().head, head);
    let longer = ChainHead { count: 9, ..head };
    assert!(audit::verify_export(whole.as_bytes(), Some(longer)).unwrap_err().to_string().contains("9 were noted"));
}

/// What a fuzzer starts from is replayed here.
#[test]
fn the_corpus_is_read_without_harm() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/audit_export");
    let mut whole = 0;
    let files = std::fs::read_dir(folder).unwrap().map(|f| std::fs::read(f.unwrap().path()).unwrap());
    let files = files.collect::<Vec<_>>();
    for bytes in &files {
        audit::fuzz_audit_export(bytes);
        whole += usize::from(audit::verify_export(&bytes[..], None).is_ok());
    }
    assert!(whole >= 1 && whole < files.len(), "{whole} of {} verify: the corpus has both sorts", files.len());
}
