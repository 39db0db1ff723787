//! A bundle from a mirror or a stick: whatever it holds, nothing is written outside of its folder.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sharp_eyes_agent::models::bundle;

fuzz_target!(|bytes: &[u8]| {
    let scratch = tempfile::tempdir().expect("a folder for scratch");
    let inner = scratch.path().join("inner");
    std::fs::create_dir(&inner).expect("a folder in it");
    let unpacked = bundle::unpack(bytes, &inner.join("bundle"));
    let outside = |folder: &Path| std::fs::read_dir(folder).expect("a folder of scratch").count();
    assert!(outside(scratch.path()) == 1 && outside(&inner) <= 1, "{unpacked:?} wrote beside its folder");
});
