#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_plan::fuzz_plan_expr(bytes));
