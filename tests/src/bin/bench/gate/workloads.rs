//! What cameras show while the gate is measured.
//!
//! Out of the footage in `../shared/data/videos` where somebody has put it there, and else out of the demo's, which has
//! people in sight all the time: then an empty scene is one of its pictures that stands still.

use std::path::{Path, PathBuf};

use anyhow::Result;
use sharp_eyes_tests::camera::Camera;
use sharp_eyes_tests::places;

pub(super) const FPS: u64 = 15;

/// As a day-lit sensor of a cheap camera has it.
const NOISE: &str = "2";

/// Somebody is in sight from a second of the clip to another.
pub(super) type Visit = (u32, u32);

/// A scene to be played.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    clip: PathBuf,
    reel: Option<String>,
    /// Seconds that it takes until the scene repeats itself, or ends.
    pub(super) period_s: u64,
    /// Seconds of emptiness before the scene begins, in which a gate can learn what emptiness is.
    pub(super) prelude_s: u32,
    /// In seconds after the prelude.
    pub(super) visits: &'static [Visit],
}

/// Everything that is measured.
pub(super) struct Workloads {
    /// Nobody and nothing.
    pub(super) idle: Workload,
    /// People all the time.
    pub(super) busy: Workload,
    /// A room that people enter and leave, somebody in sight for four fifths of the time.
    pub(super) day: Option<Workload>,
    /// One visit and then emptiness: somebody in sight for 15 % of the time.
    pub(super) village_day: Workload,
}

/// Of `intel-one-by-one-person-detection.mp4`: the same as `agent/edge/tests/traces/room.truth` says.
const VISITS: &[Visit] = &[(6, 20), (22, 45), (50, 70), (74, 87), (92, 120), (123, 137)];

impl Workloads {
    pub(super) fn at_hand() -> Result<Self> {
        if let Some(videos) = places::shared_data().map(|folder| folder.join("videos")) {
            let room = videos.join("intel-one-by-one-person-detection.mp4");
            let pavement = videos.join("ahmetozlu-pedestrian3.mp4");
            if room.is_file() && pavement.is_file() {
                return Ok(Self::of_room_and_pavement(&room, &pavement));
            }
        }
        eprintln!(
            "no footage of an empty room in ../shared/data/videos: a picture of the street stands still instead"
        );
        Ok(Self::of_street(&places::footage()?))
    }

    fn of_room_and_pavement(room: &Path, pavement: &Path) -> Self {
        Self {
            // The room is empty for its first five seconds; forward and back, so that there is no jump.
            idle: Workload::new("idle", room, "0~5x6", 60),
            busy: Workload { reel: None, ..Workload::new("busy", pavement, "", 23) },
            day: Some(Workload {
                prelude_s: 30,
                visits: VISITS,
                ..Workload::new("day", room, "0~5x3,0-138", 138)
            }),
            village_day: Workload::new("village day", room, "0-22,0~5x7", 92),
        }
    }

    fn of_street(street: &Path) -> Self {
        Self {
            idle: Workload::new("idle", street, "14~14x450", 60),
            busy: Workload { reel: None, ..Workload::new("busy", street, "", 79) },
            day: None,
            village_day: Workload::new("village day", street, "0-14,14~14x600", 94),
        }
    }
}

impl Workload {
    fn new(name: &'static str, clip: &Path, reel: &str, period_s: u64) -> Self {
        Self { name, clip: clip.to_owned(), reel: Some(reel.to_owned()), period_s, prelude_s: 0, visits: &[] }
    }
}

/// Size and compression of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// 1920x1080, 3 Mbit/s.
    Rate1080p,
    /// 1920x1080, constant quality.
    Quality1080p,
    /// 640x360, 0.6 Mbit/s.
    Rate360p,
}

impl Stream {
    /// As part of a figure's key.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Rate1080p => "1080p",
            Self::Quality1080p => "1080p_quality",
            Self::Rate360p => "360p",
        }
    }

    fn options(self) -> [&'static str; 4] {
        match self {
            Self::Rate1080p => ["--size", "1920x1080", "--bitrate", "3000"],
            Self::Quality1080p => ["--size", "1920x1080", "--quality", "26"],
            Self::Rate360p => ["--size", "640x360", "--bitrate", "600"],
        }
    }
}

/// A camera simulator that plays a workload on paths `view-0`, `view-1` and so on, each for one client, each beginning
/// at the given second.
pub(super) fn play(
    folder: &Path,
    workload: &Workload,
    stream: Stream,
    starts: &[u64],
) -> Result<(Camera, Vec<String>)> {
    println!("{} as {}: encoding it, where that was not done before", workload.name, stream.key());
    let clip = workload.clip.display();
    let mounts: Vec<String> =
        starts.iter().enumerate().map(|(index, start)| format!("view-{index}={clip}@{start}")).collect();
    let fps = FPS.to_string();
    let mut arguments: Vec<&str> = mounts.iter().flat_map(|mount| ["--mount", mount]).collect();
    arguments.extend(["--fps", &fps, "--noise", NOISE]);
    arguments.extend(stream.options());
    if let Some(reel) = &workload.reel {
        arguments.extend(["--reel", reel]);
    }
    let camera = Camera::start(folder, &arguments)?;
    let urls = (0..starts.len()).map(|index| camera.url(&format!("view-{index}"))).collect();
    Ok((camera, urls))
}
