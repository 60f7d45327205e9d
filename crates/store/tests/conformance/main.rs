//! One suite for every kind of store: memory, SQLite, and PostgreSQL where `NIGHTSHIFT_TEST_POSTGRES` names a server.

mod audits;
mod commits;
mod data;
mod kinds;
mod lists;
mod processes;
mod properties;
mod tampering;
