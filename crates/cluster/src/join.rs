//! Symptoms folded into the fault that explains them: what is left are roots.

use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::{BTreeMap, BTreeSet};

/// Symptoms of a finding at most; a storm has thousands.
const SYMPTOMS_MAX: usize = 200;

/// Folds drafts into roots: worst first, then by object. Advice is dropped unless it was asked for.
pub fn join(cx: &Context<'_>, drafts: Vec<Finding>) -> Vec<Finding> {
    let drafts = merge(drafts.into_iter().filter(|f| cx.options.advice || f.severity != Grade::Advice).collect());
    // Which faults each object has: what may explain others.
    let mut faults_of: BTreeMap<&ObjectRef, Vec<usize>> = BTreeMap::new();
    for (i, finding) in drafts.iter().enumerate() {
        if finding.severity.is_fault() && !finding.symptom_only {
            faults_of.entry(&finding.object).or_default().push(i);
        }
    }
    // And which say of themselves what they explain.
    let mut explained: BTreeMap<&ObjectRef, Vec<usize>> = BTreeMap::new();
    for (i, finding) in drafts.iter().enumerate() {
        for object in finding.explains.iter().filter(|_| finding.severity.is_fault() && !finding.symptom_only) {
            explained.entry(object).or_default().push(i);
        }
    }
    let explainer: Vec<Option<usize>> =
        (0..drafts.len()).map(|i| explainer(&drafts, &faults_of, &explained, i)).collect();
    let roots: Vec<usize> = (0..drafts.len()).map(|i| root(&explainer, i)).collect();

    let mut suffering: BTreeMap<usize, BTreeSet<ObjectRef>> = BTreeMap::new();
    for (i, finding) in drafts.iter().enumerate() {
        let all = suffering.entry(roots[i]).or_default();
        all.extend(finding.symptoms.iter().cloned());
        if roots[i] != i {
            all.insert(finding.object.clone());
        }
    }
    let mut grades: BTreeMap<usize, Grade> = BTreeMap::new();
    for (i, finding) in drafts.iter().enumerate() {
        let grade = grades.entry(roots[i]).or_insert(finding.severity);
        *grade = (*grade).max(finding.severity);
    }
    let mut out: Vec<Finding> = Vec::new();
    for (i, mut finding) in drafts.into_iter().enumerate() {
        if roots[i] != i || finding.symptom_only {
            continue;
        }
        let mut all = suffering.remove(&i).unwrap_or_default();
        all.remove(&finding.object);
        finding.symptoms = all.into_iter().take(SYMPTOMS_MAX).collect();
        // A cause is as bad as what it brings about.
        if finding.severity.is_fault() {
            finding.severity = grades.get(&i).copied().unwrap_or(finding.severity);
        }
        out.push(finding);
    }
    out.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.identity().cmp(&b.identity())));
    out
}

/// One finding for each object and fault; what two checks saw of the same is put together.
fn merge(drafts: Vec<Finding>) -> Vec<Finding> {
    let mut merged: BTreeMap<(ObjectRef, FaultClass), Finding> = BTreeMap::new();
    for draft in drafts {
        match merged.entry((draft.object.clone(), draft.fault)) {
            std::collections::btree_map::Entry::Vacant(slot) => {
                slot.insert(draft);
            }
            std::collections::btree_map::Entry::Occupied(mut slot) => {
                let kept = slot.get_mut();
                // The worse one speaks; on a tie the first.
                let (mut best, other) =
                    if draft.severity > kept.severity { (draft, kept.clone()) } else { (kept.clone(), draft) };
                for fact in other.evidence {
                    best = best.fact(fact.id, &fact.source, fact.text);
                }
                best.symptoms.extend(other.symptoms);
                best.explained_by.extend(other.explained_by);
                best.explains.extend(other.explains);
                best.generic &= other.generic;
                best.symptom_only &= other.symptom_only;
                best.since = [best.since, other.since].into_iter().flatten().min();
                *kept = best;
            }
        }
    }
    merged.into_values().collect()
}

/// Trouble in how something behaves, which something else brings about.
const BEHAVIOUR: [FaultClass; 14] = [
    FaultClass::CrashLoop,
    FaultClass::InitContainerFailure,
    FaultClass::ReadinessProbeFailure,
    FaultClass::LivenessProbeFailure,
    FaultClass::StartupProbeFailure,
    FaultClass::ReplicasUnavailable,
    FaultClass::RolloutStuck,
    FaultClass::RestartsClimbing,
    FaultClass::JobFailed,
    FaultClass::PodFailed,
    FaultClass::ReplicaCreateFailure,
    FaultClass::EndpointsNotReady,
    FaultClass::DnsFailure,
    FaultClass::DependencyOutage,
];

/// What says least of all vague findings: that pods are missing, or could be missing one day.
const VAGUEST: [FaultClass; 3] =
    [FaultClass::ReplicasUnavailable, FaultClass::DaemonSetIncomplete, FaultClass::StrategyDeadlock];

/// Which draft explains this one, if any.
fn explainer(
    drafts: &[Finding],
    faults_of: &BTreeMap<&ObjectRef, Vec<usize>>,
    explained: &BTreeMap<&ObjectRef, Vec<usize>>,
    i: usize,
) -> Option<usize> {
    let finding = &drafts[i];
    let of = |object: &ObjectRef, specific: bool| {
        let faults = faults_of.get(object)?;
        faults
            .iter()
            .copied()
            .filter(|j| *j != i && (!specific || !drafts[*j].generic))
            .max_by_key(|j| (!drafts[*j].generic, drafts[*j].severity, std::cmp::Reverse(*j)))
    };
    // Advice and information are not faults: nothing explains them away but the object's own faults.
    if !finding.severity.is_fault() {
        return None;
    }
    // Of two that only say that something is wrong with the object, the worse one speaks (on a tie the first).
    let rival = || {
        let rank = |j: usize| (!VAGUEST.contains(&drafts[j].fault), drafts[j].severity, std::cmp::Reverse(j));
        let others = faults_of.get(&finding.object)?.iter().copied();
        others.filter(|j| rank(*j) > rank(i)).max_by_key(|j| rank(*j))
    };
    let own = if finding.generic { of(&finding.object, true).or_else(rival) } else { None };
    own.or_else(|| finding.explained_by.iter().filter(|o| **o != finding.object).find_map(|o| of(o, false))).or_else(
        || {
            let by = explained.get(&finding.object).filter(|_| BEHAVIOUR.contains(&finding.fault))?;
            by.iter().copied().find(|j| *j != i)
        },
    )
}

/// The end of a chain of explanations. In a ring the first of it counts as the root.
fn root(explainer: &[Option<usize>], start: usize) -> usize {
    let mut seen = BTreeSet::from([start]);
    let mut at = start;
    while let Some(next) = explainer[at] {
        if !seen.insert(next) {
            // Everybody in the ring must come to the same end.
            let mut ring = BTreeSet::from([next]);
            let mut step = next;
            while let Some(n) = explainer[step] {
                if !ring.insert(n) {
                    break;
                }
                step = n;
            }
            return ring.first().copied().unwrap_or(next);
        }
        at = next;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, World};
    use nightshift_model::Timestamp;

    fn joined(drafts: Vec<Finding>) -> Vec<Finding> {
        let (world, options) = (World::default(), Options::default());
        join(&Context::new(&world, &options, Timestamp::EPOCH), drafts)
    }

    fn object(kind: &str) -> ObjectRef {
        ObjectRef::new(kind, "shop", "web")
    }

    #[test]
    fn a_chain_is_one_finding_as_bad_as_its_worst() {
        let ingress =
            Finding::new(FaultClass::IngressBackendMissing, object("Ingress"), "i").explained_by(object("Service"));
        let service = Finding::new(FaultClass::EndpointsNotReady, object("Service"), "s")
            .graded(Grade::Critical)
            .explained_by(object("Deployment"));
        let generic = Finding::new(FaultClass::ReplicasUnavailable, object("Deployment"), "g").generic();
        let crash = Finding::new(FaultClass::CrashLoop, object("Deployment"), "c").hits(object("Pod"));
        let out = joined(vec![ingress, generic, service, crash]);
        assert_eq!(out.len(), 1);
        assert_eq!((out[0].fault, out[0].severity), (FaultClass::CrashLoop, Grade::Critical));
        assert_eq!(out[0].symptoms, [object("Ingress"), object("Pod"), object("Service")]);
    }

    #[test]
    fn two_vague_findings_of_one_object_are_one() {
        let a = Finding::new(FaultClass::JobFailed, object("Job"), "a").generic().graded(Grade::Medium);
        let b = Finding::new(FaultClass::PodFailed, object("Job"), "b").generic();
        let out = joined(vec![a, b]);
        assert_eq!(out.iter().map(|f| f.fault).collect::<Vec<_>>(), [FaultClass::PodFailed]);
    }

    #[test]
    fn a_ring_of_explanations_has_one_root() {
        let a = Finding::new(FaultClass::CrashLoop, object("A"), "a").explained_by(object("B"));
        let b = Finding::new(FaultClass::CrashLoop, object("B"), "b").explained_by(object("A"));
        let c = Finding::new(FaultClass::CrashLoop, object("C"), "c").explained_by(object("B"));
        assert_eq!(joined(vec![a, b, c]).len(), 1);
    }

    #[test]
    fn what_is_only_a_symptom_is_never_shown_by_itself() {
        let suffers = || {
            Finding::new(FaultClass::EndpointsNotReady, object("Service"), "s")
                .only_as_symptom()
                .explained_by(object("Deployment"))
        };
        let route = Finding::new(FaultClass::RouteBroken, object("Route"), "r").explained_by(object("Service"));
        assert_eq!(joined(vec![suffers()]), []);
        let out = joined(vec![suffers(), route.clone()]);
        assert_eq!(out.iter().map(|f| f.fault).collect::<Vec<_>>(), [FaultClass::RouteBroken]);
        let crash = Finding::new(FaultClass::CrashLoop, object("Deployment"), "c");
        let out = joined(vec![suffers(), crash]);
        assert_eq!((out.len(), out[0].symptoms.as_slice()), (1, [object("Service")].as_slice()));
    }

    #[test]
    fn a_finding_may_say_what_behaviour_it_explains_and_only_that() {
        let missing =
            Finding::new(FaultClass::ServiceMissing, object("Deployment"), "m").explains(object("Deployment"));
        let crash = Finding::new(FaultClass::CrashLoop, object("Deployment"), "c");
        let image = Finding::new(FaultClass::ImagePullFailure, object("Deployment"), "i");
        let out = joined(vec![crash, missing, image]);
        let faults: Vec<_> = out.iter().map(|f| f.fault).collect();
        assert_eq!(faults, [FaultClass::ImagePullFailure, FaultClass::ServiceMissing]);
    }

    #[test]
    fn unrelated_faults_stay_apart_and_advice_is_hidden() {
        let a = Finding::new(FaultClass::CrashLoop, object("A"), "a");
        let b = Finding::new(FaultClass::CrashLoop, object("B"), "b");
        let advice = Finding::new(FaultClass::WorkloadAdvice, object("C"), "c").graded(Grade::Advice);
        assert_eq!(joined(vec![a, b, advice]).len(), 2);
    }
}
