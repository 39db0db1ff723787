//! The configuration file: it is understood, or every problem names its line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharp_eyes_agent::config::Config;

fuzz_target!(|text: &str| {
    if let Err(problems) = Config::parse(text) {
        assert!(!problems.is_empty());
        for problem in problems {
            assert!(!problem.to_string().is_empty());
        }
    }
});
