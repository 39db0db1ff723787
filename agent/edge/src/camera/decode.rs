//! Access units to frames: `appsrc ! decoder ! appsink`, in the decoder's own planes.
//!
//! [`Decoder`] follows an awake camera; [`super::glance`] decodes one keyframe of a sleeping one.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use tokio::sync::mpsc;

use super::frame::Frame;
use super::gate::CHECK_FPS;
use super::ingest::AccessUnit;
use super::threads::give_way;
use super::{CameraError, FrameSink, bus};
use crate::board::CameraCard;

/// How frames are made.
#[derive(Clone, Debug)]
pub(super) struct DecodeOptions {
    /// GStreamer's name of the decoder; the best by rank otherwise.
    pub(super) decoder: Option<String>,
    /// Frames per second that somebody looks at; the others are not decoded where no other frame needs them, and leave the
    /// decoder to be dropped unmapped where one does.
    pub(super) analysed_fps: f32,
}

/// What a frame is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Others refer to it, and nobody looks at it.
    Reference,
    /// To look at it. Late: it arrived before the camera woke up.
    Look { late: bool },
    /// The same, often enough to check whether anything happens, however few frames are analysed.
    Check,
}

/// A running decode pipeline. Ends when dropped.
pub(super) struct Decoder {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    name: String,
    caps: gst::Caps,
    samplers: Samplers,
    arrivals: Arc<Mutex<Arrivals>>,
    work: Arc<Work>,
}

impl Drop for Decoder {
    fn drop(&mut self) {
        bus::stop(self.pipeline.clone());
    }
}

impl Decoder {
    pub(super) fn start(
        options: &DecodeOptions,
        caps: &gst::CapsRef,
        frames: FrameSink,
        card: Arc<CameraCard>,
        failed: mpsc::Sender<CameraError>,
    ) -> Result<Self, CameraError> {
        let caps = caps.to_owned();
        let decoder = choose(options.decoder.as_deref(), &caps, Kind::Any)?;
        let name = decoder.factory().map(|factory| factory.name().to_string()).unwrap_or_default();
        tune(&decoder);
        let pipeline = gst::Pipeline::builder().name(format!("decode-{}", card.name)).build();
        bus::forward(&pipeline, give_way, failed, |error| CameraError::Decode(error.text()));
        // Bounded by the gate, which admits nothing while `backlog` is at its limit; never blocks the receiving thread.
        let source = gst_app::AppSrc::builder()
            .caps(&caps)
            .format(gst::Format::Time)
            .block(false)
            .max_bytes(0)
            .build();
        // Does nothing (passthrough) for the formats that are read as they are; 4:2:2 and others pass here.
        let convert = gst::ElementFactory::make("videoconvert").build()?;
        let sink = planes();
        let arrivals = Arc::new(Mutex::new(Arrivals::default()));
        let work = Arc::new(Work::default());
        work.watch(&source);
        sink.set_callbacks(take_frames(&caps, &name, arrivals.clone(), work.clone(), frames, card));

        let chain = [source.upcast_ref::<gst::Element>(), &decoder, &convert, sink.upcast_ref()];
        pipeline.add_many(chain)?;
        gst::Element::link_many(chain)?;
        let samplers = Samplers::new(options.analysed_fps);
        let decoder = Self { pipeline, source, name, caps, samplers, arrivals, work };
        decoder
            .pipeline
            .set_state(gst::State::Playing)
            .map_err(|error| CameraError::Decode(error.to_string()))?;
        Ok(decoder)
    }

    /// GStreamer's name of the decoder.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Access units that wait for the decoder.
    pub(super) fn backlog(&self) -> u64 {
        self.source.current_level_buffers()
    }

    /// Hands an access unit to the decoder, unless nobody wants to look at it and no other refers to it. Whether it did.
    pub(super) fn push(
        &mut self,
        unit: AccessUnit,
        want: Want,
        reference: bool,
    ) -> Result<bool, CameraError> {
        if unit.caps() != self.caps.as_ref() {
            // The resolution changed in mid-stream: the decoder adapts at this keyframe.
            self.caps = unit.caps().to_owned();
            self.source.set_caps(Some(&self.caps));
        }
        let arrived = unit.arrived();
        let sample = unit.into_sample();
        let Some(buffer) = sample.buffer_owned() else { return Ok(false) };
        let want = self.samplers.sample(want, buffer.pts(), arrived);
        if want == Want::Reference && !reference {
            return Ok(false);
        }
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).note(buffer.pts(), arrived, want);
        self.work.change(|done| done.pushed += 1);
        match self.source.push_buffer(buffer) {
            Ok(_) => Ok(true),
            Err(error) => Err(CameraError::Decode(error.to_string())),
        }
    }

    /// Whether everything that it was handed has passed, but for what it holds back to put it in order. Waits for it.
    pub(super) fn settled(&self, patience: Duration) -> bool {
        self.work.wait(patience, |done| done.finished == done.pushed)
    }

    /// Hands it nothing more: [`CameraError::Ended`] says when the last frame is out.
    pub(super) fn end(&self) -> Result<(), CameraError> {
        self.source.end_of_stream().map(drop).map_err(|error| CameraError::Decode(error.to_string()))
    }

    /// Whether everything has passed after [`Decoder::end`]. Waits for it.
    pub(super) fn drained(&self, patience: Duration) -> bool {
        self.work.wait(patience, |done| done.ended)
    }
}

/// How far a decoder has got, for whoever goes in step with it.
///
/// A decoder in software works on the thread that takes access units out of the source: when that asks for the next one,
/// it has finished with those before. One in hardware may still be at work then; whoever waits is only a little early.
#[derive(Default)]
struct Work {
    done: Mutex<Done>,
    changed: Condvar,
}

#[derive(Default)]
struct Done {
    /// Access units handed to the source, taken out of it, and finished with.
    pushed: u64,
    taken: u64,
    finished: u64,
    ended: bool,
}

impl Work {
    fn watch(self: &Arc<Self>, source: &gst_app::AppSrc) {
        let work = self.clone();
        let entry = source.static_pad("src").expect("an appsrc has a source pad");
        entry.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            work.change(|done| done.taken += 1);
            gst::PadProbeReturn::Ok
        });
        let work = self.clone();
        let next = move |_: &gst_app::AppSrc, _| work.change(|done| done.finished = done.taken);
        source.set_callbacks(gst_app::AppSrcCallbacks::builder().need_data(next).build());
    }

    fn change(&self, change: impl FnOnce(&mut Done)) {
        change(&mut self.done.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn wait(&self, patience: Duration, until: impl Fn(&Done) -> bool) -> bool {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(done, patience, |done| !until(done));
        until(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

fn take_frames(
    caps: &gst::Caps,
    decoder: &str,
    arrivals: Arc<Mutex<Arrivals>>,
    work: Arc<Work>,
    frames: FrameSink,
    card: Arc<CameraCard>,
) -> gst_app::AppSinkCallbacks {
    let codec = match caps.structure(0).map(|structure| structure.name().as_str()) {
        Some("video/x-h265") => "H.265",
        _ => "H.264",
    };
    let decoder = decoder.to_owned();
    let mut format: Option<(gst::Caps, gst_video::VideoInfo)> = None;
    gst_app::AppSinkCallbacks::builder()
        .eos(move |_| work.change(|done| done.ended = true))
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            card.decoded.increment();
            let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps()) else {
                return Ok(gst::FlowSuccess::Ok);
            };
            let (arrived, want) = arrivals.lock().unwrap_or_else(PoisonError::into_inner).of(buffer.pts());
            let Want::Look { late } = want else { return Ok(gst::FlowSuccess::Ok) };
            let info = match &format {
                Some((known, info)) if known.as_ref() == caps => info.clone(),
                _ => {
                    let info =
                        gst_video::VideoInfo::from_caps(caps).map_err(|_| gst::FlowError::NotNegotiated)?;
                    card.stream(format!("{codec} {}x{} by {decoder}", info.width(), info.height()));
                    format = Some((caps.to_owned(), info.clone()));
                    info
                }
            };
            frames(Frame::new(buffer, info, arrived).late(late));
            Ok(gst::FlowSuccess::Ok)
        })
        .build()
}

/// Where frames come out, in one of the formats that are read as they are. Whoever takes them does so at once, so that
/// the one buffer allowed here never waits. Planes may lie in memory as the decoder likes it: one that had to pack them
/// would copy every frame.
pub(super) fn planes() -> gst_app::AppSink {
    use gst_video::VideoFormat::{I420, I42010le, Nv12, P01010le};
    let wanted = gst_video::VideoCapsBuilder::new().format_list([I420, Nv12, I42010le, P01010le]).build();
    let sink = gst_app::AppSink::builder().caps(&wanted).sync(false).max_buffers(1).build();
    // An appsink can answer this itself from GStreamer 1.24 on.
    let pad = sink.static_pad("sink").expect("a sink has a sink pad");
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, probe| {
        match probe.query_mut().map(gst::QueryRef::view_mut) {
            Some(gst::QueryViewMut::Allocation(query)) => {
                query.add_allocation_meta::<gst_video::VideoMeta>(None);
                gst::PadProbeReturn::Handled
            }
            _ => gst::PadProbeReturn::Ok,
        }
    });
    sink
}

/// What libav's decoders are told; others have no such properties. Frame threads add a frame of delay each, and the box has a
/// camera per core to keep busy. Of streams that do not say how far they reorder pictures, they hold back as many as the
/// level allows, 13 in a small picture, unless they are to guess from what they see. A picture rendered straight into
/// GStreamer's memory is copied on its way out all the same, because libav keeps it mapped, and into memory that is allocated
/// for it alone; the others are copied into a pool's.
const OF_LIBAV: [(&str, &str); 3] =
    [("max-threads", "1"), ("std-compliance", "normal"), ("direct-rendering", "false")];

/// Tells a decoder what it needs to know.
pub(super) fn tune(decoder: &gst::Element) {
    for (property, value) in OF_LIBAV {
        if decoder.find_property(property).is_some() {
            decoder.set_property_from_str(property, value);
        }
    }
}

/// Every video decoder that GStreamer knows, the best first. Cameras that sleep choose one every few seconds.
static DECODERS: LazyLock<Vec<gst::ElementFactory>> = LazyLock::new(|| {
    let decoders = gst::ElementFactory::factories_with_type(
        gst::ElementFactoryType::DECODER | gst::ElementFactoryType::MEDIA_VIDEO,
        gst::Rank::MARGINAL,
    );
    let mut decoders: Vec<_> = decoders.into_iter().collect();
    decoders.sort_by_key(|factory| std::cmp::Reverse(factory.rank()));
    decoders
});

/// Which decoders are fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Any,
    Software,
}

/// The decoder: the named one, or the first by rank that takes these caps and whose device is there.
pub(super) fn choose(named: Option<&str>, caps: &gst::Caps, kind: Kind) -> Result<gst::Element, CameraError> {
    if let Some(name) = named {
        let usable = |factory: &gst::ElementFactory| factory.can_sink_any_caps(caps);
        let factory = gst::ElementFactory::find(name).filter(usable);
        let element = factory.and_then(|factory| factory.create().build().ok());
        return element.ok_or_else(|| CameraError::DecoderMissing(name.to_owned()));
    }
    let fits = |factory: &&gst::ElementFactory| {
        factory.can_sink_any_caps(caps) && (kind == Kind::Any || !factory.klass().contains("Hardware"))
    };
    for factory in DECODERS.iter().filter(fits) {
        let Ok(element) = factory.create().build() else { continue };
        // A hardware decoder of a board that is not this one exists as a plugin, but opens no device.
        let opens = element.set_state(gst::State::Ready).is_ok();
        if element.set_state(gst::State::Null).is_ok() && opens {
            return Ok(element);
        }
    }
    let media = caps.structure(0).map(|structure| structure.name().to_string()).unwrap_or_default();
    Err(CameraError::NoDecoder(media))
}

/// When the access units that are being decoded arrived, and what for, by presentation time stamp.
///
/// Bounded: a decoder holds at most 16 reference pictures (H.264 and H.265 alike), the gate 30 access units and a group of
/// pictures before it; the oldest of more than 700 is forgotten, and its frame is looked at as if it arrived when it was
/// decoded.
#[derive(Default)]
struct Arrivals(VecDeque<(Option<gst::ClockTime>, Instant, Want)>);

const ARRIVALS_MAX: usize = 700;

/// Pictures that a decoder may hold back at most.
const REORDERED_MAX: usize = 16;

impl Arrivals {
    fn note(&mut self, pts: Option<gst::ClockTime>, arrived: Instant, want: Want) {
        if self.0.len() == ARRIVALS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((pts, arrived, want));
    }

    /// What is known of a frame that came out; what went in before it is forgotten, but for what reordering may hold back.
    ///
    /// Where the camera's clock stands, several have its time: as many are looked at as were to be, the oldest first.
    fn of(&mut self, pts: Option<gst::ClockTime>) -> (Instant, Want) {
        let same = |known: &Option<gst::ClockTime>| pts.is_some() && *known == pts;
        let wanted = self.0.iter().position(|(known, _, want)| same(known) && *want != Want::Reference);
        let newest = || self.0.iter().rposition(|(known, ..)| same(known));
        let Some(at) = wanted.or_else(newest) else { return (Instant::now(), Want::Look { late: false }) };
        let (_, arrived, ref mut kept) = self.0[at];
        let want = std::mem::replace(kept, Want::Reference);
        self.0.drain(..at.saturating_sub(REORDERED_MAX));
        (arrived, want)
    }
}

/// The rates at which units are looked at.
struct Samplers {
    analysed: Sampler,
    /// Where that takes too few to check anything.
    checks: Option<Sampler>,
}

impl Samplers {
    fn new(analysed_fps: f32) -> Self {
        let checks = (analysed_fps < CHECK_FPS).then(|| Sampler::new(CHECK_FPS));
        Self { analysed: Sampler::new(analysed_fps), checks }
    }

    /// What a unit is decoded for that somebody wants.
    fn sample(&mut self, want: Want, pts: Option<gst::ClockTime>, arrived: Instant) -> Want {
        let (taken, late) = match want {
            Want::Reference => (false, false),
            Want::Look { late } => (self.analysed.takes(pts, arrived), late),
            // Both are told of it, so that neither takes its neighbour, too.
            Want::Check => {
                let analysed = self.analysed.takes(pts, arrived);
                (self.checks.as_mut().is_some_and(|checks| checks.takes(pts, arrived)) || analysed, false)
            }
        };
        if taken { Want::Look { late } } else { Want::Reference }
    }
}

/// Takes access units at the analysed rate by their presentation time stamps, evenly, whatever the camera's rate is and in
/// whatever order they are decoded: one of each interval. A clock that stands or runs slow is told by the times of arrival.
#[derive(Clone, Debug)]
struct Sampler {
    interval: u64,
    /// Numbers of the intervals that had theirs: the newest, as many as reordering may reach back.
    taken: VecDeque<u64>,
    newest: u64,
    /// When the last one taken arrived.
    arrived: Option<Instant>,
}

/// How far reordering may reach back in time, in nanoseconds. What lies farther back is of a clock that was set anew.
const REORDERED: u64 = 3_000_000_000;

impl Sampler {
    fn new(fps: f32) -> Self {
        Self { interval: (1e9 / f64::from(fps)) as u64, taken: VecDeque::new(), newest: 0, arrived: None }
    }

    fn takes(&mut self, pts: Option<gst::ClockTime>, arrived: Instant) -> bool {
        let overdue = self.arrived.is_some_and(|last| {
            arrived.saturating_duration_since(last) >= Duration::from_nanos(2 * self.interval)
        });
        let takes = self.is_next(pts) || overdue;
        if takes {
            self.arrived = Some(arrived);
        }
        takes
    }

    /// Whether it is the first one of its interval.
    fn is_next(&mut self, pts: Option<gst::ClockTime>) -> bool {
        let Some(pts) = pts.map(gst::ClockTime::nseconds) else { return true };
        if pts + REORDERED < self.newest {
            (self.taken, self.newest) = (VecDeque::new(), pts);
        }
        self.newest = self.newest.max(pts);
        // A camera's time stamps waver a little.
        let number = (pts + self.interval / 10) / self.interval;
        if self.taken.contains(&number) {
            return false;
        }
        if self.taken.len() == REORDERED_MAX {
            self.taken.pop_front();
        }
        self.taken.push_back(number);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoders_of_libav_work_on_one_thread_hold_back_no_more_than_they_must_and_use_a_pool() {
        gst::init().unwrap();
        for name in ["avdec_h264", "avdec_h265"] {
            let decoder = gst::ElementFactory::make(name).build().unwrap();
            tune(&decoder);
            assert_eq!(decoder.property::<i32>("max-threads"), 1, "{name}");
            assert!(!decoder.property::<bool>("direct-rendering"), "{name}");
            let compliance = decoder.property_value("std-compliance").transform::<i32>().unwrap();
            assert_eq!(compliance.get::<i32>().unwrap(), 0, "{name}: libav's FF_COMPLIANCE_NORMAL");
        }
    }

    #[test]
    fn the_sampler_keeps_the_analysed_rate() {
        let start = Instant::now();
        for (camera_fps, analysed_fps, expected) in [
            (15.0, 5.0, 50..=51),
            (25.0, 5.0, 50..=51),
            (12.5, 5.0, 48..=51),
            (30.0, 10.0, 100..=101),
            (4.0, 5.0, 40..=40),
        ] {
            let mut sampler = Sampler::new(analysed_fps);
            let frames = (10.0 * camera_fps) as u64;
            let taken = (0..frames)
                .filter(|i| {
                    let time = Duration::from_secs_f64(*i as f64 / camera_fps);
                    sampler.takes(Some(gst::ClockTime::try_from(time).unwrap()), start + time)
                })
                .count();
            assert!(expected.contains(&taken), "{camera_fps} -> {analysed_fps}: {taken} frames in 10 s");
        }
    }

    #[test]
    fn a_check_sees_enough_frames_however_few_are_analysed() {
        // Of two seconds at 15 fps.
        for (analysed_fps, expected) in [(0.1, 4..=5), (1.0, 4..=6), (5.0, 10..=10)] {
            let mut samplers = Samplers::new(analysed_fps);
            let earlier = Want::Look { late: true };
            let start = Instant::now();
            let mut sample = |want, time| {
                samplers.sample(want, Some(gst::ClockTime::try_from(time).unwrap()), start + time)
            };
            assert_eq!(sample(earlier, Duration::from_secs(19)), earlier);
            let time = |frame: u32| Duration::from_secs(20) + frame * Duration::from_secs(1) / 15;
            let looks =
                (0..30).filter(|frame| sample(Want::Check, time(*frame)) == Want::Look { late: false });
            let looks = looks.count();
            assert!(expected.contains(&looks), "{analysed_fps}: {looks}");
        }
    }

    #[test]
    fn the_sampler_takes_one_of_each_interval_in_any_order() {
        // I4 B1 B2 B3 at 15 fps: 0 4 1 2 3 8 5 6 7 ...
        let order = (0..40).flat_map(|group| [4, 1, 2, 3].map(|place| 4 * group + place));
        let mut sampler = Sampler::new(5.0);
        let start = Instant::now();
        let mut taken: Vec<_> = std::iter::once(0)
            .chain(order)
            .enumerate()
            .filter(|(place, frame)| {
                let pts = gst::ClockTime::from_nseconds(frame * 1_000_000_000 / 15);
                sampler.takes(Some(pts), start + *place as u32 * Duration::from_secs(1) / 15)
            })
            .map(|(_, frame)| frame)
            .collect();
        taken.sort_unstable();
        assert_eq!(taken.len(), 54, "{taken:?}"); // 161 frames
        assert!(taken.windows(2).all(|pair| (1..=5).contains(&(pair[1] - pair[0]))), "{taken:?}");
    }

    #[test]
    fn a_clock_that_was_set_back_starts_anew() {
        let mut sampler = Sampler::new(5.0);
        let seconds = gst::ClockTime::from_seconds;
        let now = Instant::now();
        assert!(sampler.takes(Some(seconds(1000)), now));
        assert!(sampler.takes(Some(seconds(1)), now));
        assert!(!sampler.takes(Some(seconds(1) + gst::ClockTime::from_mseconds(40)), now));
        assert!(sampler.takes(None, now));
        let mut slow = Sampler::new(1.0);
        let taken = (1000..1020).chain(1010..1030).filter(|at| slow.takes(Some(seconds(*at)), now));
        assert_eq!(taken.count(), 40, "a jump of ten seconds");
    }

    #[test]
    fn a_clock_that_stands_or_runs_slow_keeps_half_the_rate() {
        let start = Instant::now();
        for speed in [0.0, 0.1, 0.3] {
            let mut sampler = Sampler::new(5.0);
            // Ten seconds at 15 fps.
            let taken = (0..150).filter(|frame| {
                let time = Duration::from_secs_f64(f64::from(*frame) / 15.0);
                sampler.takes(Some(gst::ClockTime::try_from(time.mul_f64(speed)).unwrap()), start + time)
            });
            let taken = taken.count();
            assert!((25..=40).contains(&taken), "{speed}: {taken}");
        }
    }

    #[test]
    fn of_frames_with_one_time_as_many_are_looked_at_as_were_to_be() {
        let start = Instant::now();
        let (pts, at) = (Some(gst::ClockTime::from_seconds(7)), |unit| start + Duration::from_secs(unit));
        let look = Want::Look { late: false };
        let mut arrivals = Arrivals::default();
        for (unit, want) in [(1, Want::Reference), (2, look), (3, Want::Reference), (4, look)] {
            arrivals.note(pts, at(unit), want);
        }
        assert_eq!(arrivals.of(pts), (at(2), look));
        assert_eq!(arrivals.of(pts), (at(4), look));
        assert_eq!(arrivals.of(pts), (at(4), Want::Reference));
    }
}
