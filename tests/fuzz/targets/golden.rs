//! Pictures and expectations that travel with a model.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharp_eyes_vision::golden::{Expected, PICTURE_MAX_SIDE, Picture};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(picture) = Picture::decode(bytes) {
        let frame = picture.view().expect("a picture that was decoded can be looked at");
        assert!(frame.width().max(frame.height()) as usize <= PICTURE_MAX_SIDE);
    }
    match Expected::parse(bytes) {
        Ok(expected) => assert!(expected.iou.is_finite() && expected.score.is_finite()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
