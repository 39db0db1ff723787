//! A box with cameras, each behind a man in the middle. One of them, `well`, has no fault and is looked at all the while.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sharp_eyes_protocol::report::{CameraHealth, CameraState, GateState};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::camera::Camera;
use sharp_eyes_tests::faulty_camera::{Fate, FaultyCamera, Passing, rule};
use sharp_eyes_tests::places;
use sharp_eyes_tests::village::{Village, VillageCamera};

use crate::stage::{await_state, goes_on};

/// The mount of every camera, so that another one can stand in.
pub(super) const MOUNT: &str = "view";

/// What a camera looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum View {
    /// Pedestrians at all times: the camera is awake.
    Street,
    /// The same in H.265.
    StreetH265,
    /// The same with B frames.
    StreetReordered,
    /// The same, one frame a second.
    StreetSlow,
    /// The street stands still: the camera sleeps.
    Still,
    /// The same in H.265.
    StillH265,
}

impl View {
    /// Small pictures, because there are many cameras in a test.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Street => &["--size", "384x288"],
            Self::StreetH265 => &["--size", "480x360", "--codec", "h265"],
            Self::StreetReordered => &["--size", "384x288", "--codec", "h264b"],
            Self::StreetSlow => &["--size", "384x288", "--fps", "1"],
            Self::Still => &["--reel", "14~14x400", "--noise", "2"],
            Self::StillH265 => &["--size", "384x288", "--reel", "14~14x30", "--codec", "h265"],
        }
    }

    /// Lines of the camera's table: awake for certain, or asleep soon.
    fn lines(self) -> &'static str {
        match self {
            Self::Still => "analysed_fps = 2\nhold = \"1s\"\n",
            // Keyframes are looked at each second, and not each quarter of a minute.
            Self::StillH265 => "analysed_fps = 2\nhold = \"1s\"\ngate = \"keyframes\"\n",
            _ => "analysed_fps = 2\ngate = \"always\"\n",
        }
    }
}

/// Cameras without an agent yet.
pub(super) struct Cast {
    folder: PathBuf,
    village: Village,
    faulty: BTreeMap<&'static str, FaultyCamera>,
    real: BTreeMap<View, Camera>,
}

impl Cast {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        // Nobody is at the broker's port: these tests ask the box itself.
        let village = Village::new(folder, places::free_port()?)?;
        let (faulty, real) = (BTreeMap::new(), BTreeMap::new());
        let mut cast = Self { folder: folder.to_owned(), village, faulty, real };
        cast.add("well", View::Street, rule::pass)?;
        Ok(cast)
    }

    /// A camera with a fault from the start.
    pub(super) fn add(
        &mut self,
        name: &'static str,
        view: View,
        rule: impl FnMut(&Passing<'_>) -> Fate + Send + 'static,
    ) -> Result<()> {
        self.add_with(name, view, "", rule)
    }

    /// The same with more lines in its table.
    pub(super) fn add_with(
        &mut self,
        name: &'static str,
        view: View,
        lines: &str,
        rule: impl FnMut(&Passing<'_>) -> Fate + Send + 'static,
    ) -> Result<()> {
        let faulty = FaultyCamera::start(self.real(view)?.port())?;
        faulty.set_rule(rule);
        let camera = VillageCamera::new(name, faulty.url(MOUNT)).line(view.lines()).line(lines);
        self.village.cameras.push(camera);
        self.faulty.insert(name, faulty);
        Ok(())
    }

    /// A camera at a port of its own.
    pub(super) fn add_at(&mut self, name: &str, view: View, port: u16) {
        let url = format!("rtsp://127.0.0.1:{port}/{MOUNT}");
        self.village.cameras.push(VillageCamera::new(name, url).line(view.lines()));
    }

    /// The camera behind all that have this view.
    pub(super) fn real(&mut self, view: View) -> Result<&mut Camera> {
        if !self.real.contains_key(&view) {
            let mount = format!("{MOUNT}={}", places::footage()?.display());
            let arguments = [&["--mount", &mount, "--switch-size-when-told"], view.arguments()].concat();
            self.real.insert(view, Camera::start(&self.folder, &arguments)?);
        }
        self.real.get_mut(&view).context("it is there")
    }

    pub(super) fn start(self) -> Result<Scene> {
        self.start_with(|_| {})
    }

    /// The same where the agent's command is prepared further.
    pub(super) fn start_with(self, prepare: impl FnOnce(&mut Command)) -> Result<Scene> {
        let agent = Agent::start_with(&self.village, prepare)?;
        Ok(Scene { agent, faulty: self.faulty, real: self.real })
    }
}

/// The fields are dropped in this order: the agent before what it talks to.
pub(super) struct Scene {
    pub(super) agent: Agent,
    faulty: BTreeMap<&'static str, FaultyCamera>,
    real: BTreeMap<View, Camera>,
}

impl Scene {
    /// The man in the middle before a camera.
    pub(super) fn between(&self, camera: &str) -> &FaultyCamera {
        &self.faulty[camera]
    }

    /// The camera behind all that have this view.
    pub(super) fn real(&mut self, view: View) -> Result<&mut Camera> {
        self.real.get_mut(&view).context("no camera has that view")
    }

    /// All cameras but `well`.
    pub(super) fn broken(&self) -> Vec<&'static str> {
        self.faulty.keys().copied().filter(|name| *name != "well").collect()
    }

    /// What health says of a camera now.
    pub(super) fn health(&mut self, camera: &str) -> Result<CameraHealth> {
        self.agent.camera_when(camera, "its health", |_| true)
    }

    /// Waits until a camera has failed, and returns why.
    pub(super) fn fails(&mut self, camera: &str) -> Result<String> {
        await_state(&mut self.agent, camera, CameraState::Failed)
    }

    /// Waits until a camera streams, and so many more of its frames have been looked at.
    pub(super) fn streams(&mut self, camera: &str, frames: u64) -> Result<()> {
        await_state(&mut self.agent, camera, CameraState::Streaming)?;
        goes_on(&mut self.agent, camera, frames)
    }

    /// Waits until a camera sleeps, from a connection that works.
    pub(super) fn sleeps(&mut self, camera: &str) -> Result<CameraHealth> {
        self.agent.camera_when(camera, &format!("camera {camera} to sleep"), |entry| {
            entry.state == CameraState::Streaming
                && entry.gate.as_ref().is_some_and(|gate| gate.state == GateState::Asleep)
        })
    }

    /// The camera without a fault is looked at, and has been connected once and for all.
    pub(super) fn well_is_well(&mut self) -> Result<()> {
        goes_on(&mut self.agent, "well", 3)?;
        let well = self.health("well")?;
        ensure!(well.failures == 0 && well.state == CameraState::Streaming, "{well:?}");
        Ok(())
    }
}
