//! What happened, put in order: the rows of one incident grouped into what the sections tell.

use super::{ActionItem, CauseFact, ConfirmedBy, Ending, Facts, PlanFact};
use crate::text::quoted;
use nightshift_model::journal::apply;
use nightshift_model::{
    Action, ActionOutcome, Anomaly, AnomalyKind, Decision, EventKind, FaultClass, Feedback, Hypothesis, Incident,
    IncidentId, IncidentStatus, JournalEvent, KpiReading, Operation, Plan, PlanHash, Timestamp, Verdict,
};

/// An operation and how it ended.
pub(crate) struct Deed<'a> {
    pub(crate) row: u64,
    pub(crate) action: &'a Action,
    /// Row, outcome and words of its end.
    pub(crate) ended: Option<(u64, ActionOutcome, &'a str)>,
}

impl Deed<'_> {
    pub(crate) fn is_done(&self) -> bool {
        self.ended.is_some_and(|(_, outcome, _)| outcome.is_done())
    }

    pub(crate) fn rows(&self) -> Vec<u64> {
        std::iter::once(self.row).chain(self.ended.map(|(row, _, _)| row)).collect()
    }
}

/// How a question to people was answered.
#[derive(Clone, Copy)]
pub(crate) enum Answered<'a> {
    Yes,
    No { why: &'a str },
    Never,
}

/// A plan and all that became of it.
pub(crate) struct PlanTry<'a> {
    pub(crate) row: u64,
    pub(crate) plan: &'a Plan,
    pub(crate) findings: &'a [String],
    pub(crate) judged: Option<(u64, &'a Verdict)>,
    pub(crate) asked: Option<(u64, Timestamp)>,
    /// Row, who, how, when.
    pub(crate) answered: Option<(u64, &'a str, Answered<'a>, Timestamp)>,
    pub(crate) deeds: Vec<Deed<'a>>,
    pub(crate) verified: Option<(u64, &'a [KpiReading])>,
    pub(crate) failed: Option<(u64, &'a [KpiReading], &'a str)>,
}

impl PlanTry<'_> {
    /// Operations that changed something, or tried to.
    pub(crate) fn changes(&self) -> impl Iterator<Item = &Deed<'_>> {
        self.deeds.iter().filter(|d| d.action.operation.changes())
    }

    pub(crate) fn executed(&self) -> bool {
        self.changes().any(|d| d.is_done() && d.action.operation != Operation::Undo)
    }

    pub(crate) fn undone(&self) -> bool {
        self.changes().any(|d| d.is_done() && d.action.operation == Operation::Undo)
    }
}

/// The rows of an incident, in order.
pub(crate) struct Story<'a> {
    pub(crate) rows: Vec<&'a JournalEvent>,
    /// As these rows leave it.
    pub(crate) incident: Incident,
    /// Row of the opening.
    pub(crate) opened: u64,
    pub(crate) first: &'a Anomaly,
    /// Row that told of the onset.
    pub(crate) onset_row: u64,
    /// Newest ranking.
    pub(crate) ranked: Option<(u64, &'a [Hypothesis])>,
    pub(crate) plans: Vec<PlanTry<'a>>,
    /// Recovered without a plan: row and readings.
    pub(crate) recovered: Option<(u64, &'a [KpiReading])>,
    /// Newest feedback: row, who, what.
    pub(crate) feedback: Option<(u64, &'a str, &'a Feedback)>,
    /// Newest resolution that still stands: row, who, why.
    pub(crate) resolved: Option<(u64, &'a str, &'a str)>,
    /// Newest escalation: row, why, whom.
    pub(crate) escalated: Option<(u64, &'a str, &'a [String])>,
}

impl<'a> Story<'a> {
    pub(crate) fn of(rows: &'a [JournalEvent], id: IncidentId) -> Option<Self> {
        let mut rows: Vec<&JournalEvent> = rows.iter().filter(|r| r.incident == id).collect();
        rows.retain(|r| !matches!(r.event, EventKind::PostmortemWritten { .. }));
        rows.sort_by_key(|r| r.seq);
        rows.dedup_by_key(|r| r.seq);
        let incident = rows.iter().fold(None, |inc, row| apply(inc, row))?;
        let (opened, first) = rows.iter().find_map(|r| match &r.event {
            EventKind::Opened { anomaly, .. } => Some((r.seq, &**anomaly)),
            _ => None,
        })?;
        let tells_onset = |a: &Anomaly| a.onset == incident.onset;
        let onset_row = rows.iter().find_map(|r| match &r.event {
            EventKind::Opened { anomaly, .. } | EventKind::AnomalyJoined { anomaly, .. } => {
                tells_onset(anomaly).then_some(r.seq)
            }
            EventKind::Absorbed { anomalies, .. } => anomalies.iter().any(tells_onset).then_some(r.seq),
            _ => None,
        });
        let mut story = Self {
            onset_row: onset_row.unwrap_or(opened),
            rows: Vec::new(),
            incident,
            opened,
            first,
            ranked: None,
            plans: Vec::new(),
            recovered: None,
            feedback: None,
            resolved: None,
            escalated: None,
        };
        rows.iter().for_each(|row| story.read(row));
        story.rows = rows;
        Some(story)
    }

    fn plan(&mut self, hash: &PlanHash) -> Option<&mut PlanTry<'a>> {
        self.plans.iter_mut().rev().find(|p| p.plan.hash == *hash)
    }

    fn read(&mut self, row: &'a JournalEvent) {
        let seq = row.seq;
        match &row.event {
            EventKind::CausesRanked { hypotheses, .. } => self.ranked = Some((seq, hypotheses)),
            EventKind::PlanProposed { plan, findings, .. } => self.plans.push(PlanTry {
                row: seq,
                plan,
                findings,
                judged: None,
                asked: None,
                answered: None,
                deeds: Vec::new(),
                verified: None,
                failed: None,
            }),
            EventKind::Judged { verdict } => {
                if let Some(p) = self.plan(&verdict.plan) {
                    p.judged = Some((seq, verdict));
                }
            }
            EventKind::ApprovalRequested { plan, .. } => {
                if let Some(p) = self.plan(plan) {
                    p.asked = Some((seq, row.at));
                }
            }
            EventKind::Approved { plan, .. } => self.answer(plan, row, Answered::Yes),
            EventKind::Rejected { plan, timed_out: true, .. } => self.answer(plan, row, Answered::Never),
            EventKind::Rejected { plan, why, .. } => self.answer(plan, row, Answered::No { why }),
            EventKind::Overridden { plan, to: Decision::Execute, .. } => self.answer(plan, row, Answered::Yes),
            EventKind::Overridden { plan, why, .. } => self.answer(plan, row, Answered::No { why }),
            EventKind::ActionIntended { action } => {
                if let Some(p) = self.plan(&action.plan) {
                    p.deeds.push(Deed { row: seq, action, ended: None });
                }
            }
            EventKind::ActionEnded { key, outcome, detail, .. } => {
                let open = self.plans.iter_mut().rev().flat_map(|p| p.deeds.iter_mut().rev());
                if let Some(deed) = open.into_iter().find(|d| d.action.key == *key && d.ended.is_none()) {
                    deed.ended = Some((seq, *outcome, detail));
                }
            }
            EventKind::Verified { plan, readings, executed } => match plan.and_then(|hash| self.plan(&hash)) {
                Some(p) if *executed => p.verified = Some((seq, readings)),
                _ => self.recovered = Some((seq, readings)),
            },
            EventKind::VerificationFailed { plan, readings, why } => {
                if let Some(p) = self.plan(plan) {
                    p.failed = Some((seq, readings, why));
                }
            }
            EventKind::Escalated { why, to } => self.escalated = Some((seq, why, to)),
            EventKind::FeedbackGiven { feedback } => self.feedback = Some((seq, &row.actor, feedback)),
            EventKind::Resolved { why } => self.resolved = Some((seq, &row.actor, why)),
            EventKind::Reopened { .. } => self.resolved = None,
            _ => {}
        }
    }

    fn answer(&mut self, plan: &PlanHash, row: &'a JournalEvent, how: Answered<'a>) {
        if let Some(p) = self.plan(plan) {
            p.answered = Some((row.seq, &row.actor, how, row.at));
        }
    }

    /// The newest row.
    pub(crate) fn last(&self) -> &'a JournalEvent {
        self.rows.last().expect("a story has at least its opening")
    }

    /// When it was over, or the newest row.
    pub(crate) fn end(&self) -> Timestamp {
        self.incident.resolved_at.unwrap_or_else(|| self.last().at)
    }

    /// Row that says when it was over, or the newest.
    pub(crate) fn end_row(&self) -> u64 {
        self.resolved.map_or_else(|| self.last().seq, |(row, _, _)| row)
    }

    /// The plan whose KPI came back.
    pub(crate) fn fix(&self) -> Option<&PlanTry<'a>> {
        self.plans.iter().rev().find(|p| p.verified.is_some())
    }

    /// Row of the newest assessment, or of the opening.
    pub(crate) fn assessed(&self) -> u64 {
        let mut rows = self.rows.iter().rev().filter(|r| matches!(r.event, EventKind::Assessed { .. }));
        rows.next().map_or(self.opened, |r| r.seq)
    }

    /// Row and hypothesis of the newest ranking's first, "unknown" too.
    pub(crate) fn top(&self) -> Option<(u64, &'a Hypothesis)> {
        self.ranked.and_then(|(row, list)| list.first().map(|h| (row, h)))
    }

    pub(crate) fn ending(&self) -> Ending {
        if matches!(self.feedback, Some((_, _, Feedback::FalsePositive { .. }))) {
            return Ending::FalseAlarm;
        }
        let executed = self.plans.iter().any(PlanTry::executed);
        match (self.incident.status, self.resolved) {
            (IncidentStatus::Resolved, _) if self.fix().is_some() => Ending::Fixed,
            (IncidentStatus::Resolved, Some((_, who, _))) if who != "system" => Ending::ByHand,
            (IncidentStatus::Resolved, _) if executed => Ending::RecoveredLater,
            (IncidentStatus::Resolved, _) => Ending::HealedByItself,
            (IncidentStatus::Escalated, _) => Ending::Escalated,
            _ => Ending::Open,
        }
    }

    /// The cause, with the rows that say so.
    pub(crate) fn cause(&self) -> Option<(CauseFact, Vec<u64>)> {
        let evidence = |h: &Hypothesis| h.evidence.iter().map(|e| e.id.clone()).collect::<Vec<_>>();
        if let Some((row, _, Feedback::TrueCause { entity, fault, .. })) = self.feedback {
            let known = self.ranked.and_then(|(at, list)| {
                list.iter().find(|h| h.entity.as_ref() == Some(entity) && h.fault == *fault).map(|h| (at, h))
            });
            let fact = CauseFact {
                entity: entity.clone(),
                fault: *fault,
                confidence: known.map(|(_, h)| h.confidence),
                confirmed_by: ConfirmedBy::Person,
                evidence: known.map(|(_, h)| evidence(h)).unwrap_or_default(),
            };
            return Some((fact, std::iter::once(row).chain(known.map(|(at, _)| at)).collect()));
        }
        let (row, list) = self.ranked?;
        // A verified fix says which of the causes it heals was the one: the likeliest of these.
        let healed = self.fix().and_then(|p| {
            let heals = |h: &&Hypothesis| {
                p.plan.covers.iter().any(|c| Some(&c.entity) == h.entity.as_ref() && c.fault == h.fault)
            };
            list.iter().find(heals).map(|h| (h, p))
        });
        let h = healed.as_ref().map_or_else(|| list.first(), |(h, _)| Some(*h))?;
        let entity = h.entity.clone()?;
        let mut rows = vec![row];
        rows.extend(healed.iter().flat_map(|(_, p)| [Some(p.row), p.verified.map(|(v, _)| v)]).flatten());
        let confirmed_by = if healed.is_some() { ConfirmedBy::Verification } else { ConfirmedBy::Nobody };
        let (fault, confidence) = (h.fault, Some(h.confidence));
        Some((CauseFact { entity, fault, confidence, confirmed_by, evidence: evidence(h) }, rows))
    }

    /// The fault class for which something is to be prevented: the cause's, else what the first symptom suggests.
    pub(crate) fn fault(&self) -> FaultClass {
        self.cause().map_or(self.first.fault, |(c, _)| c.fault)
    }

    /// What was said of error budgets: one line and its row each.
    pub(crate) fn error_budget(&self) -> Vec<(u64, String)> {
        let mut out: Vec<(u64, String)> = Vec::new();
        let mut add = |row: u64, text: &str| {
            let text = quoted(text);
            if !text.is_empty() && out.iter().all(|(_, t)| *t != text) {
                out.push((row, text));
            }
        };
        for row in &self.rows {
            match &row.event {
                EventKind::Judged { verdict } => {
                    verdict.reasons.iter().filter(|r| r.rule == "error_budget").for_each(|r| add(row.seq, &r.why));
                }
                EventKind::Opened { anomaly, .. } | EventKind::AnomalyJoined { anomaly, .. }
                    if anomaly.kind == AnomalyKind::Slo =>
                {
                    add(row.seq, &anomaly.description);
                }
                _ => {}
            }
        }
        out.truncate(5);
        out
    }

    pub(crate) fn facts(&self, action_items: Vec<ActionItem>) -> Facts {
        let inc = &self.incident;
        let plan = |p: &PlanTry<'_>| {
            let by = |yes: bool| {
                p.answered.and_then(|(_, who, how, _)| match how {
                    Answered::Yes => yes.then(|| who.to_owned()),
                    Answered::No { .. } => (!yes).then(|| who.to_owned()),
                    Answered::Never => (!yes).then(String::new),
                })
            };
            PlanFact {
                plan: p.plan.hash,
                playbook: p.plan.playbook.clone(),
                decision: p.judged.map(|(_, v)| v.decision),
                approved_by: by(true),
                rejected_by: by(false),
                executed: p.executed(),
                verified: p.verified.is_some(),
                undone: p.undone(),
            }
        };
        Facts {
            incident: inc.id,
            incident_short: inc.short_id(),
            tenant: inc.tenant.clone(),
            title: inc.title.clone(),
            severity: inc.severity,
            status: inc.status,
            ending: self.ending(),
            onset: inc.onset,
            detected_at: inc.detected_at,
            resolved_at: inc.resolved_at,
            duration_secs: self.end().since(inc.onset).as_secs_f64(),
            detection_latency_secs: inc.detection_latency().as_secs_f64(),
            mttr_secs: inc.resolved_at.map(|at| at.since(inc.detected_at).as_secs_f64()),
            cause: self.cause().map(|(c, _)| c),
            affected: inc.blast_radius.affected.clone(),
            at_risk: inc.blast_radius.at_risk.clone(),
            user_impact: inc.blast_radius.estimated_user_impact.clone(),
            error_budget: self.error_budget().into_iter().map(|(_, text)| text).collect(),
            plans: self.plans.iter().map(plan).collect(),
            action_items,
            first_seq: self.rows.first().map_or(self.opened, |r| r.seq),
            through_seq: self.last().seq,
        }
    }
}
