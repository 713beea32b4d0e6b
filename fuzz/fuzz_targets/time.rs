//! See `pgsluice::fuzz::time`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgsluice::fuzz::time(data));
