#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_bus::embedded::fuzz_bus_commits(bytes));
