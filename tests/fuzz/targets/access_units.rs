//! What a camera sends: access units of both codecs, one after the other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharp_eyes_agent::camera::bitstream::{Bitstream, Codec};

fuzz_target!(|units: Vec<&[u8]>| {
    for codec in [Codec::H264, Codec::H265] {
        let mut bitstream = Bitstream::new(codec);
        for unit in &units {
            bitstream.access_unit(unit);
        }
    }
});
