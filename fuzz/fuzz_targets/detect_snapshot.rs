#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_detect::metrics::fuzz_snapshot(bytes));
