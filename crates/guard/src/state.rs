//! What the guard remembers: breakers, attempts, approvals, runs. All of it is in a checkpoint, none of it in a clock.

use crate::config::{BreakerConfig, GuardConfig};
use crate::role::Role;
use nightshift_model::{EntityId, IncidentId, PlanHash, Risk, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Grants that are kept at most; the oldest that are over leave first.
const GRANTS_MAX: usize = 4_096;
/// Seconds for which a grant that is over is kept.
const GRANT_KEPT_SECS: u64 = 7 * 24 * 3_600;
/// Seconds past its own end after which a run that nobody ended counts as failed.
const RUN_GRACE_SECS: u64 = 3_600;

/// What the guard remembers. A checkpoint holds it; [`crate::Guard::restore`] takes it back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuardState {
    /// Of all execution.
    pub(crate) breaker: Breaker,
    /// Of each target that was touched of late.
    pub(crate) targets: BTreeMap<EntityId, TargetState>,
    /// What people were asked and said, by plan.
    pub(crate) grants: BTreeMap<PlanHash, Grant>,
    /// Plans that are under way.
    pub(crate) runs: BTreeMap<PlanHash, Run>,
}

/// Counts failures in a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Breaker {
    pub(crate) failures: u32,
    /// It is, or was, open until then. `None`: closed.
    pub(crate) open_until: Option<Timestamp>,
    /// The plan that is its one trial.
    pub(crate) trial: Option<PlanHash>,
}

/// How a breaker stands to a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BreakerIs {
    Closed,
    Open(Timestamp),
    /// The time is over, and this plan may be, or is, the one trial.
    Trial,
    /// Another plan is the trial.
    TrialElsewhere(PlanHash),
}

impl Breaker {
    pub(crate) fn stands(&self, plan: PlanHash, now: Timestamp) -> BreakerIs {
        match (self.open_until, self.trial) {
            (None, _) => BreakerIs::Closed,
            (Some(until), _) if now < until => BreakerIs::Open(until),
            (Some(_), Some(other)) if other != plan => BreakerIs::TrialElsewhere(other),
            (Some(_), _) => BreakerIs::Trial,
        }
    }

    /// A permit was given.
    pub(crate) fn permitted(&mut self, plan: PlanHash, now: Timestamp) {
        if self.open_until.is_some_and(|until| until <= now) {
            self.trial = Some(plan);
        }
    }

    pub(crate) fn failed(&mut self, config: &BreakerConfig, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        // A trial that fails opens it again, and so does what was still under way.
        if self.open_until.is_some() || self.failures >= config.failures {
            self.open_until = Some(now + Duration::from_secs(config.open_secs));
            self.trial = None;
        }
    }

    pub(crate) fn succeeded(&mut self, plan: PlanHash) {
        match (self.open_until, self.trial) {
            (None, _) => self.failures = 0,
            (Some(_), Some(trial)) if trial == plan => *self = Self::default(),
            // Something that began before it opened: the trial decides, not this.
            (Some(_), _) => {}
        }
    }

    /// The trial ended without a word on success: another may try.
    pub(crate) fn abandoned(&mut self, plan: PlanHash) {
        if self.trial == Some(plan) {
            self.trial = None;
        }
    }

    fn is_idle(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TargetState {
    pub(crate) breaker: Breaker,
    /// When changing operations were permitted, oldest first.
    pub(crate) attempts: VecDeque<Timestamp>,
    /// When it was last touched.
    pub(crate) last: Option<Timestamp>,
    /// By which plan.
    pub(crate) last_plan: Option<PlanHash>,
}

impl TargetState {
    /// Attempts that still count.
    pub(crate) fn attempts_within(&self, config: &BreakerConfig, now: Timestamp) -> usize {
        let since = now - Duration::from_secs(config.attempts_secs);
        self.attempts.iter().filter(|at| **at > since).count()
    }

    /// Until when it cools down from another plan than this.
    pub(crate) fn cooling_until(&self, plan: PlanHash, cooldown_secs: u64, now: Timestamp) -> Option<Timestamp> {
        let until = self.last? + Duration::from_secs(cooldown_secs);
        (until > now && self.last_plan != Some(plan)).then_some(until)
    }
}

/// What people were asked about a plan, and said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Grant {
    pub(crate) incident: IncidentId,
    pub(crate) at: Timestamp,
    pub(crate) state: GrantState,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum GrantState {
    /// Nobody answered yet.
    Pending { risk: Risk, expires_at: Timestamp },
    /// It may run once, if it begins in time.
    Approved {
        by: String,
        role: Role,
        expires_at: Timestamp,
        /// Rules that were overridden.
        #[serde(default)]
        overrides: BTreeSet<String>,
    },
    /// A person refused, or nobody answered.
    Rejected { by: Option<String>, why: String },
    /// It has begun: no second time.
    Used,
}

/// A plan that is under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) incident: IncidentId,
    pub(crate) started_at: Timestamp,
    /// Nothing new is begun after.
    pub(crate) ends_by: Timestamp,
    /// Whether a person agreed, with which role, over which rules.
    pub(crate) agreed: Option<Role>,
    #[serde(default)]
    pub(crate) overrides: BTreeSet<String>,
    /// Steps that were permitted to change something, with the undos of each.
    #[serde(default)]
    pub(crate) touched: BTreeMap<u32, u32>,
    /// Targets of these.
    #[serde(default)]
    pub(crate) targets: BTreeSet<EntityId>,
    /// A failure was counted already.
    #[serde(default)]
    pub(crate) failed: bool,
}

impl GuardState {
    /// Counts a failure of a run, on these targets and over all.
    pub(crate) fn count_failure(&mut self, config: &BreakerConfig, targets: &BTreeSet<EntityId>, now: Timestamp) {
        self.breaker.failed(config, now);
        for target in targets {
            self.targets.entry(target.clone()).or_default().breaker.failed(config, now);
        }
    }

    /// Forgets what can no longer matter, so that it stays bounded.
    pub(crate) fn prune(&mut self, config: &GuardConfig, now: Timestamp) {
        let lost: Vec<PlanHash> = self
            .runs
            .iter()
            .filter(|(_, r)| r.ends_by + Duration::from_secs(RUN_GRACE_SECS) <= now)
            .map(|(hash, _)| *hash)
            .collect();
        for hash in lost {
            if let Some(run) = self.runs.remove(&hash)
                && !run.failed
            {
                self.count_failure(&config.breaker, &run.targets, now);
            }
        }
        let attempts_since = now - Duration::from_secs(config.breaker.attempts_secs);
        let cooled_before = now - Duration::from_secs(config.cooldown_secs);
        self.targets.retain(|_, t| {
            t.attempts.retain(|at| *at > attempts_since);
            let touched = t.last.is_some_and(|at| at > cooled_before);
            touched || !t.attempts.is_empty() || !t.breaker.is_idle()
        });
        let kept_since = now - Duration::from_secs(GRANT_KEPT_SECS);
        let runs = &self.runs;
        let over = |hash: &PlanHash, g: &Grant| {
            matches!(g.state, GrantState::Rejected { .. } | GrantState::Used) && !runs.contains_key(hash)
        };
        self.grants.retain(|hash, g| g.at > kept_since || !over(hash, g));
        if self.grants.len() > GRANTS_MAX {
            let mut by_age: Vec<(Timestamp, PlanHash)> =
                self.grants.iter().filter(|(h, g)| over(h, g)).map(|(h, g)| (g.at, *h)).collect();
            by_age.sort();
            let excess = self.grants.len() - GRANTS_MAX;
            for (_, hash) in by_age.into_iter().take(excess) {
                self.grants.remove(&hash);
            }
        }
    }
}
