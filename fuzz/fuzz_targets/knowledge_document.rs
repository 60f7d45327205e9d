#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nightshift_knowledge::fuzz_knowledge_document(bytes));
