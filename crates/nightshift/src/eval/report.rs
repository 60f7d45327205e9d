//! The figures for people and for programs.

use super::Plan;
use super::score::{Mark, Outcome, Row, Scores, mean, quantile, share};
use serde_json::{Value, json};

fn figure(value: Option<f64>) -> Value {
    value.map_or(Value::Null, |v| json!((v * 1e6).round() / 1e6))
}

/// The figures as one object; the keys are a contract.
pub(crate) fn object(plan: &Plan, s: &Scores) -> Value {
    let by_fault: serde_json::Map<String, Value> =
        s.by_fault.iter().map(|(fault, row)| (fault.slug().to_owned(), row_object(row))).collect();
    json!({
        "incidents": plan.incidents,
        "lookalikes": s.lookalikes,
        "mttd_s_mean": figure(mean(&s.all.mttd)),
        "mttd_s_p50": figure(quantile(&s.all.mttd, 0.5)),
        "mttd_s_p95": figure(quantile(&s.all.mttd, 0.95)),
        "mttr_s_mean": figure(mean(&s.all.mttr)),
        "mttr_s_p50": figure(quantile(&s.all.mttr, 0.5)),
        "mttr_auto_s_p50": figure(quantile(&s.all.mttr_auto, 0.5)),
        "precision": figure(s.precision()),
        "recall": figure(s.all.recall()),
        "lookalike_fp_rate": figure(share(s.lookalikes_flagged, s.lookalikes)),
        "sample_fp_rate": figure(share(s.samples.flagged as usize, s.samples.healthy as usize)),
        "cause_top1": figure(s.all.top1()),
        "cause_top3": figure(s.all.top3()),
        "remediation_success": figure(s.all.healed()),
        "remediation_success_no_whatif": figure(share(s.all.healed_without, s.all.found)),
        "undone": s.undone,
        "policy_blocked": s.deeds.blocked,
        "policy_violations": s.deeds.violations,
        "by_fault": by_fault,
    })
}

fn row_object(row: &Row) -> Value {
    json!({
        "incidents": row.faults,
        "recall": figure(row.recall()),
        "precision": figure(row.precision()),
        "mttd_s_mean": figure(mean(&row.mttd)),
        "mttd_s_p50": figure(quantile(&row.mttd, 0.5)),
        "cause_top1": figure(row.top1()),
        "cause_top3": figure(row.top3()),
        "mttr_s_p50": figure(quantile(&row.mttr, 0.5)),
        "remediation_success": figure(row.healed()),
        "remediation_success_no_whatif": figure(share(row.healed_without, row.found)),
    })
}

/// Prints the table, or the object.
pub(crate) fn print(plan: &Plan, s: &Scores, json: bool) {
    let object = object(plan, s);
    if json {
        println!("{object}");
        return;
    }
    println!("{} faults and {} look-alikes, seed {}", s.all.faults, s.lookalikes, plan.seed);
    println!();
    if let Value::Object(fields) = &object {
        for (name, value) in fields.iter().filter(|(_, v)| !v.is_object()) {
            println!("  {name:<28} {}", text(value));
        }
    }
    println!();
    println!(
        "  {:<26} {:>6} {:>7} {:>9} {:>8} {:>8} {:>6} {:>6} {:>7} {:>7} {:>7}",
        "fault", "n", "recall", "precision", "mttd", "p50", "top-1", "top-3", "mttr", "healed", "untried"
    );
    for (fault, row) in &s.by_fault {
        println!(
            "  {:<26} {:>6} {:>7} {:>9} {:>8} {:>8} {:>6} {:>6} {:>7} {:>7} {:>7}",
            fault.slug(),
            row.faults,
            short(row.recall()),
            short(row.precision()),
            short(mean(&row.mttd)),
            short(quantile(&row.mttd, 0.5)),
            short(row.top1()),
            short(row.top3()),
            short(quantile(&row.mttr, 0.5)),
            short(row.healed()),
            short(share(row.healed_without, row.found)),
        );
    }
}

fn text(value: &Value) -> String {
    match value.as_f64() {
        Some(v) if value.is_f64() => format!("{v:.3}"),
        _ if value.is_null() => "-".to_owned(),
        _ => value.to_string(),
    }
}

fn short(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"))
}

/// One episode on standard error, for those who tune.
pub(crate) fn episode(index: usize, outcome: &Outcome, marks: &[Mark]) {
    let names: Vec<&str> = outcome.what.iter().map(|k| k.name()).collect();
    let surplus = outcome.seen.values().filter(|s| s.merged_into.is_none()).count()
        - marks.iter().filter(|m| m.incident.is_some()).count();
    eprintln!(
        "{index} {} marks {:?} surplus {surplus}",
        names.join("+"),
        marks.iter().map(|m| (m.mttd_secs, m.place, m.mttr_secs, m.success)).collect::<Vec<_>>()
    );
    for t in &outcome.truths {
        eprintln!(
            "    truth {} {} onset {:.0} end {:.0} affects {}: {}",
            t.class,
            t.entity,
            t.onset_secs,
            t.end_secs,
            t.affected.len(),
            t.onset_by
        );
    }
    // For fitting: place of the true cause and the scores of the ranking that was decided on.
    for m in marks {
        let ranked = m.incident.and_then(|id| outcome.seen.get(&id)).and_then(super::score::decided);
        if let Some(r) = ranked {
            let scores: Vec<String> = r
                .hypotheses
                .iter()
                .map(|h| format!("{:.3}{}", h.score, if h.entity.is_some() { "" } else { "u" }))
                .collect();
            eprintln!("    fit {} {}", m.place.map_or(-1, |p| p as i64), scores.join(" "));
        }
    }
    for (id, s) in &outcome.seen {
        let merged = if s.merged_into.is_some() { " (merged)" } else { "" };
        eprintln!(
            "    incident {id}{merged} opened {:.0} {} members {}",
            s.opened_secs,
            s.title,
            s.members.iter().map(|m| m.name()).collect::<Vec<_>>().join(",")
        );
        for line in &s.story {
            eprintln!("      {line}");
        }
        for r in super::score::decided(s).into_iter().chain(s.rankings.last()) {
            eprintln!("      ranked {}", r.at);
            for h in r.hypotheses.iter().take(4) {
                eprintln!(
                    "        {:.2} {:.2} {} {:?}",
                    h.confidence,
                    h.score,
                    h.fault,
                    h.entity.as_ref().map(|e| e.name())
                );
                for c in &h.contributions {
                    eprintln!("            {:+.2} {} {}", c.log_odds, c.factor, c.why);
                }
            }
        }
    }
}
