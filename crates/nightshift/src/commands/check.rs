//! `check`: everything that is wrong with a configuration, at once.

use super::incidents::print_line;
use crate::agents::Library;
use crate::cli::{CheckArgs, Role};
use crate::exit::{CommandResult, Failure};
use crate::settings::{Settings, print_problems};
use nightshift_config::{Level, Loaded};
use serde_json::json;

/// `nightshift check`.
///
/// # Errors
/// When there are errors, or a test of a rule or a policy fails.
pub fn run(args: &CheckArgs, json: bool) -> CommandResult {
    let Loaded { config: settings, mut problems } = Settings::read(Some(&args.config), Level::Error)?;
    let base = Settings::base(Some(&args.config));
    crate::wiring::load_topology(&settings, &base, &mut problems);
    let rules = crate::check::rules(&settings, &base, &mut problems);
    crate::check::semantics(&settings, &Role::ALL.into_iter().collect(), &mut problems);
    let Library { playbooks, policies, .. } = crate::library::read(&settings, &base, &mut problems);
    let (passed, mut failed) = crate::check::rule_tests(&settings, &base);
    let rules_failed = failed.clone();
    let (policies_passed, policies_failed) = crate::check::policy_tests(&policies);
    failed.extend(policies_failed.iter().cloned());
    let n_policies = policies.files().iter().filter(|f| !f.ends_with("_test.rego")).count();
    let bad = problems.has_errors() || !failed.is_empty();
    if json {
        let mut report = problems.to_json();
        report["rules"] = json!(rules.len());
        report["rule_tests_passed"] = json!(passed);
        report["rule_tests_failed"] = json!(rules_failed);
        report["playbooks"] = json!(playbooks.len());
        report["policies"] = json!(n_policies);
        report["policy_tests_passed"] = json!(policies_passed);
        report["policy_tests_failed"] = json!(policies_failed);
        print_line(&json!({ "data": report }).to_string())?;
    } else {
        if !problems.is_empty() {
            print_problems(&problems);
        }
        for line in &failed {
            eprintln!("{line}");
        }
        if !bad {
            print_line(&format!(
                "{}: fine. {} rules, {passed} of their tests passed. {} playbooks. {n_policies} policies, \
                 {policies_passed} of their tests passed.",
                args.config.display(),
                rules.len(),
                playbooks.len(),
            ))?;
        }
    }
    if bad { Err(Failure::Reported) } else { Ok(()) }
}
