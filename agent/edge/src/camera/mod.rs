//! One camera: RTSP in, frames out, back by itself after every failure. The only folder that names GStreamer.
//!
//! # Layout
//!
//! - [`ingest`]: RTSP to access units; depayloads and parses, never decodes;
//! - [`certificate`]: whether a camera that speaks TLS is the one that is meant;
//! - [`in_order`]: RTP over TCP without a jitter buffer;
//! - [`bitstream`]: what an access unit says of itself without being decoded;
//! - [`gate`]: whether the camera sleeps, a plain value;
//! - [`decode`]: access units to frames in the decoder's own planes; [`glance`]: one keyframe of a camera that sleeps;
//! - [`threads`]: decoders give way to those who look at their frames;
//! - [`frame`]: one decoded picture, mapped only while somebody looks at it;
//! - [`probe`]: what a camera sends and costs, measured for an installer;
//! - [`watchdog`]: how long a camera may be silent, a plain value;
//! - [`replay`]: a clip instead of a camera, [`clip`] its access units, [`film`] pictures to an MP4 file.
//!
//! [`run`] loops over [`run_once`]: the one waits, the other connects and fails freely.

pub mod bitstream;
mod bus;
mod certificate;
mod clip;
mod decode;
mod film;
mod frame;
pub(crate) mod gate;
mod glance;
mod in_order;
mod ingest;
mod probe;
mod replay;
mod threads;
mod watchdog;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sharp_eyes_protocol::report::CameraState;
use sharp_eyes_protocol::topic::Name;
use sharp_eyes_vision::{Impression, Miniature, Polygon};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use clip::ClipError;
pub use film::{Film, FilmError};
pub use frame::{Frame, FrameError, Picture};
pub use gate::{Gate, GateMode, GateOptions, Sight};
pub use ingest::Transport;
pub use probe::{Decoded, Listening, Recording};
pub use replay::{Played, replay};

use crate::backoff::Backoff;
use crate::beat;
use crate::board::CameraCard;
use crate::secret::{Secret, SecretError};
use bitstream::Bitstream;
use decode::{DecodeOptions, Decoder, Want};
use gate::{LOOK_BACK, Look, Ring, Verdict};
use glance::Glance;
use ingest::{AccessUnit, Ingest};
use watchdog::Watchdog;

/// Waits between attempts on a camera that is away.
const AWAY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Waits between attempts on a camera that refuses the password. Cameras lock an account, or the box's address,
/// for half an hour after five to seven wrong attempts, and there are two in each of ours.
const REFUSED: (Duration, Duration) = (Duration::from_secs(15 * 60), Duration::from_secs(60 * 60));

/// The same where the camera took this password before: many say so when they have no connection left, and keep a lost
/// one for about a minute.
const REFUSED_AGAIN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(60 * 60));

/// How one camera's stream is fetched and decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraOptions {
    /// The name in topics, logs and health.
    pub name: Name,
    /// `rtsp://` or `rtsps://`, without user and password.
    pub url: String,
    /// User name, and the file with the password and nothing else. Read anew at each attempt.
    pub login: Option<(String, PathBuf)>,
    /// PEM file that vouches for the camera's certificate, whatever host that names, besides the system's authorities.
    pub ca: Option<PathBuf>,
    /// What RTP runs over.
    pub transport: Transport,
    /// How long a late packet is waited for, over UDP.
    pub latency: Duration,
    /// GStreamer's name of the decoder; the best by rank otherwise.
    pub decoder: Option<String>,
    /// Frames per second that somebody looks at.
    pub analysed_fps: f32,
    /// What nobody may look at, the gate included.
    pub masks: Vec<Polygon>,
}

/// Why a connection to a camera ended.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum CameraError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the camera refuses the user or password: {0}")]
    Refused(String),
    #[error(
        "the camera refuses the user and password that it took before: it has no connection left, has locked the account, or the password was changed: {0}"
    )]
    RefusedAgain(String),
    #[error("the camera has no connection left, or is still starting: {0}")]
    Busy(String),
    #[error("the camera's certificate is not trusted: {0}")]
    Certificate(String),
    #[error("the camera cannot be reached: {0}")]
    Unreachable(String),
    #[error("no RTP within {0:?} of connecting")]
    NoStream(Duration),
    #[error("no RTP for {0:?}: the camera hangs or its network is down")]
    Silent(Duration),
    #[error(
        "access units arrive, but no picture came out of {decoder} for {after:?}: the stream is damaged or of a kind that it cannot decode"
    )]
    NoPicture { decoder: String, after: Duration },
    #[error(
        "access units arrive, but no keyframe among them for {0:?}: its I-frame interval is too long, or the stream is not of the kind that the camera says"
    )]
    NoKeyframe(Duration),
    #[error("the camera ended the stream")]
    Ended,
    #[error("the camera sends {0}; expected H.264 or H.265")]
    Encoding(String),
    #[error(
        "the camera describes its stream with a clock rate of {0}; expected 90000: renew its firmware, or take another of its streams"
    )]
    ClockRate(i32),
    #[error("no decoder for {0}: install gstreamer1.0-libav or the board's GStreamer plugins")]
    NoDecoder(String),
    #[error(
        "the decoder {0:?} is not installed, or cannot decode this stream; leave the key decoder out to have one chosen"
    )]
    DecoderMissing(String),
    #[error("the decoder failed: {0}")]
    Decode(String),
    #[error("GStreamer: {0}")]
    GStreamer(String),
}

impl From<gstreamer::glib::BoolError> for CameraError {
    fn from(error: gstreamer::glib::BoolError) -> Self {
        Self::GStreamer(error.to_string())
    }
}

/// GStreamer cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot initialise GStreamer: {0}")]
pub struct InitError(gstreamer::glib::Error);

/// Loads GStreamer. Once, before any camera runs.
pub fn init() -> Result<(), InitError> {
    gstreamer::init().map_err(InitError)
}

/// How many decoders and connections of cameras hang for good: each keeps its threads and memory until the process ends.
pub fn left_behind() -> usize {
    bus::left_behind()
}

/// Who gets the frames. Called from the decoder's thread: must not wait, except for a late frame, and then briefly.
pub type FrameSink = Arc<dyn Fn(Frame) + Send + Sync>;

/// Keeps one camera running until shutdown.
pub async fn run(
    options: CameraOptions,
    frames: FrameSink,
    card: Arc<CameraCard>,
    shutdown: CancellationToken,
) {
    let backoff = |(min, max)| Backoff::new(min, max, 0.3).expect("constant limits are in order");
    let (mut away, mut refused) = (backoff(AWAY), backoff(REFUSED));
    loop {
        let decoded_before = card.decoded.get();
        let Some((ended, since)) = run_once(&options, &frames, &card, &shutdown).await else { break };
        if card.decoded.get() > decoded_before {
            away.reset();
            refused = backoff(REFUSED_AGAIN);
        }
        let (state, backoff, ended) = match ended {
            CameraError::Refused(text) if card.decoded.get() > 0 => {
                (CameraState::Refused, &mut refused, CameraError::RefusedAgain(text))
            }
            CameraError::Refused(_) => (CameraState::Refused, &mut refused, ended),
            _ => (CameraState::Failed, &mut away, ended),
        };
        let wait = backoff.next(fastrand::f64());
        card.failed(state, &ended.to_string(), since);
        tracing::warn!(camera = %options.name, retry_in_ms = wait.as_millis() as u64, "{ended}");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => break,
        }
    }
    tracing::debug!(camera = %options.name, "stopped");
}

/// Connects, streams, and returns why it ended, and since when no pictures came; `None` at shutdown.
async fn run_once(
    options: &CameraOptions,
    frames: &FrameSink,
    card: &Arc<CameraCard>,
    shutdown: &CancellationToken,
) -> Option<(CameraError, Instant)> {
    let mut connection = match connect(options, frames, card) {
        Ok(connection) => connection,
        Err(error) => return Some((error, Instant::now())),
    };
    let ended = tokio::select! {
        ended = connection.watch(card) => Some(ended),
        () = shutdown.cancelled() => None,
    };
    connection.ingest.stop().await;
    ended
}

fn connect(
    options: &CameraOptions,
    frames: &FrameSink,
    card: &Arc<CameraCard>,
) -> Result<Connection, CameraError> {
    let login = match &options.login {
        Some((user, file)) => Some((user.clone(), Secret::read(file)?)),
        None => None,
    };
    // Errors of both pipelines. The first one ends the connection; if 16 wait, what else comes adds nothing and is dropped.
    let (failed, events) = mpsc::channel(16);
    card.gate().connected(Instant::now());
    let decoding = Decoding::new(options, frames, card, failed.clone());
    let decoder_name = decoding.name.clone();
    let ingest = Ingest::start(options, login, decoding.each_unit(), failed)?;
    Ok(Connection { ingest, events, decoder_name })
}

/// Who is shown a decoded frame, and what it was decoded for.
type Shown = Arc<dyn Fn(Frame, Look) + Send + Sync>;

/// Shows each frame to the gate, where that ever sleeps, and to whoever watches for tampering, and passes on what the
/// detector is to see.
fn look(options: &CameraOptions, frames: FrameSink, card: Arc<CameraCard>) -> Shown {
    let masks = options.masks.clone();
    Arc::new(move |frame, look| {
        let now = frame.arrived();
        let (watching, suspicious) = (card.gate().is_watching(), card.wants_impression(now));
        let miniature = (watching || suspicious).then(|| {
            frame.view(|planes| {
                let miniature = Miniature::of(planes, &masks);
                if suspicious {
                    card.impression(now, &Impression::of(planes, miniature.clone()));
                }
                Arc::new(miniature)
            })
        });
        let wanted = match &miniature {
            Some(Ok(miniature)) if watching => card.gate().frame(now, look, miniature),
            Some(Err(_)) if watching => look == Look::Live, // whoever analyses it says what is wrong
            _ => true,
        };
        if wanted {
            let frame = frame.with_miniature(miniature.and_then(Result::ok));
            frames(frame.audit(matches!(look, Look::Glance { audit: true })));
        }
    })
}

/// An access unit, and whether other pictures may refer to it.
type Referred = (AccessUnit, bool);

/// What happens to the access units of one connection, on its receiving thread.
struct Decoding {
    options: DecodeOptions,
    card: Arc<CameraCard>,
    look: Shown,
    failed: mpsc::Sender<CameraError>,
    name: Arc<std::sync::OnceLock<String>>,
    bitstream: Option<Bitstream>,
    ring: Ring<Referred>,
    decoder: Option<Decoder>,
    glance: Option<Glance>,
}

impl Decoding {
    fn new(
        options: &CameraOptions,
        frames: &FrameSink,
        card: &Arc<CameraCard>,
        failed: mpsc::Sender<CameraError>,
    ) -> Self {
        Self {
            options: DecodeOptions { decoder: options.decoder.clone(), analysed_fps: options.analysed_fps },
            card: card.clone(),
            look: look(options, frames.clone(), card.clone()),
            failed,
            name: Arc::default(),
            bitstream: None,
            ring: Ring::new(),
            decoder: None,
            glance: None,
        }
    }

    fn each_unit(mut self) -> impl FnMut(AccessUnit) -> Result<(), CameraError> + Send {
        move |unit| self.unit(unit)
    }

    fn unit(&mut self, unit: AccessUnit) -> Result<(), CameraError> {
        self.card.received.increment();
        let waiting = self.decoder.as_ref().map_or(0, Decoder::backlog);
        let bitstream = self.bitstream.get_or_insert_with(|| Bitstream::new(unit.codec()));
        let facts = unit.facts(bitstream);
        let unit = (unit, facts.reference);
        let verdict = if self.card.gate().is_watching() {
            self.ring.push(unit.clone(), facts.keyframe, unit.0.size());
            self.card.gate().unit(unit.0.arrived(), &facts, waiting, self.ring.units().len() as u64)
        } else {
            self.card.gate().unit(unit.0.arrived(), &facts, waiting, 0)
        };
        match verdict {
            Verdict::Decode => return self.decode(unit, Want::Look { late: false }),
            Verdict::Check => return self.decode(unit, Want::Check),
            Verdict::Wake => return self.wake(unit.0.arrived()),
            // A decoder that hangs is behind for ever, and owes a picture all the while.
            Verdict::Skip if waiting > 0 => self.card.admitted.increment(),
            Verdict::Skip => {}
            Verdict::Sleep => self.decoder = None,
            Verdict::Glance { audit } => self.glance(unit.0, audit)?,
        }
        self.card.skipped.increment();
        Ok(())
    }

    fn decode(&mut self, (unit, reference): Referred, want: Want) -> Result<(), CameraError> {
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            None => {
                let look = self.look.clone();
                let frames: FrameSink = Arc::new(move |frame| look(frame, Look::Live));
                let (card, failed) = (self.card.clone(), self.failed.clone());
                let started = Decoder::start(&self.options, unit.caps(), frames, card, failed)?;
                let _ = self.name.set(started.name().to_owned()); // the first one's, for messages
                self.decoder.insert(started)
            }
        };
        let admitted = decoder.push(unit, want, reference)?;
        let counter = if admitted { &self.card.admitted } else { &self.card.skipped };
        counter.increment();
        Ok(())
    }

    /// Decodes the group of pictures from its keyframe on, and looks at the end of it.
    fn wake(&mut self, now: Instant) -> Result<(), CameraError> {
        for unit in self.ring.units().to_vec() {
            let want = match now.saturating_duration_since(unit.0.arrived()) {
                Duration::ZERO => Want::Check,
                before if before <= LOOK_BACK => Want::Look { late: true },
                _ => Want::Reference,
            };
            self.decode(unit, want)?;
        }
        Ok(())
    }

    /// A keyframe that cannot be decoded is no reason to end the connection: the camera wakes up, and then it is.
    fn glance(&mut self, unit: AccessUnit, audit: bool) -> Result<(), CameraError> {
        let (look, card) = (self.look.clone(), self.card.clone());
        let seen = move |frame: Option<Frame>| match frame {
            Some(frame) => {
                card.decoded.increment();
                look(frame, Look::Glance { audit });
            }
            None => card.gate().glance_failed(),
        };
        let name = self.card.name.as_str();
        self.glance = Some(glance::glance(self.options.decoder.as_deref(), unit, name, seen)?);
        Ok(())
    }
}

/// A running connection: its pipelines end when it is dropped.
struct Connection {
    ingest: Ingest,
    events: mpsc::Receiver<CameraError>,
    decoder_name: Arc<std::sync::OnceLock<String>>,
}

impl Connection {
    async fn watch(&mut self, card: &CameraCard) -> (CameraError, Instant) {
        let counters = || (card.received.get(), card.admitted.get(), card.decoded.get());
        let (received, admitted, decoded) = counters();
        let mut watchdog = Watchdog::new(Instant::now(), received, admitted, decoded);
        loop {
            tokio::select! {
                event = self.events.recv() => return (event.unwrap_or(CameraError::Ended), Instant::now()),
                () = beat::rest(watchdog::TICK) => {
                    let (received, admitted, decoded) = counters();
                    if decoded > watchdog.decoded_at_start() {
                        card.streaming();
                    }
                    let lacks_keyframe = card.gate().lacks_keyframe();
                    let looked = watchdog.look(Instant::now(), received, admitted, decoded, lacks_keyframe);
                    if let Some((silence, since)) = looked {
                        return (self.error(silence), since);
                    }
                }
            }
        }
    }

    fn error(&self, silence: watchdog::Silence) -> CameraError {
        match silence {
            watchdog::Silence::NoStream => CameraError::NoStream(watchdog::CONNECT),
            watchdog::Silence::Silent => CameraError::Silent(watchdog::SILENT),
            watchdog::Silence::NoKeyframe => CameraError::NoKeyframe(watchdog::NO_KEYFRAME),
            watchdog::Silence::NoPicture => CameraError::NoPicture {
                decoder: self.decoder_name.get().cloned().unwrap_or_else(|| "the decoder".into()),
                after: watchdog::NO_PICTURE,
            },
        }
    }
}
