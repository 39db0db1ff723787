//! Real models on real footage, where both are at hand; each test says what it skips.

#![allow(clippy::unwrap_used)] // what panics here fails its test

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_vision::{
    Colour, Detection, Detector, DetectorOptions, EVIDENCE_MAX_BYTES, FrameView, Moment, PixelFormat, Plane,
    Rect, Redacted, Runtime, Scene, SceneOptions, THUMBNAIL_MAX_BYTES,
};

const COCO: &str = "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign \
    parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase \
    frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle \
    wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair \
    couch potted_plant bed dining_table toilet tv laptop mouse remote keyboard cell_phone microwave oven toaster sink \
    refrigerator book clock vase scissors teddy_bear hair_drier toothbrush";

#[test]
fn yolox_nano_finds_the_people_on_a_pavement() {
    let (Some(runtime), Some(model)) = (runtime(), data("models/yolox_nano_bigisland.onnx")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let labels: Vec<_> = COCO.split_whitespace().map(|label| label.replace('_', " ")).collect();
    let manifest = format!(
        "name = \"yolox-nano\"\nversion = \"0.1.1\"\nlabels = {labels:?}\nlicence = \"Apache-2.0\"\n\
         training_data = [\"COCO 2017\"]\n[input]\ncolour = \"bgr\"\n[thresholds]\ndefault = 0.3\n"
    );
    std::fs::write(folder.path().join("manifest.toml"), manifest).unwrap();
    std::os::unix::fs::symlink(model, folder.path().join("model.onnx")).unwrap();

    let mut detector = Detector::load(&runtime, folder.path(), &DetectorOptions::default()).unwrap();
    assert_eq!(detector.model().input, (416, 416));
    let Some(people) = people_on_the_pavement(&mut detector) else { return };
    // Four are there; two walk side by side and are one box, two are cut off by the edge.
    assert!(people >= 2, "{people} people above the threshold");
}

#[test]
fn the_built_in_model_finds_the_people_on_a_pavement() {
    let folder = workspace().join("models/builtin");
    if !folder.join("model.onnx").exists() {
        eprintln!("skipped: no built-in model in {folder:?}");
        return;
    }
    let Some(runtime) = runtime() else { return };
    let mut detector = Detector::load(&runtime, &folder, &DetectorOptions::default()).unwrap();
    assert_eq!(detector.model().input, (512, 320));
    let Some(people) = people_on_the_pavement(&mut detector) else { return };
    assert!(people >= 1, "{people} people above the threshold");
}

/// Decoders in Python that share nothing with this crate (`models/reference/decoders.py`) have written down what they
/// see in a dozen pictures. The files come bare, with COCO's labels beside them: nothing but the graph tells the layout.
///
/// With DETECTIONS_OUT=FILE all pictures of the split `val` are looked at as well, and FILE holds what was seen.
#[test]
fn models_agree_with_an_independent_decoder() {
    let (Some(runtime), Some(pictures)) = (runtime(), data("train/coco256/images")) else { return };
    let reference: BTreeMap<String, Reference> =
        serde_json::from_str(include_str!("reference-boxes.json")).unwrap();
    let labels: Vec<_> = COCO.split_whitespace().map(|label| label.replace('_', " ")).collect();
    let mut seen_by_all = BTreeMap::new();
    for (key, Reference { model, pictures: expected }) in reference {
        let Some(model) = data(&format!("models/{model}")) else { return };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(format!("{key}.onnx"));
        std::os::unix::fs::symlink(model, &file).unwrap();
        std::fs::write(file.with_extension("txt"), labels.join("\n")).unwrap();
        let mut detector = Detector::load(&runtime, &file, &DetectorOptions::default()).unwrap();
        let (mut overlaps, mut doubts) = (Vec::new(), 0);
        for (name, boxes) in &expected {
            let Some(found) = look(&mut detector, &pictures.join(format!("{name}.webp"))) else { return };
            for (class, score, left, top, right, bottom) in boxes.iter().filter(|row| row.1 >= 0.4) {
                let bounds = Rect::from_sides(*left, *top, *right, *bottom);
                // One that overlaps a better one by a hundredth less than what suppresses it may be suppressed here.
                let doubtful = boxes.iter().any(|(of, better, left, top, right, bottom)| {
                    let overlap = Rect::from_sides(*left, *top, *right, *bottom).iou(&bounds);
                    of == class && better > score && overlap > sharp_eyes_vision::nms::OVERLAP - 0.01
                });
                if doubtful {
                    doubts += 1;
                    continue;
                }
                let best = found
                    .iter()
                    .filter(|d| d.class.name() == class && (d.score - score).abs() < 0.15)
                    .map(|d| d.bounds.iou(&bounds))
                    .fold(0.0, f32::max);
                // Both scale pictures in their own way, so that of two cells of one object the other can win.
                assert!(best > 0.5, "{key} {name}: {class} {score} {bounds:?} is not in {found:?}");
                overlaps.push(best);
            }
            for d in found.iter().filter(|d| d.score >= 0.5) {
                let alike = boxes.iter().any(|(class, _, left, top, right, bottom)| {
                    d.class.name() == class
                        && d.bounds.iou(&Rect::from_sides(*left, *top, *right, *bottom)) > 0.5
                });
                assert!(alike, "{key} {name}: {d:?} is not in {boxes:?}");
            }
        }
        overlaps.sort_by(f32::total_cmp);
        assert!(doubts * 20 <= overlaps.len(), "{key}: {doubts} boxes are in doubt");
        assert!(overlaps.len() >= 10, "{key}: {} boxes are too few to tell", overlaps.len());
        let median = overlaps[overlaps.len() / 2];
        eprintln!(
            "{key}: {} boxes and {doubts} in doubt, overlap {:.3} at worst, {median:.3} in the middle",
            overlaps.len(),
            overlaps[0]
        );
        assert!(median > 0.93, "{key}: the boxes overlap by {median} in the middle");
        if std::env::var_os("DETECTIONS_OUT").is_some() {
            seen_by_all.insert(key, look_at_all(&mut detector, &pictures));
        }
    }
    if let Some(file) = std::env::var_os("DETECTIONS_OUT") {
        std::fs::write(file, serde_json::to_string(&seen_by_all).unwrap()).unwrap();
    }
}

/// Class, score, and the sides left, top, right, bottom in 0..1 of the picture.
type Row = (String, f32, f32, f32, f32, f32);

#[derive(serde::Deserialize)]
struct Reference {
    model: String,
    pictures: BTreeMap<String, Vec<Row>>,
}

/// What is seen in the pictures of the split `val`.
fn look_at_all(detector: &mut Detector, pictures: &Path) -> BTreeMap<String, Vec<Row>> {
    let manifest = std::fs::read_to_string(pictures.with_file_name("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let files = manifest["files"].as_object().unwrap();
    let row = |d: &Detection| {
        let Rect { left, top, .. } = d.bounds;
        (d.class.name().to_owned(), d.score, left, top, d.bounds.right(), d.bounds.bottom())
    };
    files
        .iter()
        .filter(|(_, file)| file["split"] == "val")
        .map(|(name, _)| {
            let found = look(detector, &pictures.join(format!("{name}.webp"))).unwrap();
            (name.clone(), found.iter().map(row).collect())
        })
        .collect()
}

/// What is seen in a picture, which the command ffmpeg decodes.
fn look(detector: &mut Detector, picture: &Path) -> Option<Vec<Detection>> {
    let y4m = ffmpeg(|ffmpeg| {
        ffmpeg.arg("-i").arg(picture).args([
            "-pix_fmt",
            "yuv420p",
            "-f",
            "yuv4mpegpipe",
            "-strict",
            "-1",
            "-",
        ])
    })?;
    // YUV4MPEG2 W416 H277 ...\nFRAME\n, then the planes.
    let header = y4m.iter().position(|&byte| byte == b'\n').unwrap();
    let line = String::from_utf8_lossy(&y4m[..header]).into_owned();
    let side = |letter: char| {
        line.split(' ').find_map(|word| word.strip_prefix(letter)?.parse::<u32>().ok()).unwrap()
    };
    let (width, height) = (side('W'), side('H'));
    let pixels = &y4m[header + 1 + b"FRAME\n".len()..];
    Some(detector.detect(&i420(pixels, width, height), &[]).unwrap())
}

/// Planes one after the other as a frame.
fn i420(pixels: &[u8], width: u32, height: u32) -> FrameView<'_> {
    let (luma, chroma) = ((width * height) as usize, (width.div_ceil(2) * height.div_ceil(2)) as usize);
    let half = width.div_ceil(2) as usize;
    let planes = [
        Plane { data: &pixels[..luma], stride: width as usize },
        Plane { data: &pixels[luma..luma + chroma], stride: half },
        Plane { data: &pixels[luma + chroma..], stride: half },
    ];
    FrameView::new(width, height, PixelFormat::I420, Colour::Bt601, false, &planes).unwrap()
}

/// How many people are seen at the pavement clip's sixth second. Checks on the way that detections are sorted and
/// within the picture, that the scene follows the people, and that the evidence picture fits.
fn people_on_the_pavement(detector: &mut Detector) -> Option<usize> {
    let (width, height) = (626u32, 360u32);
    let clip = data("videos/ahmetozlu-pedestrian3.mp4")?;
    let pixels = decode(&clip, "6")?;
    let frame = i420(&pixels, width, height);

    let detections = detector.detect(&frame, &[]).unwrap();
    assert!(detections.is_sorted_by(|a, b| a.score >= b.score));
    for Detection { bounds, .. } in &detections {
        assert!(
            bounds.left >= 0.0
                && bounds.top >= 0.0
                && bounds.right() <= 1.0 + 1e-6
                && bounds.bottom() <= 1.0 + 1e-6
        );
    }
    let thresholds = detector.model().thresholds.clone();
    let above = |detection: &&Detection| detection.score >= thresholds.of(detection.class);
    let people: Vec<_> =
        detections.iter().filter(above).filter(|detection| detection.class == ObjectClass::Person).collect();
    eprintln!("{}: {} people, {} detections", detector.model().name, people.len(), detections.len());

    let everywhere =
        [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)].map(|(x, y)| sharp_eyes_vision::Point { x, y });
    let rule = sharp_eyes_vision::Rule {
        name: "street".to_owned().try_into().unwrap(),
        zone: "street".parse().ok(),
        kind: sharp_eyes_vision::RuleKind::Intrusion {
            polygon: sharp_eyes_vision::Polygon::new(everywhere.to_vec()).unwrap(),
            dwell: std::time::Duration::ZERO,
        },
        classes: vec![ObjectClass::Person],
        cooldown: std::time::Duration::ZERO,
        severity: sharp_eyes_protocol::level::Severity::Minor,
        schedule: "always".parse().unwrap(),
        min_score: None,
        min_height: 0.0,
        wakeful: false,
        evidence: true,
    };
    let options = SceneOptions { thresholds, rules: vec![rule], time_zone: jiff::tz::TimeZone::UTC };
    let now = Moment::new(std::time::Duration::ZERO, jiff::Timestamp::UNIX_EPOCH);
    let incidents = Scene::new(options).observe(now, &detections);
    for incident in incidents.iter().take(1) {
        let redacted =
            Redacted::of(&frame, &[], Some(&detections), Some(incident), "intrusion street person");
        for (name, jpeg, limit) in [
            ("picture", redacted.picture(EVIDENCE_MAX_BYTES).unwrap(), EVIDENCE_MAX_BYTES),
            ("thumbnail", redacted.thumbnail().unwrap(), THUMBNAIL_MAX_BYTES),
        ] {
            assert!(jpeg.len() <= limit, "{name}: {} bytes", jpeg.len());
            if let Some(folder) = std::env::var_os("EVIDENCE_OUT") {
                let name = format!("{}-{name}.jpg", detector.model().name);
                std::fs::write(Path::new(&folder).join(name), jpeg).unwrap(); // to be looked at
            }
        }
    }
    Some(people.len())
}

/// One frame as yuv420p, by the command ffmpeg.
fn decode(clip: &Path, second: &str) -> Option<Vec<u8>> {
    ffmpeg(|ffmpeg| {
        ffmpeg.args(["-ss", second, "-i"]).arg(clip).args([
            "-frames:v",
            "1",
            "-pix_fmt",
            "yuv420p",
            "-f",
            "rawvideo",
            "-",
        ])
    })
}

/// What ffmpeg prints.
fn ffmpeg(arguments: impl FnOnce(&mut Command) -> &mut Command) -> Option<Vec<u8>> {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin"]);
    match arguments(&mut command).output() {
        Ok(output) if output.status.success() => Some(output.stdout),
        other => {
            eprintln!(
                "skipped: ffmpeg cannot decode {:?}: {other:?}",
                command.get_args().collect::<Vec<_>>()
            );
            None
        }
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn data(name: &str) -> Option<PathBuf> {
    let file = workspace().join("../shared/data").join(name).canonicalize().ok();
    if file.is_none() {
        eprintln!("skipped: no ../shared/data/{name}");
    }
    file
}

fn runtime() -> Option<Runtime> {
    let library = std::env::var_os("ORT_DYLIB_PATH")
        .map_or_else(|| workspace().join(".cache/onnxruntime/libonnxruntime.so"), PathBuf::from);
    if !library.exists() {
        eprintln!("skipped: no ONNX Runtime at {library:?}; `make test` installs it");
        return None;
    }
    Some(Runtime::load(&library).unwrap())
}
