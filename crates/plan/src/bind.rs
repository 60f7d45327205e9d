//! A playbook bound to a cause: targets resolved, values made, every choice taken. What cannot be bound says why.

use crate::actions::ActionInfo;
use crate::ask::Ask;
use crate::expr::{Scope as _, Val};
use crate::kpi;
use crate::playbook::{Playbook, Step, Target};
use crate::scope::{Facts, change_of, needed_change};
use crate::targets::Place;
use crate::{Images, rehearsal_image};
use nightshift_model::{ActionType, Canary, Change, EntityId, FaultClass, Hypothesis, Image, PlanStep, Verification};
use std::collections::BTreeMap;

/// Why a playbook is left out whose check has nothing to read yet: symptoms that come later may change that.
pub const UNTELLABLE: &str = "nothing that the incident shows could tell whether it helped";

/// Steps of a bound plan at most, after targets that are several were made steps of their own.
pub(crate) const STEPS_MAX: usize = 20;

/// What a playbook says of a cause.
pub(crate) struct Fit<'a> {
    /// How often it works, from the playbook and from what was learned, 0..=1.
    pub(crate) success: f64,
    /// The change that it takes back, where it needs one and it is at hand.
    pub(crate) change: Option<&'a Change>,
}

/// A playbook with every choice made.
pub(crate) struct Bound {
    pub(crate) title: String,
    pub(crate) steps: Vec<PlanStep>,
    pub(crate) verification: Verification,
}

pub(crate) const fn place<'a>(ask: &Ask<'a>, images: &'a Images) -> Place<'a> {
    Place { incident: ask.incident, topology: ask.topology, images }
}

/// Whether a playbook heals this cause, and how well. The error says why not.
pub(crate) fn fit<'a>(playbook: &Playbook, hypothesis: &Hypothesis, ask: &Ask<'a>) -> Result<Fit<'a>, String> {
    let Some(cause) = &hypothesis.entity else { return Err("the cause is not known".into()) };
    let cause = ask.topology.resolve(cause);
    let mut why = format!("it heals nothing like {} on a {}", hypothesis.fault, cause.kind_str());
    let mut best: Option<Fit<'a>> = None;
    for heals in playbook.heals(hypothesis.fault, cause.kind()) {
        let place = place(ask, ask.images);
        let change = match &heals.needs {
            None => change_of(cause, place, ask.changes, |c| c.at <= ask.incident.detected_at),
            Some(needs) => match needed_change(needs, hypothesis, cause, place, ask.changes) {
                Some(change) => change,
                None => {
                    why = format!("no such change of {} is known", cause.name());
                    continue;
                }
            },
        };
        let success = learned(playbook, hypothesis.fault, heals.success_rate, ask);
        if best.as_ref().is_none_or(|b| success > b.success) {
            best = Some(Fit { success, change });
        }
    }
    best.ok_or(why)
}

/// The playbook's own rate, moved by what was seen: the mean of a beta distribution.
fn learned(playbook: &Playbook, fault: FaultClass, rate: f64, ask: &Ask<'_>) -> f64 {
    let (worked, failed) = ask.stats.of(&playbook.name, fault);
    let weight = ask.config.prior_weight.max(0.1);
    rate.mul_add(weight, worked as f64) / (weight + worked as f64 + failed as f64)
}

/// The entities that each step touches, in the order of the steps.
pub(crate) fn targets(playbook: &Playbook, cause: &EntityId, place: Place<'_>) -> Result<Vec<Vec<EntityId>>, String> {
    let found = playbook.steps.iter().map(|s| place.resolve(s.target, cause)).collect::<Result<Vec<_>, _>>()?;
    let steps = found.iter().map(Vec::len).sum::<usize>();
    if steps > STEPS_MAX { Err(format!("it would have {steps} steps, at most {STEPS_MAX}")) } else { Ok(found) }
}

/// Binds a playbook to a cause. The error says what is missing, one line for people.
pub(crate) fn bind(
    playbook: &Playbook,
    cause: &EntityId,
    change: Option<&Change>,
    ask: &Ask<'_>,
) -> Result<Bound, String> {
    let cause = ask.topology.resolve(cause);
    let rehearsed = rehearsed(cause, ask);
    let images = rehearsed.as_ref().unwrap_or(ask.images);
    let place = place(ask, images);
    let targets = targets(playbook, cause, place)?;
    let Some(first) = targets.first().and_then(|t| t.first()) else { return Err("it has no steps".into()) };

    let params = params(playbook, first, change, place)?;
    let facts = Facts { place, target: first, params: &params, change };
    for condition in &playbook.when {
        match condition.holds(&facts) {
            Ok(true) => {}
            Ok(false) => return Err(format!("`{condition}` does not hold of {}", first.name())),
            Err(e) => return Err(format!("`{condition}`: {e} of {}", first.name())),
        }
    }
    let mut steps = Vec::new();
    for (step, targets) in playbook.steps.iter().zip(&targets) {
        for target in targets {
            let facts = Facts { place, target, params: &params, change };
            let mut bound = bind_step(step, &facts, ask)?;
            if targets.len() > 1 {
                bound.name = format!("{}-{}", step.name, steps.len() + 1);
            }
            steps.push(bound);
        }
    }
    let mut near = vec![cause.clone()];
    near.extend(targets.into_iter().flatten());
    let check = if playbook.acts() { kpi::bind } else { kpi::bind_any };
    let verification = check(&playbook.verify, &near, place).ok_or(UNTELLABLE)?;
    let facts = Facts { place, target: cause, params: &params, change };
    Ok(Bound { title: text(&playbook.title, cause, &facts), steps, verification })
}

/// An entity of a test injection stands for nothing that could be looked at.
fn rehearsed(cause: &EntityId, ask: &Ask<'_>) -> Option<Images> {
    let missing = ask.incident.synthetic && !ask.images.contains_key(cause);
    missing.then(|| {
        let mut images = ask.images.clone();
        images.insert(cause.clone(), rehearsal_image(cause));
        images
    })
}

fn params(
    playbook: &Playbook,
    target: &EntityId,
    change: Option<&Change>,
    place: Place<'_>,
) -> Result<BTreeMap<String, Val>, String> {
    let mut out = BTreeMap::new();
    // Parameters may use each other; the reader has put them in an order without circles.
    for name in playbook.param_order() {
        let Some(param) = playbook.params.get(name) else { continue };
        let value = {
            let facts = Facts { place, target, params: &out, change };
            param.value.eval(&facts).map_err(|e| format!("{name}: {e} of {}", target.name()))?
        };
        let json = value.to_json();
        if !param.kind.fits(&json) {
            return Err(format!("{name} would be {value}, which is no {}", param.kind.as_str()));
        }
        if let Some(n) = json.as_f64() {
            let low = param.min.is_some_and(|min| n < min);
            let high = param.max.is_some_and(|max| n > max);
            if low || high {
                let limit = if low { param.min } else { param.max }.unwrap_or_default();
                let word = if low { "least" } else { "most" };
                return Err(format!("{name} would be {value}, at {word} {limit} is allowed"));
            }
        }
        out.insert(name.to_owned(), value);
    }
    Ok(out)
}

fn bind_step(step: &Step, facts: &Facts<'_>, ask: &Ask<'_>) -> Result<PlanStep, String> {
    let info = ActionInfo::of(step.action);
    let mut params = Image::new();
    for (name, expr) in &step.params {
        let value = expr.eval(facts).map_err(|e| format!("{name}: {e} of {}", facts.target.name()))?;
        let mut json = value.to_json();
        // A text that looks like a number (a version, a partition) is a text where the action takes one.
        if let (Some(kind), Val::Num(_) | Val::Bool(_)) = (info.param(name).map(|p| p.kind), &value)
            && kind == crate::playbook::ParamType::Text
        {
            json = serde_json::Value::String(value.to_string());
        }
        params.insert(name.clone(), json);
    }
    if step.action == ActionType::ManualReview
        && let Some(serde_json::Value::String(ask)) = params.get_mut("ask")
    {
        *ask = text(ask, facts.target, facts);
    }
    let actuator = if step.actuator.is_empty() { ask.config.actuator_for(step.action) } else { &step.actuator };
    Ok(PlanStep {
        name: step.name.clone(),
        action: step.action,
        target: facts.target.clone(),
        actuator: actuator.to_owned(),
        params,
        expects: expects(step, facts)?,
        risk: step.risk,
        estimated_impact: text(&step.estimated_impact, facts.target, facts),
        deadline_secs: step.deadline_secs,
        rollback: step.rollback.clone(),
        canary: step.canary.as_ref().map(|c| Canary { share: c.share, watch_secs: c.watch_secs }),
    })
}

/// The looked-at facts that must not change until the step runs.
fn expects(step: &Step, facts: &Facts<'_>) -> Result<Image, String> {
    let mut out = Image::new();
    if step.expects.is_empty() {
        return Ok(out);
    }
    let name = facts.target.name();
    let image = facts.place.images.get(facts.target).ok_or_else(|| format!("{name} was not looked at"))?;
    for fact in &step.expects {
        // `{x}` in a name is a value: `flag.{flag}`.
        let fact = text(fact, facts.target, facts);
        let before = out.len();
        match fact.strip_suffix('*') {
            Some(prefix) => {
                let all = image.range(prefix.to_owned()..).take_while(|(k, _)| k.starts_with(prefix));
                out.extend(all.map(|(k, v)| (k.clone(), v.clone())));
            }
            None => out.extend(image.get(&fact).map(|v| (fact.clone(), v.clone()))),
        }
        if out.len() == before && !out.contains_key(&fact) {
            return Err(format!("`{fact}` of {name} is not known"));
        }
    }
    Ok(out)
}

/// Fills `{name}` with the entity's name (`{cause}`, `{target}`), a parameter or a fact; what is not known is shown as `?`.
pub(crate) fn text(template: &str, target: &EntityId, facts: &Facts<'_>) -> String {
    let mut out = String::with_capacity(template.len() + 16);
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let Some(close) = rest[open..].find('}') else { break };
        out.push_str(&rest[..open]);
        let name = &rest[open + 1..open + close];
        match name {
            "cause" | "target" => out.push_str(&target.name()),
            _ => match facts.fact(name) {
                Some(value) => out.push_str(&value.to_string()),
                None => out.push('?'),
            },
        }
        rest = &rest[open + close + 1..];
    }
    out.push_str(rest);
    out
}

/// Whether a playbook asks for what is seen from the cause alone, so that binding it for another cause would touch the
/// same things.
pub(crate) fn same_targets(playbook: &Playbook, a: &EntityId, b: &EntityId, place: Place<'_>) -> bool {
    place.topology.resolve(a) == place.topology.resolve(b)
        || (!playbook.steps.iter().any(|s| s.target == Target::Cause)
            && targets(playbook, a, place).is_ok_and(|x| targets(playbook, b, place).is_ok_and(|y| x == y)))
}
