//! One camera: RTSP in, frames out, back by itself after every failure. The only folder that names GStreamer.
//!
//! # Layout
//!
//! - [`ingest`]: RTSP to access units; depayloads and parses, never decodes;
//! - [`bitstream`]: what an access unit says of itself without being decoded;
//! - [`gate`]: which access units are decoded, a plain value;
//! - [`decode`]: access units to frames in the decoder's own planes;
//! - [`frame`]: one decoded picture, mapped only while somebody looks at it;
//! - [`watchdog`]: how long a camera may be silent, a plain value.
//!
//! [`run`] loops over [`run_once`]: the one waits, the other connects and fails freely.

pub mod bitstream;
mod bus;
mod decode;
mod frame;
mod gate;
mod ingest;
mod watchdog;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sharp_eyes_protocol::report::CameraState;
use sharp_eyes_protocol::topic::Name;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use frame::{Frame, FrameError};
pub use gate::GateMode;
pub use ingest::Transport;

use crate::backoff::Backoff;
use crate::board::CameraCard;
use crate::secret::{Secret, SecretError};
use decode::{DecodeOptions, Decoder};
use gate::Gate;
use ingest::Ingest;
use watchdog::Watchdog;

/// Waits between attempts on a camera that is away.
const AWAY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Waits between attempts on a camera that refuses the password. Cameras lock an account, or the box's address,
/// for half an hour after five to seven wrong attempts.
const REFUSED: (Duration, Duration) = (Duration::from_secs(5 * 60), Duration::from_secs(30 * 60));

/// How one camera's stream is fetched and decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraOptions {
    /// The name in topics, logs and health.
    pub name: Name,
    /// `rtsp://` or `rtsps://`, without user and password.
    pub url: String,
    /// User name, and the file with the password and nothing else. Read anew at each attempt.
    pub login: Option<(String, PathBuf)>,
    /// What RTP runs over.
    pub transport: Transport,
    /// Size of the jitter buffer.
    pub latency: Duration,
    /// GStreamer's name of the decoder; the best by rank otherwise.
    pub decoder: Option<String>,
    /// Which access units are decoded.
    pub gate: GateMode,
}

/// Why a connection to a camera ended.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum CameraError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the camera refuses the user or password (or has no connection left): {0}")]
    Refused(String),
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
    #[error("the camera ended the stream")]
    Ended,
    #[error("the camera sends {0}; expected H.264 or H.265")]
    Encoding(String),
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

/// Who gets the frames. Called from the decoder's thread: must not wait.
pub type FrameSink = Arc<dyn Fn(Frame) + Send + Sync>;

/// Keeps one camera running until shutdown.
pub async fn run(
    options: CameraOptions,
    analysed_fps: f32,
    frames: FrameSink,
    card: Arc<CameraCard>,
    shutdown: CancellationToken,
) {
    let backoff = |(min, max)| Backoff::new(min, max, 0.3).expect("constant limits are in order");
    let (mut away, mut refused) = (backoff(AWAY), backoff(REFUSED));
    loop {
        let decoded_before = card.decoded.get();
        let Some(ended) = run_once(&options, analysed_fps, &frames, &card, &shutdown).await else { break };
        if card.decoded.get() > decoded_before {
            away.reset();
            refused.reset();
        }
        let (state, wait) = match &ended {
            CameraError::Refused(_) => (CameraState::Refused, refused.next(fastrand::f64())),
            _ => (CameraState::Failed, away.next(fastrand::f64())),
        };
        card.failed(state, &ended.to_string());
        tracing::warn!(camera = %options.name, retry_in_ms = wait.as_millis() as u64, "{ended}");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => break,
        }
    }
    tracing::debug!(camera = %options.name, "stopped");
}

/// Connects, streams, and returns why it ended; `None` at shutdown.
async fn run_once(
    options: &CameraOptions,
    analysed_fps: f32,
    frames: &FrameSink,
    card: &Arc<CameraCard>,
    shutdown: &CancellationToken,
) -> Option<CameraError> {
    let mut connection = match connect(options, analysed_fps, frames, card) {
        Ok(connection) => connection,
        Err(error) => return Some(error),
    };
    let ended = tokio::select! {
        ended = connection.watch(card) => Some(ended),
        () = shutdown.cancelled() => None,
    };
    connection.ingest.stop().await;
    ended
}

/// A running connection: both pipelines end when it is dropped.
struct Connection {
    ingest: Ingest,
    events: mpsc::Receiver<CameraError>,
    decoder_name: Arc<std::sync::OnceLock<String>>,
}

fn connect(
    options: &CameraOptions,
    analysed_fps: f32,
    frames: &FrameSink,
    card: &Arc<CameraCard>,
) -> Result<Connection, CameraError> {
    let login = match &options.login {
        Some((user, file)) => Some((user.clone(), Secret::read(file)?)),
        None => None,
    };
    // Errors of both pipelines. The first one ends the connection; if 16 wait, what else comes adds nothing and is dropped.
    let (failed, events) = mpsc::channel(16);
    let decoder_name = Arc::new(std::sync::OnceLock::new());
    let decode = DecodeOptions { decoder: options.decoder.clone(), analysed_fps };
    let mut gate = Gate::new(options.gate);
    let mut decoder: Option<Decoder> = None;
    let on_unit = {
        let (frames, card, failed) = (frames.clone(), card.clone(), failed.clone());
        let decoder_name = decoder_name.clone();
        move |unit: ingest::AccessUnit| {
            card.received.increment();
            let decoder = match &mut decoder {
                Some(decoder) => decoder,
                None => {
                    let started =
                        Decoder::start(&decode, unit.caps(), frames.clone(), card.clone(), failed.clone())?;
                    let _ = decoder_name.set(started.name().to_owned());
                    decoder.insert(started)
                }
            };
            match gate.admit(unit.facts(), decoder.backlog()) {
                gate::Verdict::Decode => decoder.push(unit)?,
                gate::Verdict::Skip => card.skipped.increment(),
            }
            Ok(())
        }
    };
    let ingest = Ingest::start(options, login, on_unit, failed)?;
    Ok(Connection { ingest, events, decoder_name })
}

impl Connection {
    async fn watch(&mut self, card: &CameraCard) -> CameraError {
        let mut watchdog = Watchdog::new(Instant::now(), card.received.get(), card.decoded.get());
        let mut tick = tokio::time::interval(watchdog::TICK);
        loop {
            tokio::select! {
                event = self.events.recv() => return event.unwrap_or(CameraError::Ended),
                _ = tick.tick() => {
                    if card.decoded.get() > watchdog.decoded_at_start() {
                        card.streaming();
                    }
                    if let Some(silence) = watchdog.look(Instant::now(), card.received.get(), card.decoded.get()) {
                        return match silence {
                            watchdog::Silence::NoStream => CameraError::NoStream(watchdog::CONNECT),
                            watchdog::Silence::Silent => CameraError::Silent(watchdog::SILENT),
                            watchdog::Silence::NoPicture => CameraError::NoPicture {
                                decoder: self.decoder_name.get().cloned().unwrap_or_else(|| "the decoder".into()),
                                after: watchdog::NO_PICTURE,
                            },
                        };
                    }
                }
            }
        }
    }
}
