//! A wall clock that is wrong and jumps, by libfaketime, under the real processes. The monotonic clock goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sharp_eyes_protocol::alert::{AlertEvent, ClockTrust};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::alert_source::AlertSource;
use sharp_eyes_tests::authority::Authority;
use sharp_eyes_tests::broker::{BrokerOptions, TlsFiles};
use sharp_eyes_tests::faulty_broker::{Direction, Fate, Kind, rule};
use sharp_eyes_tests::village::VillageCamera;
use sharp_eyes_tests::wait;

use crate::scene::{Scene, arrive};
use crate::stage::{complete, goes_on, play, raised, street, township, village};

/// As libfaketime wants it: a time, or how far from the right one.
const IN_1970: &str = "@1970-01-01 12:00:00";
const RIGHT: &str = "+0";
const BACK_A_DAY: &str = "-1d";
const FORWARD_30_YEARS: &str = "+30y";

/// A wall clock that the test turns.
struct WallClock {
    library: PathBuf,
    file: PathBuf,
}

impl WallClock {
    fn new(folder: &Path, shows: &str) -> Result<Self> {
        let libraries = fs::read_dir("/usr/lib")?.flatten().map(|entry| entry.path());
        let library =
            libraries.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|file| file.exists());
        let library = library.context("libfaketime is missing: run tests/setup.sh packages")?;
        let clock = Self { library, file: folder.join("wall-clock") };
        clock.turn(shows)?;
        Ok(clock)
    }

    /// At once, for all processes under it.
    fn turn(&self, shows: &str) -> Result<()> {
        let fresh = self.file.with_extension("new");
        fs::write(&fresh, shows)?;
        Ok(fs::rename(fresh, &self.file)?)
    }

    fn prepare(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

/// A machine whose time service has set its clock vouches for any time that the process sees.
fn vouched_for() -> bool {
    Path::new("/run/systemd/timesync/synchronized").exists()
}

#[test]
fn a_box_whose_clock_starts_in_1970_and_jumps_by_a_day_and_by_30_years() {
    play(|folder| {
        let mut scene = Scene::set(folder)?;
        scene.village.escalation_lines = "minor = \"1h\"\nmajor = \"1h\"\ncritical = \"1h\"\n".into();
        let clock = WallClock::new(folder, IN_1970)?;
        let start = |scene: &Scene| AlertSource::start_with(&scene.village, |command| clock.prepare(command));
        let mut source = start(&scene)?;
        source.store(3, None)?;
        for jump in [RIGHT, BACK_A_DAY, FORWARD_30_YEARS] {
            clock.turn(jump)?;
            source.store(3, None)?;
        }
        source.await_delivery()?;
        // What waits outlives each start in another time: it is neither too old nor of the future.
        scene.between.set_rule(rule::each(Direction::ToBroker, Kind::Publish, 1, Fate::Cut));
        let mut promised = source.stored();
        for time in [FORWARD_30_YEARS, IN_1970, FORWARD_30_YEARS, BACK_A_DAY] {
            clock.turn(time)?;
            let before = source.stored().len();
            source.store(3, None)?;
            promised.extend(source.kill()?.split_off(before));
            source = start(&scene)?;
        }
        scene.between.heal();
        source.await_delivery()?;
        let outbox = source.health()?.outbox;
        ensure!(outbox.evicted_alerts + outbox.evicted_evidence + outbox.unanswered == 0, "{outbox:?}");
        source.stop()?;
        arrive(&scene.console, &promised)?;
        scene.console.seen(|seen| {
            for received in &seen.alerts {
                let alert = &received.alert;
                ensure!(
                    alert.event == AlertEvent::Raised,
                    "a deadline moved with the clock: {}",
                    received.json
                );
                let jumped = (7..=12).contains(&alert.sequence);
                ensure!(!jumped || alert.data.clock == ClockTrust::Stepped, "{}", received.json);
                ensure!(vouched_for() || alert.data.clock != ClockTrust::Synced, "{}", received.json);
            }
            let years: Vec<i16> = [1, 10].map(|number| year(&seen.alerts, number)).to_vec();
            ensure!(years[0] == 1970 && years[1] > 2050, "the clock was not turned: {years:?}");
            Ok(())
        })
    });
}

fn year(alerts: &[sharp_eyes_tests::console::Received], sequence: u64) -> i16 {
    let found = alerts.iter().find(|received| received.alert.sequence == sequence);
    found.map_or(0, |found| found.alert.time.to_zoned(jiff::tz::TimeZone::UTC).year())
}

#[test]
fn an_agent_with_a_camera_whose_clock_jumps() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let village = village(folder, &broker)?.with(VillageCamera::guarded("gate", gate.url("gate")));
        let clock = WallClock::new(folder, IN_1970)?;
        let mut agent = Agent::start_with(&village, |command| clock.prepare(command))?;
        console.await_alerts(1)?;
        for time in [RIGHT, FORWARD_30_YEARS, BACK_A_DAY] {
            clock.turn(time)?;
            goes_on(&mut agent, "gate", 3)?;
        }
        let before = raised(&agent.health()?) as usize;
        console.wait_for("one more alert", 3 * wait::PATIENCE, |seen| {
            (seen.sequences().len() > before).then_some(())
        })?;
        let health = agent.health()?;
        let camera = &health.cameras[0];
        ensure!(camera.failures == 0, "the camera was connected anew: {camera:?}");
        ensure!(health.uplinks[0].failures == 0, "the broker was connected anew: {:?}", health.uplinks);
        complete(&console.seen(|seen| seen.sequences()), raised(&health))
    });
}

#[test]
fn a_box_in_1970_meets_its_broker_over_tls() {
    play(|folder| {
        let authority = Authority::new(folder, "ours")?;
        // Neither is good in 1970, and no plain TLS client would connect.
        let (from, until) = ("2026-01-01T00:00:00Z".parse()?, "2200-01-01T00:00:00Z".parse()?);
        let of_broker = authority.vouch_between("127.0.0.1", from, until)?;
        let of_box = authority.vouch_between("lan-xi/yun-shan/wang-cun/box-1", from, until)?;
        let ca = authority.file().to_owned();
        let tls = TlsFiles {
            ca: ca.clone(),
            certificate: of_broker.certificate,
            key: of_broker.key,
            revoked: None,
        };
        let (broker, console) =
            township(folder, &BrokerOptions { tls: Some(tls), ..BrokerOptions::default() })?;
        let mut village = AlertSource::village(folder, broker.tls_port())?;
        village.broker_lines = format!(
            "[broker.tls]\nca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
            ca.display(),
            of_box.certificate.display(),
            of_box.key.display()
        );
        let clock = WallClock::new(folder, IN_1970)?;
        let mut source = AlertSource::start_with(&village, |command| clock.prepare(command))?;
        source.store(3, None)?;
        source.await_delivery()?;
        arrive(&console, &source.stop()?)
    });
}
