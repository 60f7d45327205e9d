//! The verdict: every rule is asked, in the order of the design, and the strictest wins.

use crate::Guard;
use crate::external::ExternalAnswer;
use crate::facts::{Ask, Hands, TargetFacts};
use crate::input::{PolicyInput, TargetTimes, namespace_allowed, opted_in};
use crate::policy::Said;
use crate::reach::{self, pods_allowed};
use crate::role::Role;
use crate::state::{BreakerIs, GrantState, Run};
use crate::window::WindowKind;
use nightshift_model::{ActionType, Decision, EntityId, PlanHash, Reason, Risk, Rollback, Timestamp, Verdict};
use std::collections::BTreeSet;
use std::time::Duration;

/// Names of the built-in rules, in the order in which they are asked.
pub mod rule {
    /// The switch that stops everything.
    pub const KILL_SWITCH: &str = "kill_switch";
    /// A person paused the incident or took it over.
    pub const HANDS: &str = "hands";
    /// The plan's seal, and what the plan checker found.
    pub const CHECKER: &str = "checker";
    /// Action types.
    pub const ALLOW_LIST: &str = "allow_list";
    /// Before the name of a policy's rule.
    pub const POLICY: &str = "policy/";
    /// Before the name of an external policy engine's rule.
    pub const OPA: &str = "opa/";
    /// The role of who asks.
    pub const RBAC: &str = "rbac";
    /// The gate of confidence.
    pub const CONFIDENCE: &str = "confidence";
    /// Risk and criticality.
    pub const RISK: &str = "risk";
    /// Whether the target heals by itself.
    pub const SELF_HEAL: &str = "self_heal";
    /// Limits of what is touched.
    pub const BLAST_RADIUS: &str = "blast_radius";
    /// Failures in a row, and attempts.
    pub const BREAKER: &str = "breaker";
    /// What is left to be spent.
    pub const ERROR_BUDGET: &str = "error_budget";
    /// One action per target and time.
    pub const COOLDOWN: &str = "cooldown";
    /// Other plans at work.
    pub const IN_FLIGHT: &str = "in_flight";
    /// Freeze windows.
    pub const FREEZE_WINDOW: &str = "freeze_window";
    /// Maintenance windows.
    pub const MAINTENANCE_WINDOW: &str = "maintenance_window";
    /// Approvals: missing, used up, refused.
    pub const APPROVAL: &str = "approval";
    /// The plan has been carried out, or its time is over.
    pub const RUN: &str = "run";
    /// Nothing is carried out at all.
    pub const DRY_RUN: &str = "dry_run";
    /// A test injection.
    pub const SYNTHETIC: &str = "synthetic";

    /// Whether what this rule denies is lifted by time or by another deed of a person, so that judging again is worth
    /// while: the kill switch, the breaker, a freeze.
    pub fn is_passing(rule: &str) -> bool {
        [KILL_SWITCH, BREAKER, FREEZE_WINDOW].contains(&rule) || rule.starts_with("policy/nightshift.freeze.")
    }
}

/// The least role that may override what this rule says of a plan of this risk; `None`: nobody may.
pub(crate) fn override_needs(guard: &Guard, reason: &Reason, risk: Risk) -> Option<Role> {
    if !reason.overridable {
        return None;
    }
    match reason.rule.as_str() {
        rule::FREEZE_WINDOW => Some(Role::Admin),
        _ => Some(guard.config().roles.of(risk)),
    }
}

/// Collects what the rules say.
struct Reasons(Vec<Reason>);

impl Reasons {
    fn say(&mut self, rule: &str, decision: Decision, overridable: bool, why: impl Into<String>) {
        let overridable = overridable && decision != Decision::Execute;
        self.0.push(Reason { rule: rule.to_owned(), decision, why: why.into(), overridable });
    }

    fn allow(&mut self, rule: &str, why: impl Into<String>) {
        self.say(rule, Decision::Execute, false, why);
    }

    /// An allowing line when the rule had nothing against it.
    fn allow_unless(&mut self, rule: &str, before: usize, why: impl Into<String>) {
        if self.0.len() == before {
            self.allow(rule, why);
        }
    }
}

/// The least risk of an action, whatever its playbook says.
pub(crate) const fn risk_floor(action: ActionType) -> Risk {
    match action {
        ActionType::FailoverDb => Risk::High,
        ActionType::ScaleDeployment
        | ActionType::ToggleFeature
        | ActionType::RecycleConnections
        | ActionType::ManualReview => Risk::Low,
        _ => Risk::Medium,
    }
}

const fn raised(risk: Risk) -> Risk {
    match risk {
        Risk::Low => Risk::Medium,
        Risk::Medium => Risk::High,
        Risk::High | Risk::Critical => Risk::Critical,
    }
}

impl Guard {
    /// The plan's risk, raised by what it does and to what: never below the floor of an action, and one up for a step
    /// that cannot be taken back on something critical, and for a plan that touches more than two targets. With why.
    pub(crate) fn risk_of(&self, ask: &Ask<'_>) -> (Risk, String) {
        let plan = ask.plan;
        let mut risk = plan.risk;
        let mut why = format!("{} risk", plan.risk);
        for step in &plan.steps {
            let floor = risk_floor(step.action).max(step.risk);
            if floor > risk {
                risk = floor;
                why = format!("{} risk: {} is never less", floor, step.action);
            }
        }
        let final_on_critical = plan.steps.iter().any(|s| {
            s.rollback == Rollback::Impossible
                && s.action != ActionType::ManualReview
                && ask.facts.targets.get(&s.target).is_none_or(TargetFacts::is_critical)
        });
        let targets = targets(ask).len();
        if final_on_critical && risk < Risk::Critical {
            risk = raised(risk);
            why = format!("{risk} risk: it cannot be taken back, and its target is critical or unknown");
        } else if targets > 2 && risk < Risk::High {
            risk = raised(risk);
            why = format!("{risk} risk: it touches {targets} targets");
        }
        (risk, why)
    }

    /// The document that policies are given, also for an external engine.
    pub fn policy_input(&self, ask: &Ask<'_>, now: Timestamp) -> PolicyInput {
        let (risk, _) = self.risk_of(ask);
        PolicyInput::new(ask, self.config(), risk, |target| self.times(target, ask.plan.hash, now), now)
    }

    fn times(&self, target: &EntityId, plan: PlanHash, now: Timestamp) -> TargetTimes {
        let state = self.state().targets.get(target);
        let until = state.and_then(|t| t.cooling_until(plan, self.config().cooldown_secs, now));
        TargetTimes {
            cooldown_secs: until.map_or(0, |u| u.since(now).as_secs_f64().ceil() as u64),
            busy: self.busy(target, plan),
        }
    }

    /// Whether another plan is at work on a target.
    fn busy(&self, target: &EntityId, plan: PlanHash) -> bool {
        self.state().runs.iter().any(|(hash, run)| *hash != plan && run.targets.contains(target))
    }

    /// What may be done with a plan, with every rule that spoke. Changes nothing.
    pub fn judge(&self, ask: &Ask<'_>, now: Timestamp) -> Verdict {
        let mut out = Reasons(Vec::with_capacity(32));
        let (risk, risk_why) = self.risk_of(ask);
        let synthetic = ask.facts.incident.synthetic;
        kill_switch(ask, &mut out);
        hands(ask, &mut out);
        checker(ask, &mut out);
        self.allow_list(ask, &mut out);
        self.policies_say(ask, now, &mut out);
        if synthetic {
            out.allow(rule::SYNTHETIC, "made by a test injection: dry-run only, nothing is carried out");
        } else {
            self.rbac(ask, risk, &mut out);
            self.confidence(ask, &mut out);
            self.risk(ask, risk, &risk_why, &mut out);
            self.blast_radius(ask, &mut out);
            self.breaker(ask, now, &mut out);
            self.error_budget(ask, &mut out);
            self.cooldown(ask, now, &mut out);
            self.windows(ask, now, &mut out);
            self.history(ask, now, &mut out);
        }
        let decision = out.0.iter().map(|r| r.decision).max().unwrap_or(Decision::Deny);
        Verdict {
            plan: ask.plan.hash,
            decision,
            reasons: out.0,
            risk,
            dry_run: self.config().dry_run || synthetic,
            at: now,
            expires_at: (decision == Decision::Ask).then(|| now + self.config().approval_timeout()),
        }
    }

    fn allow_list(&self, ask: &Ask<'_>, out: &mut Reasons) {
        let before = out.0.len();
        let denied: BTreeSet<ActionType> =
            ask.plan.steps.iter().map(|s| s.action).filter(|a| !self.config().actions.contains(a)).collect();
        for action in denied {
            out.say(rule::ALLOW_LIST, Decision::Deny, false, format!("{action} is not in guard.actions"));
        }
        out.allow_unless(rule::ALLOW_LIST, before, "every action type is allowed");
    }

    fn policies_say(&self, ask: &Ask<'_>, now: Timestamp, out: &mut Reasons) {
        let before = out.0.len();
        let say = |out: &mut Reasons, prefix: &str, said: Vec<Said>| {
            for s in said {
                out.say(&format!("{prefix}{}", s.rule), s.decision, s.overridable, s.why);
            }
        };
        let asked = self.policies().rules().count();
        if asked > 0 {
            say(out, rule::POLICY, self.policies().evaluate(&self.policy_input(ask, now)));
        }
        out.allow_unless(rule::POLICY.trim_end_matches('/'), before, format!("none of {asked} rules is against it"));
        match (&self.config().opa, &ask.facts.external) {
            (None, None) => {}
            (_, Some(ExternalAnswer::Said { rules })) if rules.is_empty() => {
                out.allow(rule::OPA.trim_end_matches('/'), "the external policy engine has nothing against it");
            }
            (_, Some(ExternalAnswer::Said { rules })) => say(out, rule::OPA, rules.clone()),
            (_, Some(ExternalAnswer::Failed { why })) => {
                out.say("opa", Decision::Deny, false, format!("external policy engine gave no answer: {why}"));
            }
            (Some(_), None) => {
                out.say("opa", Decision::Deny, false, "external policy engine was not asked");
            }
        }
    }

    fn rbac(&self, ask: &Ask<'_>, risk: Risk, out: &mut Reasons) {
        match &ask.facts.requester {
            None => out.allow(rule::RBAC, "asked for by the machine itself, within its gates"),
            Some(person) => {
                let needs = self.config().roles.of(risk);
                let (name, role) = (&person.name, person.role);
                if role >= needs {
                    out.allow(rule::RBAC, format!("asked for by {name} ({role})"));
                } else {
                    let why = format!("{name} is {role}; a plan of {risk} risk needs {needs}");
                    out.say(rule::RBAC, Decision::Deny, false, why);
                }
            }
        }
    }

    fn confidence(&self, ask: &Ask<'_>, out: &mut Reasons) {
        let (c, config) = (ask.plan.confidence, self.config());
        if !c.is_finite() || c < config.confidence_ask_min {
            let why = format!("confidence {c:.2} is below {:.2}: it waits for evidence", config.confidence_ask_min);
            out.say(rule::CONFIDENCE, Decision::Monitor, true, why);
        } else if c > config.confidence_min {
            out.allow(rule::CONFIDENCE, format!("confidence {c:.2} is above {:.2}", config.confidence_min));
        } else {
            let why = format!("confidence {c:.2} is not above {:.2}", config.confidence_min);
            out.say(rule::CONFIDENCE, Decision::Ask, true, why);
        }
    }

    fn risk(&self, ask: &Ask<'_>, risk: Risk, why: &str, out: &mut Reasons) {
        let decision = if risk >= Risk::High { Decision::Ask } else { Decision::Execute };
        out.say(rule::RISK, decision, true, why);
        let before = out.0.len();
        let unknown = TargetFacts::default();
        for id in targets(ask) {
            let known = ask.facts.targets.get(id).unwrap_or(&unknown);
            let opted_out = known.says(crate::facts::SELF_HEAL) == Some(false);
            if opted_out || !known.is_critical() && !opted_in(self.config(), id, known) {
                let why = if opted_out {
                    format!("{} is opted out of healing by itself", id.name())
                } else {
                    format!("{} is neither tagged critical nor opted in to healing by itself", id.name())
                };
                out.say(rule::SELF_HEAL, Decision::Ask, true, why);
            }
        }
        out.allow_unless(rule::SELF_HEAL, before, "every target heals by itself");
    }

    fn blast_radius(&self, ask: &Ask<'_>, out: &mut Reasons) {
        const R: &str = rule::BLAST_RADIUS;
        let before = out.0.len();
        let limits = &self.config().limits;
        let mut deny = |why: String| out.say(R, Decision::Deny, false, why);
        let all = targets(ask);
        if all.len() > limits.targets_max {
            deny(format!("it touches {} targets, more than {}", all.len(), limits.targets_max));
        }
        for id in all {
            if !namespace_allowed(self.config(), id) {
                let namespace = id.namespace();
                let name = if namespace.is_empty() { "-" } else { &namespace };
                deny(format!("nothing is changed in namespace {name}"));
            }
        }
        let unknown = TargetFacts::default();
        let mut alone = Vec::new();
        for step in &ask.plan.steps {
            let known = ask.facts.targets.get(&step.target).unwrap_or(&unknown);
            let name = step.target.name();
            if let Some(r) = reach::replicas(step, known) {
                match r.to {
                    None => deny(format!("{}: does not say how many replicas", step.name)),
                    Some(to) if to > limits.replicas_max => {
                        deny(format!("{to} replicas of {name} are more than {}", limits.replicas_max));
                    }
                    Some(to) if r.max.is_some_and(|max| to > max) || r.min.is_some_and(|min| to < min) => {
                        let bound = |b: Option<u64>| b.map_or("?".to_owned(), |b| b.to_string());
                        deny(format!("{to} replicas of {name} are outside its {}..{}", bound(r.min), bound(r.max)));
                    }
                    Some(0) if r.min.is_none() => deny(format!("{name} would be scaled to nothing")),
                    Some(_) => {}
                }
            }
            if let Some(p) = reach::pods(step, known) {
                match (p.at_once, p.of) {
                    (Some(n), Some(of)) if n > pods_allowed(of, limits.pods_share_max) => {
                        let allowed = pods_allowed(of, limits.pods_share_max);
                        deny(format!("{n} of {of} pods of {name} at once are more than {allowed}"));
                    }
                    (Some(1), Some(1)) => alone.push(name),
                    // One pod at a time is within every share, however many there are.
                    (Some(_), Some(_)) | (Some(0 | 1), None) => {}
                    (Some(n), None) => deny(format!("{n} pods of {name} at once, of nobody knows how many")),
                    // A share within the limit is within it whatever the number.
                    (None, None) if p.share.is_some_and(|s| s <= limits.pods_share_max) => {}
                    (None, None) if p.share.is_some() => {
                        deny(format!(
                            "{name}: too great a share of its pods at once, and nobody knows how many it has"
                        ));
                    }
                    (None, _) => deny(format!("{}: does not say how many pods are gone at once", step.name)),
                }
            }
        }
        for name in alone {
            out.say(R, Decision::Ask, true, format!("the only pod of {name} would be gone"));
        }
        out.allow_unless(R, before, "within the limits");
    }

    fn breaker(&self, ask: &Ask<'_>, now: Timestamp, out: &mut Reasons) {
        const R: &str = rule::BREAKER;
        let before = out.0.len();
        let (config, hash) = (&self.config().breaker, ask.plan.hash);
        let mut trial = false;
        let mut one = |breaker: &crate::state::Breaker, of: &str, out: &mut Reasons| match breaker.stands(hash, now) {
            BreakerIs::Closed => {}
            BreakerIs::Trial => trial = true,
            BreakerIs::Open(until) => {
                let why = format!("{} failures in a row {of}: open until {until}", breaker.failures);
                out.say(R, Decision::Deny, false, why);
            }
            BreakerIs::TrialElsewhere(other) => {
                let why = format!("after {} failures {of}, plan {} is the one trial", breaker.failures, other.short());
                out.say(R, Decision::Deny, false, why);
            }
        };
        one(&self.state().breaker, "over all execution", out);
        for id in targets(ask) {
            let Some(target) = self.state().targets.get(id) else { continue };
            one(&target.breaker, &format!("on {}", id.name()), out);
            let attempts = target.attempts_within(config, now);
            if attempts >= config.attempts_max as usize {
                let why = format!("{attempts} attempts on {} within {} s", id.name(), config.attempts_secs);
                out.say(R, Decision::Deny, false, why);
            }
        }
        out.allow_unless(R, before, if trial { "half open: this is the one trial" } else { "closed" });
    }

    fn error_budget(&self, ask: &Ask<'_>, out: &mut Reasons) {
        const R: &str = rule::ERROR_BUDGET;
        let before = out.0.len();
        let budgets = &ask.facts.budgets;
        let spends = crate::budget::spend_estimate(&self.config().budget, ask.plan, budgets);
        for (id, spend) in &spends {
            let Some(budget) = budgets.get(id) else { continue };
            let (name, slo) = (id.name(), &budget.objective);
            match budget.left {
                None => {
                    let why = format!("the error budget of {name} ({slo}) is unknown, and it could cost some");
                    out.say(R, Decision::Ask, true, why);
                }
                Some(left) if *spend >= left => {
                    let why = format!(
                        "it could spend {:.1} % of the error budget of {name} ({slo}), of which {:.1} % is left",
                        spend * 100.0,
                        left * 100.0
                    );
                    out.say(R, Decision::Deny, true, why);
                }
                Some(_) => {}
            }
        }
        let why = if budgets.is_empty() { "no objective is declared" } else { "enough is left" };
        out.allow_unless(R, before, why);
    }

    fn cooldown(&self, ask: &Ask<'_>, now: Timestamp, out: &mut Reasons) {
        let before = out.0.len();
        let hash = ask.plan.hash;
        for id in targets(ask) {
            let Some(target) = self.state().targets.get(id) else { continue };
            if let Some(until) = target.cooling_until(hash, self.config().cooldown_secs, now) {
                let why = format!("{} was touched by another plan; it cools down until {until}", id.name());
                out.say(rule::COOLDOWN, Decision::Monitor, true, why);
            }
        }
        out.allow_unless(rule::COOLDOWN, before, "no target cools down");
        let before = out.0.len();
        for id in targets(ask) {
            if self.busy(id, hash) {
                let why = format!("another plan is at work on {}", id.name());
                out.say(rule::IN_FLIGHT, Decision::Monitor, false, why);
            }
        }
        let (runs, max) = (&self.state().runs, self.config().limits.plans_max);
        if !runs.contains_key(&hash) && runs.len() >= max {
            out.say(
                rule::IN_FLIGHT,
                Decision::Monitor,
                false,
                format!("{} plans are under way, no more than {max} may be", runs.len()),
            );
        }
        out.allow_unless(rule::IN_FLIGHT, before, "nothing else is at work there");
    }

    fn windows(&self, ask: &Ask<'_>, now: Timestamp, out: &mut Reasons) {
        let before = out.0.len();
        for (kind, name, decision) in [
            (WindowKind::Freeze, rule::FREEZE_WINDOW, Decision::Deny),
            (WindowKind::Maintenance, rule::MAINTENANCE_WINDOW, Decision::Monitor),
        ] {
            for window in self.config().windows_of(kind).filter(|w| w.is_on(now)) {
                let covered = targets(ask).into_iter().find(|id| window.covers(id));
                if let Some(id) = covered {
                    let why = format!("{} window `{}` is on for {}", kind.as_str(), window.name, id.name());
                    out.say(name, decision, true, why);
                }
            }
        }
        out.allow_unless(rule::FREEZE_WINDOW, before, "no window is on");
    }

    /// What was said and done about this very plan before.
    fn history(&self, ask: &Ask<'_>, now: Timestamp, out: &mut Reasons) {
        let hash = ask.plan.hash;
        let run = self.state().runs.get(&hash);
        if let Some(Run { ends_by, .. }) = run
            && *ends_by <= now
        {
            out.say(rule::RUN, Decision::Deny, false, format!("its time ended at {ends_by}"));
        }
        match self.state().grants.get(&hash).map(|g| &g.state) {
            Some(GrantState::Rejected { by: Some(by), why }) => {
                let why = if why.is_empty() { String::new() } else { format!(": {why}") };
                out.say(rule::APPROVAL, Decision::Deny, false, format!("rejected by {by}{why}"));
            }
            Some(GrantState::Rejected { by: None, .. }) => {
                out.say(rule::APPROVAL, Decision::Deny, false, "nobody answered in time: rejected");
            }
            Some(GrantState::Used) if run.is_none() => {
                out.say(rule::RUN, Decision::Deny, false, "this plan has been carried out; a plan runs once");
            }
            _ => {}
        }
    }
}

/// Targets that a plan changes, each once, in order.
pub(crate) fn targets<'a>(ask: &Ask<'a>) -> BTreeSet<&'a EntityId> {
    ask.plan.steps.iter().filter(|s| s.action != ActionType::ManualReview).map(|s| &s.target).collect()
}

fn kill_switch(ask: &Ask<'_>, out: &mut Reasons) {
    match &ask.facts.kill_switch {
        Some(switch) if switch.on => {
            let why = if switch.why.is_empty() { String::new() } else { format!(": {}", switch.why) };
            out.say(rule::KILL_SWITCH, Decision::Deny, false, format!("turned on by {}{why}", switch.by));
        }
        _ => out.allow(rule::KILL_SWITCH, "off"),
    }
}

fn hands(ask: &Ask<'_>, out: &mut Reasons) {
    match ask.facts.incident.hands {
        Hands::Machine => {}
        Hands::Paused => out.say(rule::HANDS, Decision::Monitor, false, "a person paused automation on this incident"),
        Hands::TakenOver => out.say(rule::HANDS, Decision::Monitor, false, "a person does it by hand"),
    }
}

fn checker(ask: &Ask<'_>, out: &mut Reasons) {
    let before = out.0.len();
    if !ask.plan.is_sealed() {
        out.say(rule::CHECKER, Decision::Deny, false, "the plan is not what its hash says");
    }
    if ask.plan.steps.is_empty() {
        out.say(rule::CHECKER, Decision::Deny, false, "the plan has no steps");
    }
    for finding in &ask.facts.findings {
        out.say(rule::CHECKER, Decision::Deny, false, finding.clone());
    }
    out.allow_unless(rule::CHECKER, before, "nothing wrong was found");
}

/// How long a plan may be under way: twice the time of its steps, and its verification.
pub(crate) fn run_secs(ask: &Ask<'_>) -> Duration {
    let steps = ask
        .plan
        .steps
        .iter()
        .map(|s| 2 * u64::from(s.deadline_secs) + s.canary.as_ref().map_or(0, |c| u64::from(c.watch_secs)));
    Duration::from_secs(steps.sum::<u64>() + u64::from(ask.plan.verification.deadline_secs) + 60)
}
