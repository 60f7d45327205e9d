#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_collect::exec::fuzz_exec_line(bytes));
