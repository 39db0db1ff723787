//! What a camera sends and what that costs here, for [`crate::print::bench_box`]: the daemon's own ingest and decoder, with
//! nobody behind them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::bitstream::{Bitstream, Codec, UnitFacts};
use super::decode::{DecodeOptions, Decoder, Want};
use super::ingest::{AccessUnit, Ingest};
use super::{CameraError, CameraOptions, Frame, FrameSink, Look, look, watchdog};
use crate::board::Board;
use crate::camera::GateOptions;
use crate::secret::Secret;

/// Compressed bytes that are kept of one camera: what comes after them is received and not kept.
const BYTES_MAX: usize = 64 << 20;

/// A camera that sends.
pub struct Listening {
    options: CameraOptions,
    ingest: Ingest,
    events: mpsc::Receiver<CameraError>,
    keeps: Arc<AtomicBool>,
    units: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    units: Vec<(AccessUnit, UnitFacts)>,
    bytes: usize,
}

/// What a camera sent while it was listened to. In memory, and nowhere else.
pub struct Recording {
    options: CameraOptions,
    units: Vec<(AccessUnit, UnitFacts)>,
    span: Duration,
    bytes: usize,
}

/// What became of a recording.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// How much of the camera's time it was.
    pub span: Duration,
    /// The last one that the detector would have been shown.
    pub last: Option<Frame>,
}

impl Listening {
    /// Connects, and waits for the first access unit.
    pub async fn to(options: &CameraOptions) -> Result<Self, CameraError> {
        let login = match &options.login {
            Some((user, file)) => Some((user.clone(), Secret::read(file)?)),
            None => None,
        };
        // The first error is the answer; if 16 wait, what else comes adds nothing and is dropped.
        let (failed, mut events) = mpsc::channel(16);
        let (first, mut arrived) = mpsc::channel(1); // full: it is known already
        let keeps = Arc::new(AtomicBool::new(false));
        let units = Arc::new(Mutex::new(Kept::default()));
        let on_unit = {
            let (keeps, units) = (keeps.clone(), units.clone());
            let mut bitstream = None;
            move |unit: AccessUnit| {
                let _ = first.try_send(());
                // As the gate does with every unit of a sleeping camera.
                let facts = unit.facts(bitstream.get_or_insert_with(|| Bitstream::new(unit.codec())));
                if keeps.load(Ordering::Relaxed) {
                    units.lock().unwrap_or_else(PoisonError::into_inner).keep(unit, facts);
                }
                Ok(())
            }
        };
        let ingest = Ingest::start(options, login, on_unit, failed)?;
        let outcome = tokio::select! {
            event = events.recv() => Err(event.unwrap_or(CameraError::Ended)),
            _ = arrived.recv() => Ok(()),
            () = tokio::time::sleep(watchdog::CONNECT) => Err(CameraError::NoStream(watchdog::CONNECT)),
        };
        match outcome {
            Ok(()) => Ok(Self { options: options.clone(), ingest, events, keeps, units }),
            Err(error) => {
                ingest.stop().await;
                Err(error)
            }
        }
    }

    /// Listens for a while, and lets the camera go.
    pub async fn record(mut self, span: Duration) -> Result<Recording, CameraError> {
        self.keeps.store(true, Ordering::Relaxed);
        let ended = tokio::time::timeout(span, self.events.recv()).await;
        self.keeps.store(false, Ordering::Relaxed);
        self.ingest.stop().await;
        if let Ok(error) = ended {
            return Err(error.unwrap_or(CameraError::Ended));
        }
        let Kept { units, bytes } =
            std::mem::take(&mut *self.units.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Recording { options: self.options, units, span, bytes })
    }
}

impl Kept {
    fn keep(&mut self, unit: AccessUnit, facts: UnitFacts) {
        if self.bytes + unit.size() <= BYTES_MAX {
            self.bytes += unit.size();
            self.units.push((unit, facts));
        }
    }
}

impl Recording {
    /// Frames per second.
    pub fn fps(&self) -> f64 {
        self.units.len() as f64 / self.span.as_secs_f64()
    }

    /// Compressed bits per second.
    pub fn bitrate(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.span.as_secs_f64()
    }

    /// Time between keyframes; `None` where none came.
    pub fn keyframe_interval(&self) -> Option<Duration> {
        let keyframes = self.units.iter().filter(|(_, facts)| facts.keyframe).count();
        (keyframes > 0).then(|| self.span / u32::try_from(keyframes).unwrap_or(u32::MAX))
    }

    /// "H.264 1920x1080", by the parser.
    pub fn kind(&self) -> String {
        let Some((unit, _)) = self.units.first() else { return "nothing".into() };
        let codec = match unit.codec() {
            Codec::H264 => "H.264",
            Codec::H265 => "H.265",
        };
        let structure = unit.caps().structure(0);
        let side = |name| structure.and_then(|structure| structure.get::<i32>(name).ok()).unwrap_or(0);
        format!("{codec} {}x{}", side("width"), side("height"))
    }

    /// Decodes everything from the first keyframe on, as fast as it goes, and compares frames as the gate does.
    pub async fn decode(&self) -> Result<Decoded, CameraError> {
        let before_keyframe = self.units.iter().take_while(|(_, facts)| !facts.keyframe).count();
        let units = &self.units[before_keyframe..];
        let Some((first, _)) = units.first() else {
            return Ok(Decoded { span: Duration::ZERO, last: None });
        };
        let board = Board::new([(self.options.name.clone(), GateOptions::default(), None)]);
        let card = board.cameras[0].clone();
        let last = Arc::new(Mutex::new(None));
        let keep: FrameSink = {
            let last = last.clone();
            Arc::new(move |frame| *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(frame))
        };
        let shown = look(&self.options, keep, card.clone());
        let frames: FrameSink = Arc::new(move |frame| shown(frame, Look::Live));
        let (failed, mut events) = mpsc::channel(16); // full: an earlier error is the answer already
        let options =
            DecodeOptions { decoder: self.options.decoder.clone(), analysed_fps: self.options.analysed_fps };
        let mut decoder = Decoder::start(&options, first.caps(), frames, card, failed)?;
        for (unit, facts) in units {
            decoder.push(unit.clone(), Want::Look { late: false }, facts.reference)?;
        }
        decoder.end()?;
        match events.recv().await {
            Some(CameraError::Ended) | None => {}
            Some(error) => return Err(error),
        }
        let last = last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let span = self.span.mul_f64(units.len() as f64 / self.units.len() as f64);
        Ok(Decoded { span, last })
    }
}
