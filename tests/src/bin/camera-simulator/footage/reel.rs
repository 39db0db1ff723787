//! Which stretches of a clip are played, in which order, so that a day of few visits comes out of a short clip.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

/// Stretches of a clip, one after the other; none is the clip as it is.
///
/// As text: `0-18,19~25x8` plays the seconds 0 to 18, then eight times 19 to 25 forward and back again, which has no
/// jump in it. A stretch of one frame (`20~20`) is a picture that stands still.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reel(Vec<Stretch>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    from_s: u32,
    to_s: u32,
    there_and_back: bool,
    times: u32,
}

/// A part of a stretch: frames of the clip in the order of their showing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The first frame, and the one after the last.
    pub(super) frames: (usize, usize),
    /// How often forward, or forward and back.
    pub(super) times: u32,
    /// Whether each time ends with the way back.
    pub(super) there_and_back: bool,
}

impl Reel {
    /// Whether the clip is played as it is.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.is_empty()
    }

    /// In frames, at so many a second.
    pub(super) fn parts(&self, fps: f64) -> Vec<Part> {
        let frame = |seconds: u32| (f64::from(seconds) * fps).round() as usize;
        let part = |stretch: &Stretch| Part {
            frames: (frame(stretch.from_s), frame(stretch.to_s).max(frame(stretch.from_s) + 1)),
            times: stretch.times,
            there_and_back: stretch.there_and_back,
        };
        self.0.iter().map(part).collect()
    }
}

impl FromStr for Reel {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let stretch = |part: &str| -> Result<Stretch> {
            let (span, times) = part.split_once('x').unwrap_or((part, "1"));
            let there_and_back = span.contains('~');
            let (from, to) = span.split_once(['-', '~']).context("no - or ~")?;
            let (from_s, to_s, times) = (from.parse()?, to.parse()?, times.parse()?);
            ensure!(from_s < to_s || from_s == to_s && there_and_back, "it ends before it begins");
            Ok(Stretch { from_s, to_s, there_and_back, times })
        };
        let read = |part: &str| {
            stretch(part).with_context(|| format!("{part:?} is no stretch: expected 0-18, or 19~25x8"))
        };
        if text.is_empty() {
            bail!("a reel without stretches");
        }
        Ok(Self(text.split(',').map(read).collect::<Result<_>>()?))
    }
}

impl fmt::Display for Reel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Stretch { from_s, to_s, there_and_back, times }) in self.0.iter().enumerate() {
            let (comma, way) = (if index > 0 { "," } else { "" }, if *there_and_back { '~' } else { '-' });
            write!(f, "{comma}{from_s}{way}{to_s}x{times}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reel_is_text_and_frames() {
        let reel: Reel = "0-18,19~25x8,20~20".parse().unwrap();
        assert_eq!(reel.to_string(), "0-18x1,19~25x8,20~20x1");
        let part = |frames, times, there_and_back| Part { frames, times, there_and_back };
        assert_eq!(
            reel.parts(10.0),
            [part((0, 180), 1, false), part((190, 250), 8, true), part((200, 201), 1, true)]
        );
        for text in ["", "x", "5", "5-5", "6-5", "6~5", "1-2xx", "-1-2"] {
            assert!(text.parse::<Reel>().is_err(), "{text}");
        }
    }
}
