//! The choice: by expected benefit against risk, over all causes that the ranking leaves open.
//!
//! benefit = incident's score × Σ over causes of confidence × success rate of the playbook for that cause
//! harm    = reach × (what the playbook costs + what its risk costs × the probability that it heals nothing)
//!
//! A plan that is good for the two likeliest causes so beats one that is perfect for the likeliest alone, and a
//! dangerous plan needs a surer cause than a harmless one. What a trial on a fitted copy of the estate says counts
//! more than what the file says, because the trial knows the estate.

use crate::actions::ActionInfo;
use crate::ask::{Ask, Candidate, Look, Proposal};
use crate::bind::{self, Bound, Fit};
use crate::playbook::Playbook;
use crate::targets::Place;
use crate::{Images, PlanConfig, Playbooks};
use nightshift_model::{
    Compare, Covered, EntityId, FaultClass, Hypothesis, Incident, Plan, PlanHash, Prediction, Risk, Timestamp,
};
use nightshift_topology::{Criticality, Topology};
use std::collections::{BTreeMap, BTreeSet};

/// A cause that a playbook heals more seldom is not one that the plan covers: it must not lend it confidence.
const COVERS_MIN: f64 = 0.3;
/// How much a trial counts against the rates of the files.
const TRIAL_WEIGHT: f64 = 0.7;
/// What one thing that gets worse elsewhere costs, of the incident's reach.
const TRIAL_HARM: f64 = 0.3;
/// Candidates that a proposal lists.
const LISTED_MAX: usize = 24;
/// Whom a plan names for help, at most.
const ESCALATION_MAX: usize = 8;

/// What going wrong costs, as a share of what the incident itself costs.
const fn risk_cost(risk: Risk) -> f64 {
    match risk {
        Risk::Low => 0.02,
        Risk::Medium => 0.08,
        Risk::High => 0.25,
        Risk::Critical => 0.6,
    }
}

/// How much hangs on the worst of the targets, 0..=1.
fn reach<'a>(targets: impl Iterator<Item = &'a EntityId>, topology: &Topology) -> f64 {
    targets
        .map(|id| match topology.criticality(id) {
            Some(Criticality::P0) => 1.0,
            Some(Criticality::P1) => 0.8,
            Some(Criticality::P2) => 0.5,
            Some(Criticality::P3) => 0.3,
            None => 0.7,
        })
        .fold(0.0, f64::max)
}

/// The causes that are planned for, likeliest first.
fn causes<'a>(incident: &'a Incident, config: &PlanConfig) -> Vec<&'a Hypothesis> {
    let known = incident.hypotheses.iter().filter(|h| h.entity.is_some() && h.confidence.is_finite());
    let mut out: Vec<&Hypothesis> = known.take(config.hypotheses_max.max(1) as usize).collect();
    // Of an incident whose causes are all unlikely the first is planned for all the same.
    let keep = out.iter().filter(|h| h.confidence >= config.confidence_min).count().max(1);
    out.truncate(keep);
    out
}

/// What must be read before a plan for this incident can be made: likeliest cause first, at most `config.looks_max`.
/// Nothing for the entities of a test injection, which stand for nothing.
pub fn needed_looks(playbooks: &Playbooks, incident: &Incident, topology: &Topology, config: &PlanConfig) -> Vec<Look> {
    if incident.synthetic {
        return Vec::new();
    }
    let images = Images::new();
    let place = Place { incident, topology, images: &images };
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for hypothesis in causes(incident, config) {
        let Some(cause) = &hypothesis.entity else { continue };
        let cause = topology.resolve(cause);
        let mut wanted = BTreeSet::new();
        for playbook in playbooks.iter().filter(|p| p.acts()) {
            if playbook.heals(hypothesis.fault, cause.kind()).next().is_none() {
                continue;
            }
            let Ok(targets) = bind::targets(playbook, cause, place) else { continue };
            for (step, targets) in playbook.steps.iter().zip(targets) {
                if ActionInfo::of(step.action).facts.is_empty() {
                    continue;
                }
                let actuator =
                    if step.actuator.is_empty() { config.actuator_for(step.action) } else { step.actuator.as_str() };
                wanted.extend(targets.into_iter().map(|entity| Look {
                    entity,
                    action: step.action,
                    actuator: actuator.to_owned(),
                }));
            }
        }
        out.extend(wanted.into_iter().filter(|look| seen.insert(look.clone())));
    }
    out.truncate(config.looks_max as usize);
    out
}

/// A bound playbook with what speaks for and against it.
struct Choice<'a> {
    playbook: &'a Playbook,
    cause: EntityId,
    bound: Bound,
    /// Causes that it heals, likeliest first.
    covers: Vec<Covered>,
    confidence: f64,
    benefit: f64,
    harm: f64,
    prediction: Option<Prediction>,
    why_not: String,
}

impl Choice<'_> {
    fn net(&self) -> f64 {
        self.benefit - self.harm
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            playbook: self.playbook.name.clone(),
            target: self.cause.clone(),
            benefit: self.benefit,
            harm: self.harm,
            covers: self.confidence,
            prediction: self.prediction.clone(),
            why_not: self.why_not.clone(),
        }
    }
}

/// Chooses and binds a plan. The same question has the same answer, to the last bit.
///
/// When nothing is worth its risk the plan is a person's review: it acts on nothing, and says so in
/// [`Plan::acts`].
pub fn propose(playbooks: &Playbooks, ask: &Ask<'_>) -> Proposal {
    let causes = causes(ask.incident, ask.config);
    let mut refused = Vec::new();
    let mut options = options(playbooks, &causes, ask, &mut refused);
    let mut manual: Vec<Choice<'_>> = Vec::new();
    let mut acting: Vec<Choice<'_>> = Vec::new();
    for option in options.drain(..) {
        if option.playbook.acts() { acting.push(option) } else { manual.push(option) }
    }
    rank(&mut acting);
    rank(&mut manual);
    try_out(&mut acting, ask);
    rank(&mut acting);

    for option in &mut acting {
        if option.why_not.is_empty() && option.net() < ask.config.benefit_min {
            let (benefit, harm) = (option.benefit, option.harm);
            option.why_not = format!("not worth its risk: benefit {benefit:.2}, harm {harm:.2}");
        }
    }
    let best = acting.iter().position(|o| o.why_not.is_empty());
    let plan = match best {
        Some(i) => Some(plan(&acting[i], ask)),
        None => manual.first().map(|o| plan(o, ask)),
    };
    if let Some(i) = best {
        let chosen = acting[i].playbook.name.clone();
        for (j, option) in acting.iter_mut().enumerate() {
            if j != i && option.why_not.is_empty() {
                option.why_not = format!("`{chosen}` promises more");
            }
        }
    }
    for (i, option) in manual.iter_mut().enumerate() {
        if best.is_some() {
            option.why_not = "something can be done without a person".into();
        } else if i > 0 {
            option.why_not = "another review fits better".into();
        }
    }
    let mut candidates: Vec<Candidate> = acting.iter().chain(&manual).map(Choice::candidate).collect();
    candidates.sort_by_key(|c| !c.why_not.is_empty());
    candidates.extend(refused);
    candidates.truncate(LISTED_MAX);
    Proposal { plan, candidates, looks: open_looks(playbooks, ask) }
}

/// Looks whose facts are not among what was looked at.
fn open_looks(playbooks: &Playbooks, ask: &Ask<'_>) -> Vec<Look> {
    let mut looks = needed_looks(playbooks, ask.incident, ask.topology, ask.config);
    looks.retain(|look| {
        let facts = ActionInfo::of(look.action).facts;
        !ask.images.get(&look.entity).is_some_and(|image| {
            image.keys().any(|k| {
                facts.iter().any(|f| f.strip_suffix('*').map_or(k.as_str() == *f, |prefix| k.starts_with(prefix)))
            })
        })
    });
    looks
}

fn options<'a>(
    playbooks: &'a Playbooks,
    causes: &[&Hypothesis],
    ask: &Ask<'_>,
    refused: &mut Vec<Candidate>,
) -> Vec<Choice<'a>> {
    let mut out: Vec<Choice<'a>> = Vec::new();
    for playbook in playbooks.iter() {
        let tried = ask.tried.contains(&playbook.name);
        for hypothesis in causes {
            let Some(cause) = &hypothesis.entity else { continue };
            let cause = ask.topology.resolve(cause);
            let heals = playbook.heals(hypothesis.fault, cause.kind()).next().is_some();
            if !heals {
                continue;
            }
            let mut refuse = |why_not: String| {
                let known = refused.iter().any(|c: &Candidate| c.playbook == playbook.name && c.target == *cause);
                if !known {
                    let (playbook, target) = (playbook.name.clone(), cause.clone());
                    let covers = hypothesis.confidence;
                    refused.push(Candidate {
                        playbook,
                        target,
                        benefit: 0.0,
                        harm: 0.0,
                        covers,
                        prediction: None,
                        why_not,
                    });
                }
            };
            if tried && playbook.acts() {
                refuse("it was tried on this incident and did not help".into());
                continue;
            }
            let made = bind::fit(playbook, hypothesis, ask)
                .and_then(|fit| Ok((bind::bind(playbook, cause, fit.change, ask)?, fit)));
            match made {
                Err(why) => refuse(why),
                Ok((bound, fit)) => {
                    let same = |o: &Choice<'_>| o.playbook.name == playbook.name && o.bound.steps == bound.steps;
                    if out.iter().any(same) {
                        continue;
                    }
                    match weigh(playbook, cause, bound, &fit, ask) {
                        Ok(option) => out.push(option),
                        Err(why) => refuse(why),
                    }
                }
            }
        }
    }
    // A cause that is not known has no entity; a person looks at the worst symptom.
    if out.iter().all(|o| o.playbook.acts()) {
        out.extend(review(playbooks, ask));
    }
    out
}

/// Benefit and harm over every cause of the ranking, also those that are not planned for by themselves.
fn weigh<'a>(
    playbook: &'a Playbook,
    cause: &EntityId,
    bound: Bound,
    fit: &Fit<'_>,
    ask: &Ask<'_>,
) -> Result<Choice<'a>, String> {
    let place = bind::place(ask, ask.images);
    let mut covers: Vec<Covered> = Vec::new();
    let mut healed = 0.0;
    for other in &ask.incident.hypotheses {
        let Some(entity) = &other.entity else { continue };
        if !other.confidence.is_finite() || !bind::same_targets(playbook, cause, entity, place) {
            continue;
        }
        let Ok(theirs) = bind::fit(playbook, other, ask) else { continue };
        // The same file may take back one change for one cause and another for another.
        if theirs.change.map(|c| c.id) != fit.change.map(|c| c.id) && theirs.change.is_some() && fit.change.is_some() {
            continue;
        }
        healed += other.confidence.clamp(0.0, 1.0) * theirs.success;
        if theirs.success >= COVERS_MIN || !playbook.acts() {
            covers.push(Covered { entity: entity.clone(), fault: other.fault, confidence: other.confidence });
        }
    }
    if covers.is_empty() {
        return Err(format!("it helps in only {:.0} of 100 cases", 100.0 * fit.success));
    }
    covers.sort_by(|a, b| {
        b.confidence.total_cmp(&a.confidence).then_with(|| (&a.entity, a.fault).cmp(&(&b.entity, b.fault)))
    });
    let confidence = covers.iter().map(|c| c.confidence).sum::<f64>().clamp(0.0, 1.0);
    let reach = reach(bound.steps.iter().map(|s| &s.target), ask.topology);
    let risk = bound.steps.iter().map(|s| s.risk).max().unwrap_or(Risk::Low);
    Ok(Choice {
        playbook,
        cause: cause.clone(),
        benefit: ask.incident.score.clamp(0.05, 1.0) * healed.clamp(0.0, 1.0),
        harm: reach * (playbook.harm + risk_cost(risk) * (1.0 - confidence)),
        bound,
        covers,
        confidence,
        prediction: None,
        why_not: String::new(),
    })
}

/// Best first; of equals the first by name and target.
fn rank(options: &mut [Choice<'_>]) {
    options.sort_by(|a, b| {
        (!a.why_not.is_empty())
            .cmp(&!b.why_not.is_empty())
            .then_with(|| b.net().total_cmp(&a.net()))
            .then_with(|| (&a.playbook.name, &a.cause).cmp(&(&b.playbook.name, &b.cause)))
    });
}

/// Tries the best few on the fitted copy.
fn try_out(options: &mut [Choice<'_>], ask: &Ask<'_>) {
    let Some(what_if) = ask.what_if else { return };
    let score = ask.incident.score.clamp(0.05, 1.0);
    // A trial assumes the causes that have a name; of what nobody could name it says nothing.
    let known = ask.incident.hypotheses.iter().filter(|h| h.entity.is_some() && h.confidence.is_finite());
    let named = known.map(|h| h.confidence).sum::<f64>().clamp(0.0, 1.0);
    for option in options.iter_mut().take(ask.config.tried_max as usize) {
        let draft = plan(option, ask);
        let Some(said) = what_if.predict(&draft, ask.incident, ask.topology, ask.images, ask.now) else { continue };
        let success = if said.success_probability.is_finite() { said.success_probability.clamp(0.0, 1.0) } else { 0.0 };
        option.benefit = (1.0 - TRIAL_WEIGHT) * option.benefit + TRIAL_WEIGHT * score * named * success;
        let reach = reach(option.bound.steps.iter().map(|s| &s.target), ask.topology);
        option.harm += TRIAL_HARM * reach * said.harms.len().min(3) as f64;
        let worse = match option.bound.verification.compare {
            Compare::Below => said.kpi_with > said.kpi_without * 1.1 + f64::EPSILON,
            Compare::Above => said.kpi_with < said.kpi_without * 0.9 - f64::EPSILON,
        };
        let signal = &option.bound.verification.kpi.signal;
        if success < ask.config.predicted_success_min {
            option.why_not = format!("a trial brought {signal} back in {:.0} of 100 cases", 100.0 * success);
        } else if worse {
            let (with, without) = (said.kpi_with, said.kpi_without);
            option.why_not = format!("a trial made {signal} worse: {with:.2} with it, {without:.2} without");
        }
        option.prediction = Some(said);
    }
}

/// A person's look at what nobody could name.
fn review<'a>(playbooks: &'a Playbooks, ask: &Ask<'_>) -> Option<Choice<'a>> {
    let place = bind::place(ask, ask.images);
    let worst = ask
        .incident
        .anomalies
        .iter()
        .max_by(|a, b| a.score.total_cmp(&b.score).then_with(|| (b.onset, b.id).cmp(&(a.onset, a.id))))?;
    let cause = place.topology.resolve(&worst.entity.id).clone();
    let playbook =
        playbooks.iter().filter(|p| !p.acts()).find(|p| p.heals(FaultClass::Unknown, cause.kind()).next().is_some())?;
    let bound = bind::bind(playbook, &cause, None, ask).ok()?;
    let unknown = ask.incident.hypotheses.iter().find(|h| h.entity.is_none()).map_or(1.0, |h| h.confidence);
    Some(Choice {
        playbook,
        covers: vec![Covered { entity: cause.clone(), fault: FaultClass::Unknown, confidence: unknown }],
        cause,
        bound,
        confidence: unknown.clamp(0.0, 1.0),
        benefit: 0.0,
        harm: 0.0,
        prediction: None,
        why_not: String::new(),
    })
}

fn plan(option: &Choice<'_>, ask: &Ask<'_>) -> Plan {
    let playbook = option.playbook;
    let first = option.bound.steps.first().map_or(&option.cause, |s| &s.target);
    let owner_of = |id: &EntityId| {
        let info = ask.topology.entity(id)?;
        let declared = info.declared.map(|d| d.owner.as_str()).filter(|o| !o.is_empty());
        declared.or(Some(info.meta.owner.as_str())).filter(|o| !o.is_empty()).map(str::to_owned)
    };
    let owner = if playbook.owner.is_empty() {
        owner_of(first).or_else(|| owner_of(&option.cause)).unwrap_or_default()
    } else {
        playbook.owner.clone()
    };
    Plan {
        hash: PlanHash::default(),
        parent: ask.parent,
        incident: ask.incident.id,
        tenant: ask.incident.tenant.clone(),
        rca_revision: ask.incident.rca_revision,
        playbook: playbook.name.clone(),
        playbook_digest: playbook.digest.clone(),
        title: option.bound.title.clone(),
        covers: option.covers.clone(),
        confidence: option.confidence,
        risk: option.bound.steps.iter().map(|s| s.risk).max().unwrap_or(Risk::Low),
        steps: option.bound.steps.clone(),
        verification: option.bound.verification.clone(),
        priority: playbook.priority,
        escalation_path: escalation(playbook, &option.cause, first, &owner, ask.topology),
        owner,
        estimated_resolution_secs: playbook.estimated_resolution_secs,
        expected_benefit: option.net(),
        acts_at_once: playbook.acts_at_once,
        prediction: option.prediction.clone(),
        made_at: Timestamp(ask.now.0),
    }
    .sealed()
}

/// Whom to ask, first to last: the playbook's own people, whoever is on call for what is touched and for the cause, the
/// owner.
fn escalation(
    playbook: &Playbook,
    cause: &EntityId,
    target: &EntityId,
    owner: &str,
    topology: &Topology,
) -> Vec<String> {
    let mut out: Vec<String> = playbook.escalation.clone();
    for id in [target, cause] {
        let declared = topology.entity(id).and_then(|e| e.declared);
        out.extend(declared.map(|d| d.on_call.clone()));
    }
    out.push(owner.to_owned());
    let mut seen = BTreeMap::new();
    out.retain(|who| !who.is_empty() && seen.insert(who.clone(), ()).is_none());
    out.truncate(ESCALATION_MAX);
    out
}
