#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_store::audit::fuzz_audit_export(bytes));
