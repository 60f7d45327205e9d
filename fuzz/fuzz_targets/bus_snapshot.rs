#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_bus::snapshot::fuzz_bus_snapshot(bytes));
