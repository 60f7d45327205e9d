//! The workflow from outside: its paths, its people, its crashes.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what is not there is a failed test")]

mod chaos;
mod lab;
mod paths;
mod people;
mod replay;
