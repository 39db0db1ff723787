//! What is known of every camera, of the detector and of the configuration: written where things happen, read for health and metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sharp_eyes_protocol::alert::Tampering;
use sharp_eyes_protocol::report::{
    CameraHealth, CameraState, ConfigurationHealth, DetectorHealth, DetectorState,
};
use sharp_eyes_protocol::topic::Name;
use sharp_eyes_vision::{Impression, Tamper, TamperOptions};

use crate::camera::gate::{Gate, GateMode, GateOptions};
use crate::latency::{Latency, Samples};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Some more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Every camera, the detector that they share, and what came from outside.
#[derive(Debug)]
pub struct Board {
    /// In the order of the configuration.
    pub cameras: Vec<Arc<CameraCard>>,
    /// The detector.
    pub detector: DetectorCard,
    /// The configuration from outside.
    configuration: Mutex<Option<ConfigurationHealth>>,
}

impl Board {
    /// Nothing is connected yet. Each camera has a name, a gate, and a watch on tampering where that is wanted.
    pub fn new(cameras: impl IntoIterator<Item = (Name, GateOptions, Option<TamperOptions>)>) -> Self {
        let card = |(name, gate, tamper)| Arc::new(CameraCard::new(name, gate, tamper));
        Self {
            cameras: cameras.into_iter().map(card).collect(),
            detector: DetectorCard::new(),
            configuration: Mutex::default(),
        }
    }

    /// What is in force of what came from outside.
    pub fn tell_configuration(&self, health: ConfigurationHealth) {
        *self.configuration.lock().unwrap_or_else(PoisonError::into_inner) = Some(health);
    }

    /// The same, where the box takes any.
    pub fn configuration(&self) -> Option<ConfigurationHealth> {
        self.configuration.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One camera.
#[derive(Debug)]
#[allow(missing_docs)] // the counters are those of CameraHealth
pub struct CameraCard {
    pub name: Name,
    pub received: Counter,
    /// Access units that the decoder was given, or would have been were it not behind; not in health.
    pub admitted: Counter,
    pub skipped: Counter,
    pub decoded: Counter,
    pub analysed: Counter,
    pub dropped: Counter,
    pub detections: Counter,
    pub untracked: Counter,
    pub alerts: Counter,
    /// Frames in a row that could not be looked at; not in health.
    pub overlooked: AtomicU64,
    failures: Counter,
    sight: Mutex<Sight>,
    sleeps: bool,
    gate: Mutex<Gate>,
    tamper: Option<Mutex<TamperWatch>>,
}

/// What is known of tampering.
#[derive(Debug)]
struct TamperWatch {
    tamper: Tamper,
    started: Instant,
    looked: Option<Instant>,
}

/// A camera that is awake is looked at for tampering this often: none is done in less.
const TAMPER_LOOKS: Duration = Duration::from_millis(900);

#[derive(Debug)]
struct Sight {
    state: CameraState,
    reason: Option<String>,
    stream: Option<String>,
    blind_since: Option<Instant>,
    /// When the last time that it was blind ended.
    streaming_since: Instant,
    /// Pictures come, and the detector fails at them.
    overlooked_since: Option<Instant>,
    blind_before: Duration,
}

impl CameraCard {
    fn new(name: Name, gate: GateOptions, tamper: Option<TamperOptions>) -> Self {
        Self::with_gate(name, gate.mode, Gate::new(gate, Instant::now()), tamper)
    }

    /// The card of a clip that is replayed, whose gate audits at the same times in each replay.
    pub(crate) fn of_clip(name: Name, options: GateOptions, start: Instant) -> Self {
        let gate = Gate::with_dice(options, start, fastrand::Rng::with_seed(0));
        Self::with_gate(name, options.mode, gate, None)
    }

    fn with_gate(name: Name, mode: GateMode, gate: Gate, tamper: Option<TamperOptions>) -> Self {
        let sight = Sight {
            state: CameraState::Connecting,
            reason: None,
            stream: None,
            blind_since: Some(Instant::now()),
            streaming_since: Instant::now(),
            overlooked_since: None,
            blind_before: Duration::ZERO,
        };
        Self {
            name,
            received: Counter::default(),
            admitted: Counter::default(),
            skipped: Counter::default(),
            decoded: Counter::default(),
            analysed: Counter::default(),
            dropped: Counter::default(),
            detections: Counter::default(),
            untracked: Counter::default(),
            alerts: Counter::default(),
            overlooked: AtomicU64::new(0),
            failures: Counter::default(),
            sight: Mutex::new(sight),
            sleeps: mode != GateMode::Always,
            gate: Mutex::new(gate),
            tamper: tamper.map(|options| {
                let (tamper, started) = (Tamper::new(options), Instant::now());
                Mutex::new(TamperWatch { tamper, started, looked: None })
            }),
        }
    }

    fn tamper(&self) -> Option<MutexGuard<'_, TamperWatch>> {
        self.tamper.as_ref().map(|watch| watch.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a picture of now would say something about tampering.
    pub fn wants_impression(&self, now: Instant) -> bool {
        let due = |looked: Instant| now.saturating_duration_since(looked) >= TAMPER_LOOKS;
        self.tamper().is_some_and(|watch| watch.looked.is_none_or(due))
    }

    /// Takes a picture as far as tampering shows in it.
    pub fn impression(&self, now: Instant, seen: &Impression) {
        if let Some(mut watch) = self.tamper() {
            watch.looked = Some(now);
            let since = now.saturating_duration_since(watch.started);
            watch.tamper.observe(since, seen);
        }
    }

    /// What was done to it, as far as that is watched.
    pub fn tampering(&self) -> Option<Tampering> {
        self.tamper().and_then(|watch| watch.tamper.found())
    }

    /// Whether it was turned away, so that rules about places say nothing.
    pub fn is_displaced(&self) -> bool {
        self.tamper().is_some_and(|watch| watch.tamper.is_displaced())
    }

    /// Whether no pictures come.
    pub fn is_blind(&self) -> bool {
        self.sight().blind_since.is_some()
    }

    /// What decides whether it sleeps. Asked for every access unit: hold it for no longer than a look at a small picture.
    pub fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sight(&self) -> MutexGuard<'_, Sight> {
        self.sight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pictures come.
    pub fn streaming(&self) {
        let mut sight = self.sight();
        if let Some(since) = sight.blind_since.take() {
            sight.blind_before += since.elapsed();
            sight.streaming_since = Instant::now();
        }
        if sight.state != CameraState::Streaming {
            (sight.state, sight.reason) = (CameraState::Streaming, None);
            tracing::info!(camera = %self.name, stream = sight.stream, "streaming");
        }
    }

    /// No pictures come, why, and since when, which may have been noticed late.
    pub fn failed(&self, state: CameraState, reason: &str, since: Instant) {
        self.failures.increment();
        let mut sight = self.sight();
        let since = since.max(sight.streaming_since); // what was before is counted
        let since = sight.overlooked_since.take().map_or(since, |overlooked| overlooked.min(since));
        sight.blind_since.get_or_insert(since);
        self.overlooked.store(0, Ordering::Relaxed);
        (sight.state, sight.reason) = (state, Some(reason.to_owned()));
    }

    /// The detector looked at a picture from `started` on. Whether that time counts as blind by itself, as of a failure or
    /// of the end of several.
    pub fn looked(&self, started: Instant, failed: bool) -> bool {
        let mut sight = self.sight();
        if failed {
            self.overlooked.fetch_add(1, Ordering::Relaxed);
            if sight.blind_since.is_none() {
                sight.overlooked_since.get_or_insert(started);
            }
            return true;
        }
        self.overlooked.store(0, Ordering::Relaxed);
        let since = sight.overlooked_since.take();
        if let Some(since) = since {
            sight.blind_before += since.elapsed();
        }
        since.is_some()
    }

    /// The detector was busy with one picture, of whichever camera, for so long that nobody looked at this one.
    pub fn waited(&self, time: Duration) {
        let mut sight = self.sight();
        if sight.blind_since.is_none() && sight.overlooked_since.is_none() {
            sight.blind_before += time;
        }
    }

    /// What kind of stream it is.
    pub fn stream(&self, description: String) {
        self.sight().stream = Some(description);
    }

    /// All of it.
    pub fn health(&self) -> CameraHealth {
        let gate = self.sleeps.then(|| self.gate().health(Instant::now()));
        let sight = self.sight();
        let since = sight.blind_since.or(sight.overlooked_since);
        let blind = sight.blind_before + since.map_or(Duration::ZERO, |since| since.elapsed());
        CameraHealth {
            name: self.name.clone(),
            state: sight.state,
            reason: sight.reason.clone(),
            tampered: self.tampering(),
            stream: sight.stream.clone(),
            received: self.received.get(),
            skipped: self.skipped.get(),
            decoded: self.decoded.get(),
            analysed: self.analysed.get(),
            dropped: self.dropped.get(),
            blind_s: (blind.as_secs_f64() * 10.0).round() / 10.0,
            failures: self.failures.get(),
            detections: self.detections.get(),
            untracked: self.untracked.get(),
            alerts: self.alerts.get(),
            gate,
        }
    }
}

/// The detector.
#[derive(Debug)]
pub struct DetectorCard {
    failures: Counter,
    work: Mutex<Work>,
}

#[derive(Debug)]
struct Work {
    state: DetectorState,
    reason: Option<String>,
    inferences: u64,
    busy: Duration,
    heartbeat: Instant,
    wakeups: Samples,
    looking_since: Option<Instant>,
}

impl DetectorCard {
    fn new() -> Self {
        let work = Work {
            state: DetectorState::Loading,
            reason: None,
            inferences: 0,
            busy: Duration::ZERO,
            heartbeat: Instant::now(),
            wakeups: Samples::default(),
            looking_since: None,
        };
        Self { failures: Counter::default(), work: Mutex::new(work) }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model is loaded, or works again.
    pub fn running(&self) {
        let mut work = self.work();
        (work.state, work.reason) = (DetectorState::Running, None);
    }

    /// Nothing is looked at, and why.
    pub fn failed(&self, reason: &str) {
        self.failures.increment();
        let mut work = self.work();
        (work.state, work.reason) = (DetectorState::Failed, Some(reason.to_owned()));
    }

    /// One frame was looked at, or several at once.
    pub fn inferred(&self, took: Duration) {
        let mut work = self.work();
        work.inferences += 1;
        work.busy += took;
    }

    /// A frame of a camera that was woken was looked at for the first time, so long after what woke it arrived.
    pub fn woke(&self, took: Duration) {
        self.work().wakeups.add(took);
    }

    /// How long that took lately.
    pub fn wakeups(&self) -> Latency {
        self.work().wakeups.summary()
    }

    /// The mean time of a look; none before the first.
    pub fn mean(&self) -> Duration {
        let work = self.work();
        work.busy.div_f64(work.inferences.max(1) as f64)
    }

    /// The analysis thread is alive.
    pub fn beat(&self) {
        self.work().heartbeat = Instant::now();
    }

    /// A frame is looked at from now on, or no longer.
    pub fn looking(&self, since: Option<Instant>) {
        self.work().looking_since = since;
    }

    /// For how long one frame has been looked at by now.
    pub fn looking_for(&self) -> Duration {
        self.work().looking_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Since the analysis thread last said that it is alive.
    pub fn silence(&self) -> Duration {
        self.work().heartbeat.elapsed()
    }

    /// All of it.
    pub fn health(&self) -> DetectorHealth {
        let work = self.work();
        let mean_ms = work.busy.as_secs_f64() * 1000.0 / work.inferences.max(1) as f64;
        DetectorHealth {
            state: work.state,
            reason: work.reason.clone(),
            inferences: work.inferences,
            inference_ms: (mean_ms * 100.0).round() / 100.0,
            failures: self.failures.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> CameraCard {
        let options = GateOptions { mode: GateMode::Always, ..GateOptions::default() };
        CameraCard::new(Name::new("gate").unwrap(), options, None)
    }

    /// Seconds before now, as the times that are counted are whole seconds here.
    fn ago(seconds: u64) -> Instant {
        Instant::now() - Duration::from_secs(seconds)
    }

    #[test]
    fn a_camera_whose_pictures_nobody_looks_at_is_blind() {
        let card = card();
        card.streaming();
        let before = card.health().blind_s;
        let more = || (card.health().blind_s - before).round();
        card.looked(ago(7), false);
        assert_eq!(more(), 0.0);
        card.looked(ago(7), true);
        card.looked(ago(2), true);
        assert_eq!((more(), card.overlooked.load(Ordering::Relaxed)), (7.0, 2));
        card.waited(Duration::from_secs(5)); // which is counted already
        card.looked(ago(0), false);
        assert_eq!((more(), card.overlooked.load(Ordering::Relaxed)), (7.0, 0));
        card.waited(Duration::from_secs(5));
        assert_eq!(more(), 12.0);
        card.looked(ago(3), true);
        card.failed(CameraState::Failed, "gone", ago(0)); // blind all the time, once
        assert_eq!(more(), 15.0);
        card.waited(Duration::from_secs(5));
        card.streaming();
        assert_eq!(more(), 15.0);
    }

    #[test]
    fn a_camera_was_blind_before_that_was_noticed() {
        let card = card();
        card.streaming();
        card.failed(CameraState::Failed, "silent", ago(4));
        assert_eq!(card.health().blind_s.round(), 0.0, "it was blind until now, which is counted");
        card.streaming();
        card.sight().streaming_since = ago(60);
        card.failed(CameraState::Failed, "silent", ago(4));
        assert_eq!(card.health().blind_s.round(), 4.0);
        card.failed(CameraState::Failed, "away", ago(0));
        card.streaming();
        assert_eq!(card.health().blind_s.round(), 4.0);
    }
}
