#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_reason::fuzz_checkpoint(bytes));
