#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sparsify_exp::fuzzing::experiment(bytes));
