//! See [`fuzzed::frame`].

#![no_main]

use gateway_common::host::fuzzed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzzed::frame(bytes));
