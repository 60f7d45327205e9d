//! What things cost, where OpenCost told: a namespace that spends much more than it did.

use crate::{Context, Finding, ObjectRef};
use nightshift_model::FaultClass;

/// Signals of a namespace: what the last day cost, and a mean day of the week before, in the currency of OpenCost.
pub(super) const COST_DAY: &str = "cost_day";
/// See [`COST_DAY`].
pub(super) const COST_DAY_USUAL: &str = "cost_day_usual";
/// So many times as much as usual is a spike.
const TIMES: f64 = 1.5;
/// Less than this a day more is not worth a word.
const MORE: f64 = 5.0;

/// Runs the checks of cost.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for namespace in cx.world.namespaces.iter() {
        let object = ObjectRef::new("Namespace", "", namespace.metadata.name.clone());
        let (Some(day), Some(usual)) = (cx.world.signal(&object, COST_DAY), cx.world.signal(&object, COST_DAY_USUAL))
        else {
            continue;
        };
        if usual > 0.0 && day >= usual * TIMES && day - usual >= MORE {
            let name = &object.name;
            out.push(
                Finding::new(
                    FaultClass::CostSpike,
                    object.clone(),
                    format!("Namespace {name} costs {:.1} times as much as usual", day / usual),
                )
                .because(object.clone(), format!("the last day cost {day:.2}, a day of the week before {usual:.2}"))
                .fix(format!("See what was scaled up or added in {name}, and scale what nobody needs."))
                .fact(format!("{}#{COST_DAY}", object.path()), "metric", format!("{COST_DAY}: {day:.2}"))
                .fact(
                    format!("{}#{COST_DAY_USUAL}", object.path()),
                    "metric",
                    format!("{COST_DAY_USUAL}: {usual:.2}"),
                ),
            );
        }
    }
}
