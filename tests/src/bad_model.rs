//! Detectors that are good until they see something: the built-in model with a few nodes between its scores and its output.
//!
//! The nodes are written in the encoding of onnx.proto (field numbers as there). Messages of that encoding that are
//! appended to each other are one message, so that nothing of the model itself has to be understood.

use anyhow::{Context, Result, ensure};

/// What it does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Finds nothing.
    Blind,
    /// Finds everything, everywhere.
    Eager,
    /// Returns what are no numbers.
    NotNumbers,
    /// Takes a tenth of a second longer, or some.
    Slow,
    /// Never comes to an end.
    Hangs,
    /// Divides what cannot be divided, which ends the process; on x86 alone, other processors say nothing.
    Crashes,
}

/// A model like that, as soon as the mean of all pixels, 0 to 255, is between these.
pub fn spoil(builtin: &[u8], mood: Mood, above: f32, below: f32) -> Result<Vec<u8>> {
    let mut model = builtin.to_vec();
    let name = model.windows(6).position(|bytes| bytes == b"scores").context("the model yields no scores")?;
    model[name..name + 6].copy_from_slice(b"honest");
    ensure!(model.windows(6).any(|bytes| bytes == b"scores"), "the model's output has another name now");
    let mut graph = [
        node("ReduceMean", &["images"], &["bad_mean"], &[integer("keepdims", 0)]),
        float("bad_above", above),
        float("bad_below", below),
        node("Greater", &["bad_mean", "bad_above"], &["bad_bright"], &[]),
        node("Less", &["bad_mean", "bad_below"], &["bad_dark"], &[]),
        node("And", &["bad_bright", "bad_dark"], &["bad_now"], &[]),
    ]
    .concat();
    let choose = |then: Vec<u8>, other: Vec<u8>| {
        [then, other, node("Where", &["bad_now", "bad_then", "bad_else"], &["bad"], &[])].concat()
    };
    let floats = |then, other| choose(float("bad_then", then), float("bad_else", other));
    let integers = |then, other| choose(int64("bad_then", then), int64("bad_else", other));
    let scores = |operator| node(operator, &["honest", "bad_number"], &["scores"], &[]);
    let as_number = node("Identity", &["bad"], &["bad_number"], &[]);
    graph.extend(match mood {
        Mood::Blind => [floats(0.0, 1.0), as_number, scores("Mul")].concat(),
        Mood::Eager => [floats(1.0, 0.0), as_number, scores("Max")].concat(),
        Mood::NotNumbers => [floats(f32::NAN, 1.0), as_number, scores("Mul")].concat(),
        Mood::Slow => [integers(SLOW_ROUNDS, 0), rounds(), scores("Add")].concat(),
        Mood::Hangs => [integers(i64::MAX, 0), rounds(), scores("Add")].concat(),
        Mood::Crashes => [
            integers(-1, 1),
            int64("bad_least", i64::MIN),
            node("Div", &["bad_least", "bad"], &["bad_quotient"], &[]),
            node("Cast", &["bad_quotient"], &["bad_sum"], &[integer("to", FLOAT)]),
            float("bad_naught", 0.0),
            node("Mul", &["bad_sum", "bad_naught"], &["bad_number"], &[]),
            scores("Sub"),
        ]
        .concat(),
    });
    model.extend(bytes(7, &graph));
    Ok(model)
}

/// What [`Mood::Slow`] does besides: half a microsecond each, or some.
const SLOW_ROUNDS: i64 = 200_000;

/// TensorProto.DataType.
const FLOAT: u64 = 1;
const INT64: u64 = 7;
const BOOL: u64 = 9;

/// Goes round `bad` times; the sum is naught all the same.
fn rounds() -> Vec<u8> {
    let value = |name: &str, kind: u64| {
        let shape = bytes(2, &[]);
        let tensor = [number(1, kind), shape].concat();
        [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
    };
    let body = [
        bytes(2, b"round"),
        bytes(11, &value("bad_round", INT64)),
        bytes(11, &value("bad_go", BOOL)),
        bytes(11, &value("bad_sum", FLOAT)),
        node("Identity", &["bad_go"], &["bad_goes_on"], &[]),
        node("Add", &["bad_sum", "bad_sum"], &["bad_next"], &[]),
        bytes(12, &value("bad_goes_on", BOOL)),
        bytes(12, &value("bad_next", FLOAT)),
    ]
    .concat();
    let body = [bytes(1, b"body"), bytes(6, &body), number(20, 5)].concat();
    [float("bad_start", 0.0), node("Loop", &["bad", "", "bad_start"], &["bad_number"], &[body])].concat()
}

fn node(kind: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    let names = |field, names: &[&str]| {
        names.iter().flat_map(|name| bytes(field, name.as_bytes())).collect::<Vec<u8>>()
    };
    let attributes: Vec<u8> = attributes.iter().flat_map(|attribute| bytes(5, attribute)).collect();
    bytes(1, &[names(1, inputs), names(2, outputs), bytes(4, kind.as_bytes()), attributes].concat())
}

fn integer(name: &str, value: u64) -> Vec<u8> {
    [bytes(1, name.as_bytes()), number(3, value), number(20, 2)].concat()
}

fn float(name: &str, value: f32) -> Vec<u8> {
    bytes(5, &[number(2, FLOAT), bytes(8, name.as_bytes()), bytes(9, &value.to_le_bytes())].concat())
}

fn int64(name: &str, value: i64) -> Vec<u8> {
    bytes(5, &[number(2, INT64), bytes(8, name.as_bytes()), bytes(9, &value.to_le_bytes())].concat())
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
