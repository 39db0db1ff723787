//! A clip through gate and decoder, as a camera's stream would go: the same code, in lock step.
//!
//! A live camera's decoder works on a thread of its own, and the gate learns what it shows a little later. Here each
//! access unit waits until all that came before it was decoded and looked at, so that a clip is as fast as the machine
//! allows, loses nothing, and ends the same each time.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::clip::{Clip, ClipError};
use super::{CameraError, CameraOptions, Decoding, FrameSink};
use crate::board::CameraCard;

/// How long a decoder may take for one access unit, and between two looks at it.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// How far a clip was played.
#[derive(Clone, Copy, Debug)]
pub struct Played {
    /// Since its beginning.
    pub at: Duration,
    /// How long it is, if the file says so.
    pub of: Option<Duration>,
}

/// Plays a clip: `frames` gets what a camera's analysis would, `each` is told of every access unit, after its frame, and
/// may end it. The clip begins at `start`. Returns how much of it was played.
pub fn replay(
    file: &Path,
    options: &CameraOptions,
    frames: &FrameSink,
    card: &Arc<CameraCard>,
    start: Instant,
    mut each: impl FnMut(Played) -> ControlFlow<()>,
) -> Result<Duration, ClipError> {
    let failed = |source| ClipError::Camera { file: file.to_owned(), source };
    let mut clip = Clip::open(file, start)?;
    // Errors of the decoder, as of a camera's: the first one counts, and if 16 wait, what else comes is dropped.
    let (sender, mut events) = mpsc::channel(16);
    card.gate().connected(start);
    let mut decoding = Decoding::new(options, frames, card, sender);
    let mut end = Duration::ZERO;
    while let Some(unit) = clip.next()? {
        end = end.max(unit.arrived().saturating_duration_since(start));
        decoding.unit(unit).and_then(|()| decoding.settle(&mut events)).map_err(failed)?;
        if each(Played { at: end, of: clip.duration() }).is_break() {
            return Ok(end);
        }
    }
    decoding.drain(&mut events).map_err(failed)?;
    Ok(end)
}

impl Decoding {
    /// Waits until everything that was handed to the decoder has been looked at.
    fn settle(&self, events: &mut mpsc::Receiver<CameraError>) -> Result<(), CameraError> {
        self.wait(events, |decoding| {
            decoding.decoder.as_ref().is_none_or(|decoder| decoder.settled(LOOK))
                && decoding.glance.as_ref().is_none_or(|glance| glance.settled(LOOK))
        })
    }

    /// The same of what the decoder holds back to put it in order.
    fn drain(&self, events: &mut mpsc::Receiver<CameraError>) -> Result<(), CameraError> {
        let Some(decoder) = &self.decoder else { return Ok(()) };
        decoder.end()?;
        self.wait(events, |_| decoder.drained(LOOK))
    }

    fn wait(
        &self,
        events: &mut mpsc::Receiver<CameraError>,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), CameraError> {
        let begun = Instant::now();
        loop {
            let done = done(self);
            match events.try_recv() {
                Ok(CameraError::Ended) | Err(_) => {}
                Ok(error) => return Err(error),
            }
            if done {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                let decoder = self.name.get().cloned().unwrap_or_else(|| "the decoder".into());
                return Err(CameraError::NoPicture { decoder, after: PATIENCE });
            }
        }
    }
}
