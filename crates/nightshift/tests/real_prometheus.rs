//! Acceptance 1: a real Prometheus scrapes a real node exporter and remote-writes here while something burns CPU.
//!
//! One test in a file of its own: it must have the machine to itself.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

mod support;

use nightshift_model::{FaultClass, IncidentStatus, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{Program, Server, free_port, now, program, until};

/// Samples before the burn, at one a second.
const WARM_UP_SECS: u64 = 75;
/// How long the machine may take to come to rest before.
const QUIET_WITHIN: Duration = Duration::from_secs(240);
/// How long it burns.
const BURN_SECS: u64 = 45;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cpu_burn_is_one_incident_about_this_host() {
    let (Some(prometheus), Some(exporter)) = (
        program("NIGHTSHIFT_TEST_PROMETHEUS2", "Prometheus 2"),
        program("NIGHTSHIFT_TEST_NODE_EXPORTER", "node_exporter"),
    ) else {
        return;
    };
    // Our own host source watches the same machine at the same time.
    let server = Server::start(
        "default_sources = false\n[sources.host]\ntype = \"host\"\ninterval_secs = 1\n[diagnose]\nhold_secs = 20\n",
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let exporter_port = free_port();
    let _exporter = Program::start(
        "node_exporter",
        &exporter,
        &[format!("--web.listen-address=127.0.0.1:{exporter_port}")],
        folder.path(),
    );
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs:\n- job_name: node\n  static_configs: [{{targets: ['127.0.0.1:{exporter_port}']}}]\n\
         remote_write:\n- url: {}/api/v1/write\n  queue_config: {{batch_send_deadline: 1s}}\n",
        server.url("api")
    );
    std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let port = free_port();
    let _prometheus = Program::start(
        "prometheus",
        &prometheus,
        &[
            "--config.file=prometheus.yml".into(),
            "--storage.tsdb.path=tsdb".into(),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ],
        folder.path(),
    );
    tokio::time::sleep(Duration::from_secs(WARM_UP_SECS)).await;
    assert!(server.metric("nightshift_samples_scored_total").await > 10_000.0, "remote write does not arrive");
    let host = hostname();
    let about_host = |i: &nightshift_model::Incident| {
        i.blast_radius.affected.iter().any(|e| e.kind_str() == "host" && e.name() == host)
    };
    // What this machine did before (building the tests, starting the programs) may have been worth an incident of its
    // own, which the burn would rightly join: it has to be over first.
    until("this machine does not come to rest: something else keeps it busy", QUIET_WITHIN, || async {
        let open = server.incidents().await.into_iter().any(|i| i.status.is_open() && about_host(&i));
        (!open).then_some(())
    })
    .await;
    let before: Vec<_> = server.incidents().await.iter().map(|i| i.id).collect();

    let burn_from = now();
    let stolen_before = stolen();
    let burning = Burn::start();
    let incident = until("no incident about this host", Duration::from_secs(BURN_SECS), || async {
        let new = server.incidents().await.into_iter().filter(|i| !before.contains(&i.id));
        new.into_iter().find(|i| about_host(i) && i.top_cause().is_some_and(|c| c.fault == FaultClass::CpuSaturation))
    })
    .await;
    let left = Duration::from_secs(BURN_SECS).saturating_sub(now().since(burn_from));
    tokio::time::sleep(left).await;
    burning.stop();
    let stolen = (stolen() - stolen_before) / BURN_SECS as f64;

    for a in &incident.anomalies {
        println!("{} {} {:.2} {} {:?} {}", a.onset, a.entity.id, a.score, a.signal, a.labels, a.description);
    }
    // Printed below; here only that it was the burn that was noticed, and not its end.
    let late = incident.detected_at.since(burn_from);
    assert!(late <= Duration::from_secs(BURN_SECS), "noticed {late:?} after the burn began");
    assert!(
        incident.onset >= Timestamp(burn_from.0 - 2_000_000_000),
        "onset {} before the burn {burn_from}",
        incident.onset
    );

    let ended = until("the end of the burn is not noticed", Duration::from_secs(180), || async {
        let now = server.incidents().await.into_iter().find(|i| i.id == incident.id)?;
        (now.status == IncidentStatus::Resolved).then_some(now)
    })
    .await;
    assert_eq!(ended.resolved_by.as_deref(), Some("system"));
    let cause = ended.top_cause().expect("ranked");
    // Where others really took a tenth of a core, saying so is right as well.
    let robbed = stolen > 0.1 && cause.fault == FaultClass::NoisyNeighbour;
    assert!(cause.fault == FaultClass::CpuSaturation || robbed, "{} (stolen: {stolen:.3} cores)", cause.summary);
    assert_eq!(cause.entity.as_ref().map(|e| e.name()), Some(host.clone()));
    let new: Vec<_> = server.incidents().await.into_iter().filter(|i| !before.contains(&i.id)).collect();
    let open: Vec<_> = new.iter().filter(|i| i.merged_into.is_none()).map(|i| i.title.clone()).collect();
    assert_eq!(open.len(), 1, "one burn is one incident, these came: {open:?}");
    let hosts: std::collections::BTreeSet<_> =
        ended.anomalies.iter().filter(|a| a.entity.id.kind_str() == "host").map(|a| a.entity.id.clone()).collect();
    assert_eq!(hosts.len(), 1, "the exporter and our own source are one host: {hosts:?}");
    println!(
        "noticed {late:?} after the burn began, {} symptoms, {:.0} %",
        ended.anomalies_total,
        cause.confidence * 100.0
    );
}

/// Seconds of processor time that the hypervisor gave to others since the start of this machine.
fn stolen() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let ticks: f64 = stat.lines().next().unwrap().split_whitespace().nth(8).unwrap().parse().unwrap();
    ticks / 100.0
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

/// Every core busy until it is stopped.
struct Burn {
    go: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<u64>>,
}

impl Burn {
    fn start() -> Self {
        let go = Arc::new(AtomicBool::new(true));
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
        let threads = (0..cores)
            .map(|_| {
                let go = go.clone();
                std::thread::spawn(move || {
                    let mut x = 1u64;
                    while go.load(Ordering::Relaxed) {
                        for _ in 0..10_000 {
                            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        }
                    }
                    x
                })
            })
            .collect();
        Self { go, threads }
    }

    fn stop(self) {
        self.go.store(false, Ordering::Relaxed);
        for thread in self.threads {
            std::hint::black_box(thread.join().unwrap());
        }
    }
}
