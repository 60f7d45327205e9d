#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_config::fuzz_config_toml(bytes));
