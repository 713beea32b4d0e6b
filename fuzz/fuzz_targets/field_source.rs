//! See `pgsluice::fuzz::field_source`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgsluice::fuzz::field_source(data));
