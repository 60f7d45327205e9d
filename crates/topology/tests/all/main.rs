//! The topology room from outside.

mod file;
mod graph;
mod spans;

use nightshift_model::EntityId;

pub(crate) fn service(name: &str) -> EntityId {
    EntityId::new("local", "service", "", name)
}

pub(crate) fn host(name: &str) -> EntityId {
    EntityId::new("local", "host", "", name)
}
