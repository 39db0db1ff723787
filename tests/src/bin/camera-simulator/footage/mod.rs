//! A clip, encoded once into access units and kept in a cache file, so that the next start is instant.
//!
//! Cameras send streams that suit a network, files seldom do: so every clip is encoded anew, with a keyframe every
//! two seconds and nowhere else (scene cut detection off), B frames only where they are asked for, parameter sets before
//! each keyframe.
//!
//! # Layout
//!
//! - [`reel`]: which stretches of the clip are played;
//! - [`noise`]: the noise of a sensor;
//! - [`encode`]: clip to access units, by GStreamer;
//! - [`cache`]: the file that keeps them.

mod cache;
mod encode;
mod noise;
mod reel;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

pub(crate) use reel::Reel;

/// Compression of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// By x264.
    H264,
    /// By x264, with up to two B frames in a row: shown in another order than they are sent.
    H264Reordered,
    /// By x265.
    H265,
}

/// What the encoder keeps constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    /// So many kilobits a second.
    Kilobits(u32),
    /// Quality: x264's and x265's constant rate factor.
    Quality(u32),
}

/// What is in front of the sensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lens {
    /// Nothing that would not be there in the clip.
    #[default]
    Clear,
    /// A black cloth.
    Covered,
    /// It is out of focus.
    Blurred,
    /// It looks the other way: the picture is upside down.
    Turned,
}

/// How a clip becomes a stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Encoding {
    /// Compression.
    pub(crate) codec: Codec,
    /// Frames a second; the clip's own where `None`.
    pub(crate) fps: Option<i32>,
    /// Width and height; the clip's own where `None`.
    pub(crate) size: Option<(u32, u32)>,
    /// What the encoder keeps constant.
    pub(crate) rate: Rate,
    /// Standard deviation of the sensor's noise, in steps of 8-bit luma.
    pub(crate) noise: f32,
    /// What is in front of the sensor.
    pub(crate) lens: Lens,
}

impl Default for Encoding {
    fn default() -> Self {
        Self {
            codec: Codec::H264,
            fps: None,
            size: None,
            rate: Rate::Kilobits(1500),
            noise: 0.0,
            lens: Lens::Clear,
        }
    }
}

/// What a camera sends between two frames' times.
#[derive(Debug, PartialEq)]
pub(crate) struct AccessUnit {
    /// Whether the parser calls it one.
    pub(crate) keyframe: bool,
    /// Frames from its sending to its showing, 0 to 127. Always 0 without B frames.
    pub(crate) delay: u8,
    /// Byte stream format: each unit after a start code.
    pub(crate) bytes: Vec<u8>,
}

/// A clip as a camera sends it. Never empty; the first access unit is a keyframe.
#[derive(Debug)]
pub(crate) struct Footage {
    /// Compression.
    pub(crate) codec: Codec,
    /// From a frame to the next.
    pub(crate) frame_time: Duration,
    /// Width and height.
    pub(crate) size: (u32, u32),
    /// In the order of their sending.
    pub(crate) access_units: Vec<AccessUnit>,
}

impl Footage {
    /// Out of the cache, or encoded now.
    pub(crate) fn open(clip: &Path, reel: &Reel, encoding: &Encoding, cache: &Path) -> Result<Self> {
        let reading = || format!("reading {}", clip.display());
        let file = cache.join(cache::name(clip, reel, encoding).with_context(reading)?);
        if let Ok(footage) = cache::read(&file, encoding.codec) {
            return Ok(footage);
        }
        let footage =
            encode::encode(clip, reel, encoding).with_context(|| format!("encoding {}", clip.display()))?;
        cache::write(&footage, &file).with_context(|| format!("writing {}", file.display()))?;
        Ok(footage)
    }

    /// Index of the last keyframe at or before a time.
    pub(crate) fn keyframe_at(&self, seconds: u32) -> usize {
        let wanted = (f64::from(seconds) / self.frame_time.as_secs_f64()) as usize % self.access_units.len();
        (0..=wanted).rev().find(|&at| self.access_units[at].keyframe).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn play_begins_at_a_keyframe() {
        let unit = |n: u8| AccessUnit { keyframe: n.is_multiple_of(4), delay: 0, bytes: vec![n] };
        let footage = Footage {
            codec: Codec::H265,
            frame_time: Duration::from_millis(500),
            size: (4, 2),
            access_units: (0..10).map(unit).collect(),
        };
        for (seconds, at) in [(0, 0), (1, 0), (2, 4), (4, 8), (5, 0)] {
            assert_eq!(footage.keyframe_at(seconds), at, "at {seconds} s");
        }
    }
}
