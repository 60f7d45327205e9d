//! Lists: filters, paging, order, tokens.

use crate::data::*;
use crate::each_kind;
use nightshift_model::{EventKind, IncidentStatus, Phase, Severity, Timestamp};
use nightshift_store::{AnomalyFilter, Commit, IncidentFilter, Store, StoreError, TokenRow, tokens};

async fn numbers(store: &dyn Store, filter: IncidentFilter) -> Vec<u64> {
    store.incidents(T, &filter).await.unwrap().iter().map(|i| i.number).collect()
}

each_kind! {
    async fn incidents_are_filtered_by_each_field_and_by_all(db: Db) {
        let store = db.open().await;
        let mut injected = opened(5, "fake");
        if let EventKind::Opened { anomaly, .. } = &mut injected.event {
            anomaly.entity.synthetic = true;
        }
        let mut drafts = vec![opened(1, "web1"), opened(2, "web10"), opened(3, "DB%_1"), opened(4, "we\0b"), injected];
        drafts.extend([assessed(1, 100, 0.95), status(2, 200, IncidentStatus::Resolved), ranked(3, 300)]);
        store.commit(T, journal(drafts)).await.unwrap();

        let f = IncidentFilter::default;
        let table = [
            (f(), vec![4, 3, 2, 1]),
            (IncidentFilter { synthetic: true, ..f() }, vec![5, 4, 3, 2, 1]),
            (IncidentFilter { status: vec![IncidentStatus::Resolved], ..f() }, vec![2]),
            (IncidentFilter { status: vec![IncidentStatus::Resolved, IncidentStatus::Detecting], ..f() }, vec![4, 3, 2, 1]),
            (IncidentFilter { severity: vec![Severity::Critical], ..f() }, vec![1]),
            (IncidentFilter { severity: vec![Severity::High, Severity::Low], ..f() }, vec![4, 3, 2]),
            (IncidentFilter { entity: Some("web1".into()), ..f() }, vec![2, 1]),
            (IncidentFilter { entity: Some("WEB10".into()), ..f() }, vec![2]),
            (IncidentFilter { entity: Some("local/host/-/web1".into()), ..f() }, vec![1]),
            (IncidentFilter { entity: Some("eu%2F1/service/shop/Pay1".into()), ..f() }, vec![1]),
            (IncidentFilter { entity: Some("pay1".into()), ..f() }, vec![1]),
            (IncidentFilter { entity: Some("%".into()), ..f() }, vec![3]),
            (IncidentFilter { entity: Some("host".into()), ..f() }, vec![]),
            (IncidentFilter { since: Some(at(200)), ..f() }, vec![3, 2]),
            (IncidentFilter { until: Some(at(200)), ..f() }, vec![4, 1]),
            (IncidentFilter { since: Some(at(200)), until: Some(at(300)), ..f() }, vec![2]),
            (IncidentFilter { text: Some("ÜBER dem".into()), ..f() }, vec![1]),
            (IncidentFilter { text: Some("volume IS full".into()), ..f() }, vec![3]),
            (IncidentFilter { text: Some("disk_full".into()), ..f() }, vec![3]),
            (IncidentFilter { text: Some("left its band".into()), ..f() }, vec![4, 3, 2, 1]),
            (IncidentFilter { text: Some("we\0b".into()), ..f() }, vec![4]),
            (IncidentFilter { text: Some("'; DROP TABLE incidents; --".into()), ..f() }, vec![]),
            (IncidentFilter { before_number: Some(3), ..f() }, vec![2, 1]),
            (IncidentFilter { before_number: Some(u64::MAX), limit: 2, ..f() }, vec![4, 3]),
            (IncidentFilter { before_number: Some(0), ..f() }, vec![]),
            (IncidentFilter { text: Some("slow".into()), severity: vec![Severity::High], before_number: Some(4), ..f() }, vec![3, 2]),
        ];
        for (filter, want) in table {
            assert_eq!(numbers(&*store, filter.clone()).await, want, "{filter:?}");
        }
    }
}

each_kind! {
    async fn paging_gives_each_incident_once(db: Db) {
        let store = db.open().await;
        let drafts = (1..=230).map(|n| opened(n, "web1")).collect::<Vec<_>>();
        store.commit(T, journal(drafts)).await.unwrap();
        assert_eq!(numbers(&*store, IncidentFilter::default()).await.len(), 100, "no limit means 100");
        let mut seen = Vec::new();
        loop {
            let before_number = seen.last().copied();
            let page = numbers(&*store, IncidentFilter { limit: 50, before_number, ..Default::default() }).await;
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        assert_eq!(seen, (1..=230).rev().collect::<Vec<_>>());
        assert_eq!(store.last_incident_number(T).await.unwrap(), 230);
    }
}

each_kind! {
    async fn anomalies_and_changes_are_listed_newest_first(db: Db) {
        let store = db.open().await;
        let mut closed = anomaly(3, "web1");
        closed.phase = Phase::Closed;
        let mut low = anomaly(4, "web2");
        low.severity = Severity::Low;
        let mut tied = anomaly(9, "web1");
        tied.onset = anomaly(3, "web1").onset;
        let anomalies = vec![anomaly(1, "web1"), closed.clone(), low.clone(), tied.clone()];
        let changes = vec![change(1, 10), change(3, 30), change(2, 30), change(4, -5)];
        store.commit(T, Commit { anomalies, changes, ..Commit::default() }).await.unwrap();

        let f = AnomalyFilter::default;
        let table = [
            (f(), vec![low.clone(), tied.clone(), closed.clone(), anomaly(1, "web1")]),
            (AnomalyFilter { limit: 1, ..f() }, vec![low.clone()]),
            (AnomalyFilter { open_only: true, ..f() }, vec![low.clone(), tied.clone(), anomaly(1, "web1")]),
            (AnomalyFilter { severity: vec![Severity::Low], ..f() }, vec![low.clone()]),
            (AnomalyFilter { entity: Some(low.entity.id.clone()), ..f() }, vec![low.clone()]),
            (AnomalyFilter { since: Some(at(8)), ..f() }, vec![low.clone(), tied.clone(), closed]),
            (AnomalyFilter { since: Some(at(9)), open_only: true, ..f() }, vec![low, tied]),
        ];
        for (filter, want) in table {
            assert_eq!(store.anomalies(T, &filter).await.unwrap(), want, "{filter:?}");
        }
        let listed = |found: Vec<nightshift_model::Change>| found.iter().map(|c| c.id.0).collect::<Vec<_>>();
        assert_eq!(listed(store.changes(T, at(10), 10).await.unwrap()), [3, 2, 1]);
        assert_eq!(listed(store.changes(T, Timestamp(i64::MIN), 2).await.unwrap()), [3, 2]);
        assert_eq!(listed(store.changes(T, at(0), usize::MAX).await.unwrap()), [3, 2, 1]);
    }
}

fn token(name: &str, secret: &str, secs: i64) -> TokenRow {
    TokenRow {
        name: name.into(),
        role: "operator".into(),
        secret_sha256: tokens::hash(secret),
        created_at: at(secs),
        generated: false,
        revoked_at: None,
    }
}

each_kind! {
    async fn tokens_have_one_live_bearer_per_name(db: Db) {
        let store = db.open().await;
        store.put_token(token("ci", "s1", 5)).await.unwrap();
        store.put_token(token("ann", "s2", 1)).await.unwrap();
        for taken in [token("ci", "s3", 6), token("new", "s1", 6)] {
            assert!(matches!(store.put_token(taken).await, Err(StoreError::Exists(_))));
        }
        let unknown_role = TokenRow { role: "root".into(), ..token("x", "s4", 6) };
        assert!(matches!(store.put_token(unknown_role).await, Err(StoreError::Refused(_))));
        assert!(store.revoke_token("ci", at(9)).await.unwrap());
        assert!(!store.revoke_token("ci", at(10)).await.unwrap());
        assert!(!store.revoke_token("nobody", at(10)).await.unwrap());
        store.put_token(token("ci", "s3", 11)).await.unwrap();
        let old = TokenRow { revoked_at: Some(at(9)), ..token("ci", "s1", 5) };
        assert_eq!(store.tokens().await.unwrap(), [token("ann", "s2", 1), old, token("ci", "s3", 11)]);
        assert_eq!(store.tenants().await.unwrap(), [""; 0], "a token makes no tenant");
    }
}
