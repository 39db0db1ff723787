//! A look into an ONNX file: which steps make an output, and what becomes of the input first.
//!
//! ONNX Runtime tells names, types and shapes; that scores end in a sigmoid, or that a graph divides its input by
//! 255 itself, stands only in the file. It is read as onnx.proto lays it down, and whatever is damaged ends the look.

use std::collections::HashMap;

use crate::layout::Ending;

/// The nodes of a graph, borrowed from its file.
#[derive(Default)]
pub(super) struct Graph<'a> {
    nodes: Vec<Node<'a>>,
    /// Which node makes a tensor.
    makers: HashMap<&'a str, usize>,
    /// Small constants by name.
    constants: HashMap<&'a str, Vec<f32>>,
}

#[derive(Default)]
struct Node<'a> {
    kind: &'a str,
    inputs: Vec<&'a str>,
    outputs: Vec<&'a str>,
}

/// What pixels the first steps of a graph expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PixelRange {
    /// 0 to 255: the graph divides, or subtracts means of that size.
    Bytes,
    /// 0 to 1: the graph subtracts means or divides by deviations of that size.
    One,
}

/// How many nodes a look follows; what matters is near the ends.
const NODES_MAX: usize = 64;

/// Steps that only move numbers about.
const MOVES: [&str; 13] = [
    "Cast",
    "DequantizeLinear",
    "Flatten",
    "Gather",
    "GatherND",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// Largest constant that is read: a mean or a deviation for each channel.
const CONSTANT_MAX: usize = 16;

impl<'a> Graph<'a> {
    /// Reads a file as far as it can be read.
    pub(super) fn parse(model: &'a [u8]) -> Self {
        let mut graph = Self::default();
        for (field, value) in fields(model) {
            let (7, Value::Bytes(body)) = (field, value) else { continue };
            for (field, value) in fields(body) {
                match (field, value) {
                    (1, Value::Bytes(node)) => graph.add_node(node),
                    (5, Value::Bytes(tensor)) => {
                        if let Some((name, numbers)) = constant(tensor) {
                            graph.constants.insert(name, numbers);
                        }
                    }
                    _ => {}
                }
            }
        }
        graph
    }

    fn add_node(&mut self, bytes: &'a [u8]) {
        let mut node = Node::default();
        for (field, value) in fields(bytes) {
            let Value::Bytes(value) = value else { continue };
            let text = std::str::from_utf8(value).unwrap_or_default();
            match field {
                1 => node.inputs.push(text),
                2 => node.outputs.push(text),
                4 => node.kind = text,
                // The node Constant has its tensor as an attribute.
                5 => {
                    let tensor = fields(value).find_map(|(field, value)| match (field, value) {
                        (5, Value::Bytes(tensor)) => constant(tensor),
                        _ => None,
                    });
                    if let (Some((_, numbers)), Some(output)) = (tensor, node.outputs.first()) {
                        self.constants.insert(output, numbers);
                    }
                }
                _ => {}
            }
        }
        self.makers.extend(node.outputs.iter().map(|output| (*output, self.nodes.len())));
        self.nodes.push(node);
    }

    /// How an output ends, seen through all steps that only move numbers about.
    pub(super) fn ending(&self, output: &str) -> Option<Ending> {
        let mut name = output;
        for _ in 0..NODES_MAX {
            let node = &self.nodes[*self.makers.get(name)?];
            match node.kind {
                "Sigmoid" | "Softmax" | "HardSigmoid" => return Some(Ending::Probability),
                "Conv" | "Gemm" | "MatMul" | "Add" => return Some(Ending::Raw),
                // Scores come last where they are joined with boxes.
                "Concat" => name = node.inputs.last()?,
                // Objectness times class.
                "Mul" => {
                    let probability =
                        |input: &&&str| self.ending_within(input, 8) == Some(Ending::Probability);
                    return node.inputs.iter().find(probability).map(|_| Ending::Probability);
                }
                kind if MOVES.contains(&kind) => name = node.inputs.first()?,
                _ => return None,
            }
        }
        None
    }

    fn ending_within(&self, output: &str, steps: usize) -> Option<Ending> {
        let node = &self.nodes[*self.makers.get(output)?];
        match node.kind {
            "Sigmoid" | "Softmax" | "HardSigmoid" => Some(Ending::Probability),
            "Identity" | "Cast" | "Transpose" | "Reshape" | "Squeeze" | "Unsqueeze" | "Slice" | "Split"
                if steps > 0 =>
            {
                self.ending_within(node.inputs.first()?, steps - 1)
            }
            _ => None,
        }
    }

    /// Whether an output's last steps, up to the first convolution, hold an exponential function.
    pub(super) fn exponential(&self, output: &str) -> bool {
        let mut waiting = vec![output];
        let mut seen = 0;
        while let Some(name) = waiting.pop() {
            seen += 1;
            if seen > NODES_MAX {
                return false;
            }
            let Some(&index) = self.makers.get(name) else { continue };
            match self.nodes[index].kind {
                "Exp" => return true,
                "Conv" | "Gemm" | "MatMul" => {}
                _ => waiting.extend(&self.nodes[index].inputs),
            }
        }
        false
    }

    /// Which of the columns that are joined to an output are whole numbers: labels, and pictures' numbers.
    pub(super) fn joined(&self, output: &str) -> Vec<bool> {
        match self.source(output) {
            Some(node) if node.kind == "Concat" => {
                node.inputs.iter().map(|input| self.is_place(input)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether a tensor says where something stood among others, as the label of a box does.
    fn is_place(&self, tensor: &str) -> bool {
        self.source(tensor).is_some_and(|node| matches!(node.kind, "ArgMax" | "NonMaxSuppression"))
    }

    /// The step that makes a tensor's numbers, seen through those that only move them about.
    fn source(&self, tensor: &str) -> Option<&Node<'a>> {
        let mut name = tensor;
        for _ in 0..NODES_MAX {
            let node = &self.nodes[*self.makers.get(name)?];
            if !MOVES.contains(&node.kind) {
                return Some(node);
            }
            name = node.inputs.first()?;
        }
        None
    }

    /// Which pixels the graph's own arithmetic expects, where it does any before its first convolution.
    pub(super) fn pixel_range(&self, input: &str) -> Option<PixelRange> {
        let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            for input in &node.inputs {
                readers.entry(input).or_default().push(index);
            }
        }
        let mut waiting = vec![input];
        let mut seen = 0;
        while let Some(name) = waiting.pop() {
            for &index in readers.get(name).into_iter().flatten() {
                seen += 1;
                if seen > NODES_MAX {
                    return None;
                }
                let node = &self.nodes[index];
                let constant =
                    node.inputs.iter().filter(|input| **input != name).find_map(|i| self.constants.get(i));
                let size = constant.map(|numbers| numbers.iter().map(|n| n.abs()).fold(0.0, f32::max));
                let large = match (node.kind, size) {
                    ("Sub" | "Add", Some(size)) if size > 0.0 => size > 1.5,
                    ("Div", Some(size)) if size > 0.0 => size > 1.5,
                    ("Mul", Some(size)) if size > 0.0 => size < 0.5,
                    ("BatchNormalization", _) => {
                        // Scale, bias, mean and variance follow the input.
                        let mean = node.inputs.get(3).and_then(|mean| self.constants.get(mean))?;
                        mean.iter().any(|mean| mean.abs() > 1.5)
                    }
                    (
                        "Identity" | "Cast" | "Transpose" | "Unsqueeze" | "Squeeze" | "Split" | "Gather"
                        | "Slice" | "Reshape" | "Resize" | "Pad",
                        _,
                    ) => {
                        waiting.extend(&node.outputs);
                        continue;
                    }
                    _ => continue,
                };
                return Some(if large { PixelRange::Bytes } else { PixelRange::One });
            }
        }
        None
    }
}

/// Name and numbers of a small tensor of f32.
fn constant(bytes: &[u8]) -> Option<(&str, Vec<f32>)> {
    const FLOAT: u64 = 1;
    let (mut name, mut numbers, mut float) = ("", Vec::new(), false);
    let four = |four: &[u8]| f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
    for (field, value) in fields(bytes) {
        match (field, value) {
            (2, Value::Number(kind)) => float = kind == FLOAT,
            (8, Value::Bytes(text)) => name = std::str::from_utf8(text).ok()?,
            (4 | 9, Value::Bytes(raw)) if raw.len() <= 4 * CONSTANT_MAX => {
                numbers = raw.chunks_exact(4).map(four).collect();
            }
            (4, Value::Fixed(bits)) => numbers.push(f32::from_bits(bits)),
            _ => {}
        }
    }
    (float && !numbers.is_empty()).then_some((name, numbers))
}

enum Value<'a> {
    Number(u64),
    Fixed(u32),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message, up to its end or to what is none.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    std::iter::from_fn(move || {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            1 => {
                take(&mut bytes, 8)?;
                Value::Number(0) // a double: none is of interest
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Value::Bytes(take(&mut bytes, length)?)
            }
            5 => Value::Fixed(u32::from_le_bytes(take(&mut bytes, 4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, value))
    })
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = *take(bytes, 1)? else { return None };
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TinyElement, TinyModel};

    #[test]
    fn labels_are_told_from_scores_among_columns_that_are_joined() {
        let mut yolov7 = TinyModel::new(&[1, 3, 32, 64], TinyElement::F32);
        yolov7.nodes = vec![
            ("NonMaxSuppression", vec!["boxes", "scores"], vec!["kept"]),
            ("Gather", vec!["kept", "zero"], vec!["batch"]),
            ("Cast", vec!["batch"], vec!["picture"]),
            ("GatherND", vec!["boxes", "kept"], vec!["box"]),
            ("ArgMax", vec!["scores"], vec!["category"]),
            ("GatherND", vec!["category", "kept"], vec!["chosen"]),
            ("Cast", vec!["chosen"], vec!["label"]),
            ("ReduceMax", vec!["scores"], vec!["best"]),
            ("GatherND", vec!["best", "kept"], vec!["score"]),
            ("Concat", vec!["picture", "box", "label", "score"], vec!["joined"]),
            ("Identity", vec!["joined"], vec!["output"]),
        ];
        let bytes = yolov7.to_bytes();
        let graph = Graph::parse(&bytes);
        assert_eq!(graph.joined("output"), [true, false, true, false]);
        assert!(graph.joined("score").is_empty());
    }
}
