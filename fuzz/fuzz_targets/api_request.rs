#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_api::fuzz_api_request(bytes));
