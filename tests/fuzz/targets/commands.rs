//! What anybody may publish to a box.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharp_eyes_protocol::command::Command;

fuzz_target!(|payload: &[u8]| {
    if let Ok(command) = Command::parse(payload) {
        let text = serde_json::to_vec(&command).expect("a command is JSON");
        assert_eq!(Command::parse(&text).expect("its own text"), command);
    }
});
