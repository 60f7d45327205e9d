//! STATE-1 on the real binary: `kill -9` at any moment during ingest loses no acknowledged batch and detects nothing
//! twice. Acceptance 3: 5 times here, 50 times in the long form.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use nightshift_model::Incident;
use nightshift_model::batch::labels;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;
use support::{Server, long, now, until};

/// Series that are fed.
const SERIES: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_acknowledged_and_detects_nothing_twice() {
    let rounds = if long() { 50 } else { 5 };
    let seed = std::env::var("NIGHTSHIFT_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1u64);
    eprintln!("repeat with: NIGHTSHIFT_SEED={seed} cargo test -p nightshift --test kill");
    let mut rng = SmallRng::seed_from_u64(seed);
    // Snapshots often, so that kills fall before, in and after them.
    let mut server = Server::start("default_sources = false\n[detect]\nsnapshot_every_secs = 1\n").await;
    let start_ms = now().millis() - 3_000_000;
    let mut acknowledged = 0u64;
    let mut at = 0i64;
    // When each spike began and ended, by the service that had it.
    let mut spikes: Vec<(String, RangeInclusive<i64>)> = Vec::new();
    for round in 0..rounds {
        // 40 calm readings of every series, then one of them leaves for three; the kill falls somewhere in between.
        let spiking = round % SERIES;
        let kill_after = Duration::from_millis(rng.random_range(5..400));
        let killer = tokio::time::sleep(kill_after);
        tokio::pin!(killer);
        let mut killed = false;
        for step in 0..44 {
            let spike = (40..43).contains(&step).then_some(spiking);
            let body = request(start_ms + at * 1_000, spike, at);
            at += 1;
            loop {
                let sent = post(format!("{}/api/v1/write", server.url("api")), body.clone());
                let outcome = tokio::select! {
                    r = sent => Some(r),
                    () = &mut killer, if !killed => None,
                };
                match outcome {
                    Some(true) => {
                        acknowledged += SERIES as u64;
                        break;
                    }
                    Some(false) => tokio::time::sleep(Duration::from_millis(20)).await,
                    None => {
                        // What was on its way was not acknowledged: the client sends it again, as Prometheus does.
                        killed = true;
                        server.kill();
                        server.restart().await;
                    }
                }
            }
        }
        if !killed {
            server.kill();
            server.restart().await;
        }
        let begun = start_ms + (at - 4) * 1_000;
        spikes.push((format!("service-{spiking}"), begun..=begun + 2_000));
    }
    let want = acknowledged;
    until("acknowledged samples are missing", Duration::from_secs(60), || async {
        (server.stored_samples().await >= want).then_some(())
    })
    .await;
    let incidents = until("not every spike is an incident", Duration::from_secs(60), || async {
        let all = server.incidents().await;
        spikes.iter().all(|(service, when)| found(&all, service, when) > 0).then_some(all)
    })
    .await;
    for (service, when) in &spikes {
        assert_eq!(found(&incidents, service, when), 1, "the spike of {service} at {when:?} is one anomaly");
    }
    let mut opened: BTreeMap<(String, nightshift_model::Timestamp), u32> = BTreeMap::new();
    for a in incidents.iter().filter(|i| i.merged_into.is_none()).flat_map(|i| &i.anomalies) {
        *opened.entry((format!("{} {}", a.entity.id, a.signal), a.onset)).or_default() += 1;
    }
    let twice: Vec<_> = opened.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "detected twice: {twice:?}");
    let report = server.audit();
    assert!(report.contains("\"ok\":true"), "{report}");
    println!("{rounds} kills, {acknowledged} samples acknowledged, {} incidents", incidents.len());
}

/// Anomalies of a service that began at that time, in ms since 1970, over all incidents.
fn found(incidents: &[Incident], service: &str, when: &RangeInclusive<i64>) -> usize {
    let standing = incidents.iter().filter(|i| i.merged_into.is_none());
    let anomalies = standing.flat_map(|i| &i.anomalies);
    anomalies.filter(|a| a.entity.id.name() == service && when.contains(&a.onset.millis())).count()
}

async fn post(url: String, body: Vec<u8>) -> bool {
    let sent = reqwest::Client::new()
        .post(url)
        .header("Content-Type", "application/x-protobuf")
        .header("Content-Encoding", "snappy")
        .header("X-Prometheus-Remote-Write-Version", "0.1.0")
        .body(body)
        .send()
        .await;
    sent.is_ok_and(|r| r.status().is_success())
}

/// One sample of every series.
fn request(at_ms: i64, spike: Option<usize>, step: i64) -> Vec<u8> {
    let mut body = Vec::new();
    for i in 0..SERIES {
        let service = format!("service-{i}");
        let labels = labels::encode([("__name__", "queue_depth"), ("service", service.as_str())]);
        let noise = ((step * 7_919 + i as i64 * 104_729) % 11) as f64 * 0.3;
        let value = if spike == Some(i) { 200.0 } else { 50.0 + noise };
        let mut sample = vec![0x09];
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(0x10);
        prost::encoding::encode_varint(at_ms as u64, &mut sample);
        body.push(0x0a);
        prost::encoding::encode_varint((labels.len() + 2 + sample.len()) as u64, &mut body);
        body.extend_from_slice(&labels);
        body.push(0x12);
        prost::encoding::encode_varint(sample.len() as u64, &mut body);
        body.extend_from_slice(&sample);
    }
    snap::raw::Encoder::new().compress_vec(&body).unwrap()
}
