//! A model's manifest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharp_eyes_vision::model::Manifest;

fuzz_target!(|text: &str| {
    if let Err(error) = Manifest::parse(text) {
        assert!(!error.to_string().is_empty());
    }
});
