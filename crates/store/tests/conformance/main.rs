//! One suite for every kind of store: memory, SQLite, and PostgreSQL where `NIGHTSHIFT_TEST_POSTGRES` names a server.

#![expect(clippy::unwrap_used, reason = "here a failure is the answer; helpers are no test functions")]

mod audits;
mod commits;
mod data;
mod kinds;
mod lists;
mod processes;
mod properties;
mod tampering;
