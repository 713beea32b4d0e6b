//! See `pgsluice::fuzz::json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgsluice::fuzz::json(data));
