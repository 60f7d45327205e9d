//! How the guard stands, in the words of the API.

use nightshift_api::{BreakerRow, BudgetRow, CooldownRow, FreezeRow, GuardReport};
use nightshift_guard::{BreakerState, BudgetLeft, Guard};
use nightshift_model::{EntityId, Timestamp};
use nightshift_tell::{People, Responsible};
use nightshift_topology::Topology;
use std::collections::BTreeMap;

/// The report of one tenant's guard.
pub(super) fn guard(guard: &Guard, left: &BTreeMap<EntityId, BudgetLeft>, now: Timestamp) -> GuardReport {
    let report = guard.report(now);
    let breakers = report.breakers.into_iter().map(|(target, state, failures)| {
        let (word, open_until) = match state {
            BreakerState::Closed => ("closed", None),
            BreakerState::Open(until) => ("open", Some(until)),
            BreakerState::HalfOpen => ("half_open", None),
        };
        let target = target.map_or_else(|| "all".to_owned(), |id| id.to_string());
        BreakerRow { target, state: word.into(), failures, open_until }
    });
    GuardReport {
        dry_run: guard.config().dry_run,
        breakers: breakers.collect(),
        cooldowns: report
            .cooldowns
            .into_iter()
            .map(|(target, until)| CooldownRow { target: target.to_string(), until })
            .collect(),
        budgets: left
            .iter()
            .map(|(id, b)| BudgetRow { entity: id.to_string(), slo: b.objective.clone(), left: b.left })
            .collect(),
        freezes: guard
            .config()
            .windows
            .iter()
            .filter(|w| w.is_on(now))
            .map(|w| FreezeRow { name: w.name.clone(), until: None })
            .collect(),
    }
}

/// Who answers for what, as the topology declares it.
pub(crate) fn people_of(topology: &Topology) -> People {
    let declared = topology.entities().filter_map(|e| Some((e.meta.id.clone(), e.declared?)));
    declared.map(|(id, spec)| (id, Responsible { owner: spec.owner.clone(), on_call: spec.on_call.clone() })).collect()
}
