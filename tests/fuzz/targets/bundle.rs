//! A bundle from a mirror or a stick: whatever it holds, nothing is written outside of its folder.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharp_eyes_agent::models::bundle;

fuzz_target!(|bytes: &[u8]| {
    let scratch = tempfile::tempdir().expect("a folder for scratch");
    let unpacked = bundle::unpack(bytes, &scratch.path().join("bundle"));
    let beside = std::fs::read_dir(scratch.path()).expect("the folder of scratch").count();
    assert!(beside <= 1, "{unpacked:?} wrote beside its folder");
});
