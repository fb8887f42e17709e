// SPDX-License-Identifier: Apache-2.0
//! Every target: its name chooses the function that checks an input.
#![no_main]

#[path = "../oracles.rs"]
mod oracles;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracles::run(env!("CARGO_BIN_NAME"), data));
