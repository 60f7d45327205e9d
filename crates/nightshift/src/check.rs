//! What is wrong with a configuration beyond its form: rules, playbooks, policies, topology, listeners, roles, sources,
//! and whom to tell.

use crate::cli::Role;
use crate::settings::Settings;
use crate::wiring::{self, foreign};
use nightshift_api::{Listener, validate_listeners};
use nightshift_bus::BusConfig;
use nightshift_collect::supervise::{BoundAddresses, Surroundings};
use nightshift_config::Problems;
use nightshift_detect::rules::{self, Rule};
use nightshift_guard::Policies;
use nightshift_model::{Clock, ManualClock, Timestamp};
use nightshift_store::StoreConfig;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads every rule file; problems are added.
pub(crate) fn rules(settings: &Settings, base: &Path, problems: &mut Problems) -> Vec<Rule> {
    let files = match wiring::rule_files(settings, base) {
        Ok(files) => files,
        Err(e) => {
            let hint = "a relative path is taken from the folder of the configuration";
            problems.error("detect.rules", format!("{e:#}"), hint);
            return Vec::new();
        }
    };
    let mut all: Vec<Rule> = Vec::new();
    for (path, text) in files {
        match rules::parse_file(&text) {
            Ok(file) => {
                for rule in file.rules {
                    if all.iter().any(|r| r.name == rule.name) {
                        let message = format!("rule `{}` is defined in another file too", rule.name);
                        problems.push(foreign(&path, 0, 0, message, "give each rule a name of its own".into()));
                        continue;
                    }
                    all.push(rule);
                }
            }
            Err(wrong) => {
                for p in wrong {
                    problems.push(foreign(&path, p.line as u64, p.column as u64, p.message, p.hint));
                }
            }
        }
    }
    all
}

/// Runs the tests in every rule file: how many passed, and what failed.
pub(crate) fn rule_tests(settings: &Settings, base: &Path) -> (usize, Vec<String>) {
    let (mut passed, mut failed) = (0, Vec::new());
    for (path, text) in wiring::rule_files(settings, base).unwrap_or_default() {
        for test in rules::run_tests(&text) {
            if test.passed() {
                passed += 1;
            }
            for why in &test.failures {
                failed.push(format!("{}: line {}: test `{}`: {why}", path.display(), test.line, test.name));
            }
        }
    }
    (passed, failed)
}

/// Runs the tests of the policies: how many passed, and what failed.
pub(crate) fn policy_tests(policies: &Policies) -> (usize, Vec<String>) {
    let (mut passed, mut failed) = (0, Vec::new());
    for test in policies.run_tests() {
        if test.passed {
            passed += 1;
        } else {
            let why = test.error.unwrap_or_else(|| "it is not true".into());
            failed.push(format!("{}: test `{}`: {why}", test.file, test.name));
        }
    }
    (passed, failed)
}

/// What no schema says of guard, workflow and whom to tell.
fn automation(settings: &Settings, problems: &mut Problems) {
    let rooms = [("guard", settings.guard.problems()), ("workflow", settings.workflow.problems())];
    for (section, found) in rooms {
        for text in found {
            let (key, message) = text.split_once(": ").unwrap_or(("", &text));
            let path = if key.is_empty() { section.to_owned() } else { format!("{section}.{key}") };
            problems.error(&path, message, "`nightshift config reference` has each key with its bounds");
        }
    }
    // Nothing is run or sent by building one, and no clock is looked at.
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::EPOCH));
    for (name, actuator) in &settings.actuators {
        if let Err(e) = actuator.check(clock.clone()) {
            let hint = "`nightshift config reference` has every key of each type of actuator";
            problems.error(&format!("actuators.{name}.{}", e.key), e.what, hint);
        }
    }
    for (name, notifier) in &settings.tell.notifiers {
        if let Err(why) = notifier.build() {
            let hint = "`nightshift config reference` has every key of each type of notifier";
            problems.error(&format!("tell.notifiers.{name}"), why, hint);
        }
    }
}

/// What no single key shows.
pub(crate) fn semantics(settings: &Settings, roles: &BTreeSet<Role>, problems: &mut Problems) {
    let mut listeners = [
        Listener { key: "api.listen", listen: &settings.api.listen, open: false },
        Listener { key: "metrics.listen", listen: &settings.metrics.listen, open: true },
        Listener { key: "otlp.grpc_listen", listen: &settings.otlp.grpc_listen, open: false },
        Listener { key: "otlp.http_listen", listen: &settings.otlp.http_listen, open: false },
    ];
    // Of two that clash the one is named that somebody wrote: it has a line.
    listeners.sort_by_key(|l| problems.spans().position(l.key).is_some());
    validate_listeners(&listeners, settings.auth.as_ref(), problems);
    let shared = matches!(settings.bus, BusConfig::Kafka(_)) && matches!(settings.store, StoreConfig::Postgres(_));
    if roles.len() < Role::ALL.len() && !shared {
        problems.error(
            "bus",
            "fewer than all roles need a bus and a store that several processes can share",
            "set bus.type = \"kafka\" and store.type = \"postgres\", or leave out --roles",
        );
    }
    automation(settings, problems);
    if roles.contains(&Role::Diagnose) && !roles.contains(&Role::Detect) {
        problems.warning(
            "guard.dry_run",
            "fixes cannot be verified where the detectors run in another process",
            "give one process both roles, detect and diagnose, or leave guard.dry_run on",
        );
    }
    let around = Surroundings {
        data_dir: PathBuf::from("."),
        host_name: "check".into(),
        bound: BoundAddresses::default(),
        kubernetes: crate::kubernetes::SOURCE,
    };
    for (name, source) in &settings.sources {
        if let Err(e) = source.build(name, &around) {
            let cause = std::error::Error::source(&e).map(|c| format!(": {c}")).unwrap_or_default();
            let hint = "`nightshift config reference` has every key of each type of source";
            problems.error(&format!("sources.{name}"), format!("{e}{cause}"), hint);
        }
    }
}
