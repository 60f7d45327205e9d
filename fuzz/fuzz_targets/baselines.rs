#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_detect::models::fuzz_baselines(bytes));
