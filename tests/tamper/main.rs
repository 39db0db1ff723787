//! A picture that stands still, as a real encoder makes it: encoded anew for every frame, with a clock that goes on.
//!
//! The street of the demo's footage is encoded here, at the bit rate of a camera, and decoded again.

use std::time::Duration;

use anyhow::{Context, Result};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as app;
use sharp_eyes_protocol::alert::Tampering;
use sharp_eyes_tests::{clip, places};
use sharp_eyes_vision::{Impression, Miniature, Tamper, TamperOptions};

const FPS: u64 = 5;
const SECONDS: u64 = 100;
const OPTIONS: TamperOptions =
    TamperOptions { after: Duration::from_secs(10), frozen_after: Duration::from_secs(60) };

/// Sides of what the camera sends: half of the footage's.
const WIDTH: usize = clip::SIZE.0 as usize / 2;
const HEIGHT: usize = clip::SIZE.1 as usize / 2;

/// What a sensor sees, and what is done to it.
#[derive(Clone, Copy)]
struct Sensor {
    /// Deviation of its noise, in steps of luma.
    noise: f32,
    /// Whether each frame has noise of its own, as long as it lives.
    lives: bool,
    /// Of the footage's brightness.
    light: f32,
}

/// The luma of the footage's first frame, every second pixel.
fn street() -> Result<Vec<u8>> {
    let mut street = Vec::new();
    clip::play(&places::footage()?, |_, frame| {
        if street.is_empty() {
            let luma = frame.planes()[0];
            let row = |y: usize| (0..WIDTH).map(move |x| luma.data[2 * y * luma.stride + 2 * x]);
            street = (0..HEIGHT).flat_map(row).collect();
        }
        Ok(())
    })?;
    Ok(street)
}

/// One frame as I420, with a clock at its upper edge.
fn frame(street: &[u8], sensor: Sensor, number: u64, random: &mut fastrand::Rng) -> Vec<u8> {
    // The sum of four has nearly the shape of a sensor's noise.
    let mut noise =
        || (0..4).map(|_| random.f32() - 0.5).sum::<f32>() * sensor.noise * (12.0_f32 / 4.0).sqrt();
    let luma = |pixel: &u8| (16.0 + f32::from(*pixel) * sensor.light + noise()).clamp(16.0, 235.0) as u8;
    let mut planes: Vec<u8> = street.iter().map(luma).collect();
    let second = number / FPS;
    for (y, row) in planes.chunks_mut(WIDTH).enumerate().take(24).skip(8) {
        for (x, pixel) in row.iter_mut().enumerate().take(120).skip(8) {
            // Digits as far as an encoder is concerned: edges that are elsewhere each second.
            let bit = (x / 4 * 7 + y / 4 * 13 + second as usize * 5) % 3;
            *pixel = if bit == 0 { 235 } else { 16 };
        }
    }
    planes.resize(WIDTH * HEIGHT * 3 / 2, 128);
    planes
}

/// What is found in the end, of a camera with an encoder of so many kilobits a second.
fn found(sensor: Sensor, kilobits: u32) -> Result<Option<Tampering>> {
    gst::init()?;
    let street = street()?;
    let line = format!(
        "appsrc name=source format=time block=true max-buffers=8 max-bytes=0 \
         caps=video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={FPS}/1 \
         ! x264enc speed-preset=superfast tune=zerolatency bitrate={kilobits} key-int-max={} option-string=scenecut=0 \
         ! avdec_h264 ! videoconvert ! video/x-raw,format=I420 ! appsink name=sink sync=false max-buffers=8",
        2 * FPS
    );
    let pipeline = gst::parse::launch(&line)?.downcast::<gst::Pipeline>().ok().context("no pipeline")?;
    let source =
        pipeline.by_name("source").and_then(|e| e.downcast::<app::AppSrc>().ok()).context("no source")?;
    let sink = pipeline.by_name("sink").and_then(|e| e.downcast::<app::AppSink>().ok()).context("no sink")?;
    pipeline.set_state(gst::State::Playing)?;
    let shown = std::thread::spawn(move || -> Result<()> {
        for number in 0..FPS * SECONDS {
            let mut random = fastrand::Rng::with_seed(if sensor.lives { number } else { 0 });
            let mut buffer = gst::Buffer::from_mut_slice(frame(&street, sensor, number, &mut random));
            let time = gst::ClockTime::from_mseconds(number * 1000 / FPS);
            buffer.get_mut().context("a new buffer is ours")?.set_pts(time);
            source.push_buffer(buffer)?;
        }
        source.end_of_stream()?;
        Ok(())
    });
    let mut tamper = Tamper::new(OPTIONS);
    while let Ok(sample) = sink.pull_sample() {
        clip::show_sample(&sample, &mut |now, frame| {
            // As often as a camera that is awake is looked at.
            if now.subsec_millis() == 0 && now.as_secs().is_multiple_of(5) {
                tamper.observe(now, &Impression::of(frame, Miniature::of(frame, &[])));
            }
            Ok(())
        })?;
    }
    pipeline.set_state(gst::State::Null)?;
    shown.join().map_err(|_| anyhow::anyhow!("showing the street panicked"))??;
    Ok(tamper.found())
}

#[test]
fn a_frozen_picture_is_found_though_it_is_encoded_anew_and_a_clock_runs_in_it() -> Result<()> {
    for (name, sensor) in [
        ("without noise", Sensor { noise: 0.0, lives: false, light: 1.0 }),
        ("with the noise of its last moment", Sensor { noise: 2.0, lives: false, light: 1.0 }),
        ("at night", Sensor { noise: 3.0, lives: false, light: 0.3 }),
    ] {
        assert_eq!(found(sensor, 600)?, Some(Tampering::Frozen), "{name}");
    }
    Ok(())
}

#[test]
fn a_quiet_scene_is_not_frozen_because_its_sensor_lives() -> Result<()> {
    for (name, sensor, kilobits) in [
        ("by day", Sensor { noise: 1.0, lives: true, light: 1.0 }, 600),
        ("at night", Sensor { noise: 1.0, lives: true, light: 0.3 }, 600),
        ("at night, hardly any bits", Sensor { noise: 1.0, lives: true, light: 0.3 }, 60),
        ("at night, noisy, hardly any bits", Sensor { noise: 3.0, lives: true, light: 0.3 }, 60),
    ] {
        assert_eq!(found(sensor, kilobits)?, None, "{name}");
    }
    Ok(())
}
