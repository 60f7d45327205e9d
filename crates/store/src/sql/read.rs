//! What is read. Filters are turned into SQL here; their rules are those of `rows`.

use super::db::{Arg, Db, Row, Tx, assembled};
use crate::rows::{self, IncidentRow, entity_needles, searchable, severity_rank};
use crate::{AnomalyFilter, ChainLink, IncidentFilter, StoreError, TokenRow};
use nightshift_model::journal::TENANT_WIDE;
use nightshift_model::{Anomaly, Incident, IncidentId, JournalEvent, Timestamp};
use sqlx::SqlStr;

/// A statement that grows with its conditions; values are arguments only.
struct Query<'a> {
    sql: String,
    args: Vec<Arg<'a>>,
}

impl<'a> Query<'a> {
    fn new(sql: &str, tenant: &'a str) -> Self {
        Self { sql: format!("{sql} WHERE tenant = $1"), args: vec![Arg::Text(tenant)] }
    }

    /// The place of a further argument.
    fn place(&mut self, arg: Arg<'a>) -> String {
        self.args.push(arg);
        format!("${}", self.args.len())
    }

    /// `AND column op $n`.
    fn and(&mut self, column_op: &str, arg: Arg<'a>) {
        let place = self.place(arg);
        self.sql.push_str(&format!(" AND {column_op} {place}"));
    }

    /// `AND column IN (…)`; nothing for no values.
    fn and_in(&mut self, column: &str, values: impl Iterator<Item = Arg<'a>>) {
        let places = values.map(|v| self.place(v)).collect::<Vec<_>>();
        if !places.is_empty() {
            self.sql.push_str(&format!(" AND {column} IN ({})", places.join(", ")));
        }
    }

    fn end(mut self, order: &str, limit: usize) -> (SqlStr, Vec<Arg<'a>>) {
        let place = self.place(Arg::Int(sql_limit(limit)));
        self.sql.push_str(&format!(" ORDER BY {order} LIMIT {place}"));
        (assembled(self.sql), self.args)
    }
}

fn sql_limit(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn clamped(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) async fn incidents(db: &Db, tenant: &str, f: &IncidentFilter) -> Result<Vec<Incident>, StoreError> {
    let entity = f.entity.as_deref().map(entity_needles);
    let text = f.text.as_deref().map(searchable);
    let position = db.position();
    let mut q = Query::new("SELECT body FROM incidents", tenant);
    q.and_in("status", f.status.iter().map(|s| Arg::Text(s.as_str())));
    q.and_in("severity", f.severity.iter().map(|s| Arg::Int(severity_rank(*s))));
    if let Some((id, name)) = &entity {
        let (id, name) = (q.place(Arg::Text(id)), q.place(Arg::Text(name)));
        q.sql.push_str(&format!(" AND ({position}(entities, {id}) > 0 OR {position}(names, {name}) > 0)"));
    }
    if let Some(since) = f.since {
        q.and("updated_at >=", Arg::Int(since.0));
    }
    if let Some(until) = f.until {
        q.and("updated_at <", Arg::Int(until.0));
    }
    if let Some(text) = &text {
        let place = q.place(Arg::Text(text));
        q.sql.push_str(&format!(" AND {position}(text, {place}) > 0"));
    }
    if !f.synthetic {
        q.sql.push_str(" AND synthetic = 0");
    }
    if let Some(n) = f.before_number.and_then(|n| i64::try_from(n).ok()) {
        q.and("number <", Arg::Int(n));
    }
    let (sql, args) = q.end("number DESC", rows::limit(f.limit));
    decoded(&db.fetch("list incidents", sql, &args).await?, "an incident")
}

pub(super) async fn anomalies(db: &Db, tenant: &str, f: &AnomalyFilter) -> Result<Vec<Anomaly>, StoreError> {
    let mut q = Query::new("SELECT body FROM anomalies", tenant);
    if let Some(entity) = &f.entity {
        q.and("entity =", Arg::Blob(entity.as_str().as_bytes()));
    }
    q.and_in("severity", f.severity.iter().map(|s| Arg::Int(severity_rank(*s))));
    if let Some(since) = f.since {
        q.and("last_seen >=", Arg::Int(since.0));
    }
    if f.open_only {
        q.sql.push_str(" AND open = 1");
    }
    let (sql, args) = q.end("onset DESC, id DESC", rows::limit(f.limit));
    decoded(&db.fetch("list anomalies", sql, &args).await?, "an anomaly")
}

/// The bodies in column 0.
pub(super) fn decoded<T: serde::Serialize + serde::de::DeserializeOwned>(
    found: &[Row],
    what: &str,
) -> Result<Vec<T>, StoreError> {
    found.iter().map(|row| rows::decode(what, &row.blob(0)?)).collect()
}

pub(super) async fn chain(db: &Db, tenant: &str, from: u64, max: usize) -> Result<Vec<ChainLink>, StoreError> {
    let sql = "SELECT seq, body, hash FROM incident_events WHERE tenant = $1 AND seq >= $2 ORDER BY seq LIMIT $3";
    let args = [Arg::Text(tenant), Arg::Int(clamped(from)), Arg::Int(sql_limit(max))];
    let found = db.fetch("read the chain", sql, &args).await?;
    found.iter().map(|r| Ok(ChainLink { seq: r.count(0)?, body: r.blob(1)?, hash: r.hash(2)? })).collect()
}

/// All incidents that the journal names.
pub(super) async fn journalled(tx: &mut Tx, tenant: &str) -> Result<Vec<IncidentId>, StoreError> {
    let sql = "SELECT DISTINCT incident FROM incident_events WHERE tenant = $1 ORDER BY incident";
    let found = tx.fetch("read the incidents of the journal", sql, &[Arg::Text(tenant)]).await?;
    // Rows of the tenant as a whole are in the chain and of no incident.
    let of_incidents = found.iter().map(|r| id(&r.blob(0)?));
    of_incidents.filter(|id| !matches!(id, Ok(id) if *id == TENANT_WIDE)).collect()
}

fn id(bytes: &[u8]) -> Result<IncidentId, StoreError> {
    IncidentId::from_slice(bytes)
        .ok_or_else(|| StoreError::Corrupt(format!("a stored incident id has {} bytes, not 16", bytes.len())))
}

const INCIDENT_EVENTS: &str = "SELECT seq, body FROM incident_events WHERE tenant = $1 AND incident = $2 ORDER BY seq";

/// Events of one incident, in a transaction.
pub(super) async fn incident_events(
    tx: &mut Tx,
    tenant: &str,
    id: IncidentId,
) -> Result<Vec<JournalEvent>, StoreError> {
    let args = [Arg::Text(tenant), Arg::Blob(&id.to_bytes())];
    events_of(id, &tx.fetch("read the journal of an incident", INCIDENT_EVENTS, &args).await?)
}

/// Events of one incident.
pub(super) async fn incident_journal(db: &Db, tenant: &str, id: IncidentId) -> Result<Vec<JournalEvent>, StoreError> {
    let args = [Arg::Text(tenant), Arg::Blob(&id.to_bytes())];
    events_of(id, &db.fetch("read the journal of an incident", INCIDENT_EVENTS, &args).await?)
}

fn events_of(id: IncidentId, found: &[Row]) -> Result<Vec<JournalEvent>, StoreError> {
    found
        .iter()
        .map(|row| {
            let link = ChainLink { seq: row.count(0)?, body: row.blob(1)?, hash: [0; 32] };
            let event = link.event()?;
            if event.incident == id {
                Ok(event)
            } else {
                let (seq, own) = (link.seq, event.incident);
                Err(StoreError::Corrupt(format!("link {seq} is filed under incident {id} but speaks of {own}")))
            }
        })
        .collect()
}

/// Compares every row of `incidents` to the fold of its journal, in one transaction.
pub(super) async fn check_projection(tx: &mut Tx, tenant: &str, max: usize) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT id FROM incidents WHERE tenant = $1 ORDER BY id";
    let found = tx.fetch("read the incidents", sql, &[Arg::Text(tenant)]).await?;
    let mut ids = found.iter().map(|r| id(&r.blob(0)?)).collect::<Result<Vec<_>, _>>()?;
    ids.extend(journalled(tx, tenant).await?);
    ids.sort_unstable();
    ids.dedup();
    let mut wrong = Vec::new();
    for id in ids {
        if wrong.len() >= max {
            break;
        }
        let events = match incident_events(tx, tenant, id).await {
            Err(StoreError::Corrupt(what)) => {
                wrong.push(what);
                continue;
            }
            other => other?,
        };
        let row = incident_row(tx, tenant, id).await?;
        wrong.extend(crate::audit::row_fault(id, crate::append::fold(&events).as_ref(), row.as_ref())?);
    }
    Ok(wrong)
}

async fn incident_row(tx: &mut Tx, tenant: &str, id: IncidentId) -> Result<Option<IncidentRow>, StoreError> {
    let sql = "SELECT number, status, severity, updated_at, onset, synthetic, entities, names, text, body \
               FROM incidents WHERE tenant = $1 AND id = $2";
    let found = tx.fetch("read an incident", sql, &[Arg::Text(tenant), Arg::Blob(&id.to_bytes())]).await?;
    let Some(r) = found.first() else { return Ok(None) };
    Ok(Some(IncidentRow {
        number: r.int(0)?,
        status: r.text(1)?,
        severity: r.int(2)?,
        updated_at: r.int(3)?,
        onset: r.int(4)?,
        synthetic: r.int(5)?,
        entities: r.text(6)?,
        names: r.text(7)?,
        text: r.text(8)?,
        body: r.blob(9)?,
    }))
}

pub(super) async fn tokens(db: &Db) -> Result<Vec<TokenRow>, StoreError> {
    let sql = "SELECT name, role, secret_sha256, created_at, generated, revoked_at FROM tokens ORDER BY created_at, id";
    let found = db.fetch("list tokens", sql, &[]).await?;
    found
        .iter()
        .map(|r| {
            Ok(TokenRow {
                name: r.text(0)?,
                role: r.text(1)?,
                secret_sha256: r.hash(2)?,
                created_at: Timestamp(r.int(3)?),
                generated: r.int(4)? != 0,
                revoked_at: r.opt_int(5)?.map(Timestamp),
            })
        })
        .collect()
}
