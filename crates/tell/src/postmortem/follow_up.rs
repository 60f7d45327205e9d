//! What is to be done about it, by whom and until when.

use super::story::{Answered, Story};
use super::{ActionItem, ConfirmedBy, Ending, People};
use crate::text::{date, duration, quoted};
use nightshift_model::{ActionType, Decision, EntityId, FaultClass, Feedback, Risk, Severity, Timestamp};
use std::time::Duration;

/// More are not done.
const ITEMS_MAX: usize = 8;
const DAY: Duration = Duration::from_secs(86_400);

/// Days until something is due, by how bad it was.
const fn days(severity: Severity) -> u32 {
    match severity {
        Severity::Critical => 3,
        Severity::High => 7,
        Severity::Medium => 14,
        Severity::Low => 30,
    }
}

/// The day so many days after `from`; on a Monday when it would fall on a weekend.
fn due(from: Timestamp, days: u32) -> String {
    let at = from + DAY * days;
    // Day 0 of the epoch was a Thursday: 0 is Monday here.
    let weekday = (at.millis().div_euclid(86_400_000) + 3).rem_euclid(7);
    date(match weekday {
        5 => at + DAY * 2,
        6 => at + DAY,
        _ => at,
    })
}

/// What keeps a fault of this class from coming back: the one thing that is nearly always missing.
const fn prevention(fault: FaultClass) -> &'static str {
    match fault {
        FaultClass::LatencySpike => "Find what the slow requests wait for, and set a timeout and a load test on it",
        FaultClass::ErrorRateSpike => "Name the failing requests by kind, and cover the commonest one with a test",
        FaultClass::CpuSaturation => "Let it scale before saturation, and profile what burns the processors",
        FaultClass::MemoryLeak => "Find the leak with a heap profile: a restart only buys time",
        FaultClass::MemorySaturation => "Set memory limits from measured use, with room for bursts",
        FaultClass::DbConnectionExhaustion => "Bound the pool and its callers, and find queries that hold connections",
        FaultClass::KafkaConsumerLag => "Alert on lag growth, and size consumers and partitions for the peak",
        FaultClass::DeploymentFailure => "Add a canary with an automatic stop to this deployment",
        FaultClass::CascadeFailure => {
            "Give the callers timeouts, budgets for retries, and an answer without the dependency"
        }
        FaultClass::DependencyOutage => "Decide what the service does without this dependency, and test it",
        FaultClass::TrafficSurge => "Rehearse this load, and shed what cannot be served",
        FaultClass::BadConfig => "Check this configuration before it is rolled out, and roll it out in steps",
        FaultClass::OomKill => "Set the memory limit from measured use, and the heap's from the limit",
        FaultClass::CrashLoop => "Make start-up fail in the pipeline when it would fail in production",
        FaultClass::ImagePullFailure => "Check that the image exists before it is deployed, and mirror it",
        FaultClass::PolicyViolation => "Bring the workload in line with the policy before the exception ends",
        FaultClass::CostSpike => "Set a budget with an alert on what grew",
        FaultClass::DiskFull => "Alert on the days that are left, and expire what nobody reads",
        FaultClass::CertificateExpiry => "Renew this certificate by machine, and alert weeks before it ends",
        FaultClass::DnsFailure => "Cache names at the client, and alert on failed lookups",
        FaultClass::NodeNotReady => "Find why the node left, and check that its workloads spread over others",
        FaultClass::QuotaExhausted => "Alert before the quota is used up, and ask for a larger one",
        FaultClass::LockContention => "Find the transaction that holds the lock, and make it shorter",
        FaultClass::RetryStorm => "Give retries a budget, backoff and jitter in every caller",
        FaultClass::NoisyNeighbour => "Give the workload a reserved share, or a place of its own",
        FaultClass::CacheStampede => "Refresh the cache early and by one request at a time",
        FaultClass::PartialReplicaFailure => "Let the readiness check notice what this replica could not do",
        FaultClass::MisroutedTraffic => {
            "Check route weights before they are rolled out, and alert on a share that moves"
        }
        FaultClass::SloBurn => "Find what spends the budget, and stop risky changes until it is back",
        FaultClass::CriticalLog => "Handle what this log line tells of, or give it a lower level",
        FaultClass::DiskSaturation => "Find what writes so much, and move or limit it",
        FaultClass::NetworkSaturation => "Find the flow that fills the link, and limit or move it",
        FaultClass::TrafficLoss => "Find where the traffic went, and alert where it enters",
        FaultClass::TelemetryMissing => "Find why the telemetry stopped, and watch the one who watches",
        FaultClass::ProcessFailure => "Find why the process failed, and let its supervisor tell",
        FaultClass::Unknown => "Find the cause by hand, and teach it with nightshift feedback",
        // The rest of the catalogue says it itself.
        other => other.info().prevention,
    }
}

struct List<'a> {
    items: Vec<ActionItem>,
    story: &'a Story<'a>,
    people: &'a People,
}

impl List<'_> {
    fn owner_of(&self, entity: &EntityId) -> String {
        if let Some(r) = self.people.get(entity).filter(|r| !r.owner.is_empty()) {
            return r.owner.clone();
        }
        let own = self.story.incident.anomalies.iter().find(|a| a.entity.id == *entity && !a.entity.owner.is_empty());
        let plan = || self.story.plans.last().map(|p| p.plan.owner.clone()).filter(|o| !o.is_empty());
        own.map(|a| a.entity.owner.clone()).or_else(plan).unwrap_or_else(|| "unowned".into())
    }

    fn add(&mut self, title: String, owner: String, days: u32, why: String, mut rows: Vec<u64>) {
        rows.sort_unstable();
        rows.dedup();
        let due = due(self.story.last().at, days);
        if self.items.len() < ITEMS_MAX && self.items.iter().all(|i| i.title != title) {
            self.items.push(ActionItem { title, owner, due, why, rows });
        }
    }
}

/// What is to be done, the most urgent first.
pub(super) fn action_items(s: &Story<'_>, people: &People) -> Vec<ActionItem> {
    let mut list = List { items: Vec::new(), story: s, people };
    let cause = s.cause();
    let place = cause.as_ref().map_or(&s.first.entity.id, |(c, _)| &c.entity).clone();
    let team = list.owner_of(&place);
    let usual = days(s.incident.severity);
    let ending = s.ending();

    if let (Ending::FalseAlarm, Some((row, who, _))) = (ending, s.feedback) {
        let title = format!(
            "Make the detection of {} on {} less eager, or declare what is normal",
            quoted(&s.first.signal),
            quoted(&s.first.entity.id.name())
        );
        list.add(title, team, usual, format!("{} said that nothing was wrong", quoted(who)), vec![row, s.opened]);
        return list.items;
    }
    if ending == Ending::Escalated
        && let Some((row, why, to)) = s.escalated
    {
        let owner = to.first().cloned().unwrap_or_else(|| team.clone());
        let title = format!("Bring {} back by hand, and write down how", quoted(&place.name()));
        list.add(title, owner, 0, format!("Nobody but a person can: {}", quoted(why)), vec![row]);
    }
    for p in &s.plans {
        let owner = if p.plan.owner.is_empty() { team.clone() } else { p.plan.owner.clone() };
        let name = quoted(&p.plan.playbook);
        if let Some((row, _, why)) = p.failed {
            let title = format!("Correct the playbook {name}, or the cases that it is for");
            list.add(title, owner.clone(), usual.min(7), format!("It did not help: {}", quoted(why)), vec![p.row, row]);
        }
        if let Some(deed) = p.deeds.iter().find(|d| d.ended.is_some_and(|(_, o, _)| !o.is_done())) {
            let title = format!(
                "Find out why {} on {} could not be done",
                deed.action.action,
                quoted(&deed.action.target.name())
            );
            let why = deed.ended.map_or("", |(_, _, detail)| detail);
            list.add(title, owner.clone(), usual.min(7), quoted(why), deed.rows());
        }
        match p.answered {
            Some((row, who, Answered::No { why }, _)) => {
                let title = format!("Decide whether the playbook {name} is right for this case");
                let why = if why.is_empty() { String::new() } else { format!(": {}", quoted(why)) };
                list.add(
                    title,
                    owner.clone(),
                    usual,
                    format!("{} refused its plan{why}", quoted(who)),
                    vec![p.row, row],
                );
            }
            Some((row, _, Answered::Never, _)) => {
                let on_call = people.get(&place).map(|r| r.on_call.clone()).filter(|c| !c.is_empty());
                let asked = on_call.or_else(|| p.plan.escalation_path.first().cloned()).unwrap_or_else(|| team.clone());
                let title = "Make sure that somebody answers when approval is asked".to_owned();
                list.add(title, asked, usual.min(7), "Nobody answered in time".into(), vec![p.row, row]);
            }
            Some((row, who, Answered::Yes, _)) if p.verified.is_some() && p.plan.risk <= Risk::Medium => {
                let title = format!("Consider letting the playbook {name} run by itself here");
                let why = format!("{} agreed, and it worked", quoted(who));
                list.add(
                    title,
                    owner.clone(),
                    30,
                    why,
                    [Some(p.row), Some(row), p.verified.map(|v| v.0)].into_iter().flatten().collect(),
                );
            }
            _ => {}
        }
        if let Some((row, verdict)) = p.judged.filter(|(_, v)| v.decision == Decision::Deny) {
            let rules: Vec<String> = verdict.decisive().map(|r| quoted(&r.rule)).collect();
            let title = format!("Decide whether {} should stop {name}", crate::text::listed(&rules, 3));
            list.add(title, owner, 14, "The guard did not allow the plan".into(), vec![p.row, row]);
        }
    }
    // Preventing it comes before tuning it, but after what is still broken.
    let because = match &cause {
        Some((c, rows)) => {
            let sure = match c.confirmed_by {
                ConfirmedBy::Nobody => "The likeliest cause",
                ConfirmedBy::Verification | ConfirmedBy::Person => "The cause",
            };
            (format!("{sure}, on {}: {}", quoted(&c.entity.name()), c.fault.title().to_lowercase()), rows.clone())
        }
        None => ("No cause stood out".to_owned(), vec![s.ranked.map_or(s.opened, |(row, _)| row)]),
    };
    let fault = if cause.is_some() { s.fault() } else { FaultClass::Unknown };
    list.add(prevention(fault).into(), team.clone(), usual, because.0, because.1);
    if let (Some((row, who, Feedback::TrueCause { entity, fault, .. })), Some((at, top))) = (s.feedback, s.top())
        && (top.entity.as_ref() != Some(entity) || top.fault != *fault)
    {
        let (what, place) = (fault.title().to_lowercase(), quoted(&entity.name()));
        let title = format!("Check that the next “{what}” on {place} is ranked first");
        list.add(title, team.clone(), 14, format!("{} had to correct the machine", quoted(who)), vec![row, at]);
    }
    for p in s.plans.iter().filter(|p| p.verified.is_some()) {
        if p.plan.steps.iter().any(|step| step.action == ActionType::ManualReview) {
            let title = format!("Do what {} left to a person", quoted(&p.plan.title));
            list.add(
                title,
                team.clone(),
                usual,
                "The plan has a step that nobody carries out by machine".into(),
                vec![p.row],
            );
        }
    }
    if s.incident.recurrence_of.is_some() {
        let title = format!("Make the repair of {} last", quoted(&place.name()));
        list.add(title, team.clone(), usual, "It had happened before".into(), vec![s.opened]);
    }
    if matches!(ending, Ending::HealedByItself | Ending::RecoveredLater) {
        let title = "Find out why it went away, before it comes back".to_owned();
        list.add(title, team.clone(), usual, "No fix is known to have ended it".into(), vec![s.opened, s.end_row()]);
    }
    let late = s.incident.detection_latency().as_secs_f64();
    if late > 30.0 {
        let title = format!("Notice {} on {} sooner", quoted(&s.first.signal), quoted(&s.first.entity.id.name()));
        let why = format!("It went unnoticed for {}", duration(late));
        list.add(title, team, 14, why, vec![s.onset_row, s.opened]);
    }
    list.items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_due_on_a_weekend() {
        // 2026-11-22 is a Sunday.
        let sunday = Timestamp::parse_rfc3339("2026-11-22T03:00:00Z").unwrap();
        let dues: Vec<String> = [0, 1, 3, 6, 7, 14].iter().map(|d| due(sunday, *d)).collect();
        assert_eq!(dues, ["2026-11-23", "2026-11-23", "2026-11-25", "2026-11-30", "2026-11-30", "2026-12-07"]);
    }

    #[test]
    fn every_class_has_its_own_prevention_without_figures() {
        let mut all: Vec<&str> = FaultClass::ALL.iter().map(|f| prevention(*f)).collect();
        assert!(all.iter().all(|p| !p.contains(|c: char| c.is_ascii_digit() || c == '.' || c == '|')));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), FaultClass::ALL.len());
    }
}
