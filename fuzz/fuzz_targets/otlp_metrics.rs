#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_collect::otlp::fuzz_otlp_metrics(bytes));
