//! The sections of the Markdown.

use super::pen::{Pen, cite};
use super::story::{Answered, PlanTry, Story};
use super::{ConfirmedBy, Ending, Facts};
use crate::text::{between, capital, count, date, duration, listed, number, percent, quoted, time_of_day};
use nightshift_model::{
    Anomaly, Compare, Decision, EntityId, EventKind, Feedback, JournalEvent, KpiReading, Operation, Phase,
};
use std::collections::BTreeSet;

/// Lines of the timeline at most; of a longer story the beginning and the end are told.
const TIMELINE_HEAD: usize = 40;
const TIMELINE_TAIL: usize = 20;
/// Symptoms that a timeline tells one by one.
const SYMPTOMS_MAX: usize = 8;
/// Waiting for a person longer than this made it last longer, in seconds.
const WAIT_SECS: u64 = 60;
/// Noticing it later than this made it last longer, in seconds.
const LATE_SECS: f64 = 30.0;

pub(super) fn markdown(story: &Story<'_>, facts: &Facts) -> String {
    let mut pen = Pen::default();
    pen.heading(1, &format!("{}: {} {}", facts.incident_short, quoted(&facts.title), cite(&[story.assessed()])));
    summary(&mut pen, story, facts);
    impact(&mut pen, story, facts);
    timeline(&mut pen, story);
    root_cause(&mut pen, story, facts);
    helped(&mut pen, story);
    did_not_help(&mut pen, story);
    factors(&mut pen, story, facts);
    actions(&mut pen, story, facts);
    pen.finish()
}

fn names(ids: &[EntityId]) -> Vec<String> {
    ids.iter().map(|id| quoted(&id.name())).collect()
}

/// "latency_p99_ms at 7,380 instead of 380", or what the symptom says of itself.
fn symptom(a: &Anomaly) -> String {
    match (a.explanation.observed, a.explanation.expected) {
        (Some(seen), Some(wanted)) => {
            format!("{} at {} instead of {}", quoted(&a.signal), number(seen), number(wanted))
        }
        _ => quoted(&a.description),
    }
}

fn summary(pen: &mut Pen, s: &Story<'_>, f: &Facts) {
    pen.heading(2, "Summary");
    let inc = &s.incident;
    pen.say(
        &format!(
            "On {} at {} UTC {} went wrong: {}",
            date(f.onset),
            time_of_day(f.onset),
            quoted(&s.first.entity.id.name()),
            symptom(s.first)
        ),
        &[s.opened, s.onset_row],
    );
    let noticed = duration(f.detection_latency_secs);
    pen.say(
        &format!("Nightshift noticed it after {noticed} and rates it {}", inc.severity),
        &[s.opened, s.onset_row, s.assessed()],
    );
    match s.cause() {
        Some((cause, rows)) => {
            let how = match cause.confirmed_by {
                ConfirmedBy::Verification => ", confirmed by the fix",
                ConfirmedBy::Person => ", confirmed by a person",
                ConfirmedBy::Nobody => ", not confirmed",
            };
            let sure = cause.confidence.map_or_else(String::new, |c| format!(" ({} confidence)", percent(c)));
            let (what, place) = (cause.fault.title().to_lowercase(), quoted(&cause.entity.name()));
            pen.say(&format!("The cause is on {place}: {what}{sure}{how}"), &rows);
        }
        None => pen.say("No cause stood out", &[s.ranked.map_or(s.opened, |(row, _)| row)]),
    }
    ending(pen, s, f);
}

fn ending(pen: &mut Pen, s: &Story<'_>, f: &Facts) {
    let end = s.end_row();
    let over = [s.onset_row, s.opened, end];
    let lasted = duration(f.duration_secs);
    match f.ending {
        Ending::Fixed => {
            if let Some(p) = s.fix() {
                let verified = p.verified.map_or(p.row, |(row, _)| row);
                let (who, rows) = match p.answered {
                    Some((row, who, Answered::Yes, _)) => {
                        (format!("after {} agreed", quoted(who)), vec![p.row, row, verified])
                    }
                    _ => ("by itself".to_owned(), vec![p.row, p.judged.map_or(p.row, |(row, _)| row), verified]),
                };
                let text = format!("The plan “{}” was carried out {who}, and its KPI came back", quoted(&p.plan.title));
                pen.say(&text, &rows);
            }
            pen.say(&format!("It was over, {lasted} after it began"), &over);
        }
        Ending::HealedByItself => {
            pen.say(&format!("It was over, {lasted} after it began, and nothing had been executed"), &over);
        }
        Ending::RecoveredLater => pen
            .say(&format!("It was over, {lasted} after it began, and no fix is known to have been the reason"), &over),
        Ending::ByHand => {
            let who = s.resolved.map_or("", |(_, who, _)| who);
            pen.say(&format!("{} declared it over, {lasted} after it began", quoted(who)), &over);
        }
        Ending::Escalated => {
            if let Some((row, why, to)) = s.escalated {
                let to: Vec<String> = to.iter().map(|t| quoted(t)).collect();
                let whom = if to.is_empty() { "a person".into() } else { listed(&to, 5) };
                pen.say(&format!("It was handed to {whom}: {}", quoted(why)), &[row]);
            }
            pen.say(&format!("It had lasted {lasted} when this was written"), &[s.onset_row, s.last().seq]);
        }
        Ending::FalseAlarm => {
            if let Some((row, who, _)) = s.feedback {
                pen.say(&format!("{} said afterwards that nothing was wrong", quoted(who)), &[row]);
            }
            pen.say(&format!("It was open for {lasted}"), &over);
        }
        Ending::Open => {
            pen.say(&format!("It had lasted {lasted} when this was written"), &[s.onset_row, s.last().seq]);
        }
    }
}

fn impact(pen: &mut Pen, s: &Story<'_>, f: &Facts) {
    pen.heading(2, "Impact");
    let seen = s.assessed();
    let critical = &s.incident.blast_radius.criticality;
    if !f.affected.is_empty() {
        let rank = if critical.is_empty() { String::new() } else { format!(", criticality {}", quoted(critical)) };
        pen.point(&format!("**Affected:** {}{rank}", listed(&names(&f.affected), 8)), &[seen]);
    } else {
        pen.point(&format!("**Affected:** {}", quoted(&s.first.entity.id.name())), &[s.opened]);
    }
    if !f.at_risk.is_empty() {
        pen.point(&format!("**At risk:** {}", listed(&names(&f.at_risk), 8)), &[seen]);
    }
    if let Some(users) = &f.user_impact {
        pen.point(&format!("**Users:** {}", quoted(users)), &[seen]);
    }
    for (row, text) in s.error_budget() {
        pen.point(&format!("**Error budget:** {text}"), &[row]);
    }
    pen.point(&format!("**Lasted:** {}", duration(f.duration_secs)), &[s.onset_row, s.end_row()]);
    pen.point(&format!("**Noticed after:** {}", duration(f.detection_latency_secs)), &[s.onset_row, s.opened]);
    if let Some(mttr) = f.mttr_secs {
        pen.point(&format!("**MTTR, noticed to over:** {}", duration(mttr)), &[s.opened, s.end_row()]);
    }
}

/// What a line of the timeline says; `None` for rows that are of no use to a reader.
fn told(s: &Story<'_>, row: &JournalEvent, seen: &mut BTreeSet<u128>) -> Option<(String, Vec<u64>)> {
    let own = vec![row.seq];
    let who = quoted(&row.actor);
    let note = |text: &str| if text.is_empty() { String::new() } else { format!(": {}", quoted(text)) };
    let line = match &row.event {
        EventKind::Opened { anomaly, .. } => {
            seen.insert(anomaly.id.0);
            format!("opened: {} showed {}", quoted(&anomaly.entity.id.name()), symptom(anomaly))
        }
        EventKind::AnomalyJoined { anomaly, .. } => {
            // Told once when it joins; that each of them ended is told by the resolution.
            if anomaly.phase == Phase::Closed || seen.len() >= SYMPTOMS_MAX || !seen.insert(anomaly.id.0) {
                return None;
            }
            format!("{} showed {}", quoted(&anomaly.entity.id.name()), symptom(anomaly))
        }
        EventKind::StormJoined { count: n, .. } => {
            format!("{} joined", count(*n, "further symptom", "further symptoms"))
        }
        EventKind::CausesRanked { revision, hypotheses } => {
            let top = hypotheses.first()?;
            let what = quoted(&top.summary);
            format!("causes ranked (revision {revision}): {what}, {}", percent(top.confidence))
        }
        EventKind::Acknowledged { note: text } => format!("{who} looks at it{}", note(text)),
        EventKind::PlanProposed { plan, .. } => {
            format!("plan {}: {} ({} risk)", plan.hash.short(), quoted(&plan.title), plan.risk)
        }
        EventKind::Judged { verdict } => {
            let mut why: Vec<String> = verdict.decisive().map(|r| quoted(&r.why)).filter(|w| !w.is_empty()).collect();
            if verdict.decision == Decision::Execute {
                // Every rule allows it then; that is no news.
                why.clear();
            }
            let dry = if verdict.dry_run { ", dry-run only" } else { "" };
            format!(
                "guard: {}{dry}{}",
                verdict.decision,
                if why.is_empty() { String::new() } else { format!(" — {}", listed(&why, 3)) }
            )
        }
        EventKind::ApprovalRequested { why, .. } => format!("approval asked{}", note(why)),
        EventKind::Approved { note: text, .. } => format!("{who} agreed{}", note(text)),
        EventKind::Rejected { timed_out: true, .. } => "nobody answered in time, which is a rejection".into(),
        EventKind::Rejected { why, .. } => format!("{who} refused{}", note(why)),
        EventKind::Overridden { to, why, .. } => format!("{who} overrode the verdict to {to}{}", note(why)),
        EventKind::AutomationPaused { why } => format!("{who} paused automation{}", note(why)),
        EventKind::AutomationResumed { why } => format!("{who} let automation go on{}", note(why)),
        EventKind::TakenOver { note: text } => format!("{who} took over{}", note(text)),
        EventKind::ActionIntended { action } => {
            let deed = s.plans.iter().flat_map(|p| &p.deeds).find(|d| d.row == row.seq)?;
            let failed = deed.ended.is_some_and(|(_, outcome, _)| !outcome.is_done());
            if matches!(action.operation, Operation::Prepare | Operation::Observe) && !failed {
                return None;
            }
            let (op, what) = (action.operation.as_str().replace('_', "-"), action.action);
            let end = match deed.ended {
                Some((_, outcome, detail)) => {
                    let said = if detail.is_empty() { String::new() } else { format!(" — {}", quoted(detail)) };
                    format!("{}{said}", outcome.as_str().replace('_', " "))
                }
                None => "no outcome is known".into(),
            };
            let text = format!("{op} of {what} on {}: {end}", quoted(&action.target.name()));
            return Some((text, deed.rows()));
        }
        EventKind::Verified { readings, executed, .. } => {
            let how = if *executed { "the fix is verified" } else { "recovered, nothing was executed" };
            format!("{how}{}", note(&values(readings)))
        }
        EventKind::VerificationFailed { why, .. } => format!("verification failed{}", note(why)),
        EventKind::Escalated { why, to } => {
            let to: Vec<String> = to.iter().map(|t| quoted(t)).collect();
            let whom = if to.is_empty() { String::new() } else { format!(" to {}", to.join(", then ")) };
            format!("escalated{whom}{}", note(why))
        }
        EventKind::Resolved { why } if row.actor == "system" => format!("resolved{}", note(why)),
        EventKind::Resolved { why } => format!("{who} declared it over{}", note(why)),
        EventKind::Reopened { why } => format!("it came back{}", note(why)),
        EventKind::Absorbed { other, .. } => format!("took in incident {}", &other.to_string()[..12]),
        EventKind::FeedbackGiven { feedback } => match feedback {
            Feedback::FalsePositive { note: text } => format!("{who}: nothing was wrong{}", note(text)),
            Feedback::TrueCause { entity, fault, note: text } => {
                format!(
                    "{who}: the cause was on {}: {}{}",
                    quoted(&entity.name()),
                    fault.title().to_lowercase(),
                    note(text)
                )
            }
        },
        _ => return None,
    };
    Some((line, own))
}

fn timeline(pen: &mut Pen, s: &Story<'_>) {
    pen.heading(2, "Timeline");
    let mut seen = BTreeSet::new();
    let mut lines = Vec::new();
    let mut last_cause = None;
    for row in &s.rows {
        if let EventKind::CausesRanked { hypotheses, .. } = &row.event {
            // The same first cause again is news to nobody.
            let top = hypotheses.first().map(|h| (h.entity.clone(), h.fault));
            if top == last_cause {
                continue;
            }
            last_cause = top;
        }
        if let Some((text, rows)) = told(s, row, &mut seen) {
            lines.push((row.at, text, rows));
        }
    }
    pen.columns(&["UTC", "what happened"]);
    let over = lines.len().saturating_sub(TIMELINE_HEAD + TIMELINE_TAIL);
    for (i, (at, text, rows)) in lines.iter().enumerate() {
        if over > 0 && i == TIMELINE_HEAD {
            let left_out: Vec<u64> = [lines.get(i), lines.get(i + over - 1)]
                .into_iter()
                .flatten()
                .filter_map(|l| l.2.first().copied())
                .collect();
            pen.cells(&["…".into(), "what happened between is in the journal".into()], &left_out);
        }
        if i < TIMELINE_HEAD || i >= TIMELINE_HEAD + over {
            pen.cells(&[time_of_day(*at), text.clone()], rows);
        }
    }
}

fn root_cause(pen: &mut Pen, s: &Story<'_>, f: &Facts) {
    pen.heading(2, "Root cause");
    let Some((row, list)) = s.ranked else {
        if let Some((row, who, Feedback::TrueCause { entity, fault, .. })) = s.feedback {
            let what = fault.title().to_lowercase();
            let what = format!("{} said that the cause was on {}: {what}", quoted(who), quoted(&entity.name()));
            pen.say(&what, &[row]);
        } else {
            pen.say("Causes were not ranked before it ended", &[s.opened, s.last().seq]);
        }
        return;
    };
    if let (Some((fb, who, Feedback::TrueCause { entity, fault, note })), Some(top)) = (s.feedback, list.first()) {
        let why = if note.is_empty() { String::new() } else { format!(": {}", quoted(note)) };
        let what = fault.title().to_lowercase();
        pen.say(&format!("{} said that the cause was on {}: {what}{why}", quoted(who), quoted(&entity.name())), &[fb]);
        if top.entity.as_ref() != Some(entity) || top.fault != *fault {
            let text = format!("The machine had put {} first, at {}", quoted(&top.summary), percent(top.confidence));
            pen.say(&text, &[row]);
        }
        pen.gap();
    }
    let told = f.cause.as_ref();
    let shown = list.iter().find(|h| told.is_some_and(|c| h.entity.as_ref() == Some(&c.entity) && h.fault == c.fault));
    let Some(h) = shown.or_else(|| list.first().filter(|h| h.entity.is_some())) else {
        if told.is_none() {
            pen.say("No cause stood out from the others", &[row]);
        }
        others(pen, list, None, row);
        return;
    };
    let corrected = shown.is_none() && told.is_some();
    let lead = if corrected { "What the machine had thought: " } else { "" };
    let (what, sure) = (quoted(&h.summary), percent(h.confidence));
    pen.say(&format!("{lead}**{what}**, with {sure} confidence, for the reasons below"), &[row]);
    pen.gap();
    let mut reasons: Vec<_> =
        h.contributions.iter().filter(|c| c.factor != "prior" && c.log_odds.abs() >= 0.05).collect();
    reasons.sort_by(|a, b| b.log_odds.total_cmp(&a.log_odds).then_with(|| a.factor.cmp(&b.factor)));
    for c in reasons {
        let ids: Vec<String> = c.evidence.iter().take(3).map(|id| format!("`{}`", id.replace('`', ""))).collect();
        let ids = if ids.is_empty() { String::new() } else { format!(" — evidence {}", ids.join(", ")) };
        let weight = format!("{}{:.1}", if c.log_odds < 0.0 { "−" } else { "+" }, c.log_odds.abs());
        pen.point(&format!("{weight} {}: {}{ids}", quoted(&c.factor).replace('_', " "), quoted(&c.why)), &[row]);
    }
    others(pen, list, Some(h), row);
    if let Some((verified, _)) = s.fix().and_then(|p| p.verified) {
        pen.gap();
        pen.say("Its fix brought the KPI back, which confirms it", &[row, verified]);
    }
}

fn others(
    pen: &mut Pen,
    list: &[nightshift_model::Hypothesis],
    shown: Option<&nightshift_model::Hypothesis>,
    row: u64,
) {
    let rest: Vec<String> = list
        .iter()
        .filter(|h| shown.is_none_or(|s| !std::ptr::eq(*h, s)) && h.confidence >= 0.005)
        .take(3)
        .map(|h| {
            format!(
                "{} ({})",
                if h.entity.is_none() { "something unknown".into() } else { quoted(&h.summary) },
                percent(h.confidence)
            )
        })
        .collect();
    if !rest.is_empty() {
        pen.gap();
        pen.say(&format!("Also considered: {}", listed(&rest, 3)), &[row]);
    }
}

fn values(readings: &[KpiReading]) -> String {
    listed(&readings.iter().rev().take(5).rev().map(|r| number(r.value)).collect::<Vec<_>>(), 5)
}

fn promise(p: &PlanTry<'_>, readings: &[KpiReading]) -> String {
    let v = &p.plan.verification;
    let way = if v.compare == Compare::Below { "at most" } else { "at least" };
    let kpi = format!("{} of {}", quoted(&v.kpi.signal), quoted(&v.kpi.entity.name()));
    format!("{kpi} read {}, where {way} {} was promised", values(readings), number(v.threshold))
}

fn steps(p: &PlanTry<'_>) -> String {
    let step = |s: &nightshift_model::PlanStep| format!("{} on {}", s.action, quoted(&s.target.name()));
    listed(&p.plan.steps.iter().map(step).collect::<Vec<_>>(), 4)
}

fn helped(pen: &mut Pen, s: &Story<'_>) {
    pen.heading(2, "What helped");
    let mut any = false;
    for p in &s.plans {
        let Some((row, readings)) = p.verified else { continue };
        any = true;
        let text = format!("**{}** ({}): afterwards {}", quoted(&p.plan.title), steps(p), promise(p, readings));
        pen.point(&text, &[p.row, row]);
        if let Some((answered, who, Answered::Yes, at)) = p.answered
            && let Some((asked, since)) = p.asked.filter(|(_, since)| at.since(*since).as_secs() <= WAIT_SECS)
        {
            pen.point(
                &format!("{} answered {} after being asked", quoted(who), between(since, at)),
                &[asked, answered],
            );
        }
    }
    if let Some((row, readings)) = s.recovered {
        any = true;
        let values =
            if readings.is_empty() { String::new() } else { format!(": the readings were {}", values(readings)) };
        pen.point(&format!("It recovered without a fix{values}"), &[row]);
    }
    for p in s.plans.iter().filter(|p| p.undone()) {
        any = true;
        let rows: Vec<u64> = p
            .changes()
            .filter(|d| d.is_done() && d.action.operation == Operation::Undo)
            .flat_map(|d| d.rows())
            .collect();
        pen.point(&format!("What “{}” had changed was put back", quoted(&p.plan.title)), &[vec![p.row], rows].concat());
    }
    if s.incident.detection_latency().as_secs_f64() <= 10.0 {
        any = true;
        let text = format!("It was noticed within {}", duration(s.incident.detection_latency().as_secs_f64()));
        pen.point(&text, &[s.onset_row, s.opened]);
    }
    if !any {
        pen.point("Nothing on record did", &[s.last().seq]);
    }
}

fn did_not_help(pen: &mut Pen, s: &Story<'_>) {
    pen.heading(2, "What did not help");
    let mut any = false;
    let mut point = |pen: &mut Pen, text: String, rows: &[u64]| {
        any = true;
        pen.point(&text, rows);
    };
    for p in &s.plans {
        let title = quoted(&p.plan.title);
        if !p.findings.is_empty() {
            let found: Vec<String> = p.findings.iter().map(|f| quoted(f)).collect();
            point(
                pen,
                format!("“{title}” could not be offered, as the checker found: {}", listed(&found, 3)),
                &[p.row],
            );
        }
        if let Some((row, verdict)) = p.judged.filter(|(_, v)| matches!(v.decision, Decision::Deny | Decision::Monitor))
        {
            let why: Vec<String> =
                verdict.decisive().map(|r| format!("{} ({})", quoted(&r.why), quoted(&r.rule))).collect();
            let how = if verdict.decision == Decision::Deny { "was not allowed" } else { "was held back" };
            point(pen, format!("“{title}” {how}: {}", listed(&why, 3)), &[p.row, row]);
        }
        match p.answered {
            Some((row, who, Answered::No { why }, _)) => {
                let why = if why.is_empty() { String::new() } else { format!(": {}", quoted(why)) };
                point(pen, format!("“{title}” was not carried out, as {} refused it{why}", quoted(who)), &[p.row, row]);
            }
            Some((row, _, Answered::Never, at)) => {
                let (asked, waited) = p
                    .asked
                    .map_or((row, String::new()), |(asked, since)| (asked, format!(" for {}", between(since, at))));
                point(pen, format!("“{title}” was not carried out, as nobody answered{waited}"), &[p.row, asked, row]);
            }
            Some((row, who, Answered::Yes, at)) => {
                if let Some((asked, since)) = p.asked.filter(|(_, since)| at.since(*since).as_secs() > WAIT_SECS) {
                    point(
                        pen,
                        format!("{} was needed, and answered after {}", quoted(who), between(since, at)),
                        &[asked, row],
                    );
                }
            }
            None => {}
        }
        for deed in p.deeds.iter().filter(|d| d.ended.is_some_and(|(_, outcome, _)| !outcome.is_done())) {
            let Some((_, outcome, detail)) = deed.ended else { continue };
            let why = if detail.is_empty() { String::new() } else { format!(": {}", quoted(detail)) };
            let (op, what) = (deed.action.operation.as_str().replace('_', "-"), deed.action.action);
            let text = format!(
                "{} of {what} on {} ended as {}{why}",
                capital(&op),
                quoted(&deed.action.target.name()),
                outcome.as_str()
            );
            point(pen, text, &deed.rows());
        }
        if let Some((row, readings, why)) = p.failed {
            let read = if readings.is_empty() { "no reading came".into() } else { promise(p, readings) };
            point(
                pen,
                format!("**{title}** ({}) did not bring it back: {}; {read}", steps(p), quoted(why)),
                &[p.row, row],
            );
            if let Some(predicted) = p.plan.prediction.as_ref().filter(|t| t.success_probability >= 0.5) {
                let text = format!(
                    "The trial on a copy of the estate had promised {} of success",
                    percent(predicted.success_probability)
                );
                point(pen, text, &[p.row, row]);
            }
        }
    }
    if !any {
        pen.point("Nothing that was done failed", &[s.last().seq]);
    }
}

fn factors(pen: &mut Pen, s: &Story<'_>, f: &Facts) {
    pen.heading(2, "Contributing factors");
    let mut any = false;
    let mut point = |pen: &mut Pen, text: String, rows: &[u64]| {
        any = true;
        pen.point(&text, rows);
    };
    let cause = f.cause.as_ref();
    if let Some((row, list)) = s.ranked {
        let shown =
            list.iter().find(|h| cause.is_some_and(|c| h.entity.as_ref() == Some(&c.entity) && h.fault == c.fault));
        if let Some(h) = shown.or_else(|| list.first()) {
            for e in h.evidence.iter().filter(|e| e.id.starts_with("change:")).take(3) {
                point(
                    pen,
                    format!("A change came before it, at {} UTC: {}", time_of_day(e.at), quoted(&e.text)),
                    &[row],
                );
            }
            let spread = |c: &&nightshift_model::Contribution| {
                matches!(c.factor.as_str(), "cascade" | "upstream" | "dependency") && c.log_odds > 0.0
            };
            for c in h.contributions.iter().filter(spread).take(3) {
                point(pen, format!("It spread: {}", quoted(&c.why)), &[row]);
            }
        }
    }
    if let Some(before) = s.incident.recurrence_of {
        point(pen, format!("It had happened before, as incident {}", &before.to_string()[..12]), &[s.opened]);
    }
    for row in s.rows.iter().filter(|r| matches!(r.event, EventKind::Reopened { .. })).take(3) {
        point(pen, "It came back after it had been resolved".into(), &[row.seq]);
    }
    if f.detection_latency_secs > LATE_SECS {
        point(pen, format!("It went unnoticed for {}", duration(f.detection_latency_secs)), &[s.onset_row, s.opened]);
    }
    for p in &s.plans {
        if let (Some((asked, since)), Some((row, _, _, at))) = (p.asked, p.answered)
            && at.since(since).as_secs() > WAIT_SECS
        {
            point(pen, format!("It went on for {} while a person was waited for", between(since, at)), &[asked, row]);
        }
    }
    for row in s
        .rows
        .iter()
        .filter(|r| matches!(r.event, EventKind::AutomationPaused { .. } | EventKind::TakenOver { .. }))
        .take(3)
    {
        point(pen, format!("The machine had been told by {} to keep its hands off", quoted(&row.actor)), &[row.seq]);
    }
    for row in s.rows.iter().filter(|r| matches!(r.event, EventKind::StormJoined { .. })).take(1) {
        point(pen, "There were more symptoms than anybody could have read".into(), &[row.seq]);
    }
    if !any {
        pen.point("None is on record", &[s.opened, s.last().seq]);
    }
}

fn actions(pen: &mut Pen, s: &Story<'_>, f: &Facts) {
    pen.heading(2, "Action items");
    let last = s.last();
    pen.say(&format!("Due dates count from {}, the day of the newest row", date(last.at)), &[last.seq]);
    pen.gap();
    pen.columns(&["what", "owner", "due", "why"]);
    for item in &f.action_items {
        pen.cells(&[item.title.clone(), quoted(&item.owner), item.due.clone(), item.why.clone()], &item.rows);
    }
}
