//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::fault::{Faults, Tamper};
use crate::footage::{Codec, Encoding, Rate, Reel};

pub(crate) const USAGE: &str = "\
camera-simulator --mount NAME=FILE[@SECONDS] [--mount ...] [options]

  --mount NAME=FILE[@SECONDS]  play FILE at rtsp://127.0.0.1:PORT/NAME, from SECONDS on
  --port N                     0 (the default) takes a free one
  --codec h264|h264b|h265      h264 unless given; h264b has B frames
  --fps N                      frames a second; the file's own unless given
  --size WIDTHxHEIGHT          the file's own unless given
  --bitrate KBPS               1500 unless given
  --quality N                  constant quality (x264's or x265's crf) instead of a bit rate
  --noise N                    a sensor's noise: its standard deviation in steps of 8-bit luma; none unless given
  --reel STRETCHES             which seconds to play, as 0-18,19~25x8: the last eight times forward and back
  --transport tcp|udp|any      what clients may ask for; any unless given
  --user NAME --password TEXT  ask for them (RTSP basic authentication)
  --certificate FILE --key FILE  speak TLS (rtsps) with these, in PEM
  --cache FOLDER               where encoded footage is kept; .cache/encoded unless given
  --silent-after N             send nothing after N access units, but keep the session
  --garbage-after N            send random bytes after N access units
  --switch-size-after N        half the width and height after N access units
  --switch-size-when-told      half the width and height after a line \"half\" on standard input, until one \"full\"
  --tamper KIND@FROM-TO        covered, blurred or turned, from an access unit up to another
  --until-stdin-closes         end when standard input does, so that no camera outlives its test";

/// Everything that the command line says.
pub(crate) struct Options {
    pub(crate) port: u16,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) encoding: Encoding,
    pub(crate) reel: Reel,
    pub(crate) transport: Transport,
    pub(crate) login: Option<(String, String)>,
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
    pub(crate) cache: PathBuf,
    pub(crate) faults: Faults,
    pub(crate) until_stdin_closes: bool,
}

/// One path on the server.
#[derive(Debug, PartialEq)]
pub(crate) struct Mount {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    pub(crate) start_at_s: u32,
}

/// What clients may ask for.
#[derive(Clone, Copy)]
pub(crate) enum Transport {
    Tcp,
    Udp,
    Any,
}

impl Options {
    /// `None` when help was asked for.
    pub(crate) fn from_arguments() -> Result<Option<Self>> {
        parse(lexopt::Parser::from_env())
    }
}

fn parse(mut arguments: lexopt::Parser) -> Result<Option<Options>> {
    use lexopt::prelude::*;
    let mut options = Options {
        port: 0,
        mounts: Vec::new(),
        encoding: Encoding::default(),
        reel: Reel::default(),
        transport: Transport::Any,
        login: None,
        certificate: None,
        cache: PathBuf::from(".cache/encoded"),
        faults: Faults::default(),
        until_stdin_closes: false,
    };
    let (mut user, mut password) = (None, None);
    let (mut certificate, mut key) = (None, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(None),
            Long("port") => options.port = arguments.value()?.parse()?,
            Long("mount") => options.mounts.push(mount(arguments.value()?)?),
            Long("codec") => options.encoding.codec = codec(&arguments.value()?.string()?)?,
            Long("fps") => options.encoding.fps = Some(arguments.value()?.parse()?),
            Long("size") => options.encoding.size = Some(size(&arguments.value()?.string()?)?),
            Long("bitrate") => options.encoding.rate = Rate::Kilobits(arguments.value()?.parse()?),
            Long("quality") => options.encoding.rate = Rate::Quality(arguments.value()?.parse()?),
            Long("noise") => options.encoding.noise = arguments.value()?.parse()?,
            Long("reel") => options.reel = arguments.value()?.string()?.parse()?,
            Long("transport") => options.transport = transport(&arguments.value()?.string()?)?,
            Long("user") => user = Some(arguments.value()?.string()?),
            Long("password") => password = Some(arguments.value()?.string()?),
            Long("certificate") => certificate = Some(PathBuf::from(arguments.value()?)),
            Long("key") => key = Some(PathBuf::from(arguments.value()?)),
            Long("cache") => options.cache = arguments.value()?.into(),
            Long("silent-after") => options.faults.silent_after = Some(arguments.value()?.parse()?),
            Long("garbage-after") => options.faults.garbage_after = Some(arguments.value()?.parse()?),
            Long("switch-size-after") => options.faults.switch_size_after = Some(arguments.value()?.parse()?),
            Long("switch-size-when-told") => options.faults.switch_size_when_told = true,
            Long("tamper") => options.faults.tamper = Some(tamper(&arguments.value()?.string()?)?),
            Long("until-stdin-closes") => options.until_stdin_closes = true,
            other => return Err(other.unexpected().into()),
        }
    }
    options.login = match (user, password) {
        (Some(user), Some(password)) => Some((user, password)),
        (None, None) => None,
        _ => bail!("--user and --password go together"),
    };
    options.certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => bail!("--certificate and --key go together"),
    };
    if options.mounts.is_empty() {
        bail!("no --mount: there is nothing to play\n{USAGE}");
    }
    Ok(Some(options))
}

fn mount(text: OsString) -> Result<Mount> {
    let text = text.into_string().ok().context("a mount is UTF-8")?;
    let (name, file) = text.split_once('=').with_context(|| format!("{text:?}: expected NAME=FILE"))?;
    // Only digits after the last @ are seconds: a file may have an @ in its name.
    let (file, start_at_s) = match file.rsplit_once('@') {
        Some((file, seconds)) if seconds.parse::<u32>().is_ok() => (file, seconds.parse()?),
        _ => (file, 0),
    };
    Ok(Mount { name: name.to_owned(), file: file.into(), start_at_s })
}

fn tamper(text: &str) -> Result<(Tamper, u64, u64)> {
    let parts = text.split_once('@').and_then(|(kind, span)| {
        let (from, to) = span.split_once('-')?;
        Some((kind, from.parse().ok()?, to.parse().ok()?))
    });
    let (kind, from, to) = parts.with_context(|| format!("{text:?}: expected KIND@FROM-TO"))?;
    let kind = match kind {
        "covered" => Tamper::Covered,
        "blurred" => Tamper::Blurred,
        "turned" => Tamper::Turned,
        _ => bail!("{kind:?} is no tampering: covered, blurred or turned"),
    };
    Ok((kind, from, to))
}

fn codec(text: &str) -> Result<Codec> {
    match text {
        "h264" => Ok(Codec::H264),
        "h264b" => Ok(Codec::H264Reordered),
        "h265" => Ok(Codec::H265),
        _ => bail!("{text:?} is no codec: h264, h264b or h265"),
    }
}

fn transport(text: &str) -> Result<Transport> {
    match text {
        "tcp" => Ok(Transport::Tcp),
        "udp" => Ok(Transport::Udp),
        "any" => Ok(Transport::Any),
        _ => bail!("{text:?} is no transport: tcp, udp or any"),
    }
}

fn size(text: &str) -> Result<(u32, u32)> {
    let sides = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    sides.with_context(|| format!("{text:?} is no size: expected WIDTHxHEIGHT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_names_a_file_and_perhaps_a_start() {
        for (text, file, start_at_s) in
            [("gate=a.avi", "a.avi", 0), ("gate=a@b.avi", "a@b.avi", 0), ("gate=a.avi@40", "a.avi", 40)]
        {
            let expected = Mount { name: "gate".into(), file: file.into(), start_at_s };
            assert_eq!(mount(text.into()).unwrap(), expected);
        }
        assert!(mount("gate".into()).is_err());
    }
}
