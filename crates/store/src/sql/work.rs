//! What is written, one unit of work at a time, inside a transaction that somebody else ends.

use super::db::{Arg, Row, Tx};
use crate::append::{self, EMPTY_HEAD, Existing, Prepared};
use crate::rows::{self, AnomalyRow, IncidentRow};
use crate::{ChainHead, ChainLink, Commit, Cursor, Document, StoreError, TokenRow};
use nightshift_model::{Anomaly, Change, Incident, IncidentId, JournalEvent, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Rows in one statement: few enough for every database's limit of parameters.
const ROWS_A_STATEMENT: usize = 50;

/// One unit: all of it is written, or none.
#[derive(Debug)]
pub(super) enum Work {
    Commit(Commit),
    AppendLinks(Vec<ChainLink>),
    Rebuild,
    Prune(Timestamp),
    PutToken(TokenRow),
    RevokeToken { name: String, at: Timestamp },
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) events: Vec<JournalEvent>,
    /// Rows removed or changed, where the caller wants to know.
    pub(super) rows: u64,
    /// Where the chain ends now, if it moved.
    pub(super) head: Option<ChainHead>,
}

impl Work {
    /// Does it for a tenant (empty for what has none).
    pub(super) async fn run(self, tx: &mut Tx, tenant: &str) -> Result<Done, StoreError> {
        match self {
            Self::Commit(commit) => run_commit(tx, tenant, commit).await,
            Self::AppendLinks(links) => append_links(tx, tenant, links).await,
            Self::Rebuild => rebuild(tx, tenant).await,
            Self::Prune(before) => prune(tx, tenant, before).await,
            Self::PutToken(token) => put_token(tx, &token).await,
            Self::RevokeToken { name, at } => {
                let sql = "UPDATE tokens SET revoked_at = $1 WHERE name = $2 AND revoked_at IS NULL";
                let rows = tx.execute("revoke a token", sql, &[Arg::Int(at.0), Arg::Text(&name)]).await?;
                Ok(Done { rows, ..Done::default() })
            }
        }
    }
}

/// Takes the lock on a tenant's chain and returns its end. The row is made on the first commit of a tenant.
async fn lock_head(tx: &mut Tx, tenant: &str) -> Result<ChainHead, StoreError> {
    let select =
        super::db::assembled(format!("SELECT count, hash FROM chain_heads WHERE tenant = $1{}", tx.for_update()));
    let what = "lock the head of the chain";
    if let Some(row) = tx.fetch(what, select.clone(), &[Arg::Text(tenant)]).await?.first() {
        return head(row);
    }
    // Another writer may make it at this moment: then ours waits, does nothing, and finds theirs.
    let insert = "INSERT INTO chain_heads (tenant, count, hash) VALUES ($1, 0, $2) ON CONFLICT (tenant) DO NOTHING";
    tx.execute(what, insert, &[Arg::Text(tenant), Arg::Blob(&EMPTY_HEAD.hash)]).await?;
    let rows = tx.fetch(what, select, &[Arg::Text(tenant)]).await?;
    rows.first().map_or(Ok(EMPTY_HEAD), head)
}

/// A head from a row of count and hash.
pub(super) fn head(row: &Row) -> Result<ChainHead, StoreError> {
    Ok(ChainHead { count: row.count(0)?, hash: row.hash(1)? })
}

async fn existing(
    tx: &mut Tx,
    tenant: &str,
    ids: BTreeSet<IncidentId>,
    numbers: BTreeSet<u64>,
) -> Result<Existing, StoreError> {
    let mut existing = Existing::default();
    let ids: Vec<[u8; 16]> = ids.into_iter().map(IncidentId::to_bytes).collect();
    for chunk in ids.chunks(ROWS_A_STATEMENT) {
        let keys = chunk.iter().map(|id| Arg::Blob(id));
        let rows = fetch_in(tx, "read incidents", "SELECT id, body FROM incidents", tenant, "id", keys).await?;
        for row in rows {
            let incident: Incident = rows::decode("an incident", &row.blob(1)?)?;
            existing.incidents.insert(incident.id, incident);
        }
    }
    let numbers: Vec<i64> = numbers.into_iter().filter_map(|n| i64::try_from(n).ok()).collect();
    for chunk in numbers.chunks(ROWS_A_STATEMENT) {
        let keys = chunk.iter().map(|n| Arg::Int(*n));
        for row in fetch_in(tx, "look for numbers", "SELECT number FROM incidents", tenant, "number", keys).await? {
            existing.numbers.insert(row.count(0)?);
        }
    }
    Ok(existing)
}

async fn run_commit(tx: &mut Tx, tenant: &str, commit: Commit) -> Result<Done, StoreError> {
    let before = lock_head(tx, tenant).await?;
    for d in &commit.expects {
        let place = [Arg::Text(tenant), Arg::Text(&d.collection), Arg::Blob(d.key.as_bytes())];
        let sql = "SELECT body FROM documents WHERE tenant = $1 AND collection = $2 AND key = $3";
        let rows = tx.fetch("compare a document", sql, &place).await?;
        let found = rows.first().map(|r| r.blob(0)).transpose()?;
        if found != d.body {
            return Err(StoreError::Conflict(format!("{}/{}", d.collection, d.key)));
        }
    }
    let existing =
        existing(tx, tenant, append::named(&commit.journal), append::wanted_numbers(&commit.journal)).await?;
    let prepared = append::prepare(tenant, before, existing, commit.journal)?;
    let done = put_prepared(tx, tenant, prepared).await?;
    put_anomalies(tx, tenant, &commit.anomalies).await?;
    put_changes(tx, tenant, &commit.changes).await?;
    put_documents(tx, tenant, &commit.documents).await?;
    move_cursors(tx, tenant, &commit.cursors).await?;
    Ok(done)
}

async fn append_links(tx: &mut Tx, tenant: &str, links: Vec<ChainLink>) -> Result<Done, StoreError> {
    let (ids, numbers) = append::named_by_links(&links)?;
    let before = lock_head(tx, tenant).await?;
    let existing = existing(tx, tenant, ids, numbers).await?;
    put_prepared(tx, tenant, append::prepare_links(tenant, before, existing, links)?).await
}

async fn put_prepared(tx: &mut Tx, tenant: &str, prepared: Prepared) -> Result<Done, StoreError> {
    if prepared.appended.is_empty() {
        return Ok(Done::default());
    }
    let ids: Vec<[u8; 16]> = prepared.appended.iter().map(|a| a.event.incident.to_bytes()).collect();
    let mut lines = Vec::with_capacity(ids.len());
    for (append::Appended { link, .. }, id) in prepared.appended.iter().zip(&ids) {
        let seq = rows::to_i64("sequence number", link.seq)?;
        lines.push([Arg::Text(tenant), Arg::Int(seq), Arg::Blob(id), Arg::Blob(&link.body), Arg::Blob(&link.hash)]);
    }
    let insert = "INSERT INTO incident_events (tenant, seq, incident, body, hash)";
    put_rows(tx, "append to the journal", insert, &lines, "").await?;
    let events = prepared.appended.into_iter().map(|a| a.event).collect();
    put_incidents(tx, tenant, &prepared.incidents).await?;
    let sql = "UPDATE chain_heads SET count = $1, hash = $2 WHERE tenant = $3";
    let count = rows::to_i64("count", prepared.head.count)?;
    tx.execute("move the head", sql, &[Arg::Int(count), Arg::Blob(&prepared.head.hash), Arg::Text(tenant)]).await?;
    Ok(Done { events, rows: 0, head: Some(prepared.head) })
}

async fn put_incidents(
    tx: &mut Tx,
    tenant: &str,
    incidents: &BTreeMap<IncidentId, Incident>,
) -> Result<(), StoreError> {
    let rows: Vec<_> = incidents
        .iter()
        .map(|(id, inc)| Ok((id.to_bytes(), IncidentRow::of(inc)?)))
        .collect::<Result<_, StoreError>>()?;
    let lines: Vec<_> = rows
        .iter()
        .map(|(id, row)| {
            [
                Arg::Text(tenant),
                Arg::Blob(id),
                Arg::Int(row.number),
                Arg::Text(&row.status),
                Arg::Int(row.severity),
                Arg::Int(row.updated_at),
                Arg::Int(row.onset),
                Arg::Int(row.synthetic),
                Arg::Text(&row.entities),
                Arg::Text(&row.names),
                Arg::Text(&row.text),
                Arg::Blob(&row.body),
            ]
        })
        .collect();
    let insert = "INSERT INTO incidents (tenant, id, number, status, severity, updated_at, onset, synthetic, entities, \
                  names, text, body)";
    let replace = "ON CONFLICT (tenant, id) DO UPDATE SET number = excluded.number, status = excluded.status, \
                   severity = excluded.severity, updated_at = excluded.updated_at, onset = excluded.onset, \
                   synthetic = excluded.synthetic, entities = excluded.entities, names = excluded.names, \
                   text = excluded.text, body = excluded.body";
    put_rows(tx, "keep incidents", insert, &lines, replace).await
}

async fn put_anomalies(tx: &mut Tx, tenant: &str, anomalies: &[Anomaly]) -> Result<(), StoreError> {
    let rows: Vec<_> = newest(anomalies, |a| a.id)
        .into_iter()
        .map(|a| Ok((a.id.to_bytes(), AnomalyRow::of(a)?)))
        .collect::<Result<_, StoreError>>()?;
    let lines: Vec<_> = rows
        .iter()
        .map(|(id, row)| {
            [
                Arg::Text(tenant),
                Arg::Blob(id),
                Arg::Blob(&row.entity),
                Arg::Int(row.severity),
                Arg::Int(row.onset),
                Arg::Int(row.last_seen),
                Arg::Int(row.open),
                Arg::Blob(&row.body),
            ]
        })
        .collect();
    let insert = "INSERT INTO anomalies (tenant, id, entity, severity, onset, last_seen, open, body)";
    let replace = "ON CONFLICT (tenant, id) DO UPDATE SET entity = excluded.entity, severity = excluded.severity, \
                   onset = excluded.onset, last_seen = excluded.last_seen, open = excluded.open, body = excluded.body";
    put_rows(tx, "keep anomalies", insert, &lines, replace).await
}

async fn put_changes(tx: &mut Tx, tenant: &str, changes: &[Change]) -> Result<(), StoreError> {
    let rows: Vec<_> =
        changes.iter().map(|c| Ok((c.id.to_bytes(), rows::change_body(c)?))).collect::<Result<_, StoreError>>()?;
    let lines: Vec<_> = changes
        .iter()
        .zip(&rows)
        .map(|(c, (id, body))| [Arg::Text(tenant), Arg::Blob(id), Arg::Int(c.at.0), Arg::Blob(body)])
        .collect();
    let insert = "INSERT INTO changes (tenant, id, at, body)";
    put_rows(tx, "keep changes", insert, &lines, "ON CONFLICT (tenant, id) DO NOTHING").await
}

async fn put_documents(tx: &mut Tx, tenant: &str, documents: &[Document]) -> Result<(), StoreError> {
    let mut lines = Vec::with_capacity(documents.len());
    for d in newest(documents, |d| (&d.collection, &d.key)) {
        let (collection, key) = (Arg::Text(&d.collection), Arg::Blob(d.key.as_bytes()));
        match &d.body {
            Some(body) => lines.push([Arg::Text(tenant), collection, key, Arg::Blob(body)]),
            None => {
                let sql = "DELETE FROM documents WHERE tenant = $1 AND collection = $2 AND key = $3";
                tx.execute("remove a document", sql, &[Arg::Text(tenant), collection, key]).await?;
            }
        }
    }
    let insert = "INSERT INTO documents (tenant, collection, key, body)";
    let replace = "ON CONFLICT (tenant, collection, key) DO UPDATE SET body = excluded.body";
    put_rows(tx, "keep documents", insert, &lines, replace).await
}

async fn move_cursors(tx: &mut Tx, tenant: &str, cursors: &[Cursor]) -> Result<(), StoreError> {
    let mut lines = Vec::with_capacity(cursors.len());
    for c in newest(cursors, |c| (&c.consumer, &c.topic, c.partition)) {
        lines.push([
            Arg::Text(tenant),
            Arg::Text(&c.consumer),
            Arg::Text(&c.topic),
            Arg::Int(i64::from(c.partition)),
            Arg::Int(rows::to_i64("offset", c.next_offset)?),
        ]);
    }
    let insert = "INSERT INTO cursors (tenant, consumer, topic, part, next_offset)";
    let replace = "ON CONFLICT (tenant, consumer, topic, part) DO UPDATE SET next_offset = excluded.next_offset";
    put_rows(tx, "move cursors", insert, &lines, replace).await
}

/// Of things with the same key the last one: a statement may touch a row only once.
fn newest<'a, T, K: Ord>(all: &'a [T], key: impl Fn(&'a T) -> K) -> Vec<&'a T> {
    let last: BTreeMap<K, usize> = all.iter().enumerate().map(|(i, one)| (key(one), i)).collect();
    let mut places: Vec<usize> = last.into_values().collect();
    places.sort_unstable();
    places.into_iter().filter_map(|i| all.get(i)).collect()
}

/// Inserts rows, many a statement: each statement is a round trip to the driver's thread, or to the server.
async fn put_rows<const N: usize>(
    tx: &mut Tx,
    what: &str,
    insert: &str,
    lines: &[[Arg<'_>; N]],
    on_conflict: &str,
) -> Result<(), StoreError> {
    for chunk in lines.chunks(ROWS_A_STATEMENT) {
        let mut sql = format!("{insert} VALUES ");
        for row in 0..chunk.len() {
            sql.push_str(if row == 0 { "(" } else { ", (" });
            for column in 0..N {
                let comma = if column == 0 { "" } else { ", " };
                sql.push_str(&format!("{comma}${}", row * N + column + 1));
            }
            sql.push(')');
        }
        sql.push(' ');
        sql.push_str(on_conflict);
        tx.execute(what, super::db::assembled(sql), chunk.as_flattened()).await?;
    }
    Ok(())
}

/// Rows of a tenant whose `column` is one of `keys`.
async fn fetch_in<'a>(
    tx: &mut Tx,
    what: &str,
    select: &str,
    tenant: &'a str,
    column: &str,
    keys: impl Iterator<Item = Arg<'a>>,
) -> Result<Vec<Row>, StoreError> {
    let mut args = vec![Arg::Text(tenant)];
    args.extend(keys);
    let places: Vec<String> = (2..=args.len()).map(|n| format!("${n}")).collect();
    let sql = format!("{select} WHERE tenant = $1 AND {column} IN ({})", places.join(", "));
    tx.fetch(what, super::db::assembled(sql), &args).await
}

/// Projects every tenant anew if another version of the program made the projection.
pub(super) async fn project(tx: &mut Tx) -> Result<(), StoreError> {
    let sql = "SELECT value FROM settings WHERE name = 'projection_version'";
    let found = tx.fetch("read the version of the projection", sql, &[]).await?;
    if found.first().map(|r| r.int(0)).transpose()? == Some(append::PROJECTION_VERSION) {
        return Ok(());
    }
    for row in tx.fetch("list tenants", "SELECT tenant FROM chain_heads ORDER BY tenant", &[]).await? {
        let tenant = row.text(0)?;
        tracing::info!(tenant, "making the incidents anew from their journal: another version made them");
        rebuild(tx, &tenant).await?;
    }
    let sql = "INSERT INTO settings (name, value) VALUES ('projection_version', $1) \
               ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    tx.execute("note the version of the projection", sql, &[Arg::Int(append::PROJECTION_VERSION)]).await.map(drop)
}

async fn rebuild(tx: &mut Tx, tenant: &str) -> Result<Done, StoreError> {
    lock_head(tx, tenant).await?;
    tx.execute("clear the incidents", "DELETE FROM incidents WHERE tenant = $1", &[Arg::Text(tenant)]).await?;
    for id in super::read::journalled(tx, tenant).await? {
        let events = super::read::incident_events(tx, tenant, id).await?;
        let inc = append::fold(&events).ok_or_else(|| crate::audit::never_opened(id))?;
        put_incidents(tx, tenant, &BTreeMap::from([(id, inc)])).await?;
    }
    Ok(Done::default())
}

async fn prune(tx: &mut Tx, tenant: &str, before: Timestamp) -> Result<Done, StoreError> {
    let args = [Arg::Text(tenant), Arg::Int(before.0)];
    let anomalies = "DELETE FROM anomalies WHERE tenant = $1 AND open = 0 AND last_seen < $2";
    let changes = "DELETE FROM changes WHERE tenant = $1 AND at < $2";
    let rows =
        tx.execute("prune anomalies", anomalies, &args).await? + tx.execute("prune changes", changes, &args).await?;
    Ok(Done { rows, ..Done::default() })
}

async fn put_token(tx: &mut Tx, token: &TokenRow) -> Result<Done, StoreError> {
    let taken = "SELECT id FROM tokens WHERE secret_sha256 = $1 OR (name = $2 AND revoked_at IS NULL AND $3 = 0)";
    let revoked = i64::from(token.revoked_at.is_some());
    let args = [Arg::Blob(&token.secret_sha256), Arg::Text(&token.name), Arg::Int(revoked)];
    if !tx.fetch("look for a token", taken, &args).await?.is_empty() {
        return Err(StoreError::Exists(format!("token {}", token.name)));
    }
    let sql = "INSERT INTO tokens (name, role, secret_sha256, created_at, generated, revoked_at) \
               VALUES ($1, $2, $3, $4, $5, $6)";
    let args = [
        Arg::Text(&token.name),
        Arg::Text(&token.role),
        Arg::Blob(&token.secret_sha256),
        Arg::Int(token.created_at.0),
        Arg::Int(i64::from(token.generated)),
        Arg::OptInt(token.revoked_at.map(|t| t.0)),
    ];
    tx.execute("keep a token", sql, &args).await?;
    Ok(Done::default())
}
