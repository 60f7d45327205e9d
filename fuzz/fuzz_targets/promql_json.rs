#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_collect::promql::fuzz_promql_json(bytes));
