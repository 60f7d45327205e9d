//! The knowledge that the shop's teams would have after a year: past incidents, runbooks, service documents, as files
//! under `knowledge/` beside this crate's sources. The readers are in `nightshift-knowledge`.

macro_rules! document {
    ($name:literal) => {
        ($name, include_str!(concat!("../../knowledge/", $name)))
    };
}

/// Every document with its name: a path below `knowledge/`, sorted.
pub const DOCUMENTS: &[(&str, &str)] = &[
    document!("incidents/past-2025-01.md"),
    document!("incidents/past-2025-02.md"),
    document!("incidents/past-2025-03.md"),
    document!("incidents/past-2025-04.md"),
    document!("incidents/past-2025-05.md"),
    document!("incidents/past-2025-06.md"),
    document!("incidents/past-2025-07.md"),
    document!("incidents/past-2025-08.md"),
    document!("incidents/past-2025-09.md"),
    document!("incidents/past-2025-10.md"),
    document!("incidents/past-2025-11.md"),
    document!("incidents/past-2025-12.md"),
    document!("incidents/past-2025-13.md"),
    document!("incidents/past-2025-14.md"),
    document!("incidents/past-2025-15.md"),
    document!("incidents/past-2025-16.md"),
    document!("incidents/past-2025-17.md"),
    document!("incidents/past-2025-18.md"),
    document!("incidents/past-2025-19.md"),
    document!("incidents/past-2025-20.md"),
    document!("incidents/past-2025-21.md"),
    document!("incidents/past-2026-01.md"),
    document!("runbooks/bad-deployment.md"),
    document!("runbooks/cache-stampede.md"),
    document!("runbooks/certificates-and-names.md"),
    document!("runbooks/consumer-lag.md"),
    document!("runbooks/cpu-and-traffic.md"),
    document!("runbooks/database-disk-and-locks.md"),
    document!("runbooks/database-pool-dry.md"),
    document!("runbooks/flags-and-routes.md"),
    document!("runbooks/memory-leak.md"),
    document!("runbooks/retries-and-cascades.md"),
    document!("runbooks/slow-or-failing-service.md"),
    document!("runbooks/some-replicas-fail.md"),
    document!("services/api-gateway.md"),
    document!("services/inventory-service.md"),
    document!("services/notification-service.md"),
    document!("services/order-service.md"),
    document!("services/payment-service.md"),
    document!("services/user-service.md"),
];

#[cfg(test)]
mod tests;
