#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_collect::alertmanager::fuzz_alertmanager(bytes));
