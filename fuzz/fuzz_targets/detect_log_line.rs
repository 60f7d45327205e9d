#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_detect::logs::detector::fuzz_log_line(bytes));
