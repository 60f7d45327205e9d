//! How the guard stands, for people.

use crate::Guard;
use crate::state::Breaker;
use nightshift_model::{EntityId, Timestamp};

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// It lets everything through, and counts.
    Closed,
    /// It lets nothing through until then.
    Open(Timestamp),
    /// It lets one trial through.
    HalfOpen,
}

/// How the guard stands at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Breakers that counted a failure or are not closed, with their failures in a row; `None`: all execution. That
    /// one is always there, first.
    pub breakers: Vec<(Option<EntityId>, BreakerState, u32)>,
    /// Targets that cool down, and until when.
    pub cooldowns: Vec<(EntityId, Timestamp)>,
}

impl Guard {
    /// How it stands at `now`.
    pub fn report(&self, now: Timestamp) -> Report {
        let state = self.state();
        let how = |b: &Breaker| match b.open_until {
            None => BreakerState::Closed,
            Some(until) if now < until => BreakerState::Open(until),
            Some(_) => BreakerState::HalfOpen,
        };
        let mut breakers = vec![(None, how(&state.breaker), state.breaker.failures)];
        let mut cooldowns = Vec::new();
        for (id, target) in &state.targets {
            if target.breaker != Breaker::default() {
                breakers.push((Some(id.clone()), how(&target.breaker), target.breaker.failures));
            }
            let until = target.last.map(|at| at + std::time::Duration::from_secs(self.config().cooldown_secs));
            if let Some(until) = until.filter(|until| *until > now) {
                cooldowns.push((id.clone(), until));
            }
        }
        Report { breakers, cooldowns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GuardConfig, GuardState, Policies};

    #[test]
    fn what_is_open_and_what_cools_down_is_told() {
        let mut guard = Guard::new(GuardConfig::default(), Policies::none());
        let now = Timestamp::from_secs(1_000);
        assert_eq!(guard.report(now).breakers, [(None, BreakerState::Closed, 0)]);
        let id = EntityId::new("c", "service", "", "web");
        let mut state = GuardState::default();
        state.breaker.failures = 3;
        state.breaker.open_until = Some(Timestamp::from_secs(1_100));
        let target = state.targets.entry(id.clone()).or_default();
        target.breaker.failures = 1;
        target.last = Some(Timestamp::from_secs(990));
        guard.restore(state);
        let report = guard.report(now);
        assert_eq!(report.breakers[0], (None, BreakerState::Open(Timestamp::from_secs(1_100)), 3));
        assert_eq!(report.breakers[1], (Some(id.clone()), BreakerState::Closed, 1));
        let until = Timestamp::from_secs(990) + std::time::Duration::from_secs(guard.config().cooldown_secs);
        assert_eq!(report.cooldowns, [(id, until)]);
        assert_eq!(guard.report(Timestamp::from_secs(1_200)).breakers[0].1, BreakerState::HalfOpen);
    }
}
