//! Models that nobody should publish: refused, or rolled back, with the reason.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use sharp_eyes_tests::places;

use super::*;
use crate::stage::{IN_THE_LIGHT, read, spoil, wall, without_hash};

/// A repository that says nothing is given up later than this.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Publishes a model that is good but for this.
fn publish_bad(maintainer: &Maintainer, version: &str, mood: Mood, when: (f32, f32)) -> Result<()> {
    let model = maintainer.model(version, without_hash)?;
    spoil(&model, mood, when)?;
    publish_unchecked(maintainer, &model, version)
}

fn pixels(scale: &str) -> impl FnOnce(&str) -> String {
    let line = format!("scale = {scale}\n");
    move |manifest| manifest.replace("scale = 1.0 ", &format!("{line}# "))
}

#[test]
fn a_bad_model_is_refused_with_its_reason_and_the_old_one_stays() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        let village = quiet(&folder.join("box"), &maintainer)?;
        let blind = maintainer.model("2.0.1", pixels("0.0"))?;
        let eager = maintainer.model("2.0.2", |manifest| {
            let start = manifest.find("[thresholds]").unwrap_or(manifest.len());
            format!("{}[thresholds]\ndefault = 0.001\n", &manifest[..start])
        })?;
        let not_a_number = maintainer.model("2.0.3", pixels("1e38"))?;
        let truncated = maintainer.model("2.0.4", without_hash)?;
        let graph = fs::read(truncated.join("model.onnx"))?;
        fs::write(truncated.join("model.onnx"), &graph[..graph.len() / 2])?;
        let face = maintainer.model("2.0.5", |manifest| manifest.replace("\"smoke\"]", "\"face\"]"))?;
        let other = maintainer.model("2.0.6", |manifest| manifest.replace("2.0.6", "9.9.9"))?;
        for (version, model, words, packs) in [
            ("2.0.1", &blind, &["golden picture street.jpg", "a car with score", "is expected"][..], false),
            ("2.0.2", &eager, &["golden picture street.jpg", "that are not expected were seen"], false),
            ("2.0.3", &not_a_number, &["not finite"], false),
            ("2.0.4", &truncated, &["model.onnx", "damaged or no onnx file"], false),
            ("2.0.5", &face, &["face", "never identities"], false),
            ("2.0.6", &other, &["the bundle holds village-detector@9.9.9"], true),
        ] {
            let packed = maintainer.pack(model);
            ensure!(packed.is_ok() == packs, "{version}: {packed:?}");
            if let Err(error) = packed {
                says(&format!("{error:#}"), words).context("what model pack says")?;
            }
            publish_unchecked(&maintainer, model, version)?;
            let (taken, said) = maintainer::import(&village, &maintainer.repository)?;
            ensure!(!taken, "{version} was taken: {said}");
            says(&said, words).with_context(|| format!("what model import says of {version}"))?;
            let status = maintainer::status(&village)?;
            ensure!(status["active"].is_null(), "{version}: {status}");
            ensure!(status["update"]["stage"] == "refused", "{version}: {status}");
            let (_, again) = maintainer::import(&village, &maintainer.repository)?;
            says(&again, &["nothing for this box"]).context("a second try")?;
        }
        Ok(())
    });
}

#[test]
fn a_model_that_is_too_slow_for_the_box_is_refused_there() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        maintainer.publish("1.1.0")?;
        let mut village = quiet(&folder.join("box"), &maintainer)?;
        village.tables = maintainer.section("budget = \"1ms\"");
        let (taken, said) = maintainer::import(&village, &maintainer.repository)?;
        ensure!(!taken, "{said}");
        says(&said, &["one inference takes", "1.0 ms are left for it on this box"])?;

        // What is as fast as the model that looks now is fast enough, whatever the frames would leave.
        village.tables = maintainer.section("");
        village.state = folder.join("box/second");
        village.cameras = (0..32)
            .map(|n| VillageCamera::new(&format!("c{n}"), "rtsp://127.0.0.1:1/c").line("analysed_fps = 30"))
            .collect();
        maintainer::take(&village, &maintainer.repository)
    });
}

#[test]
fn a_model_that_a_box_cannot_try_just_now_is_tried_again() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        maintainer.publish("1.1.0")?;
        let mut village = quiet(&folder.join("box"), &maintainer)?;
        let library = std::mem::replace(&mut village.runtime, folder.join("libonnxruntime.so"));
        let (taken, said) = maintainer::import(&village, &maintainer.repository)?;
        ensure!(!taken, "{said}");
        says(&said, &["village-detector@1.1.0 could not be tried to the end", "libonnxruntime.so"])?;
        let status = maintainer::status(&village)?;
        ensure!(status["active"].is_null() && status["refused"] == serde_json::json!([]), "{status}");
        ensure!(!village.state.join("models/candidate").exists(), "it takes room while it waits");
        village.runtime = library;
        maintainer::take(&village, &maintainer.repository)
    });
}

/// The mean of the golden picture's pixels is 113; the pictures that a model is first run on have others.
const AT_THE_PICTURE: (f32, f32) = (110.0, 116.0);

#[test]
fn a_model_that_hangs_or_ends_the_process_while_it_is_tried_is_refused() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        let mut village = quiet(&folder.join("box"), &maintainer)?;
        village.tables = maintainer.section("budget = \"50ms\"");
        let mut moods = vec![("3.0.1", Mood::Hangs, "it hangs: nothing for 10 s")];
        if cfg!(target_arch = "x86_64") {
            moods.push(("3.0.2", Mood::Crashes, "it ends the process that tries it: signal: 8"));
        }
        for (version, mood, words) in moods {
            publish_bad(&maintainer, version, mood, AT_THE_PICTURE)?;
            let (taken, said) = maintainer::import(&village, &maintainer.repository)?;
            ensure!(!taken, "{version} was taken: {said}");
            says(&said, &[": golden", words])?;
            let status = maintainer::status(&village)?;
            ensure!(status["active"].is_null() && status["update"]["stage"] == "refused", "{status}");
        }
        Ok(())
    });
}

#[test]
fn the_agent_ends_while_a_model_that_hangs_is_tried_and_takes_it_along() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        // With such a budget it may be silent for two minutes.
        let lines = "interval = \"1s\"\nbudget = \"10s\"";
        let village = watched(folder, &broker, "rtsp://127.0.0.1:1/gate", &maintainer, lines)?;
        let mut agent = Agent::start(&village)?;
        publish_bad(&maintainer, "3.0.1", Mood::Hangs, AT_THE_PICTURE)?;
        stage(&console, "3.0.1", ModelStage::Golden)?;
        let tried = child(agent.process().pid())?;
        let victim = fs::read_to_string(tried.join("oom_score_adj"))?;
        ensure!(victim.trim() == "1000", "when memory runs out, others may go before it: {victim}");
        ensure!(agent.stop_within(Duration::from_secs(15))? == 0, "it did not end as asked");
        wait::until("the end of what tries the model", wait::PATIENCE, || {
            fs::read(tried.join("cmdline")).unwrap_or_default().is_empty().then_some(()) // as one that nobody waits for has
        })?;
        let status = maintainer::status(&village)?;
        ensure!(status["refused"].as_array().is_some_and(Vec::is_empty), "nobody's fault: {status}");
        Ok(())
    });
}

/// The folder in /proc of the only child of a process.
fn child(pid: u32) -> Result<PathBuf> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("children"))?;
        children.extend(text.split_whitespace().map(str::to_owned));
    }
    ensure!(children.len() == 1, "its children: {children:?}");
    Ok(Path::new("/proc").join(&children[0]))
}

#[test]
fn a_model_that_turns_bad_while_it_looks_is_rolled_back_and_no_camera_is_blind_for_long() {
    turns_bad("");
}

#[test]
fn a_model_that_turns_bad_in_one_of_its_sessions_is_rolled_back_in_all() {
    turns_bad("sessions = 2");
}

/// Models that pass their trial, and are bad as soon as one of the cameras shows a white wall.
fn turns_bad(detector_lines: &str) {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let mut wall = wall(folder)?;
        let lines = "interval = \"1s\"\nwatch = \"1h\"\nbudget = \"400ms\"";
        let mut village = watched(folder, &broker, &gate.url("gate"), &maintainer, lines)?;
        village.cameras.push(VillageCamera::new("yard", wall.url("wall")).line("gate = \"always\""));
        village.detector_lines = detector_lines.into();
        let mut agent = Agent::start(&village)?;
        await_analysis(&mut agent, "gate")?;
        let blind =
            |agent: &mut Agent| Ok::<_, anyhow::Error>(agent.camera_when("gate", "it", |_| true)?.blind_s);
        for (version, mood, words) in [
            ("2.0.1", Mood::NotNumbers, &["frames could not be analysed"][..]),
            ("2.0.2", Mood::Hangs, &["it hangs: no frame was finished in 2.0 s"]),
        ] {
            publish_bad(&maintainer, version, mood, IN_THE_LIGHT)?;
            active(&console, version)?;
            goes_on(&mut agent, "gate", 5)?;
            let before = blind(&mut agent)?;
            wall.restart()?;
            says(&stage(&console, version, ModelStage::RolledBack)?, words).context(version.to_owned())?;
            active(&console, "1.0.0")?;
            goes_on(&mut agent, "gate", 5)?;
            goes_on(&mut agent, "yard", 5)?;
            println!("{version}: the gate was blind for {:.1} s", blind(&mut agent)? - before);
            ensure!((mood == Mood::Hangs) == (blind(&mut agent)? > before + 1.0), "{mood:?} is not counted");
            wall.kill()?;
        }
        let gate = agent.camera_when("gate", "its health", |_| true)?;
        ensure!(gate.failures == 0, "it was connected anew: {gate:?}");

        // One that ends the whole agent, which is started anew each time: after the third the one before looks again.
        if cfg!(target_arch = "x86_64") {
            publish_bad(&maintainer, "2.0.3", Mood::Crashes, IN_THE_LIGHT)?;
            active(&console, "2.0.3")?;
            wall.restart()?;
            for _ in 0..3 {
                wait::until("the end of the agent", wait::PATIENCE, || agent.process().ended())?;
                agent = Agent::start(&village)?;
            }
            says(&stage(&console, "2.0.3", ModelStage::RolledBack)?, &["ended 2 times"])?;
            active(&console, "1.0.0")?;
            goes_on(&mut agent, "yard", 5)?;
        }
        Ok(())
    });
}

#[test]
fn a_model_that_turns_bad_while_the_repository_is_silent_is_rolled_back_at_once() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let mut wall = wall(folder)?;
        let mut village = watched(folder, &broker, &wall.url("wall"), &maintainer, "budget = \"400ms\"")?;
        publish_bad(&maintainer, "2.0.1", Mood::NotNumbers, IN_THE_LIGHT)?;
        maintainer::take(&village, &maintainer.repository)?;
        let silent = TcpListener::bind(("127.0.0.1", 0))?;
        let lines = "interval = \"1s\"\nwatch = \"1h\"\nbudget = \"400ms\"";
        let url = format!("http://{}", silent.local_addr()?);
        village.tables = maintainer.section(&format!("repository = {url:?}\n{lines}"));
        let _agent = Agent::start(&village)?;
        active(&console, "2.0.1")?;
        let _asks = silent.accept()?;
        wall.restart()?;
        let started = Instant::now();
        says(&stage(&console, "2.0.1", ModelStage::RolledBack)?, &["frames could not be analysed"])?;
        ensure!(started.elapsed() < SILENCE_MAX, "the repository was waited for");
        active(&console, "1.0.0")
    });
}

/// What the camera shows: brighter than a golden picture that was darkened, and darker than what a model is first run on.
const BY_DAY: (f32, f32) = (100.0, 119.0);

/// A golden picture that is darker than everything that the camera shows, in which a good model sees the same.
fn darken(maintainer: &Maintainer, model: &Path) -> Result<()> {
    let (street, dark) = (model.join("golden/street.jpg"), model.join("dark.jpg"));
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").arg("filesrc").arg(format!("location={}", street.display()));
    command
        .args("! jpegdec ! videoconvert ! videobalance brightness=-0.15 ! videoconvert ! jpegenc".split(' '));
    command.arg("!").arg("filesink").arg(format!("location={}", dark.display()));
    ensure!(command.status().context("running gst-launch-1.0")?.success(), "no darker picture");
    fs::rename(dark, street)?;
    fs::remove_file(model.join("golden/street.json"))?;
    let runtime = places::onnx_runtime()?;
    let bundle = model.with_extension("dark");
    let pack: [&OsStr; 8] = [
        "model".as_ref(),
        "pack".as_ref(),
        model.as_ref(),
        "--write-expected".as_ref(),
        "--runtime".as_ref(),
        runtime.as_ref(),
        "-o".as_ref(),
        bundle.as_ref(),
    ];
    maintainer.does(pack).map(drop)
}

/// Models that pass their trial, and see nothing, everything or no numbers at the cameras of this box.
#[test]
fn a_model_that_disagrees_with_the_active_one_beside_it_never_looks() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let lines = "interval = \"1s\"\nshadow = \"1h\"\nwatch = \"1s\"\nbudget = \"10s\"";
        let village = watched(folder, &broker, &gate.url("gate"), &maintainer, lines)?;
        let mut agent = Agent::start(&village)?;
        await_analysis(&mut agent, "gate")?;
        for (version, mood, words) in [
            ("4.0.1", Mood::Blind, &["it misses", "objects that the active model is sure of"][..]),
            ("4.0.2", Mood::Eager, &["it sees", "the active model sees"]),
            ("4.0.3", Mood::NotNumbers, &["it fails at 5 frames in a row", "not finite"]),
            #[cfg(target_arch = "x86_64")]
            ("4.0.4", Mood::Crashes, &["it ends the process that it looks in: signal: 8"]),
        ] {
            let model = maintainer.model(version, without_hash)?;
            darken(&maintainer, &model)?;
            spoil(&model, mood, BY_DAY)?;
            publish_unchecked(&maintainer, &model, version)?;
            says(&stage(&console, version, ModelStage::Refused)?, words).context(version.to_owned())?;
            ensure!(agent.health()?.detector.failures == 0, "{version} failed at frames");
        }
        active(&console, "1.0.0")?;
        let before = agent.camera_when("gate", "its health", |_| true)?;
        ensure!(before.failures == 0, "{before:?}");
        Ok(())
    });
}

#[test]
fn a_good_model_looks_beside_the_active_one_and_then_in_its_place() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let lines = "interval = \"1s\"\nshadow = \"4s\"\nwatch = \"1s\"\nbudget = \"10s\"";
        let village = watched(folder, &broker, &gate.url("gate"), &maintainer, lines)?;
        let mut agent = Agent::start(&village)?;
        await_analysis(&mut agent, "gate")?;
        maintainer.publish("1.1.0")?;
        stage(&console, "1.1.0", ModelStage::Shadow)?;
        goes_on(&mut agent, "gate", 5)?;
        stage(&console, "1.1.0", ModelStage::Kept)?;
        active(&console, "1.1.0")?;

        // The agent ends without waiting for one that looks. As systemd does it, each of its processes is told.
        maintainer.publish("1.2.0")?;
        stage(&console, "1.2.0", ModelStage::Shadow)?;
        let group = i32::try_from(agent.process().pid()).ok().and_then(Pid::from_raw);
        kill_process_group(group.context("no process")?, Signal::TERM)?;
        ensure!(agent.process().wait(wait::PATIENCE)?.success(), "it did not end as asked");
        ensure!(
            maintainer::status(&village)?["refused"].as_array().is_some_and(Vec::is_empty),
            "nobody's fault"
        );
        let log = read(&Agent::log_file(&village.folder))?;
        let compared =
            log.lines().find(|line| line.contains("sure objects missed")).context("nothing compared")?;
        says(compared, &["1.1.0", " 0 of "])
    });
}
