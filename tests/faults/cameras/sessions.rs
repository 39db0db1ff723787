//! Sessions that end, hang, or want to be kept alive.

use anyhow::{Context, Result, ensure};
use sharp_eyes_protocol::report::CameraState;
use sharp_eyes_tests::faulty_camera::{Fate, FaultyCamera, Item, Packet, Passing, Seen, rule};
use sharp_eyes_tests::link::Link;

use super::scene::{Cast, Scene, View};
use crate::stage::{play, says};

/// Awake and asleep.
fn gate_and_room(folder: &std::path::Path) -> Result<Scene> {
    let mut cast = Cast::new(folder)?;
    cast.add("gate", View::Street, rule::pass)?;
    cast.add("room", View::Still, rule::pass)?;
    let mut scene = cast.start()?;
    scene.streams("gate", 1)?;
    scene.sleeps("room")?;
    Ok(scene)
}

/// Each is as it was before its failures.
fn all_come_back(scene: &mut Scene) -> Result<()> {
    scene.streams("gate", 3)?;
    scene.sleeps("room")?;
    for name in ["gate", "room"] {
        let health = scene.health(name)?;
        ensure!(health.failures > 0 && health.blind_s > 0.0, "the outage was not counted: {health:?}");
    }
    scene.well_is_well()
}

/// Says goodbye, refuses what comes for a while, answers that it is not ready, and is back.
fn reboot(camera: &FaultyCamera) {
    let running = camera.seen().connections;
    camera.set_rule(move |passing| match passing.connection.saturating_sub(running) {
        // The goodbye of a stream (RTCP BYE, RFC 3550, 6.6), and then the connection's.
        0 if passing.rtcp().is_some() => Fate::End,
        0 => match passing.rtp() {
            Some(rtp) => {
                let source = rtp.bytes.get(8..12).unwrap_or_default();
                let bye = Packet {
                    channel: rtp.channel + 1,
                    bytes: [&[0x80, 201, 0, 1], source, &[0x81, 203, 0, 1], source].concat(),
                };
                Fate::Become(vec![Item::Packet(bye)])
            }
            None => Fate::Pass,
        },
        1..=3 => Fate::Cut,
        4 | 5 => rule::refuse("DESCRIBE", 503, "Service Unavailable", "")(passing),
        _ => Fate::Pass,
    });
}

#[test]
fn a_camera_that_reboots_is_there_again_when_it_is() {
    play(|folder| {
        let mut scene = gate_and_room(folder)?;
        for name in ["gate", "room"] {
            reboot(scene.between(name));
        }
        for name in ["gate", "room"] {
            scene.between(name).until("it to be back", |seen| seen.connections >= 7).context(name)?;
        }
        all_come_back(&mut scene)
    });
}

#[test]
fn a_camera_that_is_unplugged_and_plugged_in_again_is_there_again() {
    play(|folder| {
        let mut cast = Cast::new(folder)?;
        let links =
            [Link::start(cast.real(View::Street)?.port())?, Link::start(cast.real(View::Still)?.port())?];
        cast.add_at("gate", View::Street, links[0].port());
        cast.add_at("room", View::Still, links[1].port());
        let mut scene = cast.start()?;
        scene.streams("gate", 1)?;
        scene.sleeps("room")?;
        links.iter().try_for_each(Link::half_open)?;
        for name in ["gate", "room"] {
            says(&scene.fails(name)?, &["no RTP"]).context(name)?;
        }
        for name in ["gate", "room"] {
            // Nobody answers an attempt to connect, either.
            scene.agent.camera_when(name, "an attempt in vain", |camera| camera.failures >= 2)?;
        }
        links.iter().try_for_each(Link::heal)?;
        all_come_back(&mut scene)?;
        links.iter().try_for_each(Link::reset)?;
        all_come_back(&mut scene)
    });
}

/// A session that lives for so many seconds after a request.
fn session_of(seconds: u64, passing: &Passing<'_>) -> Fate {
    let Some(answer) = passing.answer() else { return Fate::Pass };
    let Some(session) = answer.header("Session") else { return Fate::Pass };
    let id = session.split(';').next().unwrap_or_default();
    Fate::Become(vec![Item::Message(answer.with_header("Session", &format!("{id};timeout={seconds}")))])
}

#[test]
fn sessions_are_kept_alive_by_reports_and_over_udp_by_requests() {
    play(|folder| {
        const SECONDS: u64 = 6;
        let mut cast = Cast::new(folder)?;
        let session = |passing: &Passing<'_>| session_of(SECONDS, passing);
        cast.add("gate", View::Street, session)?;
        // Asleep, nothing is decoded, but the session is the same.
        cast.add("room", View::Still, session)?;
        let udp = "transport = \"udp\"";
        cast.add_with("udp", View::Street, udp, session)?;
        cast.add_with("options", View::Street, udp, |passing| {
            match passing.answer().and_then(|answer| Some((answer, answer.header("Public")?))) {
                Some((answer, methods)) => {
                    let fewer = methods.replace("GET_PARAMETER,", "");
                    Fate::Become(vec![Item::Message(answer.with_header("Public", &fewer))])
                }
                None => session_of(SECONDS, passing),
            }
        })?;
        // It says that it knows the request, and does not.
        let mut refuse = rule::refuse("GET_PARAMETER", 501, "Not Implemented", "");
        cast.add_with("refusing", View::Street, udp, move |passing| match refuse(passing) {
            Fate::Pass => session_of(SECONDS, passing),
            answer => answer,
        })?;
        let mut scene = cast.start()?;
        for name in scene.broken() {
            scene.agent.camera_when(name, "its first picture", |camera| camera.decoded > 0)?;
        }
        for name in ["gate", "room"] {
            let before = scene.between(name).seen().reports;
            scene.between(name).until("four reports", |seen| seen.reports >= before + 4).context(name)?;
        }
        for name in ["udp", "options", "refusing"] {
            let asked = |seen: &Seen| seen.requests("GET_PARAMETER") + seen.requests("OPTIONS");
            let before = asked(&scene.between(name).seen());
            scene.between(name).until("four requests", |seen| asked(seen) >= before + 4).context(name)?;
        }
        for name in scene.broken() {
            let health = scene.health(name)?;
            ensure!(health.failures == 0 && health.state == CameraState::Streaming, "{name}: {health:?}");
        }
        let options = scene.between("options").seen();
        ensure!(options.requests("GET_PARAMETER") == 0, "asked for what it does not know: {options:?}");
        scene.well_is_well()
    });
}

#[test]
fn a_camera_of_one_frame_a_second_is_no_silent_one() {
    play(|folder| {
        let mut cast = Cast::new(folder)?;
        cast.add("slow", View::StreetSlow, rule::pass)?;
        let mut scene = cast.start()?;
        scene.streams("slow", 15)?;
        let health = scene.health("slow")?;
        ensure!(health.failures == 0, "{health:?}");
        scene.well_is_well()
    });
}

/// Packets of a session that the camera forgot to end, as old live555 sends them on a connection that got its socket.
fn stale(channel: u8, sequence: u16) -> Item {
    let header = [0x80, 96, 0, 0, 0, 1, 2, 3, 0xde, 0xad, 0xbe, 0xef];
    let payload: Vec<u8> = (0..200).map(|n: u8| n.wrapping_mul(37)).collect();
    Item::Packet(Packet { channel, bytes: [&header[..], &payload].concat() }.with_sequence(sequence))
}

#[test]
fn packets_of_a_forgotten_session_do_no_lasting_harm() {
    play(|folder| {
        let mut cast = Cast::new(folder)?;
        // Between the packets, in channels that nobody asked for and in the own one; before the answer to the first request.
        let mut between = |name, channel| {
            let mut sequence = 0_u16;
            cast.add(name, View::Street, move |passing| match passing.rtp() {
                Some(packet) => {
                    sequence = sequence.wrapping_add(1);
                    Fate::Become(vec![stale(channel, sequence), Item::Packet(packet.clone())])
                }
                None => Fate::Pass,
            })
        };
        between("unknown-channel", 6)?;
        between("own-channel", 0)?;
        between("report-channel", 1)?;
        cast.add("before-answers", View::Street, |passing| match passing.answer() {
            Some(answer) => {
                let strangers = (0..20).map(|n| stale(0, n));
                Fate::Become(strangers.chain([Item::Message(answer.clone())]).collect())
            }
            None => Fate::Pass,
        })?;
        let mut scene = cast.start()?;
        for name in scene.broken() {
            scene.between(name).until("strangers", |seen| seen.broken >= 4)?;
        }
        for name in ["unknown-channel", "report-channel", "before-answers"] {
            scene.streams(name, 5).context(name)?;
        }
        scene.well_is_well()?;
        scene.between("own-channel").heal();
        scene.streams("own-channel", 5)?;
        Ok(())
    });
}
