//! Acceptance 1: every protocol is fed at least once by a program that nobody here wrote.

mod support;

use std::time::Duration;
use support::{Program, Server, free_port, program, until};

/// Nothing but what the test feeds.
const QUIET: &str = "default_sources = false\n";

/// Waits until a metric of ours has grown to at least this.
async fn reaches(server: &Server, metric: &str, at_least: f64) {
    until(&format!("{metric} does not reach {at_least}"), Duration::from_secs(60), || async {
        (server.metric(metric).await >= at_least).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_3_remote_writes_2_0_and_is_scraped() {
    let Some(prometheus) = program("NIGHTSHIFT_TEST_PROMETHEUS3", "Prometheus 3") else { return };
    let port = free_port();
    let server = Server::start(&format!(
        "default_sources = false\n[sources.prometheus]\ntype = \"prometheus_scrape\"\ninterval_secs = 1\n\
         static_targets = [{{ targets = [\"127.0.0.1:{port}\"] }}]\n\
         [sources.asked]\ntype = \"prometheus_query\"\nurl = \"http://127.0.0.1:{port}\"\ninterval_secs = 1\n\
         [[sources.asked.queries]]\nname = \"prometheus_up\"\nexpr = \"up\"\n"
    ))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs:\n- job_name: prometheus\n  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n\
         remote_write:\n- url: {}/api/v1/write\n  protobuf_message: io.prometheus.write.v2.Request\n  \
         queue_config: {{batch_send_deadline: 1s}}\n",
        server.url("api")
    );
    std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let args = [
        "--config.file=prometheus.yml".into(),
        "--storage.tsdb.path=tsdb".into(),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ];
    let prom = Program::start("prometheus3", &prometheus, &args, folder.path());
    reaches(&server, "nightshift_samples_received_total{source=\"remote_write\"}", 500.0).await;
    reaches(&server, "nightshift_samples_received_total{source=\"prometheus\"}", 500.0).await;
    reaches(&server, "nightshift_samples_received_total{source=\"asked\"}", 3.0).await;
    let sender = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await.unwrap().text().await.unwrap();
    let failed: f64 = sender
        .lines()
        .filter(|l| l.starts_with("prometheus_remote_storage_samples_failed_total{"))
        .filter_map(|l| l.rsplit_once(' ').and_then(|(_, v)| v.parse::<f64>().ok()))
        .sum();
    assert_eq!(failed, 0.0, "Prometheus says that samples failed:\n{}", prom.output());
    reaches(&server, "nightshift_samples_scored_total", 500.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn telemetrygen_sends_otlp_over_grpc_and_http() {
    let Some(telemetrygen) = program("NIGHTSHIFT_TEST_TELEMETRYGEN", "telemetrygen") else { return };
    let server = Server::start(QUIET).await;
    let folder = tempfile::tempdir().unwrap();
    for (transport, listener) in [("grpc", "otlp_grpc"), ("http", "otlp_http")] {
        for (signal, count) in [("metrics", "--metrics"), ("logs", "--logs"), ("traces", "--traces")] {
            let mut args: Vec<String> = [signal, "--otlp-insecure", "--otlp-endpoint"].map(String::from).to_vec();
            args.extend([server.address(listener), count.into(), "10".into(), "--workers".into(), "1".into()]);
            args.extend(["--service".into(), format!("generated-{transport}")]);
            if transport == "http" {
                args.push("--otlp-http".into());
            }
            Program::run(&format!("telemetrygen-{transport}-{signal}"), &telemetrygen, &args, folder.path());
        }
    }
    reaches(&server, "nightshift_samples_received_total", 20.0).await;
    reaches(&server, "nightshift_logs_received_total", 20.0).await;
    reaches(&server, "nightshift_spans_received_total", 40.0).await;
    let topology = until("the services do not appear", Duration::from_secs(30), || async {
        let text = server.get("/api/v1/topology").await.to_string();
        (text.contains("generated-grpc") && text.contains("generated-http")).then_some(text)
    })
    .await;
    assert!(topology.contains("/service/"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alertmanager_webhook_opens_and_closes() {
    let Some(alertmanager) = program("NIGHTSHIFT_TEST_ALERTMANAGER", "Alertmanager") else { return };
    let server = Server::start("default_sources = false\n[diagnose]\nhold_secs = 1\n").await;
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "route: {{receiver: nightshift, group_wait: 0s, group_interval: 1s, repeat_interval: 1h, group_by: ['...']}}\n\
         receivers:\n- name: nightshift\n  webhook_configs:\n  - url: {}/api/v1/alertmanager\n    send_resolved: true\n",
        server.url("api")
    );
    std::fs::write(folder.path().join("alertmanager.yml"), config).unwrap();
    let port = free_port();
    let args = [
        "--config.file=alertmanager.yml".into(),
        "--storage.path=am".into(),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--cluster.listen-address=".into(),
    ];
    let _alertmanager = Program::start("alertmanager", &alertmanager, &args, folder.path());
    let url = format!("http://127.0.0.1:{port}/api/v2/alerts");
    let http = reqwest::Client::new();
    let starts = support::now() - Duration::from_secs(30);
    let alert = |ends: Option<nightshift_model::Timestamp>| {
        let mut alert = serde_json::json!({
            "labels": {"alertname": "HighErrorRate", "service": "checkout", "severity": "critical"},
            "annotations": {"summary": "half of the requests fail"},
            "startsAt": starts.to_rfc3339(),
        });
        if let Some(ends) = ends {
            alert["endsAt"] = ends.to_rfc3339().into();
        }
        serde_json::json!([alert])
    };
    until("Alertmanager does not take the alert", Duration::from_secs(30), || async {
        http.post(&url).json(&alert(None)).send().await.ok().filter(|r| r.status().is_success()).map(|_| ())
    })
    .await;
    let incident = until("the alert opens no incident", Duration::from_secs(60), || async {
        server.incidents().await.into_iter().find(|i| i.blast_radius.affected.iter().any(|e| e.name() == "checkout"))
    })
    .await;
    assert_eq!(incident.anomalies[0].kind, nightshift_model::AnomalyKind::Alert);
    http.post(&url).json(&alert(Some(support::now()))).send().await.unwrap();
    until("the resolved alert does not close it", Duration::from_secs(60), || async {
        let now = server.incidents().await.into_iter().find(|i| i.id == incident.id)?;
        (now.status == nightshift_model::IncidentStatus::Resolved).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rsyslog_and_logger_send_syslog() {
    let Some(rsyslogd) = program("NIGHTSHIFT_TEST_RSYSLOGD", "rsyslogd") else { return };
    let port = free_port();
    let server = Server::start(&format!(
        "default_sources = false\n[sources.syslog]\ntype = \"syslog\"\nudp_listen = \"127.0.0.1:{port}\"\ntcp_listen = \"127.0.0.1:{port}\"\n"
    ))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let logger = std::path::Path::new("/usr/bin/logger");
    assert!(logger.exists(), "logger comes with every Debian (bsdutils)");
    for (format, transport) in
        [("--rfc3164", "--udp"), ("--rfc5424", "--udp"), ("--rfc5424", "--tcp"), ("--rfc3164", "--tcp")]
    {
        let args = [
            "--server",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            format,
            transport,
            "--tag",
            "logger",
            "hello from logger",
        ];
        Program::run("logger", logger, &args.map(String::from), folder.path());
    }
    reaches(&server, "nightshift_logs_received_total", 4.0).await;
    // rsyslog reads lines from a file and forwards them over TCP, octet-counted.
    let input = folder.path().join("input.log");
    std::fs::write(&input, "").unwrap();
    let config = format!(
        "module(load=\"imfile\" PollingInterval=\"1\")\nglobal(workDirectory=\"{0}\")\n\
         input(type=\"imfile\" File=\"{0}/input.log\" Tag=\"app:\")\n\
         action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{port}\" protocol=\"tcp\" TCP_Framing=\"octet-counted\" \
         template=\"RSYSLOG_SyslogProtocol23Format\")\n",
        folder.path().display()
    );
    std::fs::write(folder.path().join("rsyslog.conf"), config).unwrap();
    let pid = folder.path().join("rsyslog.pid");
    let args = ["-n".to_owned(), "-f".into(), "rsyslog.conf".into(), "-i".into(), pid.display().to_string()];
    let _rsyslog = Program::start("rsyslogd", &rsyslogd, &args, folder.path());
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().append(true).open(&input).unwrap();
    for i in 0..20 {
        writeln!(file, "line {i} through rsyslog").unwrap();
    }
    file.flush().unwrap();
    reaches(&server, "nightshift_logs_received_total", 24.0).await;
}
