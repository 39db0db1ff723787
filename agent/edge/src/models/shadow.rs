//! A model that passed its trial looks beside the active one, at the same frames, before it may raise an alert.
//!
//! It does so in a process of its own, as in its trial, so that whatever it does costs no frame: the analysis leaves a
//! frame in the [`Window`] when one is wanted, and never waits.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_vision::{
    Colour, Detection, Detector, DetectorOptions, FrameView, Moment, PixelFormat, Plane, Point, Polygon,
    Rect, Runtime, Scene, SceneOptions, Thresholds,
};

use super::compare::{Comparison, Look};
use super::trial::{be_expendable, is_interruption};
use crate::camera::Frame;
use crate::config::View;
use crate::sessions::is_of_the_model;

/// Frames that are enough.
const FRAMES: u64 = 200;

/// The part of one core that it may take.
const SHARE: f64 = 0.25;

/// How often it looks whether the agent ends.
const REST: Duration = Duration::from_millis(200);

/// A frame that the active model has looked at.
pub struct Glimpse {
    /// Whose, in the order of the configuration.
    pub camera: usize,
    /// The frame.
    pub frame: Frame,
    /// When it arrived.
    pub at: Moment,
    /// What the active model saw, faint objects too.
    pub detections: Vec<Detection>,
    /// From which scores on that counts.
    pub thresholds: Thresholds,
    /// The time that it took.
    pub took: Duration,
}

/// Where the analysis leaves a frame when somebody wants one. One place: who leaves something there does not wait.
#[derive(Default)]
pub struct Window {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    wanted: bool,
    glimpse: Option<Glimpse>,
    closed: bool,
}

impl Window {
    /// Leaves a frame, if one is wanted.
    pub fn offer(&self, glimpse: impl FnOnce() -> Glimpse) {
        let mut inner = self.lock();
        if std::mem::take(&mut inner.wanted) {
            inner.glimpse = Some(glimpse());
            self.changed.notify_all();
        }
    }

    /// The agent ends.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The next frame, if one comes in time.
    fn take(&self, patience: Duration) -> Option<Glimpse> {
        let mut inner = self.lock();
        inner.wanted = true;
        let empty = |inner: &mut Inner| !inner.closed && inner.glimpse.is_none();
        let waited = self.changed.wait_timeout_while(inner, patience, empty);
        let mut inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        inner.wanted = false;
        inner.glimpse.take()
    }

    /// Waits out a time, or until the agent ends.
    fn rest(&self, time: Duration) {
        drop(self.changed.wait_timeout_while(self.lock(), time, |inner| !inner.closed));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A model that is to look beside the active one.
pub struct Shadow<'a> {
    /// The agent's binary.
    pub agent: &'a Path,
    /// The model.
    pub folder: &'a Path,
    /// ONNX Runtime's library.
    pub runtime: &'a Path,
    /// How it is run.
    pub options: &'a DetectorOptions,
    /// What each camera's frames are judged by.
    pub views: &'a [View],
    /// The zone that schedules are judged in.
    pub time_zone: &'a TimeZone,
    /// The longest inference.
    pub budget: Duration,
    /// It looks for so long at most.
    pub time: Duration,
    /// A child that says nothing for this long hangs: while it loads the model, and with a frame.
    pub patience: (Duration, Duration),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// It may look.
    Passed(Comparison),
    /// It may not, and why.
    Refused(String),
    /// Nothing can be said of it, and why.
    Untried(String),
    /// The agent ends before anything can be said.
    Stopped,
}

impl Shadow<'_> {
    /// Lets it look. Blocks for as long as that takes.
    pub fn run(&self, window: &Window) -> Judgement {
        let mut child = match Looker::start(self) {
            Ok(child) => child,
            Err(error) => {
                return Judgement::Untried(format!("cannot start {}: {error}", self.agent.display()));
            }
        };
        let judged = self.watch(window, &mut child);
        child.end();
        judged.map_or_else(|why| why, Judgement::Passed)
    }

    /// The error is why it does not pass.
    fn watch(&self, window: &Window, child: &mut Looker) -> Result<Comparison, Judgement> {
        let refused = Judgement::Refused;
        let (loads, patience) = self.patience;
        let thresholds = match child.answer(loads, window)? {
            Answer::Ready { default, classes } => Thresholds { default, classes },
            Answer::Untried(why) => return Err(Judgement::Untried(why)),
            other => return Err(refused(format!("expected to hear that it is ready, heard {other:?}"))),
        };
        let mut pairs: Vec<Option<[Scene; 2]>> = self.views.iter().map(|_| None).collect();
        let rest =
            |looked: Instant| looked.elapsed().mul_f64((self.options.threads as f64 / SHARE - 1.0).max(0.0));
        let (mut comparison, started) = (Comparison::default(), Instant::now());
        while comparison.frames < FRAMES && started.elapsed() < self.time {
            if window.is_closed() {
                return Err(Judgement::Stopped);
            }
            let Some(glimpse) = window.take(REST) else { continue };
            let (Some(view), Some(pair)) = (self.views.get(glimpse.camera), pairs.get_mut(glimpse.camera))
            else {
                continue;
            };
            let looked = Instant::now();
            let told = glimpse.frame.view(|planes| child.show(planes, &view.masks));
            told.map_err(|error| refused(error.to_string()))?.map_err(|_| child.how_it_ended(window))?;
            let (objects, took) = match child.answer(patience, window)? {
                Answer::Seen { objects, took_us } => (objects, Duration::from_micros(took_us)),
                Answer::Failed(why) => {
                    comparison.fail(&why).map_err(refused)?;
                    drop(glimpse);
                    window.rest(rest(looked));
                    continue;
                }
                ready => return Err(refused(format!("expected to hear what it sees, heard {ready:?}"))),
            };
            let detections: Vec<Detection> = objects.into_iter().map(Object::detection).collect();
            let scene = |thresholds: &Thresholds| {
                let (thresholds, time_zone) = (thresholds.clone(), self.time_zone.clone());
                Scene::new(SceneOptions { thresholds, rules: view.rules.clone(), time_zone })
            };
            let [ours, theirs] = pair.get_or_insert_with(|| [scene(&glimpse.thresholds), scene(&thresholds)]);
            let alerts = |scene: &mut Scene, seen: &[Detection]| {
                scene.over(glimpse.at);
                scene.observe(glimpse.at, seen).len() as u64
            };
            let (active, new) = (alerts(ours, &glimpse.detections), alerts(theirs, &detections));
            let (of_active, time) = (&glimpse.thresholds, glimpse.took);
            comparison
                .look(
                    Look {
                        detections: &glimpse.detections,
                        thresholds: of_active,
                        alerts: active,
                        took: time,
                    },
                    Look { detections: &detections, thresholds: &thresholds, alerts: new, took },
                    self.budget,
                )
                .map_err(refused)?;
            drop(glimpse); // its place in the decoder's pool
            window.rest(rest(looked));
        }
        Ok(comparison)
    }
}

/// The process in which the model looks.
struct Looker {
    child: Child,
    answers: mpsc::Receiver<Answer>,
}

impl Looker {
    fn start(shadow: &Shadow<'_>) -> io::Result<Self> {
        let mut command = Command::new(shadow.agent);
        command.args(["model", "look"]).arg(shadow.folder).arg("--runtime").arg(shadow.runtime);
        command.arg("--options").arg(serde_json::to_string(shadow.options)?);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        // One answer to one frame.
        let (sender, answers) = mpsc::sync_channel(1);
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || {
                let lines = BufReader::new(output).lines().map_while(Result::ok);
                let mut answers = lines.filter_map(|line| serde_json::from_str(&line).ok());
                while answers.next().is_some_and(|answer| sender.send(answer).is_ok()) {}
            });
        }
        Ok(Self { child, answers })
    }

    fn show(&mut self, planes: &FrameView<'_>, masks: &[Polygon]) -> io::Result<()> {
        let header = Header {
            width: planes.width(),
            height: planes.height(),
            nv12: planes.format() == PixelFormat::Nv12,
            bt709: planes.colour() == Colour::Bt709,
            full_range: planes.full_range(),
            planes: planes.planes().iter().map(|plane| (plane.data.len(), plane.stride)).collect(),
            masks: masks.iter().map(|mask| mask.points().iter().map(|p| (p.x, p.y)).collect()).collect(),
        };
        let input = self.child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = serde_json::to_vec(&header)?;
        line.push(b'\n');
        input.write_all(&line)?;
        planes.planes().iter().try_for_each(|plane| input.write_all(plane.data))?;
        input.flush()
    }

    /// The error is why the model does not pass.
    fn answer(&mut self, patience: Duration, window: &Window) -> Result<Answer, Judgement> {
        let started = Instant::now();
        while started.elapsed() < patience {
            match self.answers.recv_timeout(REST) {
                Ok(answer) => return Ok(answer),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(self.how_it_ended(window)),
                Err(mpsc::RecvTimeoutError::Timeout) if window.is_closed() => return Err(Judgement::Stopped),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
        Err(Judgement::Refused(format!("it hangs: nothing for {} s", patience.as_secs())))
    }

    fn how_it_ended(&mut self, window: &Window) -> Judgement {
        match self.child.wait() {
            _ if window.is_closed() => Judgement::Stopped,
            Ok(how) if is_interruption(how) => {
                Judgement::Untried(format!("the process that it looks in was ended: {how}"))
            }
            Ok(how) => Judgement::Refused(format!("it ends the process that it looks in: {how}")),
            Err(error) => Judgement::Untried(error.to_string()),
        }
    }

    fn end(&mut self) {
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
    }
}

/// What goes before a frame's planes.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    width: u32,
    height: u32,
    nv12: bool,
    bt709: bool,
    full_range: bool,
    /// Bytes, and bytes of a row.
    planes: Vec<(usize, usize)>,
    masks: Vec<Vec<(f32, f32)>>,
}

/// What a child says on its standard output, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Ready { default: f32, classes: BTreeMap<ObjectClass, f32> },
    Seen { objects: Vec<Object>, took_us: u64 },
    Failed(String),
    Untried(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Object {
    class: ObjectClass,
    score: f32,
    bounds: [f32; 4],
}

impl Object {
    fn of(detection: &Detection) -> Self {
        let Rect { left, top, width, height } = detection.bounds;
        Self { class: detection.class, score: detection.score, bounds: [left, top, width, height] }
    }

    fn detection(self) -> Detection {
        let [left, top, width, height] = self.bounds;
        Detection { class: self.class, score: self.score, bounds: Rect { left, top, width, height } }
    }
}

/// The other end of [`Shadow`]: looks at the frames that come on standard input, until there are no more.
pub fn for_parent(folder: &Path, runtime: &Path, options: &DetectorOptions) -> Result<(), String> {
    be_expendable();
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let say = |answer: &Answer| -> Result<(), String> {
        let mut out = io::stdout().lock();
        let line = serde_json::to_string(answer).map_err(|error| text(&error))?;
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| text(&error))
    };
    let runtime = match Runtime::load(runtime) {
        Ok(runtime) => runtime,
        Err(error) => return say(&Answer::Untried(text(&error))),
    };
    let mut detector = match Detector::load(&runtime, folder, options) {
        Ok(detector) => detector,
        Err(error) if !is_of_the_model(&error) => return say(&Answer::Untried(text(&error))),
        Err(error) => return Err(text(&error)),
    };
    let Thresholds { default, classes } = detector.model().thresholds.clone();
    say(&Answer::Ready { default, classes })?;
    let mut input = BufReader::new(io::stdin().lock());
    let mut line = String::new();
    while input.read_line(&mut line).map_err(|error| text(&error))? > 0 {
        let header: Header = serde_json::from_str(&line).map_err(|error| text(&error))?;
        line.clear();
        let mut planes = Vec::new();
        for (bytes, _) in &header.planes {
            let mut plane = vec![0; *bytes];
            input.read_exact(&mut plane).map_err(|error| text(&error))?;
            planes.push(plane);
        }
        let started = Instant::now();
        let seen = look(&mut detector, &header, &planes);
        let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        say(&seen.map_or_else(Answer::Failed, |objects| Answer::Seen { objects, took_us }))?;
    }
    Ok(())
}

fn look(detector: &mut Detector, header: &Header, planes: &[Vec<u8>]) -> Result<Vec<Object>, String> {
    let planes: Vec<Plane<'_>> = planes
        .iter()
        .zip(&header.planes)
        .map(|(data, (_, stride))| Plane { data, stride: *stride })
        .collect();
    let format = if header.nv12 { PixelFormat::Nv12 } else { PixelFormat::I420 };
    let colour = if header.bt709 { Colour::Bt709 } else { Colour::Bt601 };
    let frame = FrameView::new(header.width, header.height, format, colour, header.full_range, &planes)
        .map_err(|error| error.to_string())?;
    let masks = header
        .masks
        .iter()
        .map(|points| Polygon::new(points.iter().map(|&(x, y)| Point { x, y }).collect()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    let seen = detector.detect(&frame, &masks).map_err(|error| error.to_string())?;
    Ok(seen.iter().map(Object::of).collect())
}

#[cfg(test)]
mod tests {
    use super::super::trial::testing;
    use super::*;

    /// What comes of a look in a process that does this.
    fn looked(does: &str, closed: bool) -> Judgement {
        let folder = tempfile::tempdir().unwrap();
        let (window, second) = (Window::default(), Duration::from_secs(1));
        if closed {
            window.close();
        }
        let shadow = Shadow {
            agent: &testing::agent(folder.path(), does),
            folder: folder.path(),
            runtime: Path::new("/nowhere"),
            options: &DetectorOptions::default(),
            views: &[],
            time_zone: &TimeZone::UTC,
            budget: second,
            time: second,
            patience: (60 * second, 60 * second),
        };
        shadow.run(&window)
    }

    #[test]
    fn what_ends_the_process_speaks_against_the_model_unless_somebody_stops_the_agent() {
        // Where tests run in the background, what they start would ignore some of these.
        for signal in ["TERM", "INT", "HUP"] {
            let judged = looked(&format!("exec env --default-signal sh -c 'kill -{signal} $$'"), false);
            assert!(matches!(judged, Judgement::Untried(_)), "{signal}: {judged:?}");
        }
        let judged = looked(r#"echo '{"untried":"no memory"}'"#, false);
        assert_eq!(judged, Judgement::Untried("no memory".into()));
        for does in ["kill -KILL $$", "kill -SEGV $$", "kill -ABRT $$", "exit 1"] {
            let judged = looked(does, false);
            assert!(matches!(judged, Judgement::Refused(_)), "{does}: {judged:?}");
            assert_eq!(looked(does, true), Judgement::Stopped, "{does}");
        }
    }
}
