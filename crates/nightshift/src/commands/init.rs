//! `init`: a commented configuration and a topology of what was found, and what to do next.

use super::incidents::print_line;
use crate::cli::InitArgs;
use crate::exit::{CommandResult, bad_input};
use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// Most targets that become services.
const TARGETS_MAX: usize = 500;

/// `nightshift init`.
///
/// # Errors
/// When files exist (without `--force`), cannot be written, or the Prometheus does not answer.
pub async fn run(args: &InitArgs, json: bool) -> CommandResult {
    let config_file = args.dir.join("nightshift.toml");
    let topology_file = args.dir.join("topology.yaml");
    if !args.force {
        for file in [&config_file, &topology_file] {
            if file.exists() {
                return Err(bad_input(format!("{} exists; --force overwrites it", file.display())));
            }
        }
    }
    let jobs = match &args.prometheus {
        Some(url) => {
            let base = reqwest::Url::parse(url).ok().filter(|u| matches!(u.scheme(), "http" | "https"));
            let base = base.ok_or_else(|| {
                bad_input(format!("--prometheus `{url}` is not an HTTP URL; for example http://127.0.0.1:9090"))
            })?;
            prometheus_jobs(base).await?
        }
        None => BTreeMap::new(),
    };
    let logs: Vec<&str> =
        ["/var/log/syslog", "/var/log/messages"].into_iter().filter(|p| Path::new(p).exists()).collect();
    std::fs::create_dir_all(&args.dir).with_context(|| format!("make {}", args.dir.display()))?;
    let config = config_text(args.prometheus.as_deref(), &logs);
    std::fs::write(&config_file, config).with_context(|| format!("write {}", config_file.display()))?;
    std::fs::write(&topology_file, topology_text(&jobs))
        .with_context(|| format!("write {}", topology_file.display()))?;
    let c = config_file.display();
    let next = [
        format!("nightshift check -c {c}"),
        format!("nightshift run -c {c}"),
        "nightshift incidents --watch".to_owned(),
    ];
    if json {
        let files = [config_file.display().to_string(), topology_file.display().to_string()];
        print_line(&json!({ "data": { "files": files, "services": jobs.len(), "next": next } }).to_string())?;
        return Ok(());
    }
    print_line(&format!("Wrote {c} and {} ({} services found).\nNext:", topology_file.display(), jobs.len()))?;
    for line in next {
        print_line(&format!("  {line}"))?;
    }
    Ok(())
}

/// Jobs of a Prometheus' active targets, with their instances.
async fn prometheus_jobs(base: reqwest::Url) -> Result<BTreeMap<String, Vec<String>>> {
    let target = base.join("api/v1/targets?state=active").context("build the URL of its targets")?;
    let http = reqwest::Client::builder().timeout(Duration::from_secs(15)).build().context("set up the HTTP client")?;
    let answer: Value = http
        .get(target)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|e| anyhow!("ask the Prometheus for its targets: {}", e.without_url()))?
        .json()
        .await
        .map_err(|e| anyhow!("read the Prometheus' targets: {}", e.without_url()))?;
    let mut jobs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for t in answer["data"]["activeTargets"].as_array().into_iter().flatten().take(TARGETS_MAX) {
        let label = |name: &str| t["labels"][name].as_str().unwrap_or_default().to_owned();
        if !label("job").is_empty() {
            jobs.entry(label("job")).or_default().push(label("instance"));
        }
    }
    Ok(jobs)
}

fn config_text(prometheus: Option<&str>, logs: &[&str]) -> String {
    let mut out = String::from(
        "# Nightshift. Every key is optional; `nightshift config reference` prints all of them with their defaults.\n\
         # Environment variables override: NIGHTSHIFT__API__LISTEN=127.0.0.1:8081\n\n\
         [topology]\n# Services, who owns them, what depends on what.\nfile = \"topology.yaml\"\n\n\
         # Sources beside the receivers (remote write, OTLP, Alertmanager, events), which always listen on loopback.\n\
         [sources.host]\ntype = \"host\"\n\n[sources.syslog]\ntype = \"syslog\"\n",
    );
    if !logs.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(out, "\n[sources.logs]\ntype = \"log_files\"\ninclude = {}\n", json!(logs));
    }
    if let Some(url) = prometheus {
        let _ = write!(
            out,
            "\n# A poll of the Prometheus that was found. Better: let it remote-write here, then all its series are seen:\n\
             #   remote_write: [{{url: http://127.0.0.1:8080/api/v1/write}}]\n\
             [sources.prometheus]\ntype = \"prometheus_query\"\nurl = {}\ninterval_secs = 15\n\n\
             [[sources.prometheus.queries]]\nname = \"up\"\nexpr = \"up\"\n",
            json!(url)
        );
    }
    out
}

fn topology_text(jobs: &BTreeMap<String, Vec<String>>) -> String {
    let mut out =
        String::from("# What runs here, who answers for it, and what depends on what. `nightshift check` reads it.\n");
    if jobs.is_empty() {
        out.push_str(
            "services: []\n# - name: checkout\n#   owner: payments\n#   criticality: P1\n\
             #   depends_on: [payment-db]\n#   business_impact: \"30 % of payments, about 12,000 USD a minute\"\n",
        );
        return out;
    }
    out.push_str("services:\n");
    for (job, instances) in jobs {
        // JSON strings are YAML strings.
        let _ = writeln!(
            out,
            "- name: {}\n  # seen at {}\n  # owner: …\n  # depends_on: […]",
            json!(job),
            instances.join(", ")
        );
    }
    out
}
