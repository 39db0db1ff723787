//! A clip is run through the agent's own code: the same incidents each time, a film that shows no head, clear refusals.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as app;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use serde_json::Value;
use sharp_eyes_tests::village::{Village, VillageCamera};
use sharp_eyes_tests::{pipeline, places};

use crate::stage::{play, read, says};

fn replay(clip: &Path, config: &Path, more: &[&str]) -> Result<Output> {
    let mut command = Command::new(places::binary("sharp-eyes-agent")?);
    command.arg("replay").arg(clip).arg("--config").arg(config).args(more);
    command.output().context("running sharp-eyes-agent replay")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// A box whose only camera is never asked.
fn village(folder: &Path, camera: VillageCamera) -> Result<Village> {
    Ok(Village::new(folder, 1883)?.with(camera))
}

/// Runs a pipeline to its end.
fn produce(line: &str) -> Result<()> {
    gst::init()?;
    let pipeline = gst::parse::launch(line)?;
    pipeline.set_state(gst::State::Playing)?;
    pipeline::to_its_end(&pipeline).with_context(|| line.to_owned())
}

#[test]
fn real_footage_raises_the_same_incidents_each_time() {
    play(|folder| {
        // MPEG-4 in AVI, which no camera sends, and as a recorder leaves it that lost its power: without its end.
        let clip = folder.join("street.avi");
        std::fs::write(&clip, &std::fs::read(places::footage()?)?[..1 << 20])?;
        let village = village(folder, VillageCamera::guarded("gate", "rtsp://127.0.0.1/gate"))?;
        let config = village.write()?;
        let mut told = Vec::new();
        for json in ["first.json", "second.json"].map(|name| folder.join(name)) {
            let output = replay(&clip, &config, &["--camera", "gate", "--json", &json.to_string_lossy()])?;
            ensure!(output.status.success(), "{}", said(&output));
            let report: Value = serde_json::from_str(&read(&json)?)?;
            let incidents = report["incidents"].as_array().context("no incidents")?.clone();
            ensure!(!incidents.is_empty(), "nobody was seen: {report:#}");
            let rows = said(&output).lines().filter(|line| line.contains("intrusion")).count();
            ensure!(rows == incidents.len(), "{rows} lines about {} incidents", incidents.len());
            let times: Vec<f64> = incidents.iter().filter_map(|told| told["at_s"].as_f64()).collect();
            ensure!(times.len() == incidents.len() && times.is_sorted(), "{times:?}");
            let end = report["duration_s"].as_f64().context("no duration")?;
            ensure!((5.0..20.0).contains(&end), "an eighth of 80 s is not {end} s");
            ensure!(times.iter().all(|at| (1.0..=end).contains(at)), "not the clip's time: {times:?}");
            ensure!(incidents.iter().all(|told| told["class"] == "person"), "{report:#}");
            told.push(incidents);
        }
        ensure!(told[0] == told[1], "one time {:?}, another time {:?}", told[0], told[1]);
        ensure!(!village.state.exists(), "a replay touched the state folder");
        Ok(())
    });
}

#[test]
fn a_film_shows_neither_heads_nor_what_is_masked() {
    play(|folder| {
        let clip = folder.join("snow.mkv");
        produce(&format!(
            "videotestsrc pattern=snow num-buffers=20 ! video/x-raw,format=I420,width=320,height=240,framerate=10/1 \
             ! x264enc pass=quant quantizer=4 key-int-max=10 ! h264parse ! matroskamux ! filesink location={}",
            clip.display()
        ))?;
        let camera = VillageCamera::new("gate", "rtsp://127.0.0.1/gate")
            .rule("left", &[(0.0, 0.0), (0.7, 0.0), (0.7, 1.0), (0.0, 1.0)], "1s", "60s", "major")
            .line("gate = \"always\"") // the detector is spared no frame
            .line("masks = [[[0.75, 0.75], [1.0, 0.75], [1.0, 1.0], [0.75, 1.0]]]");
        let mut village = village(folder, camera)?;
        // Somebody from 0.4 to 0.6 of the width and 0.3 to 0.8 of the height.
        village.model = seer(folder, [25.6, 19.2, 38.4, 51.2])?;
        let (film, json) = (folder.join("film.mp4"), folder.join("told.json"));
        let files = ["--video", &film.to_string_lossy(), "--json", &json.to_string_lossy()];
        let output = replay(&clip, &village.write()?, &files)?;
        ensure!(output.status.success(), "{}", said(&output));
        let report: Value = serde_json::from_str(&read(&json)?)?;
        ensure!(report["incidents"].as_array().is_some_and(|told| told.len() == 1), "{report:#}");

        let frames = luma(&film)?;
        ensure!(frames.len() == 10, "{} frames of two seconds at five a second", frames.len());
        for Luma { width, pixels } in frames {
            ensure!(width == 1280, "{width} pixels wide");
            let row = |y: usize, x: std::ops::Range<usize>| &pixels[y * width..][x];
            let roughness = |x: std::ops::Range<usize>, y: std::ops::Range<usize>| {
                let rows: Vec<f64> = y
                    .map(|y| {
                        let row = row(y, x.clone());
                        let steps = row.windows(2).map(|pair| f64::from(pair[0].abs_diff(pair[1])));
                        steps.sum::<f64>() / (row.len() - 1) as f64
                    })
                    .collect();
                rows.iter().sum::<f64>() / rows.len() as f64
            };
            // Snow elsewhere, and blocks of one colour where the head is, between the lines of the box.
            let (ground, head) = (roughness(100..400, 500..900), roughness(530..750, 300..470));
            ensure!(ground > 4.0 && head < ground / 4.0, "ground {ground:.1}, head {head:.1}");
            let brightest = (740..940).flat_map(|y| row(y, 980..1260)).max();
            ensure!(brightest.is_some_and(|&luma| luma < 30), "below the mask: {brightest:?}");
        }
        Ok(())
    });
}

#[test]
fn what_cannot_be_replayed_is_named() {
    play(|folder| {
        let config = village(folder, VillageCamera::guarded("gate", "rtsp://127.0.0.1/gate"))?.write()?;
        let text = folder.join("letter.mp4");
        std::fs::write(&text, "Dear camera, ".repeat(1000))?;
        let sound = folder.join("sound.wav");
        produce(&format!("audiotestsrc num-buffers=10 ! wavenc ! filesink location={}", sound.display()))?;
        let snow = folder.join("snow.mkv");
        produce(&format!(
            "videotestsrc num-buffers=5 ! video/x-raw,width=320,height=240 ! x264enc ! matroskamux ! filesink location={}",
            snow.display()
        ))?;
        let film = folder.join("no-such-folder/film.mp4");
        let film = film.to_string_lossy();
        let missing = folder.join("missing.toml");
        for (clip, config, more, code, words) in [
            (&text, &config, &[][..], 1, &["letter.mp4"][..]),
            (&sound, &config, &[], 1, &["sound.wav", "no video"]),
            (&folder.join("gone.mp4"), &config, &[], 1, &["gone.mp4", "No such file"]),
            (&folder.to_owned(), &config, &[], 1, &["directory"]),
            (&snow, &config, &["--camera", "yard"], 1, &["yard", "gate"]),
            (&snow, &config, &["--video", &film], 1, &["film.mp4"]),
            (&snow, &missing, &[], 1, &["missing.toml"]),
        ] {
            let output = replay(clip, config, more)?;
            let said = said(&output);
            ensure!(output.status.code() == Some(code), "{words:?}: {:?}: {said}", output.status);
            says(&said, words)?;
        }
        Ok(())
    });
}

/// Brightness of the pixels of a picture.
struct Luma {
    width: usize,
    pixels: Vec<u8>,
}

/// Decodes a film.
fn luma(film: &Path) -> Result<Vec<Luma>> {
    let line = format!(
        "filesrc location={} ! decodebin ! videoconvert ! video/x-raw,format=GRAY8 ! appsink name=sink sync=false",
        film.display()
    );
    let pipeline = gst::parse::launch(&line)?.downcast::<gst::Pipeline>().ok().context("no pipeline")?;
    let sink = pipeline.by_name("sink").and_then(|sink| sink.downcast::<app::AppSink>().ok());
    let sink = sink.context("no sink")?;
    pipeline.set_state(gst::State::Playing)?;
    let mut frames = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        let info = gst_video::VideoInfo::from_caps(sample.caps().context("no format")?)?;
        let buffer = sample.buffer().context("no data")?;
        let mapped = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)?;
        let (width, stride) = (mapped.width() as usize, mapped.plane_stride()[0] as usize);
        let rows = mapped.plane_data(0)?.chunks(stride).flat_map(|row| &row[..width]);
        frames.push(Luma { width, pixels: rows.copied().collect() });
    }
    pipeline.set_state(gst::State::Null)?;
    Ok(frames)
}

/// A model of 64x64 pixels that sees one person in the same place of every picture: left, top, right, bottom.
fn seer(folder: &Path, [left, top, right, bottom]: [f32; 4]) -> Result<PathBuf> {
    fn number(field: u8, value: u8) -> Vec<u8> {
        vec![field << 3, value]
    }
    fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        assert!(length < 1 << 14, "two bytes of length");
        [&[field << 3 | 2, length as u8 | 0x80, (length >> 7) as u8], content].concat()
    }
    // Field numbers are those of `onnx.proto3`: a constant behind an Identity, beside an input that nobody reads.
    let value = |name: &[u8], sides: &[u8]| {
        let sides: Vec<u8> = sides.iter().flat_map(|&side| bytes(1, &number(1, side))).collect();
        let tensor = [number(1, 1), bytes(2, &sides)].concat();
        [bytes(1, name), bytes(2, &bytes(1, &tensor))].concat()
    };
    let seen: Vec<u8> =
        [left, top, right, bottom, 0.9, 0.0].iter().flat_map(|n: &f32| n.to_le_bytes()).collect();
    let sides = [1, 1, 6].iter().flat_map(|&side| number(1, side)).collect();
    let constant = [sides, number(2, 1), bytes(8, b"seen"), bytes(9, &seen)].concat();
    let node = [bytes(1, b"seen"), bytes(2, b"boxes"), bytes(4, b"Identity")].concat();
    let graph = [
        bytes(1, &node),
        bytes(2, b"g"),
        bytes(5, &constant),
        bytes(11, &value(b"images", &[1, 3, 64, 64])),
        bytes(12, &value(b"boxes", &[1, 1, 6])),
    ];
    let model = [number(1, 8), bytes(8, &number(2, 13)), bytes(7, &graph.concat())].concat();
    let bundle = folder.join("seer");
    std::fs::create_dir_all(&bundle)?;
    std::fs::write(bundle.join("model.onnx"), model)?;
    std::fs::write(
        bundle.join("manifest.toml"),
        "name = \"seer\"\nversion = \"1.0.0\"\nlicence = \"Apache-2.0\"\ntraining_data = []\nlayout = \"end-to-end\"\n\
         labels = [\"person\"]\n[input]\nfit = \"stretch\"\n[output]\nboxes = \"xyxy\"\nunit = \"pixels\"\n",
    )?;
    Ok(bundle)
}
