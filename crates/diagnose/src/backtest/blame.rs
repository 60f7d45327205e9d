//! Where the fault is: how much of what is lost arises at each service and is not handed on by what it calls.
//!
//! Lost time is what requests take longer than usual, times how many there are; lost requests are those that fail.
//! Both are handed on to callers, and both add up, so what a service loses less what its dependencies lose is its own
//! share of the blame. Time that a caller waits and the callee does not work is lost between them: a service whose
//! every wire is slow has a slow network. A resource that moved points at its owner. What stops calling others while
//! it is called as ever broke off by itself.
//!
//! The idea to follow anomalies down the calls and to stop at the deepest is that of MonitorRank (Kim et al.,
//! SIGMETRICS 2013) and of the traversal in Hardt et al. (`PetShop`, `CLeaR` 2024); here it is no walk but a balance, so
//! that noise does not decide where it stops.

use super::facts::{Call, Facts, Service};
use nightshift_model::SignalFamily;
use std::collections::{BTreeMap, BTreeSet};

/// One of the ways to be blamed, with the share of each service (0 to 1).
pub(super) struct Dimension {
    /// Name in the explanation.
    pub(super) factor: &'static str,
    /// What shows it.
    pub(super) families: &'static [SignalFamily],
    /// Scale of its log-odds.
    pub(super) weight: f64,
    /// Share by service index.
    pub(super) shares: Vec<f64>,
    /// What a share is a share of.
    pub(super) of: &'static str,
}

/// Share of the blame that everything has without evidence: it bounds what one dimension can say to
/// `ln(1 / SHARE_MIN)`, about 50 to 1.
pub(super) const SHARE_MIN: f64 = 0.02;
/// Weights. Time and failures are what an incident is; a resource of its own points at a service as much.
const TIME: f64 = 1.0;
const FAILURES: f64 = 1.0;
const CPU: f64 = 1.0;
/// Starts and stops move memory as faults do.
const MEMORY: f64 = 0.25;
/// Traffic moves bytes and system calls wherever it goes.
const TRAFFIC: f64 = 0.1;
/// Any other resource: locks, queues, connections, disks.
const RESOURCE: f64 = 0.5;
const BROKEN_OFF: f64 = 0.6;
/// An alert on time is explained by lost time before failures, and the other way round.
const OTHER_THAN_ALERT: f64 = 0.5;

/// Calls and amounts, ready for the balances.
pub(super) struct Ledger<'a> {
    services: &'a [Service],
    calls: &'a BTreeMap<(usize, usize), Call>,
    callees: Vec<Vec<usize>>,
    callers: Vec<Vec<usize>>,
    rate: Vec<f64>,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(facts: &'a Facts) -> Self {
        let n = facts.services.len();
        let (mut callees, mut callers) = (vec![Vec::new(); n], vec![Vec::new(); n]);
        for (from, to) in facts.calls.keys() {
            callees[*from].push(*to);
            callers[*to].push(*from);
        }
        // Where nobody counts requests, one is as good as any number.
        let rate = facts.services.iter().map(|s| s.rate.map_or(1.0, |r| r.now)).collect();
        Self { services: &facts.services, calls: &facts.calls, callees, callers, rate }
    }

    /// All dimensions. `alert`: what the alert is about.
    pub(super) fn dimensions(&self, alert: Option<SignalFamily>) -> Vec<Dimension> {
        use SignalFamily as F;
        let failing = matches!(alert, Some(F::ErrorRatio | F::Availability));
        let time = if failing { TIME * OTHER_THAN_ALERT } else { TIME };
        let failures = if alert == Some(F::Latency) { FAILURES * OTHER_THAN_ALERT } else { FAILURES };
        let mut out = vec![
            dimension(
                "lost_time",
                &[F::Latency],
                time,
                shares(&self.lost_time()),
                "the time lost that no callee explains",
            ),
            dimension(
                "failures",
                &[F::ErrorRatio, F::Availability],
                failures,
                shares(&self.lost_requests()),
                "the requests lost that no callee explains",
            ),
            dimension("broken_off", &[F::RequestRate], BROKEN_OFF, self.broken_off(), "what it used to ask of others"),
        ];
        let cpu: &[F] = &[F::Cpu];
        let memory: &[F] = &[F::Memory];
        let traffic: &[F] = &[F::DiskIo, F::Network];
        for (factor, families, weight, of) in [
            ("cpu", cpu, CPU, "the processor time gained"),
            ("memory", memory, MEMORY, "the memory gained"),
            ("traffic", traffic, TRAFFIC, "the input and output gained"),
        ] {
            out.push(dimension(factor, families, weight, self.resource(|f| families.contains(&f)), of));
        }
        let other = |f: F| ![F::Cpu, F::Memory, F::DiskIo, F::Network].contains(&f);
        out.push(dimension("resource", &[], RESOURCE, self.resource(other), "what its resources gained"));
        out
    }

    /// Everything that the alerting service needs, itself among it; `None` when nothing is known of it.
    pub(super) fn needs(&self, alerting: &str) -> Option<BTreeSet<usize>> {
        let start = self.services.iter().position(|s| s.name == alerting)?;
        let mut seen = BTreeSet::from([start]);
        let mut open = vec![start];
        while let Some(at) = open.pop() {
            open.extend(self.callees[at].iter().filter(|to| seen.insert(**to)));
        }
        (seen.len() > 1).then_some(seen)
    }

    pub(super) fn callees(&self, at: usize) -> &[usize] {
        &self.callees[at]
    }

    /// Calls of `to` that are made by `from`: all of its work, shared by the amount of work of its callers.
    fn calls_of(&self, from: usize, to: usize) -> f64 {
        let all: f64 = self.callers[to].iter().map(|c| self.rate[*c]).sum();
        if all > 0.0 { self.rate[to] * self.rate[from] / all } else { 0.0 }
    }

    /// Seconds lost in each service and in its wires, per unit of time.
    fn lost_time(&self) -> Vec<f64> {
        let n = self.services.len();
        // What is lost within each service, its callees included, and how sure that is.
        let (mut lost, mut sure) = (vec![0.0; n], vec![0.0_f64; n]);
        for (i, s) in self.services.iter().enumerate() {
            let ends: Vec<_> = self.callers[i]
                .iter()
                .filter_map(|c| Some((*c, self.calls.get(&(*c, i))?.server.as_ref()?.departure)))
                .collect();
            if !ends.is_empty() {
                lost[i] = ends.iter().map(|(c, d)| self.calls_of(*c, i) * d.delta * d.weight()).sum();
                sure[i] = ends.iter().map(|(_, d)| d.weight()).fold(0.0, f64::max);
            } else if let Some(time) = &s.time {
                lost[i] = self.rate[i] * time.departure.delta;
                sure[i] = time.departure.weight();
            }
        }
        let mut out = vec![0.0; n];
        let mut wires: Vec<((usize, usize), f64, f64)> = Vec::new();
        let mut waited: BTreeMap<(usize, usize), f64> = BTreeMap::new();
        for ((from, to), call) in self.calls {
            let Some(client) = &call.client else { continue };
            let n = self.calls_of(*from, *to);
            let wait = n * client.departure.delta * client.departure.weight();
            waited.insert((*from, *to), wait);
            let worked = call.server.as_ref().map_or(lost[*to], |server| n * server.departure.delta);
            let gap = (wait - worked).max(0.0);
            wires.push(((*from, *to), gap, if n > 0.0 { gap / n } else { 0.0 }));
        }
        for (i, own) in out.iter_mut().enumerate() {
            let handed_on = |to: &usize| waited.get(&(i, *to)).copied().unwrap_or_else(|| lost[*to].min(lost[i]));
            let explained: f64 = self.callees[i].iter().map(handed_on).sum();
            *own = (lost[i] - explained).max(0.0) * sure[i];
        }
        for (own, wire) in out.iter_mut().zip(self.slow_wires(&wires)) {
            *own += wire;
        }
        out
    }

    /// Shares the time lost on wires among the services at their ends: whoever has most of it, and on all of its wires.
    fn slow_wires(&self, wires: &[((usize, usize), f64, f64)]) -> Vec<f64> {
        let n = self.services.len();
        let total: f64 = wires.iter().map(|(_, gap, _)| gap).sum();
        if total <= 0.0 {
            return vec![0.0; n];
        }
        let (mut covered, mut per_call) = (vec![0.0; n], vec![Vec::new(); n]);
        for ((from, to), gap, of_call) in wires {
            for end in [*from, *to] {
                covered[end] += gap / total;
                per_call[end].push(*of_call);
            }
        }
        let likely: Vec<f64> = covered
            .iter()
            .zip(&per_call)
            .map(|(covered, gaps)| {
                let most = gaps.iter().copied().fold(0.0, f64::max);
                if most > 0.0 { covered * gaps.iter().sum::<f64>() / (gaps.len() as f64 * most) } else { 0.0 }
            })
            .collect();
        shares(&likely).into_iter().map(|share| share * total).collect()
    }

    /// Requests lost in each service, per unit of time, less those lost below it.
    fn lost_requests(&self) -> Vec<f64> {
        let lost: Vec<f64> = self
            .services
            .iter()
            .zip(&self.rate)
            .map(|(s, rate)| s.success.as_ref().map_or(0.0, |f| rate * f.departure.delta * f.departure.weight()))
            .collect();
        let own = |i: usize| (lost[i] - self.callees[i].iter().map(|to| lost[*to].min(lost[i])).sum::<f64>()).max(0.0);
        (0..lost.len()).map(own).collect()
    }

    /// How much less each service asks of another than it is asked itself.
    fn broken_off(&self) -> Vec<f64> {
        let fall = |i: usize| {
            let rate = self.services[i].rate.filter(|r| r.usual > 0.0);
            rate.map_or((0.0, 0.0), |r| ((r.fall.delta / r.usual).min(1.0), r.fall.weight()))
        };
        let mut out = vec![0.0_f64; self.services.len()];
        for (to, s) in self.services.iter().enumerate() {
            let (lost, sure) = fall(to);
            let all: f64 = self.callers[to].iter().map(|c| self.rate[*c]).sum();
            if s.pseudo || lost * sure <= 0.0 || all <= 0.0 {
                continue;
            }
            for from in self.callers[to].iter().filter(|c| !self.services[**c].pseudo) {
                let own = (lost * sure - fall(*from).0) * self.rate[*from] / all;
                out[*from] = out[*from].max(own);
            }
        }
        out
    }

    /// Share of what the metrics of one name gained over all services, the largest of each.
    fn resource(&self, of: impl Fn(SignalFamily) -> bool) -> Vec<f64> {
        let mut gained: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (i, s) in self.services.iter().enumerate() {
            for (family, fact) in s.own.iter().filter(|(family, _)| of(*family)) {
                let _ = family;
                let amount = fact.departure.delta * fact.departure.weight();
                if amount > 0.0 {
                    gained.entry(&fact.metric).or_insert_with(|| vec![0.0; self.services.len()])[i] = amount;
                }
            }
        }
        let mut out = vec![0.0_f64; self.services.len()];
        for amounts in gained.values() {
            for (best, share) in out.iter_mut().zip(shares(amounts)) {
                *best = best.max(share);
            }
        }
        out
    }
}

fn dimension(
    factor: &'static str,
    families: &'static [SignalFamily],
    weight: f64,
    shares: Vec<f64>,
    of: &'static str,
) -> Dimension {
    Dimension { factor, families, weight, shares, of }
}

/// Amounts as shares of their sum.
fn shares(amounts: &[f64]) -> Vec<f64> {
    let total: f64 = amounts.iter().sum();
    amounts.iter().map(|a| if total > 0.0 { a / total } else { 0.0 }).collect()
}
