#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_collect::files::multiline::fuzz_files_multiline(bytes));
