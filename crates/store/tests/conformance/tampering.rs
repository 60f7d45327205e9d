//! Whoever changes the record past the store is found.

use crate::data::*;
use crate::each_kind;
use crate::kinds::{Db, Kind};
use nightshift_store::audit::{self, FaultKind};
use nightshift_store::{MemoryStore, Store};

async fn fault(store: &dyn Store) -> Option<(FaultKind, Option<u64>)> {
    let report = audit::verify(store, T, None).await.unwrap();
    report.faults.first().map(|f| (f.kind, f.seq))
}

each_kind! {
    async fn an_untouched_chain_is_good(db: Db) {
        let store = db.open().await;
        assert_eq!(fault(&*store).await, None, "an empty one");
        store.commit(T, journal(history())).await.unwrap();
        let report = audit::verify(&*store, T, Some(store.chain_head(T).await.unwrap())).await.unwrap();
        assert!(report.is_ok(), "{report:?}");
        assert_eq!(report.links, 4);
    }
}

/// Every byte of every body and hash, in memory where it costs nothing.
#[tokio::test]
async fn a_change_of_any_byte_of_any_link_is_found_where_it_is() {
    let store = MemoryStore::new();
    store.commit(T, journal([opened(1, "w"), assessed(1, 10, 0.95)])).await.unwrap();
    for (i, link) in store.chain(T, 1, 9).await.unwrap().iter().enumerate() {
        for byte in 0..link.body.len() + 32 {
            let flip = |links: &mut Vec<nightshift_store::ChainLink>| match byte.checked_sub(links[i].body.len()) {
                None => links[i].body[byte] ^= 1,
                Some(b) => links[i].hash[b] ^= 0x80,
            };
            store.tamper(T, flip);
            assert_eq!(fault(&store).await, Some((FaultKind::Altered, Some(link.seq))), "link {i} byte {byte}");
            store.tamper(T, flip);
        }
    }
    assert_eq!(fault(&store).await, None);
}

#[tokio::test]
async fn removing_moving_or_doubling_links_is_found() {
    let store = MemoryStore::new();
    store.commit(T, journal(history())).await.unwrap();
    let good = store.chain(T, 1, 9).await.unwrap();
    let restore = |good: &[nightshift_store::ChainLink]| {
        let good = good.to_vec();
        move |links: &mut Vec<_>| *links = good
    };
    store.tamper(T, |l| drop(l.remove(1)));
    assert_eq!(fault(&store).await, Some((FaultKind::Gap, Some(2))));
    store.tamper(T, restore(&good));
    store.tamper(T, |l| {
        l.swap(1, 2);
        (l[1].seq, l[2].seq) = (2, 3);
    });
    assert_eq!(fault(&store).await, Some((FaultKind::Altered, Some(2))));
    store.tamper(T, restore(&good));
    store.tamper(T, |l| drop(l.pop()));
    assert_eq!(fault(&store).await, Some((FaultKind::HeadRow, None)));
    store.tamper(T, restore(&good));
    // A body that hashes right but says another place, as a forger who knows the scheme might leave it.
    store.tamper(T, |l| {
        let body = l[1].body.clone();
        let hash = nightshift_model::journal::chain_hash(&l[3].hash, &body);
        l.push(nightshift_store::ChainLink { seq: 5, body, hash });
    });
    assert_eq!(fault(&store).await, Some((FaultKind::HeadRow, Some(5))), "beyond the head");
    store.tamper(T, restore(&good));
    assert_eq!(fault(&store).await, None);
}

/// Each column of each table of the record, in the databases.
async fn each_column(db: &Db) {
    let store = db.open().await;
    store.commit(T, journal(history())).await.unwrap();
    let links = store.chain(T, 1, 9).await.unwrap();
    let triggers = match db.kind {
        Kind::Postgres => "DROP TRIGGER incident_events_no_change ON incident_events",
        _ => "DROP TRIGGER incident_events_no_update; DROP TRIGGER incident_events_no_delete",
    };
    let tables = ["incident_events", "chain_heads", "incidents"];
    let keep = tables.map(|t| format!("CREATE TABLE keep_{t} AS SELECT * FROM {t}")).join("; ");
    db.sql(&format!("{triggers}; {keep}")).await;

    let flipped = |bytes: &[u8], i: usize| {
        let mut bytes = bytes.to_vec();
        bytes[i] ^= 1;
        db.literal(&bytes)
    };
    let mut table = Vec::new();
    let mut events =
        |set: String, seq: u64, want| table.push((format!("UPDATE incident_events SET {set} WHERE seq = {seq}"), want));
    let (last, body) = (links[2].body.len() - 1, &links[2].body);
    for i in [0, 1, 12, 40, last / 2, last] {
        events(format!("body = {}", flipped(body, i)), 3, FaultKind::Altered);
    }
    for i in 0..32 {
        events(format!("hash = {}", flipped(&links[2].hash, i)), 3, FaultKind::Altered);
    }
    for i in 0..16 {
        // Not part of what is hashed, so it shows where it is used.
        events(format!("incident = {}", flipped(&id(2).to_bytes(), i)), 3, FaultKind::Projection);
    }
    events(format!("incident = {}", db.literal(&id(1).to_bytes())), 3, FaultKind::Projection);
    events(format!("hash = {}", db.literal(&[1, 2])), 2, FaultKind::Unreadable);
    events("seq = 7".into(), 3, FaultKind::Gap);
    events("seq = 7".into(), 4, FaultKind::HeadRow);
    events("seq = 0".into(), 1, FaultKind::Gap);
    events("tenant = 'other'".into(), 2, FaultKind::Gap);
    events("tenant = 'other'".into(), 4, FaultKind::HeadRow);
    let heads = |set: String| format!("UPDATE chain_heads SET {set}");
    table.push((heads("count = 3".into()), FaultKind::HeadRow));
    table.push((heads("count = 5".into()), FaultKind::HeadRow));
    table.push((heads("count = -5".into()), FaultKind::HeadRow));
    table.push((heads("tenant = 'x'".into()), FaultKind::HeadRow));
    table.push((heads(format!("hash = {}", flipped(&links[3].hash, 31))), FaultKind::HeadRow));
    table.push(("DELETE FROM chain_heads".into(), FaultKind::HeadRow));
    for set in [
        "number = 9",
        "status = 'resolved'",
        "severity = 0",
        "updated_at = updated_at + 1",
        "onset = onset - 1",
        "synthetic = 1",
        "entities = ''",
        "names = ''",
        "text = ''",
        "tenant = 'other'",
    ] {
        table.push((format!("UPDATE incidents SET {set} WHERE number = 1"), FaultKind::Projection));
    }
    for bytes in [&b"{}"[..], b""] {
        let set = format!("UPDATE incidents SET body = {} WHERE number = 1", db.literal(bytes));
        table.push((set, FaultKind::Projection));
    }
    let other_title = format!(
        "UPDATE incidents SET body = (SELECT body FROM incidents WHERE number = 2), id = {} WHERE number = 1",
        db.literal(&id(77).to_bytes())
    );
    table.push((other_title, FaultKind::Projection));
    table.push(("DELETE FROM incidents WHERE number = 2".into(), FaultKind::Projection));

    for (damage, want) in table {
        db.sql(&damage).await;
        let found = fault(&*store).await;
        assert_eq!(found.map(|f| f.0), Some(want), "{damage}: {found:?}");
        if want == FaultKind::Projection && !damage.contains("incident_events") {
            store.rebuild(T).await.unwrap();
            assert_eq!(fault(&*store).await, None, "rebuilt after {damage}");
        }
        let restore = tables.map(|t| format!("DELETE FROM {t}; INSERT INTO {t} SELECT * FROM keep_{t}")).join("; ");
        db.sql(&restore).await;
    }
    assert_eq!(fault(&*store).await, None);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_change_of_any_column_is_found_sqlite() {
    each_column(&Db::new(Kind::Sqlite).await.unwrap()).await;
}

#[tokio::test]
async fn a_change_of_any_column_is_found_postgres() {
    if let Some(db) = Db::new(Kind::Postgres).await {
        each_column(&db).await;
        db.drop_schema().await;
    }
}

#[tokio::test]
#[should_panic(expected = "append-only")]
async fn the_journal_refuses_changes_by_mistake() {
    let db = Db::new(Kind::Sqlite).await.unwrap();
    db.open().await.commit(T, journal(history())).await.unwrap();
    db.sql("DELETE FROM incident_events WHERE seq = 4").await;
}
