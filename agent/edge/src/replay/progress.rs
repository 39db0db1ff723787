//! How far a replay has got: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::name_of;
use super::report::clock;
use crate::camera::Played;

/// Between two lines, in time of the clip.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// What is shown on standard error.
pub struct Progress(Kind);

enum Kind {
    Bar(ProgressBar),
    Lines { clip: String, due: Duration },
    Quiet,
}

impl Progress {
    /// Of a clip that has not begun.
    pub fn new(clip: &Path) -> Self {
        let clip = name_of(clip);
        if !stderr().is_terminal() {
            return Self(Kind::Lines { clip, due: LINE_EVERY });
        }
        // In milliseconds of the clip.
        let style = ProgressStyle::with_template("{prefix} {wide_bar:.cyan/dim} {msg}")
            .expect("a constant template is right")
            .progress_chars("━╸─");
        Self(Kind::Bar(ProgressBar::new(0).with_style(style).with_prefix(clip)))
    }

    /// Of a clip that nobody waits for.
    pub fn quiet() -> Self {
        Self(Kind::Quiet)
    }

    pub(super) fn show(&mut self, played: Played) {
        let of = played.of.map(|of| format!(" of {}", clock(of))).unwrap_or_default();
        match &mut self.0 {
            Kind::Bar(bar) => {
                let milliseconds = |time: Duration| time.as_millis() as u64;
                bar.set_length(played.of.map_or(0, milliseconds).max(milliseconds(played.at)));
                bar.set_position(milliseconds(played.at));
                bar.set_message(clock(played.at) + &of);
            }
            Kind::Lines { clip, due } => {
                if played.at >= *due {
                    eprintln!("{clip}: {}{of}", clock(played.at));
                    *due += LINE_EVERY;
                }
            }
            Kind::Quiet => {}
        }
    }

    pub(super) fn done(&self) {
        if let Kind::Bar(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
