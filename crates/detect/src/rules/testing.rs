//! Runs the unit tests that stand in a rule file.

use super::engine::{RuleConfig, RuleEngine};
use super::file::{Case, RuleFile, parse_file};
use nightshift_model::batch::{BatchBuilder, BatchView, MetricColumns, labels};
use nightshift_model::hash::series_fingerprint;
use nightshift_model::{Anomaly, EntityMeta, OccurrenceId, Phase, Timestamp};
use std::collections::BTreeMap;

/// Most steps of one test.
const STEPS_MAX: i64 = 20_000;
/// When tests begin.
const START: Timestamp = Timestamp::from_secs(1_767_225_600);

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TestResult {
    /// Its name.
    pub name: String,
    /// The rule it tests.
    pub rule: String,
    /// Where it stands in the file.
    pub line: usize,
    /// Why it failed, one entry per expectation that was not met; empty: it passed.
    pub failures: Vec<String>,
}

impl TestResult {
    /// Whether all was as expected.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Runs every test of a rule file, in order. A file with problems has no results: see [`super::check_file`].
pub fn run_tests(text: &str) -> Vec<TestResult> {
    let Ok(file) = parse_file(text) else { return Vec::new() };
    file.tests.iter().map(|case| run(&file, case)).collect()
}

fn run(file: &RuleFile, case: &Case) -> TestResult {
    let mut result =
        TestResult { name: case.name.clone(), rule: case.rule.clone(), line: case.line, failures: Vec::new() };
    let values = case.series.iter().map(|s| s.values.len() as i64).max().unwrap_or(0);
    let last = case.expect.iter().map(|e| e.at_ns / case.interval_ns.max(1)).max().unwrap_or(0);
    if values.max(last) > STEPS_MAX {
        result.failures.push(format!("the test has more than {STEPS_MAX} steps: use a longer interval"));
        return result;
    }
    let rules = file.rules.iter().filter(|r| r.name == case.rule).cloned().collect();
    let mut engine = RuleEngine::new(RuleConfig::default(), rules);
    let mut columns = MetricColumns::default();
    let mut builder = BatchBuilder::default();
    let mut firing: BTreeMap<OccurrenceId, Anomaly> = BTreeMap::new();
    let mut out = Vec::new();
    for step in 0..=last {
        let at_ns = step * case.interval_ns;
        let now = Timestamp(START.0 + at_ns);
        for series in &case.series {
            let Some(Some(value)) = series.values.get(usize::try_from(step).unwrap_or(usize::MAX)) else { continue };
            let wire = labels::encode(series.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            let entity = builder.entity(&EntityMeta::bare(series.entity.clone()));
            let fingerprint = series_fingerprint("test", series.entity.as_str(), &wire);
            builder.series(fingerprint, entity, series.kind, &wire);
            builder.sample(now, *value);
        }
        if !builder.is_empty() {
            let payload = builder.finish("test");
            if let Ok(mut view) = BatchView::parse(&payload)
                && view.metrics(&mut columns).is_ok()
            {
                engine.step("test", &view, &columns, now, &mut out);
            }
        }
        builder.clear();
        engine.tick(now, &mut out);
        for anomaly in out.drain(..) {
            if anomaly.phase == Phase::Closed {
                firing.remove(&anomaly.id);
            } else {
                firing.insert(anomaly.id, anomaly);
            }
        }
        for expect in case.expect.iter().filter(|e| e.at_ns >= at_ns && e.at_ns < at_ns + case.interval_ns) {
            let meant = |a: &&Anomaly| {
                expect.entity.as_ref().is_none_or(|e| a.entity.id.as_str() == e)
                    && expect.labels.iter().all(|(n, v)| a.labels.get(n) == Some(v))
            };
            let found: Vec<_> = firing.values().filter(meant).map(|a| a.description.as_str()).collect();
            if found.is_empty() == expect.firing {
                let (want, is) = if expect.firing { ("fire", "does not") } else { ("not fire", "does") };
                let said = found.first().map(|d| format!(": {d}")).unwrap_or_default();
                let secs = expect.at_ns / 1_000_000_000;
                result.failures.push(format!("line {}: at {secs}s it should {want}, and {is}{said}", expect.line));
            }
        }
    }
    result
}
