#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_collect::remote_write::fuzz_remote_write_v2(bytes));
