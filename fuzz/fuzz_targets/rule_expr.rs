#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_detect::rules::expr::fuzz_rule_expr(bytes));
