//! See `pgsluice::fuzz::table_name`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgsluice::fuzz::table_name(data));
