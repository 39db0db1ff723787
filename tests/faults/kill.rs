//! The agent is killed, at any moment.

use std::time::{Duration, Instant};

use anyhow::ensure;
use fastrand::Rng;
use sharp_eyes_tests::alert_source::AlertSource;
use sharp_eyes_tests::wait;

use crate::scene::{Scene, arrive, beside};
use crate::stage::play;

/// Boxes that are killed beside each other, each so often.
const BOXES: [(&str, u64); 4] = [("first box", 1), ("second box", 2), ("third box", 3), ("fourth box", 4)];
const KILLS: usize = 250;

/// Decided in each of its lives.
const ALERTS: usize = 10;

#[test]
fn a_box_that_is_killed_at_a_thousand_random_moments() {
    play(|folder| {
        beside(folder, &BOXES, |folder, seed| {
            let scene = Scene::set(folder)?;
            let mut rng = Rng::with_seed(*seed);
            // One life to its end says how long the others may last: from before main to after the last answer.
            let begin = Instant::now();
            let mut source = AlertSource::start(&scene.village)?;
            source.store(ALERTS, None)?;
            source.await_delivery()?;
            let life = begin.elapsed();
            let mut promised = source.kill()?;
            for _ in 0..KILLS {
                let mut source = AlertSource::start(&scene.village)?;
                source.decide(ALERTS, None)?;
                wait::pause(Duration::from_secs_f64(life.as_secs_f64() * rng.f64()));
                promised.extend(source.kill()?);
            }
            let mut last = AlertSource::start(&scene.village)?;
            last.store(1, None)?;
            last.await_delivery()?;
            promised.extend(last.stop()?);
            ensure!(promised.len() > KILLS, "only {} alerts were stored before a kill", promised.len());
            arrive(&scene.console, &promised)
        })
    });
}
