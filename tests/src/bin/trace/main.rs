//! A stream as a line of numbers for each access unit: what the gate sees of it.
//!
//! ```text
//! trace room.h264 >room.trace
//! ffmpeg -i room.mp4 -vf fps=4 -pix_fmt yuv420p -f rawvideo - | trace --truth 768x432 --model BUNDLE >room.truth
//! ```
//!
//! The numbers come out of the agent's own parser. Truth is what a detector sees in the clip itself, second by second.
//! How to get a stream: `agent/edge/tests/traces/make.sh`.

mod truth;

use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sharp_eyes_agent::camera::bitstream::{Bitstream, Codec, Kind, UnitFacts};

const USAGE: &str = "\
trace STREAM                            the access units of a byte stream (.h264 or .h265, with delimiters)
trace --time STREAM                     what it takes to read one of them
trace --truth WIDTHxHEIGHT --model FOLDER
                                        what a model sees in each second of a clip: standard input is
                                        4 frames a second, I420 without gaps";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trace: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    use lexopt::prelude::*;
    let (mut stream, mut size, mut model) = (None, None, None);
    let mut time = false;
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("help") | Short('h') => {
                println!("{USAGE}");
                return Ok(());
            }
            Long("truth") => size = Some(truth::size(&arguments.value()?.string()?)?),
            Long("time") => time = true,
            Long("model") => model = Some(PathBuf::from(arguments.value()?)),
            Value(file) if stream.is_none() => stream = Some(PathBuf::from(file)),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    match (stream, size) {
        (Some(stream), None) => {
            let codec = match stream.extension().and_then(|extension| extension.to_str()) {
                Some("h264") => Codec::H264,
                Some("h265") => Codec::H265,
                _ => bail!("{}: neither .h264 nor .h265", stream.display()),
            };
            let bytes = std::fs::read(&stream).with_context(|| format!("reading {}", stream.display()))?;
            if time {
                print_time(codec, &bytes, &mut out)?;
            } else {
                print(codec, &bytes, &mut out)?;
            }
        }
        (None, Some(size)) => {
            truth::print(
                std::io::stdin().lock(),
                size,
                &model.context("--truth needs a --model")?,
                &mut out,
            )?;
        }
        _ => bail!("a stream, or --truth\n{USAGE}"),
    }
    out.flush()?;
    Ok(())
}

/// A line for each access unit in decoding order: `K` keyframe, `R` recovery point, `I`, `P` or `B` (lower-case where
/// no other picture refers to it), bytes of its slices, mean quantiser; then, where they are not 1 and 0, `s` with the
/// number of slices and `f` with the bytes of filler.
fn print(codec: Codec, stream: &[u8], out: &mut impl Write) -> Result<()> {
    let mut bitstream = Bitstream::new(codec);
    for unit in access_units(codec, stream) {
        let facts = bitstream.access_unit(unit);
        write!(out, "{} {}", letter(&facts), facts.bytes)?;
        match facts.quantiser {
            Some(quantiser) => write!(out, " {}", (quantiser * 10.0).round() / 10.0)?,
            None => write!(out, " -")?,
        }
        if facts.slices != 1 {
            write!(out, " s{}", facts.slices)?;
        }
        if facts.filler != 0 {
            write!(out, " f{}", facts.filler)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Reads the stream for a second, again and again.
fn print_time(codec: Codec, stream: &[u8], out: &mut impl Write) -> Result<()> {
    let units: Vec<&[u8]> = access_units(codec, stream).collect();
    ensure!(!units.is_empty(), "no access unit delimiter in the stream");
    let mut bitstream = Bitstream::new(codec);
    let (began, mut passes) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(1) {
        for unit in &units {
            black_box(bitstream.access_unit(unit));
        }
        passes += 1;
    }
    let seconds = began.elapsed().as_secs_f64() / f64::from(passes);
    let (microseconds, bytes) = (seconds * 1e6 / units.len() as f64, stream.len() / units.len());
    writeln!(out, "{microseconds:.2} us for an access unit, {bytes} bytes each")?;
    Ok(())
}

/// Parts a byte stream before each access unit delimiter.
fn access_units(codec: Codec, stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let delimiter: &[u8] = match codec {
        Codec::H264 => &[0, 0, 0, 1, 9],
        Codec::H265 => &[0, 0, 0, 1, 35 << 1],
    };
    let is_start = move |at: &usize| stream[*at..].starts_with(delimiter);
    let starts: Vec<usize> = (0..stream.len()).filter(is_start).chain([stream.len()]).collect();
    (1..starts.len()).map(move |index| &stream[starts[index - 1]..starts[index]])
}

fn letter(facts: &UnitFacts) -> char {
    let letter = match facts.kind {
        _ if facts.keyframe => 'K',
        _ if facts.recovery_point => 'R',
        Kind::Intra => 'I',
        Kind::Predicted => 'P',
        Kind::Bidirectional => 'B',
    };
    if facts.reference { letter } else { letter.to_ascii_lowercase() }
}
