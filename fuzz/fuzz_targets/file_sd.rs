#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_collect::scrape::fuzz_file_sd(bytes));
