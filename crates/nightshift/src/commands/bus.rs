//! `bus topics|groups|read|redrive`: look into the bus.

use super::incidents::print_line;
use crate::cli::{BusCommand, DataArgs};
use crate::exit::{CommandResult, Failure, bad_input};
use crate::settings::Settings;
use nightshift_bus::{Bus, DeadLetter, Outgoing, Record};
use nightshift_model::{Clock, Envelope, Timestamp, topics};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Records fetched at once.
const FETCH: usize = 500;
/// How often `--follow` looks.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// `nightshift bus …`.
///
/// # Errors
/// When the configuration is bad or the bus cannot be opened.
pub async fn run(command: &BusCommand, json: bool, clock: Arc<dyn Clock>) -> CommandResult {
    match command {
        BusCommand::Topics { data } => topics_of(&*open(data).await?, json).await,
        BusCommand::Groups { data } => groups(&*open(data).await?, json).await,
        BusCommand::Read { topic, data, from, partition, limit, follow } => {
            if topics::by_name(topic).is_none() {
                let names: Vec<_> = topics::ALL.iter().map(|t| t.name).collect();
                return Err(bad_input(format!("no topic `{topic}`; there are {}", names.join(", "))));
            }
            let bus = open(data).await?;
            let range = Range { from: *from, partition: *partition, limit: *limit, follow: *follow };
            read(&*bus, topic, &range).await
        }
        BusCommand::Redrive { data, reason, dry_run } => redrive(data, reason.as_deref(), *dry_run, json, clock).await,
    }
}

/// Opens the configured bus for reading, also while a server runs on it.
async fn open(args: &DataArgs) -> Result<Arc<dyn Bus>, Failure> {
    let (settings, data) = Settings::for_command(args)?;
    Ok(crate::wiring::open_bus_to_read(&settings, &data).await?)
}

async fn topics_of(bus: &dyn Bus, json: bool) -> CommandResult {
    let mut rows: BTreeMap<String, (u64, u64, Option<u64>, u64)> = BTreeMap::new();
    for p in bus.partitions().await? {
        let row = rows.entry(p.at.topic).or_default();
        row.0 += 1;
        row.1 += p.records.unwrap_or(p.end - p.start);
        if let Some(bytes) = p.bytes {
            *row.2.get_or_insert(0) += bytes;
        }
        row.3 = row.3.max(p.end);
    }
    if json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|(t, (n, records, bytes, end))| {
                json!({ "topic": t, "partitions": n, "records": records, "bytes": bytes, "end": end })
            })
            .collect();
        print_line(&json!({ "data": rows }).to_string())?;
        return Ok(());
    }
    if rows.is_empty() {
        print_line("The bus has no topics yet: `nightshift run` makes them.")?;
        return Ok(());
    }
    print_line(&format!("{:<24} {:>10} {:>12} {:>14}", "TOPIC", "PARTITIONS", "RECORDS", "BYTES"))?;
    for (topic, (n, records, bytes, _)) in rows {
        let bytes = bytes.map_or("-".to_owned(), |n| n.to_string());
        print_line(&format!("{topic:<24} {n:>10} {records:>12} {bytes:>14}"))?;
    }
    Ok(())
}

async fn groups(bus: &dyn Bus, json: bool) -> CommandResult {
    let groups = bus.groups().await?;
    if json {
        let rows: Vec<Value> = groups
            .iter()
            .map(|g| {
                json!({ "group": g.group, "topic": g.at.topic, "partition": g.at.partition,
                        "committed": g.committed, "lag": g.lag })
            })
            .collect();
        print_line(&json!({ "data": rows }).to_string())?;
        return Ok(());
    }
    let mut rows: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for g in groups {
        let row = rows.entry((g.group, g.at.topic)).or_default();
        row.0 += 1;
        row.1 += g.lag;
    }
    if rows.is_empty() {
        print_line("No consumer group has read yet.")?;
        return Ok(());
    }
    print_line(&format!("{:<24} {:<24} {:>10} {:>12}", "GROUP", "TOPIC", "PARTITIONS", "LAG"))?;
    for ((group, topic), (n, lag)) in rows {
        print_line(&format!("{group:<24} {topic:<24} {n:>10} {lag:>12}"))?;
    }
    Ok(())
}

/// What `read` prints.
struct Range {
    from: Option<u64>,
    partition: Option<u32>,
    limit: Option<usize>,
    follow: bool,
}

async fn read(bus: &dyn Bus, topic: &str, range: &Range) -> CommandResult {
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    let mut printed = 0;
    loop {
        let partitions: Vec<u32> = bus
            .partitions()
            .await?
            .into_iter()
            .filter(|p| p.at.topic == topic && range.partition.is_none_or(|n| n == p.at.partition))
            .map(|p| p.at.partition)
            .collect();
        if let (Some(n), true) = (range.partition, partitions.is_empty()) {
            return Err(bad_input(format!("`{topic}` has no partition {n}")));
        }
        let mut any = false;
        for partition in partitions {
            let from = *next.entry(partition).or_insert(range.from.unwrap_or(0));
            for record in bus.fetch(topic, partition, from, FETCH).await? {
                if range.limit.is_some_and(|n| printed >= n) {
                    return Ok(());
                }
                next.insert(partition, record.offset + 1);
                print_line(&to_json(&record).to_string())?;
                printed += 1;
                any = true;
            }
        }
        if !any {
            if !range.follow {
                return Ok(());
            }
            tokio::time::sleep(FOLLOW_EVERY).await;
        }
    }
}

/// A record as people read it: JSON payloads as they are, batches with their columns.
fn to_json(record: &Record) -> Value {
    let mut row = json!({ "topic": &*record.topic, "partition": record.partition, "offset": record.offset });
    match Envelope::decode(record.bytes.clone()) {
        Ok(e) => {
            row["id"] = json!(e.id);
            row["tenant"] = json!(e.tenant);
            row["event_time"] = json!(e.event_time);
            row["ingest_time"] = json!(e.ingest_time);
            row["schema"] = json!(e.schema);
            row["payload"] = match e.schema.as_str() {
                "nightshift.v1.TelemetryBatch" => batch(&e.payload),
                _ => serde_json::from_slice(&e.payload).unwrap_or_else(|_| json!({ "bytes": e.payload.len() })),
            };
        }
        Err(e) => row["error"] = json!(e.to_string()),
    }
    row
}

fn batch(payload: &[u8]) -> Value {
    use nightshift_model::batch::{BatchView, MetricColumns, labels};
    let read = || -> Result<Value, nightshift_model::batch::BatchError> {
        let mut view = BatchView::parse(payload)?;
        let mut columns = MetricColumns::default();
        view.metrics(&mut columns)?;
        let mut entities = Vec::new();
        for i in 0..view.n_entities() {
            entities.push(view.entity(i as u32)?);
        }
        let mut series = Vec::new();
        let mut row = 0;
        view.for_each_series(|i, bytes| {
            let n = columns.rows.get(i).map_or(0, |n| *n as usize);
            let samples: Vec<Value> =
                (row..row + n).map(|r| json!([Timestamp(columns.timestamp[r]), columns.value[r]])).collect();
            row += n;
            let named: BTreeMap<&str, &str> = labels::iter(bytes).map_while(Result::ok).collect();
            series.push(json!({ "entity": columns.entity.get(i), "labels": named, "samples": samples }));
            i + 1 < columns.rows.len()
        })?;
        let logs: Vec<Value> = view
            .logs()
            .map_while(Result::ok)
            .map(|l| json!({ "entity": l.entity, "at": Timestamp(l.time_ns), "severity": l.severity, "body": l.body, "stream": l.stream }))
            .collect();
        let spans: Vec<Value> = view
            .spans()
            .map_while(Result::ok)
            .map(|s| json!({ "entity": s.entity, "at": Timestamp(s.start_ns), "duration_ns": s.duration_ns, "operation": s.operation, "error": s.error }))
            .collect();
        Ok(json!({ "source": view.source(), "entities": entities, "series": series, "logs": logs, "spans": spans }))
    };
    read().unwrap_or_else(|e| json!({ "error": e.to_string() }))
}

async fn redrive(
    args: &DataArgs,
    reason: Option<&str>,
    dry_run: bool,
    json: bool,
    clock: Arc<dyn Clock>,
) -> CommandResult {
    let (settings, data) = Settings::for_command(args)?;
    let bus = if dry_run {
        crate::wiring::open_bus_to_read(&settings, &data).await?
    } else {
        crate::wiring::open_bus(&settings, &data, clock).await?
    };
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut skipped = 0u64;
    let known = crate::redrive::Known::load(&data)?;
    let mut known_now = known.clone();
    for p in bus.partitions().await?.into_iter().filter(|p| p.at.topic == topics::DEAD_LETTER.name) {
        let mut next = known.next(p.at.partition).max(p.start);
        loop {
            let records = bus.fetch(topics::DEAD_LETTER.name, p.at.partition, next, FETCH).await?;
            let Some(last) = records.last() else { break };
            next = last.offset + 1;
            for record in &records {
                let letter = Envelope::decode(record.bytes.clone())
                    .map_err(|e| e.to_string())
                    .and_then(|e| DeadLetter::decode_payload(e.payload));
                let Ok(letter) = letter else {
                    skipped += 1;
                    continue;
                };
                if reason.is_some_and(|r| r != letter.reason) {
                    continue;
                }
                // What still cannot be read stays where it is; feeding it again would only bring it back.
                let Ok(envelope) = Envelope::decode(letter.record.clone()) else {
                    skipped += 1;
                    continue;
                };
                *counts.entry((letter.topic.clone(), letter.reason.clone())).or_default() += 1;
                if !dry_run {
                    bus.publish(&letter.topic, vec![Outgoing { routing: envelope.routing, bytes: letter.record }])
                        .await?;
                }
            }
        }
        known_now.set(p.at.partition, next);
    }
    if !dry_run {
        known_now.save(&data)?;
        bus.close().await?;
    }
    let total: u64 = counts.values().sum();
    if json {
        let rows: Vec<Value> =
            counts.iter().map(|((t, r), n)| json!({ "topic": t, "reason": r, "records": n })).collect();
        print_line(
            &json!({ "data": { "fed": total, "still_unreadable": skipped, "dry_run": dry_run, "by": rows } })
                .to_string(),
        )?;
        return Ok(());
    }
    let verb = if dry_run { "would be fed" } else { "fed" };
    for ((topic, reason), n) in counts {
        print_line(&format!("{n} {verb} to {topic} ({reason})"))?;
    }
    print_line(&format!("{total} dead letters {verb} again, {skipped} still cannot be read"))?;
    Ok(())
}
