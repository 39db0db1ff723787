//! What the agent saw as an MP4 file: a picture for each frame that the detector saw, redacted with what it saw there.
//!
//! Other frames are never shown, because nobody knows where the heads in them are. While the camera sleeps the last
//! picture stays, dimmed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sharp_eyes_vision::{Detection, FrameView, Incident, Moment, Redacted};

use super::ReplayError;
use super::picture::{Painter, Size};
use crate::analysis::Lookout;
use crate::camera::{Film, FilmError};
use crate::config::View;

/// Between two pictures of a camera that sleeps, so that a player can be wound to any second.
const ASLEEP_EVERY: Duration = Duration::from_secs(1);

/// How far the pictures of a sleeping camera stay behind: when it wakes, the second before comes, too.
const BEHIND: Duration = Duration::from_millis(1250);

/// A frame after detector, tracker and rules have looked at it.
pub(super) struct Sight<'a> {
    /// Tracker and rules.
    pub(super) lookout: &'a Lookout,
    /// When it was taken.
    pub(super) now: Moment,
    /// Everybody whose head it could show, where that can be known.
    pub(super) everybody: Option<Vec<Detection>>,
    /// The rules that it broke.
    pub(super) broken: &'a [Incident],
}

/// A film that is being made.
pub(super) struct Filming {
    file: PathBuf,
    painter: Painter,
    /// Begun with the first frame, which says how large it is.
    begun: Option<Begun>,
}

struct Begun {
    film: Film,
    size: Size,
    last: Redacted,
    shown: Duration,
}

impl Filming {
    pub(super) fn new(file: &Path, view: &View) -> Self {
        Self { file: file.to_owned(), painter: Painter::new(view), begun: None }
    }

    /// Appends a frame.
    pub(super) fn frame(&mut self, planes: &FrameView<'_>, sight: &Sight<'_>) -> Result<(), ReplayError> {
        let Sight { lookout, now, everybody, broken } = sight;
        let scene = lookout.scene();
        let redacted = Redacted::of(planes, &lookout.view().masks, everybody.as_deref(), None, "");

        self.painter.learn(*now, scene.tracks(), scene.rules(*now), broken);
        let size = self.begun.as_ref().map_or_else(|| self.painter.size(&redacted), |begun| begun.size);
        let Some(picture) = self.painter.awake(&redacted, size, *now, scene.tracks()) else { return Ok(()) };
        match &mut self.begun {
            // A damaged clip may have times that go back.
            Some(begun) if now.monotonic <= begun.shown => return Ok(()),
            Some(begun) => {
                begun.film.show(picture.rgba(), now.monotonic)?;
                (begun.last, begun.shown) = (redacted, now.monotonic);
            }
            None => {
                let mut film = Film::create(&self.file, size.width, size.height + size.strip)?;
                film.show(picture.rgba(), now.monotonic)?;
                self.begun = Some(Begun { film, size, last: redacted, shown: now.monotonic });
            }
        }
        Ok(())
    }

    /// The camera has slept for a time up to now.
    pub(super) fn sleep(&mut self, since: Duration, now: Duration) -> Result<(), ReplayError> {
        let Some(begun) = &mut self.begun else { return Ok(()) };
        loop {
            let next = since.max(begun.shown + ASLEEP_EVERY);
            if next + BEHIND > now {
                return Ok(());
            }
            begun.shown = next;
            if let Some(picture) = self.painter.asleep(&begun.last, begun.size, begun.shown) {
                begun.film.show(picture.rgba(), begun.shown)?;
            }
        }
    }

    /// Closes the file. Nothing was seen: there is none.
    pub(super) fn finish(self) -> Result<(), FilmError> {
        self.begun.map_or(Ok(()), |begun| begun.film.finish())
    }
}
