#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_tell::fuzz_signature(bytes));
