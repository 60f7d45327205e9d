#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_act::fuzz_webhook_answer(bytes));
