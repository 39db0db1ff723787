//! What a configuration from outside may change, and what it may not: plain values.
//!
//! It may say where cameras and brokers are and what is an incident; who signs it can do that. It may not change whom the
//! box trusts, where it keeps its state, or what it runs: those sections are no part of it ([`Overlay`]). And it may not
//! send a secret anywhere else: a file with a password or a key is named by the box's own file alone, and goes to the host
//! that it belongs to there.

use std::path::PathBuf;

use sharp_eyes_protocol::topic::Name;

use crate::config::{BrokerConfig, CameraConfig, Config, Overlay};

/// Problems that are told; the others are counted.
const TOLD: usize = 5;

/// The box's own configuration with what is said from outside, or all that is wrong with that, in one line.
pub fn judge(own: &Config, text: &str) -> Result<Config, String> {
    let overlay = Overlay::parse(text)
        .map_err(|problems| in_one_line(problems.iter().map(ToString::to_string).collect()))?;
    let config = overlay.over(own);
    let mut problems: Vec<_> =
        config.lacks_holidays().into_iter().map(|lack| format!("calendar: {lack}")).collect();
    for broker in &config.brokers {
        problems.extend(secrets_of_broker(own, broker));
    }
    for camera in &config.cameras {
        problems.extend(secrets_of_camera(own, camera));
    }
    if problems.is_empty() { Ok(config) } else { Err(in_one_line(problems)) }
}

pub(super) fn in_one_line(mut problems: Vec<String>) -> String {
    let more = problems.len().saturating_sub(TOLD);
    problems.truncate(TOLD);
    if more > 0 {
        problems.push(format!("and {more} more"));
    }
    problems.join("; ")
}

fn secrets_of_broker(own: &Config, broker: &BrokerConfig) -> Vec<String> {
    let BrokerConfig { name, host, .. } = broker;
    let mut problems = Vec::new();
    let login = |broker: &BrokerConfig| (broker.user.clone(), broker.password_file.clone());
    let has_login = broker.user.is_some() || broker.password_file.is_some();
    if has_login && !own.brokers.iter().any(|own| own.host == *host && login(own) == login(broker)) {
        problems.push(format!(
            "broker {name}: its user and password_file belong to no broker {host} in the box's own file"
        ));
    }
    match &broker.tls {
        // Not even a broker that the box's own file speaks to in the clear takes what the others are told encrypted.
        None if own.brokers.iter().any(|own| own.tls.is_some()) => {
            problems.push(format!("broker {name}: has no [broker.tls], and the box's own brokers have"));
        }
        Some(tls) if !own.brokers.iter().any(|own| own.tls.as_ref() == Some(tls)) => {
            problems
                .push(format!("broker {name}: its [broker.tls] is that of no broker in the box's own file"));
        }
        _ => {}
    }
    problems
}

fn secrets_of_camera(own: &Config, camera: &CameraConfig) -> Vec<String> {
    let (stream, mut problems) = (&camera.stream, Vec::new());
    let login = |camera: &CameraConfig| -> Option<(String, PathBuf)> { camera.stream.login.clone() };
    let knows =
        |own: &CameraConfig| host(&own.stream.url) == host(&stream.url) && login(own) == login(camera);
    let known: Vec<_> = own.cameras.iter().filter(|own| knows(own)).collect();
    if stream.login.is_some() && known.is_empty() {
        problems.push(format!(
            "camera {}: its user and password_file belong to no camera at {} in the box's own file",
            stream.name,
            host(&stream.url)
        ));
    } else if stream.login.is_some() && !known.iter().any(|own| own.stream.ca == stream.ca) {
        // Whoever that vouches for would be told the password.
        problems.push(format!(
            "camera {}: its ca is another than that of {} in the box's own file",
            stream.name,
            host(&stream.url)
        ));
    }
    if stream.decoder.is_some() && !own.cameras.iter().any(|own| own.stream.decoder == stream.decoder) {
        problems.push(format!("camera {}: its decoder is none that the box's own file names", stream.name));
    }
    problems
}

/// Host and port of an address. The scheme belongs to it: what goes to `rtsps` does not go to `rtsp`.
fn host(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?']).map_or(url.len(), |at| start + at);
    &url[..end]
}

/// The cameras that show more than they did: of which a mask was removed or changed. A camera is known by its name or its
/// address; a new one at the host of one that is gone counts as that one.
pub fn unmasked(before: &[&Config], after: &Config) -> Vec<Name> {
    let known = |new: &CameraConfig, old: &CameraConfig| {
        new.stream.name == old.stream.name || new.stream.url == old.stream.url
    };
    let olds: Vec<&CameraConfig> = before.iter().flat_map(|config| &config.cameras).collect();
    let is_gone = |old: &CameraConfig| !after.cameras.iter().any(|new| known(new, old));
    let shows_more = |camera: &&CameraConfig| {
        let new = &camera.stream;
        let is_same = |old: &&&CameraConfig| {
            known(camera, old) || (host(&old.stream.url) == host(&new.url) && is_gone(old))
        };
        let masks = olds.iter().filter(is_same).flat_map(|old| &old.stream.masks);
        masks.into_iter().any(|mask| !new.masks.contains(mask))
    };
    after.cameras.iter().filter(shows_more).map(|camera| camera.stream.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = r#"
[site]
district = "lan-xi"
township = "yun-shan"
village = "wang-cun"
box = "box-1"
time_zone = "Asia/Shanghai"
[state]
folder = "/var/lib/sharp-eyes"
[[broker]]
name = "township"
host = "mqtt.yun-shan.example"
user = "box-1"
password_file = "/run/broker"
[broker.tls]
ca = "/etc/ca.pem"
[detector]
model = "/usr/share/sharp-eyes/models/builtin"
[[camera]]
name = "gate"
url = "rtsp://10.0.0.7/stream"
user = "viewer"
password_file = "/run/gate"
masks = [[[0.8, 0.0], [1.0, 0.0], [1.0, 0.25]], [[0.0, 0.0], [0.1, 0.0], [0.1, 0.1]]]
"#;

    /// A camera's table, with other lines.
    fn camera(lines: &str) -> String {
        format!("[[camera]]\nname = \"gate\"\nurl = \"rtsp://10.0.0.7/stream\"\n{lines}\n")
    }

    /// A camera with a rule of this schedule.
    fn night(schedule: &str) -> String {
        let rule = "[[camera.rule]]\nname = \"night\"\nkind = \"hazard\"\nseverity = \"minor\"";
        camera(&format!("{rule}\nschedule = {schedule:?}"))
    }

    const BROKER: &str = "[[broker]]\nname = \"new\"\nhost = \"mqtt.yun-shan.example\"\n";

    #[test]
    fn a_configuration_from_outside_changes_what_it_says_and_nothing_else() {
        let own = Config::parse(OWN).unwrap();
        let config = judge(&own, &camera("analysed_fps = 2")).unwrap();
        assert_eq!(config.cameras[0].stream.analysed_fps, 2.0);
        assert_eq!((config.brokers, config.state), (own.brokers.clone(), own.state.clone()));
        let config = judge(&own, "[escalation]\nminor = \"1h\"\n").unwrap();
        assert_eq!(config.escalation.minor, Some(std::time::Duration::from_secs(3600)));
        assert_eq!(config.cameras.len(), 1);
    }

    #[test]
    fn a_camera_s_password_goes_by_the_certificate_that_the_own_file_names() {
        let login = "user = \"viewer\"\npassword_file = \"/run/gate\"\n";
        let tls = |text: String| text.replace("rtsp://", "rtsps://");
        let with_ca = format!("{login}ca = \"/etc/gate.pem\"\n");
        let own = Config::parse(&tls(OWN.replace(login, &with_ca))).unwrap();
        for (lines, refused) in [
            (with_ca.clone(), None),
            (String::new(), None), // nobody is told anything
            (login.to_owned(), Some("camera gate: its ca is another than that of rtsps://10.0.0.7")),
            (with_ca.replace("gate.pem", "ssl/certs/ca-certificates.crt"), Some("its ca is another")),
        ] {
            let judged = judge(&own, &tls(camera(&lines))).err();
            assert_eq!(judged.is_some(), refused.is_some(), "{lines}: {judged:?}");
            assert!(judged.unwrap_or_default().contains(refused.unwrap_or_default()), "{lines}");
        }
    }

    #[test]
    fn holidays_from_outside_hold_for_the_rules_of_the_box_s_own_file() {
        let calendar = |date: &str| format!("[calendar]\nholidays = [{date:?}]\n");
        let rules = night("holiday 00:00-24:00").replace("\"gate\"", "\"yard\"");
        let own = Config::parse(&format!("{OWN}{rules}{}", calendar("2026-10-01"))).unwrap();
        let is_on = |config: &Config, moment: &str| {
            let schedule = &config.cameras.last().unwrap().rules[0].schedule;
            schedule.contains(moment.parse().unwrap(), &config.time_zone)
        };
        let (before, after) = ("2026-10-01T12:00:00+08:00", "2027-10-01T12:00:00+08:00");
        assert!(is_on(&own, before) && !is_on(&own, after));
        let config = judge(&own, &calendar("2027-10-01")).unwrap();
        assert!(!is_on(&config, before) && is_on(&config, after));
        let config = judge(&own, &night("holiday 00:00-24:00")).unwrap();
        assert!(is_on(&config, before), "the box's own calendar holds for rules from outside");
    }

    #[test]
    fn what_it_may_not_change_is_refused_and_named() {
        let own = Config::parse(OWN).unwrap();
        let tls = "[broker.tls]\nca = \"/etc/ca.pem\"\n";
        let login = "user = \"viewer\"\npassword_file = \"/run/gate\"";
        for (text, said) in [
            (camera(login), ""),
            (format!("{BROKER}{tls}"), ""),
            (format!("{BROKER}user = \"box-1\"\npassword_file = \"/run/broker\"\n{tls}"), ""),
            (String::new(), "line 1: says nothing"),
            ("[models]\nroot = \"/tmp/root.json\"".into(), "line 1: models: is the box's own"),
            ("[state]\nfolder = \"/tmp\"".into(), "state: is the box's own"),
            ("[site]\nbox = \"box-2\"".into(), "site: is the box's own"),
            ("[detector]\nruntime = \"/tmp/evil.so\"".into(), "detector: is the box's own"),
            ("[metrics]".into(), "metrics: is the box's own"),
            ("[remote]\nconfirm = \"30d\"".into(), "remote: is the box's own"),
            ("[camra]".into(), "line 1: camra: unknown key; did you mean \"camera\"?"),
            (camera("dwell = 2"), "camera[0].dwell: unknown key"),
            (night("workday 18:00-08:00"), "calendar: missing; rule night of camera gate"),
            (night("workday 18:00-08:00") + "[calendar]\nholidays = [\"2027-01-01\"]", ""),
            (
                "[calendar]\nholidays = [\"2027-02-29\"]".into(),
                "line 2: calendar.holidays: \"2027-02-29\" is no date",
            ),
            ("camera = []".into(), "at least one [[camera]]"),
            ("[[camera]]\nname".into(), "line 2"),
            // Secrets stay where they belong.
            (
                camera("user = \"viewer\"\npassword_file = \"/run/broker\""),
                "gate: its user and password_file",
            ),
            (camera(login).replace("10.0.0.7", "203.0.113.9"), "no camera at rtsp://203.0.113.9"),
            (camera(login).replace("10.0.0.7", "10.0.0.7:5544"), "no camera at rtsp://10.0.0.7:5544"),
            (camera("decoder = \"fdsink\""), "its decoder is none"),
            (BROKER.into(), "broker new: has no [broker.tls]"),
            (format!("{BROKER}[broker.tls]\nca = \"/tmp/ca.pem\""), "its [broker.tls] is that of no broker"),
            (
                format!("{BROKER}user = \"box-1\"\npassword_file = \"/run/broker\"\n{tls}")
                    .replace("mqtt.", "x."),
                "its user and password_file belong to no broker x.yun-shan.example",
            ),
        ] {
            let refused = judge(&own, &text).err().unwrap_or_default();
            assert!(refused.contains(said) && refused.is_empty() == said.is_empty(), "{text}\n{refused}");
        }
        let many = (0..9).map(|n| format!("key{n} = 1\n")).collect::<String>();
        let refused = judge(&own, &many).unwrap_err();
        assert!(refused.ends_with("; and 4 more"), "{refused}");
    }

    #[test]
    fn a_mask_that_goes_is_named() {
        let own = Config::parse(OWN).unwrap();
        let (first, second) =
            ("[[0.8, 0.0], [1.0, 0.0], [1.0, 0.25]]", "[[0.0, 0.0], [0.1, 0.0], [0.1, 0.1]]");
        let both = format!("masks = [{first}, {second}]");
        let more = format!("masks = [{first}, [[0.5, 0.5], [0.6, 0.5], [0.6, 0.6]], {second}]");
        let renamed = camera("").replace("\"gate\"", "\"yard\"");
        let new_host = renamed.replace("10.0.0.7", "10.0.0.8");
        for (text, named) in [
            (camera(&both), None),
            (camera(&more), None),
            (camera(""), Some("gate")),
            (camera(&format!("masks = [{first}]")), Some("gate")),
            (camera(&both.replace("0.25", "0.2")), Some("gate")),
            (renamed.clone(), Some("yard")),
            (renamed.replace("/stream", "/second"), Some("yard")),
            (new_host, None),
            (camera(&both) + &renamed.replace("/stream", "/second"), None), // one more
            ("[delivery]\npictures = \"on-request\"".into(), None),
        ] {
            let config = judge(&own, &text).unwrap();
            let found: Vec<String> = unmasked(&[&own], &config).iter().map(ToString::to_string).collect();
            assert_eq!(found, named.into_iter().collect::<Vec<_>>(), "{text}");
        }
    }
}
