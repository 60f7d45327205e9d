//! An incident as the API shows it: what is kept of it, with the figures that people would otherwise reckon themselves.

use crate::ApiError;
use crate::seams::ApiState;
use nightshift_model::journal::EventKind;
use nightshift_model::{ApprovalState, Incident, JournalEvent, KpiReading, Timestamp};
use serde_json::{Value, json};

/// An incident, with `detection_latency_s`, how long its plan takes in words, and the seconds that an answer has left.
pub(crate) fn shown(incident: &Incident, now: Timestamp) -> Value {
    let mut value = json!(incident);
    value["detection_latency_s"] = json!(incident.detection_latency().as_secs_f64());
    if let Some(plan) = &incident.plan {
        value["plan"]["short"] = json!(plan.hash.short());
        value["plan"]["estimated_resolution_time"] = json!(span(plan.estimated_resolution_secs));
    }
    if let Some(left) = seconds_left(incident, now) {
        value["approval"]["seconds_left"] = json!(left);
    }
    value
}

/// Seconds within which an answer still counts; `None` when nobody is asked.
pub(crate) fn seconds_left(incident: &Incident, now: Timestamp) -> Option<u64> {
    match incident.approval {
        Some(ApprovalState::Asked { expires_at, .. }) => Some(expires_at.since(now).as_secs()),
        _ => None,
    }
}

/// Seconds in words: `40 s`, `3 min`, `1 h 20 min`.
pub(crate) fn span(secs: u32) -> String {
    match secs {
        0..120 => format!("{secs} s"),
        120..7_200 => format!("{} min", secs.div_ceil(60)),
        _ => format!("{} h {} min", secs / 3_600, secs % 3_600 / 60),
    }
}

/// Seconds that are running out: to the second as long as anybody could count them.
pub(crate) fn countdown(secs: u64) -> String {
    match secs {
        0..120 => format!("{secs} s"),
        120..3_600 => format!("{} min {} s", secs / 60, secs % 60),
        _ => format!("{} h {} min", secs / 3_600, secs % 3_600 / 60),
    }
}

/// What the journal tells of an incident's plan beyond what is kept of it.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Story {
    /// What else was thought of, best first.
    pub(crate) alternatives: Vec<String>,
    /// What the checker found wrong.
    pub(crate) findings: Vec<String>,
    /// Readings of the KPI since the newest plan, those that are coming in or those of its end.
    pub(crate) readings: Vec<KpiReading>,
    /// Whom it was escalated to, and why.
    pub(crate) escalated: Option<(String, Vec<String>)>,
}

impl Story {
    /// Of an incident that has something to tell; of others nothing is read.
    pub(crate) async fn of(state: &ApiState, incident: &Incident) -> Result<Self, ApiError> {
        let coming = state.automation.readings.readings(incident.id);
        let quiet = incident.plan.is_none() && incident.verified_at.is_none() && incident.nodes.is_empty();
        if quiet {
            return Ok(Self { readings: coming, ..Self::default() });
        }
        let rows = state.store.incident_journal(&state.tenant, incident.id).await?;
        let mut story = Self::read(&rows);
        if !coming.is_empty() {
            story.readings = coming;
        }
        Ok(story)
    }

    fn read(rows: &[JournalEvent]) -> Self {
        let mut story = Self::default();
        for row in rows {
            match &row.event {
                EventKind::PlanProposed { alternatives, findings, .. } => {
                    story = Self {
                        alternatives: alternatives.clone(),
                        findings: findings.clone(),
                        readings: Vec::new(),
                        escalated: story.escalated,
                    };
                }
                EventKind::Verified { readings, .. } | EventKind::VerificationFailed { readings, .. } => {
                    story.readings.clone_from(readings);
                }
                EventKind::Escalated { why, to } => story.escalated = Some((why.clone(), to.clone())),
                EventKind::Reopened { .. } => story.escalated = None,
                _ => {}
            }
        }
        story
    }

    /// Beside what [`shown`] has.
    pub(crate) fn into_json(self, value: &mut Value) {
        value["readings"] = json!(self.readings);
        value["plan_alternatives"] = json!(self.alternatives);
        value["plan_findings"] = json!(self.findings);
        value["escalation"] = match self.escalated {
            Some((why, to)) => json!({ "why": why, "to": to }),
            None => Value::Null,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_as_people_say_them() {
        for (secs, want) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (121, "3 min"), (7_200, "2 h 0 min")] {
            assert_eq!(span(secs), want);
        }
        for (secs, want) in [(0, "0 s"), (119, "119 s"), (252, "4 min 12 s"), (3_600, "1 h 0 min")] {
            assert_eq!(countdown(secs), want);
        }
    }
}
