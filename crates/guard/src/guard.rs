//! The guard itself: verdicts are read, permits and approvals change what it remembers.

use crate::config::GuardConfig;
use crate::facts::{Ask, Person};
use crate::judge::{override_needs, rule, run_secs};
use crate::permit::{Permit, Request};
use crate::policy::Policies;
use crate::role::{Verb, needed};
use crate::state::{Grant, GrantState, GuardState, Run};
use nightshift_model::{ActionType, Decision, IncidentId, Operation, PlanHash, Reason, Risk, Timestamp, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What may be done, by whom, when, and how much of it.
#[derive(Debug, Clone)]
pub struct Guard {
    config: GuardConfig,
    policies: Policies,
    state: GuardState,
}

/// Why a person's word does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The role is not enough.
    #[error("{verb} a plan of {risk} risk needs {needs}, the token is {has}", verb = verb.as_str())]
    Role {
        /// What was wanted.
        verb: Verb,
        /// Of the plan.
        risk: Risk,
        /// The least role.
        needs: crate::Role,
        /// The token's.
        has: crate::Role,
    },
    /// Nobody asked about this plan: it was replaced, or never needed to be.
    #[error("no approval of plan {0} is asked for: look at the incident again, its plan has changed")]
    NotAsked(String),
    /// It was asked, and answered or timed out.
    #[error("plan {0} is no longer asked about: {1}")]
    Over(String, String),
    /// A reason that may not be overridden stands in the way.
    #[error("{rule} cannot be overridden: {why}")]
    NotOverridable {
        /// Its name.
        rule: String,
        /// What it says.
        why: String,
    },
    /// An override without a word.
    #[error("say why: an override needs a reason")]
    NoReason,
    /// A verdict can be replaced by `execute` or `deny` only.
    #[error("a verdict is overridden to execute or to deny, not to {0}")]
    NotADecision(Decision),
}

/// How a plan that was under way ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunEnd {
    /// Carried out and verified.
    Verified,
    /// An operation failed or is unknown, or verification failed.
    Failed,
    /// Stopped before anything could be said of it: by a person, or because the world had changed.
    Abandoned,
}

/// A question that nobody answered in time: a rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOut {
    /// Of which incident.
    pub incident: IncidentId,
    /// About which plan.
    pub plan: PlanHash,
    /// When its time was over.
    pub expired_at: Timestamp,
}

impl Guard {
    /// A guard that remembers nothing.
    pub fn new(config: GuardConfig, policies: Policies) -> Self {
        Self { config, policies, state: GuardState::default() }
    }

    /// The settings.
    pub const fn config(&self) -> &GuardConfig {
        &self.config
    }

    /// The policies in force.
    pub const fn policies(&self) -> &Policies {
        &self.policies
    }

    /// What it remembers: for the checkpoint.
    pub const fn state(&self) -> &GuardState {
        &self.state
    }

    /// Takes back what a checkpoint holds.
    pub fn restore(&mut self, state: GuardState) {
        self.state = state;
    }

    /// Other policies from now on; what it remembers stays.
    pub fn set_policies(&mut self, policies: Policies) {
        self.policies = policies;
    }

    /// Other settings from now on; what it remembers stays.
    pub fn set_config(&mut self, config: GuardConfig) {
        self.config = config;
    }

    /// Leave to do one changing operation, or every reason why not. Asked before each, so that whatever changed since
    /// the verdict (a kill switch, a window, a failure elsewhere) counts. The first permit of a plan uses its approval
    /// up; the same plan never begins again.
    ///
    /// Taking back what a plan itself changed is let through by all rules but the kill switch, a person's hands, the
    /// seal and dry-run: an open breaker or a window that has begun must not leave things half done.
    ///
    /// # Errors
    /// The verdict, with what stood in the way.
    pub fn permit(&mut self, ask: &Ask<'_>, request: Request, now: Timestamp) -> Result<Permit, Box<Verdict>> {
        let mut verdict = self.judge(ask, now);
        let hash = ask.plan.hash;
        let deny =
            |rule: &str, why: String| Reason { rule: rule.into(), decision: Decision::Deny, why, overridable: false };
        let mut blocking: Vec<Reason> = Vec::new();
        if self.config.dry_run {
            blocking.push(deny(rule::DRY_RUN, "guard.dry_run is on: nothing is carried out".into()));
        }
        if ask.facts.incident.synthetic {
            blocking.push(deny(rule::SYNTHETIC, "made by a test injection: nothing is carried out".into()));
        }
        let step = usize::try_from(request.step).ok().and_then(|i| ask.plan.steps.get(i));
        match step {
            None => blocking.push(deny(rule::RUN, format!("the plan has no step {}", request.step))),
            Some(step) if step.action == ActionType::ManualReview => {
                blocking.push(deny(rule::RUN, "a manual review is done by a person".into()));
            }
            Some(_) if !request.operation.changes() => {
                blocking.push(deny(rule::RUN, format!("{} changes nothing and needs no permit", request.operation)));
            }
            Some(_) => {}
        }
        let run = self.state.runs.get(&hash);
        let agreed = self.agreement(hash, verdict.risk, run, now);
        if request.operation == Operation::Undo {
            let undone = run.and_then(|r| r.touched.get(&request.step));
            match undone {
                None => blocking.push(deny(rule::RUN, "nothing was changed that could be taken back".into())),
                Some(n) if *n >= self.config.breaker.attempts_max => {
                    blocking.push(deny(rule::BREAKER, format!("taking it back was tried {n} times")));
                }
                Some(_) => {}
            }
            let binding = [rule::KILL_SWITCH, rule::HANDS, rule::CHECKER];
            let standing = verdict.reasons.iter().filter(|r| r.decision != Decision::Execute);
            blocking.extend(standing.filter(|r| binding.contains(&r.rule.as_str())).cloned());
        } else {
            for reason in &verdict.reasons {
                let stands = match reason.decision {
                    Decision::Execute => false,
                    Decision::Ask => agreed.is_none(),
                    Decision::Monitor | Decision::Deny => !agreed.as_ref().is_some_and(|(role, overrides)| {
                        overrides.contains(&reason.rule)
                            && override_needs(self, reason, verdict.risk).is_some_and(|needs| *role >= needs)
                    }),
                };
                if stands {
                    blocking.push(reason.clone());
                }
            }
            if verdict.reasons.iter().any(|r| r.decision == Decision::Ask) && agreed.is_none() {
                blocking.push(deny(rule::APPROVAL, "a person must agree first, and has not, or no longer".into()));
            }
        }
        let Some(step) = step.filter(|_| blocking.is_empty()) else {
            verdict.decision = blocking.iter().map(|r| r.decision).max().unwrap_or(Decision::Deny);
            for reason in blocking {
                if !verdict.reasons.contains(&reason) {
                    verdict.reasons.push(reason);
                }
            }
            return Err(Box::new(verdict));
        };
        let target = step.target.clone();
        self.begin(ask, agreed, now);
        if let Some(run) = self.state.runs.get_mut(&hash) {
            let undos = run.touched.entry(request.step).or_insert(0);
            if request.operation == Operation::Undo {
                *undos += 1;
            }
            run.targets.insert(target.clone());
        }
        let touched = self.state.targets.entry(target.clone()).or_default();
        if request.operation != Operation::Undo {
            touched.attempts.push_back(now);
            touched.breaker.permitted(hash, now);
            self.state.breaker.permitted(hash, now);
        }
        touched.last = Some(now);
        touched.last_plan = Some(hash);
        Ok(Permit {
            plan: hash,
            step: request.step,
            operation: request.operation,
            target,
            given_at: now,
            expires_at: now + Duration::from_secs(u64::from(step.deadline_secs).max(1)),
            fence: request.fence,
        })
    }

    /// Who agreed to a plan that is under way or may begin, and over which rules.
    fn agreement(
        &self,
        hash: PlanHash,
        risk: Risk,
        run: Option<&Run>,
        now: Timestamp,
    ) -> Option<(crate::Role, BTreeSet<String>)> {
        let needs = needed(&self.config.roles, Verb::Approve, risk);
        let enough = |role: &crate::Role| *role >= needs;
        if let Some(run) = run {
            return run.agreed.filter(enough).map(|role| (role, run.overrides.clone()));
        }
        match &self.state.grants.get(&hash)?.state {
            GrantState::Approved { role, expires_at, overrides, .. } if now < *expires_at && enough(role) => {
                Some((*role, overrides.clone()))
            }
            _ => None,
        }
    }

    /// The first permit of a plan: its approval is used up.
    fn begin(&mut self, ask: &Ask<'_>, agreed: Option<(crate::Role, BTreeSet<String>)>, now: Timestamp) {
        let (hash, incident) = (ask.plan.hash, ask.plan.incident);
        if self.state.runs.contains_key(&hash) {
            return;
        }
        let (role, overrides) = agreed.map_or((None, BTreeSet::new()), |(role, o)| (Some(role), o));
        let run = Run {
            incident,
            started_at: now,
            ends_by: now + run_secs(ask),
            agreed: role,
            overrides,
            touched: BTreeMap::new(),
            targets: BTreeSet::new(),
            failed: false,
        };
        self.state.runs.insert(hash, run);
        self.state.grants.insert(hash, Grant { incident, at: now, state: GrantState::Used });
    }

    /// A changing operation failed, or nobody can say whether it was done. Counts at once, for its target and over all.
    pub fn failed(&mut self, plan: PlanHash, target: &nightshift_model::EntityId, now: Timestamp) {
        let Some(run) = self.state.runs.get_mut(&plan) else { return };
        run.failed = true;
        self.state.count_failure(&self.config.breaker, &BTreeSet::from([target.clone()]), now);
    }

    /// A plan is over. Its targets cool down from here. Of a plan that was never permitted anything, nothing counts:
    /// so a synthetic one moves nothing.
    pub fn finish(&mut self, plan: PlanHash, end: RunEnd, now: Timestamp) {
        let Some(run) = self.state.runs.remove(&plan) else { return };
        match end {
            RunEnd::Verified => {
                self.state.breaker.succeeded(plan);
                for target in &run.targets {
                    self.state.targets.entry(target.clone()).or_default().breaker.succeeded(plan);
                }
            }
            RunEnd::Failed if !run.failed => {
                self.state.count_failure(&self.config.breaker, &run.targets, now);
            }
            RunEnd::Failed => {}
            RunEnd::Abandoned => {
                self.state.breaker.abandoned(plan);
                for target in &run.targets {
                    self.state.targets.entry(target.clone()).or_default().breaker.abandoned(plan);
                }
            }
        }
        for target in run.targets {
            let state = self.state.targets.entry(target).or_default();
            state.last = Some(now);
            state.last_plan = Some(plan);
        }
        self.state.prune(&self.config, now);
    }

    /// A person is asked, because the verdict says so. Until when an answer counts. Asking again about the same plan
    /// does not lengthen it. `None`: nobody is asked about this verdict.
    pub fn request_approval(&mut self, verdict: &Verdict, incident: IncidentId, now: Timestamp) -> Option<Timestamp> {
        if verdict.decision != Decision::Ask {
            return None;
        }
        match self.state.grants.get(&verdict.plan).map(|g| &g.state) {
            None => {
                let expires_at = now + self.config.approval_timeout();
                let state = GrantState::Pending { risk: verdict.risk, expires_at };
                self.state.grants.insert(verdict.plan, Grant { incident, at: now, state });
                Some(expires_at)
            }
            Some(GrantState::Pending { expires_at, .. } | GrantState::Approved { expires_at, .. }) => Some(*expires_at),
            Some(GrantState::Rejected { .. } | GrantState::Used) => None,
        }
    }

    /// A person agrees: this plan, once, if it begins in time.
    ///
    /// # Errors
    /// When nobody asked about it, its time is over, or the role is not enough.
    pub fn approve(&mut self, plan: PlanHash, person: &Person, now: Timestamp) -> Result<(), Refusal> {
        let over = |why: &str| Refusal::Over(plan.short(), why.to_owned());
        let grant = self.state.grants.get_mut(&plan).ok_or_else(|| Refusal::NotAsked(plan.short()))?;
        match &grant.state {
            GrantState::Pending { expires_at, .. } if *expires_at <= now => {
                grant.state = GrantState::Rejected { by: None, why: String::new() };
                Err(over("nobody answered in time"))
            }
            GrantState::Pending { risk, .. } => {
                let risk = *risk;
                let needs = needed(&self.config.roles, Verb::Approve, risk);
                if person.role < needs {
                    return Err(Refusal::Role { verb: Verb::Approve, risk, needs, has: person.role });
                }
                grant.at = now;
                grant.state = GrantState::Approved {
                    by: person.name.clone(),
                    role: person.role,
                    expires_at: now + self.config.approval_timeout(),
                    overrides: BTreeSet::new(),
                };
                Ok(())
            }
            GrantState::Approved { by, .. } => Err(over(&format!("{by} approved it already"))),
            GrantState::Rejected { by: Some(by), .. } => Err(over(&format!("{by} rejected it"))),
            GrantState::Rejected { by: None, .. } => Err(over("nobody answered in time")),
            GrantState::Used => Err(over("it has begun")),
        }
    }

    /// A person refuses: this plan never begins, and if it is under way nothing further of it is done but undoing.
    ///
    /// # Errors
    /// When the role is not enough.
    pub fn reject(
        &mut self,
        plan: PlanHash,
        incident: IncidentId,
        person: &Person,
        why: &str,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let needs = needed(&self.config.roles, Verb::Reject, Risk::Low);
        if person.role < needs {
            return Err(Refusal::Role { verb: Verb::Reject, risk: Risk::Low, needs, has: person.role });
        }
        let state = GrantState::Rejected { by: Some(person.name.clone()), why: why.to_owned() };
        self.state.grants.insert(plan, Grant { incident, at: now, state });
        Ok(())
    }

    /// A person replaces a verdict: `Execute` over every reason that stands in the way, `Deny` as a rejection. What is
    /// overridden holds for this plan, once, and only for the rules that are returned: what speaks up later stands.
    ///
    /// # Errors
    /// When a reason may not be overridden, the role is not enough, no reason is given, or the plan is over.
    pub fn override_verdict(
        &mut self,
        verdict: &Verdict,
        incident: IncidentId,
        to: Decision,
        person: &Person,
        why: &str,
        now: Timestamp,
    ) -> Result<Vec<String>, Refusal> {
        let plan = verdict.plan;
        if why.trim().is_empty() {
            return Err(Refusal::NoReason);
        }
        let least = needed(&self.config.roles, Verb::Override, verdict.risk);
        let role = |needs| Refusal::Role { verb: Verb::Override, risk: verdict.risk, needs, has: person.role };
        match to {
            Decision::Deny => {
                self.reject(plan, incident, person, why, now)?;
                return Ok(Vec::new());
            }
            Decision::Execute => {}
            Decision::Ask | Decision::Monitor => return Err(Refusal::NotADecision(to)),
        }
        if person.role < least {
            return Err(role(least));
        }
        let mut rules = BTreeSet::new();
        for reason in verdict.reasons.iter().filter(|r| r.decision > Decision::Execute) {
            let needs = match override_needs(self, reason, verdict.risk) {
                Some(needs) => needs,
                // What only asks is answered by anyone who may approve.
                None if reason.decision == Decision::Ask => least,
                None => return Err(Refusal::NotOverridable { rule: reason.rule.clone(), why: reason.why.clone() }),
            };
            if person.role < needs {
                return Err(role(needs));
            }
            rules.insert(reason.rule.clone());
        }
        match self.state.grants.get(&plan).map(|g| &g.state) {
            None | Some(GrantState::Pending { .. } | GrantState::Approved { .. }) => {}
            Some(GrantState::Rejected { .. }) => return Err(Refusal::Over(plan.short(), "it was rejected".into())),
            Some(GrantState::Used) => return Err(Refusal::Over(plan.short(), "it has begun".into())),
        }
        let state = GrantState::Approved {
            by: person.name.clone(),
            role: person.role,
            expires_at: now + self.config.approval_timeout(),
            overrides: rules.clone(),
        };
        self.state.grants.insert(plan, Grant { incident, at: now, state });
        Ok(rules.into_iter().collect())
    }

    /// What time alone changes: questions that nobody answered become rejections and are returned, in order; what can
    /// no longer matter is forgotten.
    pub fn tick(&mut self, now: Timestamp) -> Vec<TimedOut> {
        let mut out = Vec::new();
        for (plan, grant) in &mut self.state.grants {
            if let GrantState::Pending { expires_at, .. } = grant.state
                && expires_at <= now
            {
                out.push(TimedOut { incident: grant.incident, plan: *plan, expired_at: expires_at });
                grant.state = GrantState::Rejected { by: None, why: String::new() };
            }
        }
        self.state.prune(&self.config, now);
        out
    }

    /// When [`Guard::tick`] next has something to return; `None`: nothing is asked.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let pending = self.state.grants.values().filter_map(|g| match g.state {
            GrantState::Pending { expires_at, .. } => Some(expires_at),
            _ => None,
        });
        pending.min()
    }

    /// Questions that wait for a person: incident, plan, until when.
    pub fn pending(&self) -> impl Iterator<Item = (IncidentId, PlanHash, Timestamp)> + '_ {
        self.state.grants.iter().filter_map(|(plan, g)| match g.state {
            GrantState::Pending { expires_at, .. } => Some((g.incident, *plan, expires_at)),
            _ => None,
        })
    }

    /// Until when all execution is stopped by failures; `None`: it is not.
    pub fn open_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.state.breaker.open_until.filter(|until| now < *until)
    }
}
