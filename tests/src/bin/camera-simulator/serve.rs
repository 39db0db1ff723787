//! The RTSP server that plays footage, paced by the wall clock, for ever.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_app as app;
use gstreamer_rtsp::RTSPLowerTrans;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;

use crate::fault::{Faults, Tamper, begun, garble};
use crate::footage::{Codec, Encoding, Footage, Lens};
use crate::options::{Options, Transport};

/// The role in GStreamer's own access control that a client gets by the right password.
const ROLE: &str = "viewer";

/// Real cameras are not in step: each begins so much of a frame's time after the one before, which fills it evenly.
const GOLDEN: f64 = 0.618;

/// Returns when standard input closes, if that was asked for, and else never.
pub(crate) fn serve(options: &Options) -> Result<()> {
    let server = rtsp::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service(&options.port.to_string());
    let paths = server.mount_points().context("a server without mount points")?;
    let told_half = Arc::new(AtomicBool::new(false));
    for (index, mount) in options.mounts.iter().enumerate() {
        let open = |encoding| Footage::open(&mount.file, &options.reel, encoding, &options.cache);
        let main = open(&options.encoding)?;
        let faults = options.faults;
        let tampered = match faults.tamper {
            Some((tamper, ..)) => Some(tampered(tamper, &mount.file, options)?),
            None => None,
        };
        let smaller = if faults.switch_size_after.is_some() || faults.switch_size_when_told {
            let size = Some((main.size.0 / 2, main.size.1 / 2));
            Some(open(&Encoding { size, ..options.encoding.clone() })?)
        } else {
            None
        };
        let start = main.keyframe_at(mount.start_at_s);
        let phase = main.frame_time.mul_f64((index as f64 * GOLDEN).fract());
        let play = Play { main, smaller, tampered, start, phase, faults, told_half: told_half.clone() };
        let factory = factory(play, options.transport);
        if options.login.is_some() || options.certificate.is_some() {
            let role = gst::Structure::builder(ROLE)
                .field(rtsp::RTSP_PERM_MEDIA_FACTORY_ACCESS, true)
                .field(rtsp::RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, true);
            factory.add_role_from_structure(&role.build());
        }
        paths.add_factory(&format!("/{}", mount.name), factory);
    }
    if options.login.is_some() || options.certificate.is_some() {
        server.set_auth(Some(&access(options)?));
    }
    let clients = AtomicU64::new(0);
    server.connect_client_connected(move |_, _| {
        report(&serde_json::json!({ "client": clients.fetch_add(1, Ordering::Relaxed) + 1 }));
    });

    let main_loop = glib::MainLoop::new(None, false);
    let _source =
        server.attach(None).with_context(|| format!("port {} cannot be listened on", options.port))?;
    report(&serde_json::json!({ "port": server.bound_port() }));
    if options.until_stdin_closes {
        let main_loop = main_loop.clone();
        std::thread::spawn(move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                told_half.store(line == "half", Ordering::Relaxed);
            }
            main_loop.quit();
        });
    }
    main_loop.run();
    Ok(())
}

/// Who may look, and whether that is encrypted.
fn access(options: &Options) -> Result<rtsp::RTSPAuth> {
    let access = rtsp::RTSPAuth::new();
    let mut token = rtsp::RTSPToken::builder().field(rtsp::RTSP_TOKEN_MEDIA_FACTORY_ROLE, ROLE).build();
    match &options.login {
        Some((user, password)) => access.add_basic(&rtsp::RTSPAuth::make_basic(user, password), &token),
        None => access.set_default_token(Some(&mut token)),
    }
    if let Some((certificate, key)) = &options.certificate {
        access.set_tls_certificate(Some(&rtsp::gio::TlsCertificate::from_files(certificate, key)?));
    }
    Ok(access)
}

/// The clip as it looks through a lens that somebody has tampered with.
fn tampered(tamper: Tamper, file: &Path, options: &Options) -> Result<Footage> {
    let lens = match tamper {
        Tamper::Covered => Lens::Covered,
        Tamper::Blurred => Lens::Blurred,
        Tamper::Turned => Lens::Turned,
    };
    Footage::open(file, &options.reel, &Encoding { lens, ..options.encoding.clone() }, &options.cache)
}

/// Nobody may be reading: then nobody wants to know.
fn report(event: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{event}").and_then(|()| out.flush());
}

/// One camera's stream. All its clients share one, as with a real camera.
fn factory(play: Play, transport: Transport) -> rtsp::RTSPMediaFactory {
    let payloader = match play.main.codec {
        Codec::H264 | Codec::H264Reordered => "rtph264pay",
        Codec::H265 => "rtph265pay",
    };
    let factory = rtsp::RTSPMediaFactory::new();
    factory.set_launch(&format!(
        "( appsrc name=source is-live=true format=time ! {payloader} name=pay0 pt=96 config-interval=-1 )"
    ));
    factory.set_shared(true);
    factory.set_protocols(match transport {
        Transport::Tcp => RTSPLowerTrans::TCP,
        Transport::Udp => RTSPLowerTrans::UDP,
        Transport::Any => RTSPLowerTrans::TCP | RTSPLowerTrans::UDP,
    });
    let play = Arc::new(play);
    factory.connect_media_configure(move |_, media| {
        let source = media.element().downcast::<gst::Bin>().ok().and_then(|bin| bin.by_name("source"));
        let Some(source) = source.and_then(|source| source.downcast::<app::AppSrc>().ok()) else {
            unreachable!("the launch line above names an appsrc");
        };
        let (stop, stopped) = mpsc::channel();
        let stop = Mutex::new(Some(stop));
        media.connect_unprepared(move |_| drop(stop.lock().map(|mut stop| stop.take())));
        play.clone().start(source, stopped);
    });
    factory
}

/// What one camera plays.
struct Play {
    main: Footage,
    smaller: Option<Footage>,
    tampered: Option<Footage>,
    start: usize,
    /// After others that begin at the same time.
    phase: Duration,
    faults: Faults,
    /// Somebody wants the smaller one.
    told_half: Arc<AtomicBool>,
}

impl Play {
    /// Feeds `source` from a thread of its own until it, or whoever holds the other end of `stopped`, goes away.
    fn start(self: Arc<Self>, source: app::AppSrc, stopped: Receiver<()>) {
        let format = match self.main.codec {
            Codec::H264 | Codec::H264Reordered => "video/x-h264",
            Codec::H265 => "video/x-h265",
        };
        // No size here: it may change in mid-stream.
        let caps = gst::Caps::builder(format).field("stream-format", "byte-stream").field("alignment", "au");
        source.set_caps(Some(&caps.build()));
        let (wanted, begin) = mpsc::channel();
        let tell = move |_: &app::AppSrc, _| {
            let _ = wanted.send(()); // nobody listens after the first time
        };
        source.set_callbacks(app::AppSrcCallbacks::builder().need_data(tell).build());
        std::thread::spawn(move || {
            // A live source asks for data once the pipeline plays: only then does it have a running time.
            if begin.recv().is_ok() {
                self.feed(&source, &stopped);
            }
        });
    }

    fn feed(&self, source: &app::AppSrc, stopped: &Receiver<()>) {
        let began = Instant::now();
        let base = source.current_running_time().unwrap_or(gst::ClockTime::ZERO);
        let frame_time = self.main.frame_time;
        let (mut playing, mut at) = (&self.main, self.start);
        for sent in 0_u32.. {
            let time = self.phase + frame_time * sent;
            let wait = time.saturating_sub(began.elapsed()).max(Duration::from_micros(1));
            if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let sent = u64::from(sent);
            let wanted = self.wanted(sent);
            if !std::ptr::eq(wanted, playing) {
                // From its own beginning, which is a keyframe.
                (playing, at) = (wanted, 0);
            }
            let unit = &playing.access_units[at % playing.access_units.len()];
            at += 1;
            if begun(self.faults.silent_after, sent) {
                continue;
            }
            let garbled = begun(self.faults.garbage_after, sent);
            let bytes = if garbled { garble(&unit.bytes, sent) } else { unit.bytes.clone() };
            let shown = time + frame_time * u32::from(unit.delay);
            let mut buffer = gst::Buffer::from_slice(bytes);
            if let Some(buffer) = buffer.get_mut() {
                buffer.set_pts(base + gst::ClockTime::from_nseconds(shown.as_nanos() as u64));
                buffer.set_duration(gst::ClockTime::from_nseconds(frame_time.as_nanos() as u64));
            }
            if source.push_buffer(buffer).is_err() {
                return;
            }
        }
    }

    /// What the `sent`-th access unit of a session, counted from 0, is taken from.
    fn wanted(&self, sent: u64) -> &Footage {
        let is_half = begun(self.faults.switch_size_after, sent) || self.told_half.load(Ordering::Relaxed);
        let is_tampered = self.faults.tamper.is_some_and(|(_, from, to)| (from..to).contains(&sent));
        let half = self.smaller.as_ref().filter(|_| is_half);
        half.or(self.tampered.as_ref().filter(|_| is_tampered)).unwrap_or(&self.main)
    }
}
