//! `nightshift eval`: faults and harmless look-alikes in simulated estates, through the loop, in virtual time.
//!
//! Every episode is an estate of its own with its history rolled in; nothing is carried over. What was really wrong
//! ([`Episode::truth`]) never reaches the loop (`world_loop`); the two meet in `score`.

mod closed;
mod recheck;
mod report;
mod score;
mod world_loop;

use crate::agents::DetectRooms;
use crate::cli::EvalArgs;
use crate::exit::{CommandResult, bad_input};
use crate::settings::Settings;
use anyhow::{Context as _, anyhow};
use closed::{Parts, Responder};
use nightshift_config::Problems;
use nightshift_guard::{BudgetConfig, Budgets, Guard, GuardConfig, Policies};
use nightshift_model::hash::hash64;
use nightshift_plan::{PlanConfig, Playbooks};
use nightshift_reason::{Workflow, WorkflowConfig};
use nightshift_sim::{Episode, EstateSpec, FittedEstate, SimActuator, SimFault, WhatIfConfig};
use nightshift_topology::{Topology, TopologyConfig, TopologyFile};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use score::{Fault, Outcome, Scores};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use world_loop::WorldLoop;

/// Seconds of history that are rolled in before anything happens.
const HISTORY_SECS: f64 = 900.0;
/// For each so many faults there is an episode with two at once.
const PAIR_EVERY: usize = 26;

/// What is to be run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Faults; half as many look-alikes.
    pub(crate) incidents: usize,
    pub(crate) seed: u64,
    /// Only this kind, for a closer look.
    pub(crate) only: Option<SimFault>,
    pub(crate) threads: usize,
    /// Tells of every episode on standard error.
    pub(crate) verbose: bool,
}

/// The episodes of a seed: every kind about as often as any other, in a drawn order. An episode of two faults counts
/// as two.
fn episodes(plan: &Plan) -> Vec<Episode> {
    let mut rng = SmallRng::seed_from_u64(plan.seed ^ 0x6576_616c);
    let faults: Vec<SimFault> = SimFault::faults().filter(|f| plan.only.is_none_or(|o| o == *f)).collect();
    let lookalikes: Vec<SimFault> = SimFault::lookalikes().filter(|f| plan.only.is_none_or(|o| o == *f)).collect();
    let pairs = if plan.only.is_some() { 0 } else { plan.incidents / PAIR_EVERY };
    let mut kinds: Vec<Option<SimFault>> =
        deal(&faults, plan.incidents - 2 * pairs, &mut rng).into_iter().map(Some).collect();
    kinds.extend(std::iter::repeat_n(None, pairs));
    kinds.shuffle(&mut rng);
    kinds.extend(deal(&lookalikes, plan.incidents / 2, &mut rng).into_iter().map(Some));
    let draw = |(index, kind): (usize, &Option<SimFault>)| {
        let seed = hash64(format!("eval {} {index}", plan.seed).as_bytes());
        let spec = EstateSpec::six();
        match kind {
            Some(kind) => Episode::of(*kind, spec, seed, HISTORY_SECS),
            None => Episode::pair(spec, seed, HISTORY_SECS),
        }
    };
    kinds.iter().enumerate().filter_map(draw).collect()
}

/// `n` kinds, each about as often as any other, shuffled.
fn deal(kinds: &[SimFault], n: usize, rng: &mut SmallRng) -> Vec<SimFault> {
    let mut out: Vec<SimFault> = kinds.iter().copied().cycle().take(if kinds.is_empty() { 0 } else { n }).collect();
    out.shuffle(rng);
    out
}

/// What every episode needs.
struct Stage {
    rooms: DetectRooms,
    settings: Settings,
    topology: Topology,
    playbooks: Arc<Playbooks>,
    policies: Policies,
    budgets: Budgets,
}

impl Stage {
    fn new() -> anyhow::Result<Self> {
        let settings = Settings::default();
        let mut problems = Problems::default();
        let rules = crate::check::rules(&settings, std::path::Path::new("."), &mut problems);
        if problems.has_errors() {
            return Err(anyhow!("the shipped rules are not valid: this is a defect of the build"));
        }
        let rooms = DetectRooms::new(
            settings.detect.metrics.clone(),
            settings.detect.logs.clone(),
            (settings.detect.rule_limits.clone(), rules),
            settings.topology.spans.clone(),
        )
        .context("build the log detector")?;
        let spec = EstateSpec::six();
        let file = TopologyFile::parse(&nightshift_sim::topology_yaml(&spec), &spec.cluster)
            .map_err(|p| anyhow!("the estate's topology is not valid: {p:?}"))?;
        let mut topology = Topology::new(TopologyConfig::default());
        topology.declare(&file);
        let budgets = quiet_budgets(&topology, &spec);
        let policies = Policies::with_shipped(&[], &[], POLICY_TIMEOUT)
            .map_err(|p| anyhow!("the shipped policies do not compile: {p:?}"))?;
        Ok(Self { rooms, settings, topology, playbooks: Arc::new(Playbooks::shipped()), policies, budgets })
    }

    fn run(&self, plan: &Plan, episode: &Episode) -> Outcome {
        let lookalike = episode.faults.iter().all(|f| f.kind.is_lookalike());
        let truths: Vec<Fault> = episode.truth().into_iter().filter_map(Fault::of).collect();
        let done = self.play(plan, episode, &truths, true);
        let without = if lookalike { None } else { Some(self.play(plan, episode, &truths, false)) };
        Outcome {
            what: episode.faults.iter().map(|f| f.kind).collect(),
            lookalike,
            truths,
            seen: done.seen,
            seen_without: without.map(|w| w.seen).unwrap_or_default(),
            samples: done.samples,
            deeds: done.deeds,
        }
    }

    /// The episode with the whole loop, its plans tried beforehand or not.
    fn play(&self, plan: &Plan, episode: &Episode, truths: &[Fault], what_if: bool) -> WorldLoop {
        let first = truths.iter().map(|t| t.onset_secs).fold(f64::INFINITY, f64::min);
        let lookalike = truths.is_empty();
        let mut the_loop = WorldLoop::new(episode.world(), &self.rooms, &self.settings.diagnose, self.topology.clone());
        the_loop.telling = plan.verbose && what_if;
        let tenant = episode.spec.tenant.as_str();
        // In the estate nobody is hurt: what is allowed is done.
        let guard = GuardConfig { dry_run: false, ..GuardConfig::default() };
        the_loop.close(Responder::new(Parts {
            workflow: Workflow::new(WorkflowConfig::default(), tenant),
            guard: Guard::new(guard, self.policies.clone()),
            playbooks: Arc::clone(&self.playbooks),
            plan: PlanConfig::default(),
            budgets: self.budgets.clone(),
            what_if: what_if.then(|| FittedEstate::new(WhatIfConfig::default())),
            actuator: SimActuator::new(the_loop.world()),
        }));
        while the_loop.now_secs() < episode.length_secs {
            let healthy = lookalike || the_loop.now_secs() + 1.0 < first;
            the_loop.step(healthy);
        }
        the_loop.compare();
        the_loop
    }
}

/// Budgets after three quiet days: an estate that is watched since this morning has none to speak of.
fn quiet_budgets(topology: &Topology, spec: &EstateSpec) -> Budgets {
    const MINUTES: i64 = 3 * 24 * 60;
    let mut budgets = Budgets::new(BudgetConfig::default());
    for info in topology.entities() {
        let Some(declared) = info.declared.filter(|d| !d.slos.is_empty()) else { continue };
        budgets.declare(&info.meta.id, &declared.slos);
        let service = spec.services.iter().find(|s| s.name == info.meta.id.name());
        let (rate, errors) = service.map_or((1.0, 0.0), |s| (s.rest_rps, s.error_percent / 100.0));
        for minute in 1..=MINUTES {
            let at = nightshift_model::Timestamp(spec.start.0 - minute * 60_000_000_000);
            budgets.observe(&info.meta.id, at, rate * 60.0, rate * 60.0 * errors);
        }
    }
    budgets
}

/// Longest time that the policies may take for one plan.
const POLICY_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(250);

/// Runs the plan. The figures do not depend on the number of threads.
pub(crate) fn evaluate(plan: &Plan) -> anyhow::Result<Scores> {
    let stage = Stage::new()?;
    let episodes = episodes(plan);
    let next = AtomicUsize::new(0);
    let mut outcomes: Vec<(usize, Outcome)> = std::thread::scope(|scope| {
        let work = || {
            let mut mine = Vec::new();
            while let Some((index, episode)) = {
                let index = next.fetch_add(1, Ordering::Relaxed);
                episodes.get(index).map(|e| (index, e))
            } {
                mine.push((index, stage.run(plan, episode)));
            }
            mine
        };
        let handles: Vec<_> = (0..plan.threads.max(1)).map(|_| scope.spawn(work)).collect();
        handles.into_iter().flat_map(|h| h.join().unwrap_or_default()).collect()
    });
    if outcomes.len() != episodes.len() {
        return Err(anyhow!("an episode ended in a panic: see above"));
    }
    outcomes.sort_by_key(|(index, _)| *index);
    let mut scores = Scores::default();
    for (index, outcome) in &outcomes {
        let marks = scores.add(outcome);
        if plan.verbose {
            report::episode(*index, outcome, &marks);
        }
    }
    Ok(scores)
}

/// `nightshift eval`.
///
/// # Errors
/// When an episode cannot be run.
pub(crate) fn run(args: &EvalArgs, json: bool) -> CommandResult {
    let only = match &args.only {
        Some(name) => Some(kind(name)?),
        None => None,
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let plan = Plan { incidents: args.incidents as usize, seed: args.seed, only, threads, verbose: args.explain };
    let scores = evaluate(&plan)?;
    report::print(&plan, &scores, json);
    Ok(())
}

fn kind(name: &str) -> Result<SimFault, crate::exit::Failure> {
    SimFault::ALL.iter().copied().find(|k| k.name() == name).ok_or_else(|| {
        let names: Vec<&str> = SimFault::ALL.iter().map(|k| k.name()).collect();
        bad_input(format!("--only: `{name}` is no kind of fault; one of {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(threads: usize) -> serde_json::Value {
        let plan = Plan { incidents: 6, seed: 1, only: None, threads, verbose: false };
        report::object(&plan, &evaluate(&plan).unwrap())
    }

    #[test]
    fn the_figures_follow_from_the_seed_whatever_the_number_of_threads_and_have_their_keys() {
        let one = figures(1);
        assert_eq!(one, figures(3));
        let keys: Vec<&str> = one.as_object().unwrap().keys().map(String::as_str).collect();
        let mut want: Vec<&str> = "incidents lookalikes mttd_s_mean mttd_s_p50 mttd_s_p95 mttr_s_mean mttr_s_p50 \
            mttr_auto_s_p50 precision recall lookalike_fp_rate sample_fp_rate cause_top1 cause_top3 \
            remediation_success remediation_success_no_whatif undone policy_blocked policy_violations by_fault"
            .split_whitespace()
            .collect();
        want.sort_unstable();
        assert_eq!(keys, want);
        assert_eq!(one["incidents"], 6);
        assert_eq!(one["lookalikes"], 3);
        assert_eq!(one["policy_violations"], 0);
    }

    #[test]
    fn every_kind_has_its_turn_and_pairs_count_as_two() {
        let plan = Plan { incidents: 104, seed: 7, only: None, threads: 1, verbose: false };
        let all = episodes(&plan);
        let faults: usize = all.iter().map(|e| e.faults.iter().filter(|f| !f.kind.is_lookalike()).count()).sum();
        assert_eq!(faults, 104);
        assert_eq!(all.iter().filter(|e| e.faults.len() == 2).count(), 104 / PAIR_EVERY);
        let kinds: std::collections::BTreeSet<SimFault> = all.iter().flat_map(|e| &e.faults).map(|f| f.kind).collect();
        assert_eq!(kinds.len(), SimFault::ALL.len());
    }
}
