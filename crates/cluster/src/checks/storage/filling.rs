//! Disks that fill up, with the time until they are full.

use super::{Users, hit};
use crate::checks::words;
use crate::{Context, Finding, Grade, ObjectRef, signal};
use nightshift_model::FaultClass;
use std::time::Duration;

/// Share in use above which a disk is full for all that matters: databases stop at a few percent free.
const FULL: f64 = 0.95;
/// Share in use below which growth is not looked at: a volume that starts empty always grows fast.
const GROWING: f64 = 0.5;
/// Time to full that leaves a working day to act.
const SOON: Duration = Duration::from_secs(24 * 3600);
/// Time to full that leaves no time.
const NOW: Duration = Duration::from_secs(4 * 3600);

/// Runs the check: figures of claims and nodes, and what kubelets say of their own disk.
pub(super) fn run(cx: &Context<'_>, users: &Users<'_>, out: &mut Vec<Finding>) {
    let measured =
        cx.world.signals.keys().filter(|(_, name)| name == signal::DISK_USED_BYTES).map(|(object, _)| object);
    for object in measured {
        out.extend(filling(cx, users, object));
    }
    let inodes = cx.world.signals.iter().filter(|((_, name), _)| name == signal::DISK_INODES_USED_RATIO);
    for ((object, _), ratio) in inodes.filter(|(_, r)| **r >= FULL) {
        let finding = Finding::new(
            FaultClass::DiskFull,
            object.clone(),
            format!("{object} can hold no more files: {:.0} % of its inodes are used", ratio * 100.0),
        )
        .because(object.clone(), "many small files use up the inodes while there is room left")
        .fix("Delete small files that are not needed (caches, sessions, old logs), or move to a file system with more inodes")
        .fact(format!("metric/{}#{}", object.path(), signal::DISK_INODES_USED_RATIO), "metric", format!("{ratio:.2}"));
        out.push(of_pods(cx, users, finding, object));
    }
    for node in cx.world.nodes.iter() {
        let events = cx.events("Node", "", &node.metadata.name);
        let said = events.iter().rev().find(|e| {
            matches!(e.reason.as_str(), "FreeDiskSpaceFailed" | "ImageGCFailed")
                && !e.message.contains("invalid capacity")
        });
        let Some(event) = said else { continue };
        let me = ObjectRef::of("Node", &node.metadata);
        out.push(
            Finding::new(FaultClass::DiskFull, me.clone(), format!("node {} cannot free enough of its disk", me.name))
                .because(me.clone(), format!("its kubelet says: {}", event.message))
                .fix(format!("Free the disk of node {} (unused images, logs), or give it a larger one; look at what pods on it write to their own disk", me.name))
                .event(event)
                .generic(),
        );
    }
}

fn filling(cx: &Context<'_>, users: &Users<'_>, object: &ObjectRef) -> Option<Finding> {
    let of = |name: &str| cx.world.signal(object, name).filter(|v| v.is_finite());
    let (used, capacity) = (of(signal::DISK_USED_BYTES)?, of(signal::DISK_CAPACITY_BYTES).filter(|c| *c > 0.0)?);
    let share = used / capacity;
    let growth = of(signal::DISK_GROWTH_BYTES_PER_SEC).filter(|g| *g > 0.0);
    // Past a century it does not fill.
    let left = growth.map(|g| (capacity - used).max(0.0) / g).filter(|s| *s < 3e9).map(Duration::from_secs_f64);
    let grade = match left {
        _ if share >= FULL => Grade::High,
        Some(left) if share >= GROWING && left <= NOW => Grade::High,
        Some(left) if share >= GROWING && left <= SOON => Grade::Medium,
        _ => return None,
    };
    let room = words::bytes(capacity - used);
    let time = left.map_or(String::new(), |l| format!(", full in {}", words::duration(l)));
    let name = &object.name;
    let fix = if object.kind == "PersistentVolumeClaim" {
        let want = words::bytes(capacity * 1.5);
        let class = cx.world.claims.get(&object.namespace, name).and_then(|c| c.spec.storage_class_name.as_deref());
        let grows = class.and_then(|c| cx.world.storage_classes.get("", c)).map(|c| c.allow_volume_expansion);
        match grows {
            Some(false) => format!(
                "Delete data that is not needed, or move it to a larger claim: class {} cannot grow claims",
                class.unwrap_or_default()
            ),
            _ => format!(
                "Delete data that is not needed, or let the claim grow to about {want}: kubectl -n {} patch pvc {name} -p '{{\"spec\":{{\"resources\":{{\"requests\":{{\"storage\":\"…\"}}}}}}}}'",
                object.namespace
            ),
        }
    } else {
        format!("Free the disk of {object} (images, logs), move what writes most, or give it a larger one")
    };
    let why = match growth {
        Some(g) => format!(
            "{:.0} % of {} are used and use grows by {} an hour; {room} are left",
            share * 100.0,
            words::bytes(capacity),
            words::bytes(g * 3600.0)
        ),
        None => format!("{:.0} % of {} are used; {room} are left", share * 100.0, words::bytes(capacity)),
    };
    let finding = Finding::new(
        FaultClass::DiskFull,
        object.clone(),
        format!("disk of {object} is {:.0} % full{time}", share * 100.0),
    )
    .because(object.clone(), why)
    .fix(fix)
    .graded(grade)
    .fact(
        format!("metric/{}#{}", object.path(), signal::DISK_USED_BYTES),
        "metric",
        format!("{used:.0} of {capacity:.0} bytes"),
    );
    Some(of_pods(cx, users, finding, object))
}

fn of_pods(cx: &Context<'_>, users: &Users<'_>, finding: Finding, object: &ObjectRef) -> Finding {
    if object.kind == "PersistentVolumeClaim" {
        hit(cx, finding, users.of(&object.namespace, &object.name))
    } else {
        finding
    }
}
