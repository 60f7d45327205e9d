#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_detect::rules::file::fuzz_rule_file(bytes));
