use sharp_eyes_vision::rules::RuleKind;
use sharp_eyes_vision::{DetectorOptions, Provider};

use super::*;

const MINIMAL: &str = r#"
[site]
district = "lan-xi"
township = "yun-shan"
village = "wang-cun"
box = "box-1"
time_zone = "Asia/Shanghai"

[state]
folder = "/var/lib/sharp-eyes"

[broker]
host = "127.0.0.1"

[detector]
model = "/usr/share/sharp-eyes/models/builtin"

[[camera]]
name = "gate"
url = "rtsp://10.0.0.7/stream"

[[camera.zone]]
name = "yard"
polygon = [[0.1, 0.3], [0.9, 0.3], [0.9, 1]]

[[camera.rule]]
name = "night"
kind = "intrusion"
zone = "yard"
classes = ["person"]
severity = "major"
"#;

/// Changes the minimal file and compares the problems with `LINE KEY: part of the message`.
fn check(change: &[(&str, &str)], expected: &[&str]) {
    let mut text = MINIMAL.to_owned();
    for (from, to) in change {
        assert!(text.contains(from), "{from:?} is not in the file");
        text = text.replacen(from, to, 1);
    }
    let problems = Config::parse(&text).err().unwrap_or_default();
    let said: Vec<_> = problems.iter().map(|p| format!("{} {}: {}", p.line, p.key, p.message)).collect();
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        let (place, message) = expected.split_once(": ").unwrap();
        assert!(
            said.starts_with(&format!("{place}: ")) && said.contains(message),
            "{said:?} is not {expected:?}"
        );
    }
}

#[test]
fn the_minimal_file_is_enough_and_its_defaults_are_the_documented_ones() {
    let config = Config::parse(MINIMAL).unwrap();
    assert_eq!(config.brokers[0].port, 1883);
    assert_eq!(config.state.max_age, Duration::from_secs(30 * 86_400));
    assert_eq!(config.detector.options, DetectorOptions::default());
    assert_eq!((config.detector.sessions, config.detector.cores), (1, Cores::All));
    let camera = &config.cameras[0];
    assert_eq!(camera.stream.analysed_fps, 5.0);
    let RuleKind::Intrusion { dwell, .. } = camera.rules[0].kind else { panic!("{:?}", camera.rules[0]) };
    assert_eq!(dwell, Duration::from_secs(2));
    assert!(camera.rules[0].evidence);
}

#[test]
fn each_mistake_is_named_with_its_place_and_what_would_be_right() {
    check(
        &[("village = ", "vilage = ")],
        &["2 site.village: missing", "5 site.vilage: did you mean \"village\"?"],
    );
    check(&[("\"lan-xi\"", "\"Lan Xi\"")], &["3 site.district: no name"]);
    check(&[("Asia/Shanghai", "Asia/Shangai")], &["7 site.time_zone: no time zone"]);
    check(&[("host = \"127.0.0.1\"", "host = 1")], &["13 broker.host: expected a text"]);
    check(
        &[("[detector]", "[detektor]")],
        &["1 detector: missing", "15 detektor: did you mean \"detector\"?"],
    );
    check(&[("[0.9, 1]]", "[0.9, 1.5]]")], &["24 camera[0].zone[0].polygon: 0 to 1"]);
    check(&[("[\"person\"]", "[\"face\"]")], &["30 camera[0].rule[0].classes: no class"]);
    check(&[("zone = \"yard\"", "zone = \"yrad\"")], &["29 camera[0].rule[0].zone: its zones: yard"]);
    check(&[("kind = \"intrusion\"", "kind = \"loitering\"")], &["28 camera[0].rule[0].kind: the rules are"]);
    check(
        &[("severity = \"major\"", "severity = \"high\"")],
        &["31 camera[0].rule[0].severity: minor, major, critical"],
    );
    check(&[("severity = ", "dwell = \"2\"\nseverity = ")], &["31 camera[0].rule[0].dwell: with its unit"]);
    check(
        &[("severity = ", "schedule = \"nightly\"\nseverity = ")],
        &["31 camera[0].rule[0].schedule: nightly"],
    );
    check(
        &[("host = ", "user = \"u\"\nhost = "), ("127.0.0.1", "mqtt.lan")],
        &["13 broker.user: [broker.tls]"],
    );
    check(
        &[("[detector]", "[metrics]\nlisten = \"0.0.0.0:1\"\n[detector]")],
        &["16 metrics.listen: loopback"],
    );
}

#[test]
fn how_a_model_is_run_can_be_chosen() {
    let detector = |line: &str| MINIMAL.replace("[detector]", &format!("[detector]\n{line}"));
    let lines = "threads = 2\nsessions = 3\nproviders = [\"rknpu\", \"cpu\"]\ncores = \"big\"\narena = false\ncache = \"/tmp/graphs\"";
    let chosen = Config::parse(&detector(lines)).unwrap().detector;
    let expected = DetectorOptions {
        threads: 2,
        providers: vec![Provider::Rknpu, Provider::Cpu],
        arena: false,
        cache: Some("/tmp/graphs".into()),
    };
    assert_eq!((chosen.options, chosen.sessions, chosen.cores), (expected, 3, Cores::Big));
    for (line, expected) in [
        ("threads = 0", "16 detector.threads: 1 to 64"),
        ("sessions = 17", "16 detector.sessions: 1 to 16"),
        ("providers = [\"gpu\"]", "16 detector.providers: no execution provider; those"),
        ("providers = []", "16 detector.providers: leave the key out"),
        ("cores = \"little\"", "16 detector.cores: \"all\" or \"big\""),
        ("arena = 1", "16 detector.arena: true or false"),
    ] {
        check(&[("[detector]", &format!("[detector]\n{line}"))], &[expected]);
    }
}

#[test]
fn models_come_from_an_address_that_can_be_trusted() {
    let check_models = |lines: &str, expected: &[&str]| {
        check(&[("[detector]", &format!("[models]\nroot = \"/r.json\"\n{lines}\n[detector]"))], expected);
    };
    check_models("", &[]);
    for address in ["https://m.example/a", "http://10.0.0.1", "file:///media/usb", "/media/usb"] {
        check_models(&format!("repository = {address:?}"), &[]);
    }
    check_models("repository = \"ftp://m.example\"", &["17 models.repository: https://HOST/PATH"]);
    check_models("repository = \"https://me:pw@m.example\"", &["17 models.repository: open to all boxes"]);
    check_models("channel = \"beta\"", &["17 models.channel: neither"]);
    check_models("shadow = \"2d\"", &["17 models.shadow: 0s"]);
    check_models("budget = \"0s\"", &["17 models.budget: more than nothing"]);
    check(&[("[detector]", "[models]\n[detector]")], &["15 models.root: missing"]);
}

/// Makes the minimal file's rule a crossing, and compares as [`check`] does.
fn check_crossing(change: &[(&str, &str)], expected: &[&str]) {
    let line = "[[camera.line]]\nname = \"kerb\"\npoints = [[0.2, 0.6], [0.8, 0.6]]\n\n[[camera.rule]]";
    let mut all = vec![
        ("[[camera.rule]]", line),
        (
            "kind = \"intrusion\"\nzone = \"yard\"",
            "kind = \"crossing\"\nline = \"kerb\"\ndirection = \"to-left\"",
        ),
    ];
    all.extend_from_slice(change);
    check(&all, expected);
}

#[test]
fn a_crossing_has_a_line_and_a_direction() {
    check_crossing(&[], &[]);
    check_crossing(
        &[("line = \"kerb\"", "line = \"curb\"")],
        &["33 camera[0].rule[0].line: its lines: kerb"],
    );
    check_crossing(
        &[("line = \"kerb\"", "zone = \"yard\"")],
        &["30 camera[0].rule[0].line: missing", "33 camera[0].rule[0].zone: unknown key"],
    );
    check_crossing(
        &[("\"to-left\"", "\"left\"")],
        &["34 camera[0].rule[0].direction: \"to-left\", \"to-right\""],
    );
    check_crossing(&[(", [0.8, 0.6]]", "]")], &["28 camera[0].line[0].points: found 1 points"]);
    check_crossing(&[("[0.8, 0.6]", "[0.8, 6]")], &["28 camera[0].line[0].points: point 2 of the line"]);
    check_crossing(&[("[0.8, 0.6]", "[0.2, 0.6]")], &["28 camera[0].line[0].points: begins where it ends"]);
    check_crossing(
        &[("name = \"kerb\"", "name = \"yard\""), ("line = \"kerb\"", "line = \"yard\"")],
        &["27 camera[0].line[0].name: another zone or line"],
    );
    check_crossing(
        &[("severity", "min_height = 5\nseverity")],
        &["36 camera[0].rule[0].min_height: part of"],
    );
}

/// Makes the minimal file's rule one about stopped vehicles, and compares as [`check`] does.
fn check_stopped(change: &[(&str, &str)], expected: &[&str]) {
    let mut all =
        vec![("kind = \"intrusion\"", "kind = \"stopped-vehicle\""), ("classes = [\"person\"]\n", "")];
    all.extend_from_slice(change);
    check(&all, expected);
}

#[test]
fn a_stopped_vehicle_has_a_zone_a_time_and_the_classes_of_vehicles() {
    check_stopped(&[], &[]);
    check_stopped(&[("severity", "time = \"5min\"\nclasses = [\"car\", \"truck\"]\nseverity")], &[]);
    check_stopped(&[("zone = \"yard\"", "zone = \"yrad\"")], &["29 camera[0].rule[0].zone: its zones: yard"]);
    check_stopped(
        &[("severity", "time = \"1s\"\nseverity")],
        &["30 camera[0].rule[0].time: at least \"5s\""],
    );
    check_stopped(
        &[("severity", "classes = [\"car\", \"person\"]\nseverity")],
        &["30 camera[0].rule[0].classes: person is no vehicle; expected some of bicycle, motorcycle, car"],
    );
    check_stopped(&[("severity", "dwell = \"2s\"\nseverity")], &["30 camera[0].rule[0].dwell: unknown key"]);
}

/// Makes the minimal file's rule one of these lines, and compares as [`check`] does.
fn check_rule(lines: &str, expected: &[&str]) {
    check(&[("kind = \"intrusion\"\nzone = \"yard\"\nclasses = [\"person\"]", lines)], expected);
}

#[test]
fn a_hazard_is_anywhere_or_in_a_zone_and_seen_in_some_of_the_frames() {
    check_rule("kind = \"hazard\"", &[]);
    check_rule("kind = \"hazard\"\nzone = \"yard\"\nseen = 3\nframes = 5\nclasses = [\"smoke\"]", &[]);
    check_rule(
        "kind = \"hazard\"\nzone = \"yrad\"\nseen = 9\nframes = 5\nclasses = [\"car\"]",
        &[
            "29 camera[0].rule[0].zone: its zones: yard",
            "30 camera[0].rule[0].seen: expected 1 to 5",
            "32 camera[0].rule[0].classes: car is no hazard; expected some of fire, smoke",
        ],
    );
}

#[test]
fn rules_about_the_camera_itself_have_no_zone_and_no_classes_and_are_one_of_a_kind() {
    check_rule("kind = \"tampered\"", &[]);
    check_rule("kind = \"tampered\"\nafter = \"20s\"\nfrozen_after = \"5min\"\nevidence = false", &[]);
    check_rule("kind = \"tampered\"\nunchanged_after = \"never\"", &[]);
    check_rule(
        "kind = \"tampered\"\nunchanged_after = \"5min\"",
        &["29 camera[0].rule[0].unchanged_after: at least \"1h\", or \"never\""],
    );
    check_rule(
        "kind = \"offline\"\nafter = \"2min\"\ncooldown = \"1h\"\nschedule = \"daily 08:00-18:00\"",
        &[],
    );
    check_rule(
        "kind = \"tampered\"\nafter = \"1s\"\nfrozen_after = \"1s\"\nzone = \"yard\"",
        &[
            "29 camera[0].rule[0].after: at least \"2s\"",
            "30 camera[0].rule[0].frozen_after: at least \"10s\"",
            "31 camera[0].rule[0].zone: unknown key",
        ],
    );
    check_rule(
        "kind = \"offline\"\nafter = 5\nevidence = true",
        &["29 camera[0].rule[0].after: with its unit", "30 camera[0].rule[0].evidence: unknown key"],
    );
    let twice =
        "kind = \"offline\"\nseverity = \"minor\"\n[[camera.rule]]\nname = \"again\"\nkind = \"offline\"";
    check_rule(twice, &["32 camera[0].rule[1].kind: the rule night of this camera is of this kind already"]);
    check(
        &[("name = \"gate\"", "name = \"gate\"\nalerts_per_minute = 0")],
        &["20 camera[0].alerts_per_minute: expected 1 to 1000"],
    );
}

#[test]
fn a_schedule_that_names_holidays_knows_them() {
    let check_calendar = |calendar: &str, schedule: &str, expected: &[&str]| {
        let rule = format!("schedule = {schedule:?}\nseverity = ");
        check(&[("[state]", &format!("{calendar}[state]")), ("severity = ", &rule)], expected);
    };
    let holidays = "[calendar]\nholidays = [\"2026-10-01..2026-10-07\", \"2027-01-01\"]\n";
    check_calendar(holidays, "workday 18:00-08:00; holiday 00:00-24:00", &[]);
    check_calendar("", "2026-10-01..2026-10-07 00:00-24:00", &[]);
    check_calendar("[calendar]\nholidays = []\n", "workday 18:00-08:00", &[]);
    check_calendar("", "workday 18:00-08:00", &["1 calendar: missing; rule night of camera gate says"]);
    check_calendar("[calendar]\n", "always", &["9 calendar.holidays: missing; expected an array"]);
    check_calendar(
        &holidays.replace("07", "00"),
        "always",
        &["10 calendar.holidays: \"2026-10-00\" is no date"],
    );
    check_calendar(
        &holidays.replace("07", "00").replace("01..", "31..").replace("10-00", "10-30"),
        "always",
        &["10 calendar.holidays: ends before it begins"],
    );
    check_calendar(
        "",
        "2026-02-30 08:00-09:00",
        &["31 camera[0].rule[0].schedule: \"2026-02-30\" is no date"],
    );
}

#[test]
fn five_mistakes_are_five_problems_in_the_order_of_the_file() {
    check(
        &[
            ("district = \"lan-xi\"", "district = 7"),
            ("folder = \"/var/lib/sharp-eyes\"", "folder = \"\""),
            ("rtsp://", "http://"),
            ("[0.1, 0.3], ", ""),
            ("severity = \"major\"", "severity = \"high\""),
        ],
        &[
            "3 site.district: expected a name",
            "10 state.folder: expected a path",
            "20 camera[0].url: expected rtsp://",
            "24 camera[0].zone[0].polygon: 3 to 32",
            "31 camera[0].rule[0].severity: no severity",
        ],
    );
}

#[test]
fn a_password_in_a_url_is_refused_and_not_repeated() {
    let text = MINIMAL.replace("rtsp://10.0.0.7/", "rtsp://admin:tiger@10.0.0.7/");
    let problems = Config::parse(&text).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.contains("password_file"), "{}", problems[0]);
    assert!(!problems[0].to_string().contains("tiger"), "{}", problems[0]);
}

#[test]
fn a_file_that_is_no_toml_says_where() {
    check(&[("[state]", "[state")], &["9 : "]);
}

#[test]
fn every_file_below_config_is_a_configuration() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
            count += 1;
        }
    }
    assert!(count > 0, "no configuration in {}", folder.display());
}

#[test]
fn who_takes_configurations_from_outside_says_whose() {
    check(&[("[detector]", "[remote]\n[detector]")], &["15 remote: has no [models]"]);
    let models = "[models]\nroot = \"/etc/root.json\"\n[remote]\nconfirm = \"0s\"\n[detector]";
    check(&[("[detector]", models)], &["18 remote.confirm: expected \"1s\" to \"24h\""]);
    let text = MINIMAL.replace("[detector]", &models.replace("confirm = \"0s\"", ""));
    let confirm = Config::parse(&text).unwrap().remote.unwrap().confirm;
    assert_eq!(confirm, Duration::from_secs(300));
}

#[test]
fn a_camera_s_ca_needs_tls() {
    let lines = |scheme: &str| format!("url = \"{scheme}://10.0.0.7/stream\"\nca = \"/etc/gate.pem\"");
    check(
        &[("url = \"rtsp://10.0.0.7/stream\"", &lines("rtsp"))],
        &["21 camera[0].ca: vouches for nothing where the url does not begin with rtsps://"],
    );
    let config = MINIMAL.replace("url = \"rtsp://10.0.0.7/stream\"", &lines("rtsps"));
    let config = Config::parse(&config).unwrap();
    assert_eq!(config.cameras[0].stream.ca, Some(PathBuf::from("/etc/gate.pem")));
}
