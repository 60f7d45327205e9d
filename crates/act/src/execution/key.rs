//! Idempotency keys: `INCIDENT-PLAN-STEP-OPERATION`, printable ASCII without anything that a header, a file name or a
//! command line could take for more than text.

use nightshift_model::{IncidentId, Operation, PlanHash};

/// No key is longer, in bytes.
pub const KEY_BYTES_MAX: usize = 80;

/// The key of an operation. The same operation has the same key, however often it is tried; a canary, an apply and
/// an undo of one step each have their own.
pub fn key_of(incident: IncidentId, plan: PlanHash, step: u32, operation: Operation) -> String {
    format!("{incident}-{}-{step}-{operation}", plan.short())
}

/// The operation that a key is of: what an actuator that is asked to observe looks for. `None`: it is no key of ours.
pub fn operation_of(key: &str) -> Option<Operation> {
    let name = key.rsplit_once('-')?.1;
    const ALL: [Operation; 6] = [
        Operation::Prepare,
        Operation::DryRun,
        Operation::Canary,
        Operation::Apply,
        Operation::Observe,
        Operation::Undo,
    ];
    ALL.into_iter().find(|o| o.as_str() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_operations_apart_and_are_plain() {
        let (incident, plan) = (IncidentId(u128::MAX), PlanHash([0xab; 32]));
        let mut seen = std::collections::BTreeSet::new();
        for step in [0, 1, u32::MAX] {
            for operation in
                [Operation::Prepare, Operation::DryRun, Operation::Canary, Operation::Apply, Operation::Undo]
            {
                let key = key_of(incident, plan, step, operation);
                assert!(key.len() <= KEY_BYTES_MAX, "{key}");
                assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{key}");
                assert_eq!(operation_of(&key), Some(operation));
                assert!(seen.insert(key));
            }
        }
        assert_eq!(operation_of("apply"), None);
        assert_eq!(operation_of("a-b-explode"), None);
    }
}
