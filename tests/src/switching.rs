//! A box whose models are updated and rolled back, again and again, and what its agent holds meanwhile.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sharp_eyes_agent::models::state::{Installed, State};

use crate::agent::Agent;
use crate::broker::{Broker, BrokerOptions};
use crate::camera::Camera;
use crate::console::Console;
use crate::maintainer::{self, Maintainer};
use crate::usage::Held;
use crate::village::{Village, VillageCamera};
use crate::{places, wait};

/// An agent with two models in its slots.
pub struct Switching {
    console: Console,
    agent: Agent,
    models: PathBuf,
    newer: Installed,
    versions: [String; 2],
    _camera: Camera,
    _broker: Broker,
}

impl Switching {
    /// Installs both and starts an agent that looks at a street.
    pub fn start(folder: &Path) -> Result<Self> {
        let broker = Broker::start(folder, &BrokerOptions::default())?;
        let console = Console::connect(broker.port(), None)?;
        let mount = format!("street={}", places::footage()?.display());
        let camera = Camera::start(folder, &["--mount", &mount])?;
        let maintainer = Maintainer::new(folder)?;
        let street = VillageCamera::new("street", camera.url("street")).line("gate = \"always\"");
        let mut village = Village::new(folder, broker.port())?.with(street);
        village.tables = maintainer.section("budget = \"10s\"\nwatch = \"7d\"");
        let models = village.state.join("models");
        for version in ["1.1.0", "1.2.0"] {
            State::change(&models, State::keep)?;
            maintainer.publish(version)?;
            maintainer::take(&village, &maintainer.repository)?;
        }
        let newer = State::read(&models)?.active.context("nothing was installed")?;
        let agent = Agent::start(&village)?;
        let versions = ["1.1.0", "1.2.0"].map(str::to_owned);
        let this = Self { console, agent, models, newer, versions, _camera: camera, _broker: broker };
        this.await_model(1)?;
        Ok(this)
    }

    /// Rolls the newer model back and updates to it, so many times, each time until it looks.
    pub fn switch(&mut self, rounds: u32) -> Result<()> {
        for round in 0..rounds {
            State::change(&self.models, |state| state.roll_back("it is to be measured"))?;
            self.await_model(0).with_context(|| format!("rollback {round}"))?;
            let newer = self.newer.clone();
            State::change(&self.models, |state| state.activate(newer.clone(), None))?;
            self.await_model(1).with_context(|| format!("update {round}"))?;
        }
        Ok(())
    }

    fn await_model(&self, index: usize) -> Result<()> {
        let version = &self.versions[index];
        self.console.wait_for(&format!("version {version} to look"), wait::PATIENCE, |seen| {
            (seen.models.as_ref()?.active.as_ref()?.model.version == *version).then_some(())
        })
    }

    /// What the agent holds.
    pub fn held(&mut self) -> Result<Held> {
        Held::at_rest(self.agent.process().pid(), 2)
    }
}
