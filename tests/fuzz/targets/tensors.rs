//! What a graph yields: outputs of any shape with any numbers are recognised as a layout and read, or refused.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sharp_eyes_vision::layout::{Evidence, Output, OutputSection, Wanted, WantedLabel, recognise};
use sharp_eyes_vision::tensor::Tensor;

#[derive(Arbitrary, Debug)]
struct Graph {
    size: (u8, u8),
    outputs: Vec<Yield>,
    labels: Option<u8>,
    channels_last: bool,
    paddle: bool,
    /// The sides and numbers of a later run.
    later: Vec<(Vec<u8>, Vec<f32>)>,
}

#[derive(Arbitrary, Debug)]
struct Yield {
    name: String,
    whole: bool,
    sides: Vec<u8>,
    open: Vec<bool>,
    numbers: Vec<f32>,
}

/// As many numbers as the sides say: a runtime gives no others.
fn tensor(sides: &[u8], numbers: &[f32]) -> (Vec<usize>, Vec<f32>) {
    let shape: Vec<usize> = sides.iter().take(4).map(|side| usize::from(*side)).collect();
    let count = shape.iter().product::<usize>().min(1 << 16);
    let shape = if shape.iter().product::<usize>() > count { vec![count] } else { shape };
    let filling = numbers.iter().copied().chain(std::iter::once(0.0)).cycle();
    (shape, filling.take(count).collect())
}

fuzz_target!(|graph: Graph| {
    let size = (u32::from(graph.size.0) + 1, u32::from(graph.size.1) + 1);
    let outputs: Vec<Output> = graph
        .outputs
        .iter()
        .take(16)
        .map(|output| {
            let (shape, numbers) = tensor(&output.sides, &output.numbers);
            let open = (0..shape.len()).map(|side| output.open.get(side) == Some(&true)).collect();
            let (name, whole) = (output.name.clone(), output.whole);
            Output { name, whole, shape, open, numbers, ..Output::default() }
        })
        .collect();
    let labels: Option<Vec<String>> =
        graph.labels.map(|count| (0..count).map(|label| format!("label {label}")).collect());
    let evidence = Evidence {
        size,
        outputs: &outputs,
        labels: labels.as_deref(),
        layout: None,
        section: &OutputSection::default(),
        channels_last: graph.channels_last,
        paddle: graph.paddle,
    };
    let Ok(recognised) = recognise(&evidence) else { return };
    let wanted = Wanted { labels: vec![WantedLabel { label: 0, floor: 0.1, person: true }] };
    let named = |index: usize| outputs.get(index).map_or("", |output| output.name.as_str());
    let trial = outputs.iter().map(|output| (output.shape.clone(), output.numbers.clone()));
    let later = graph.later.iter().take(16).map(|(sides, numbers)| tensor(sides, numbers));
    for run in [trial.collect::<Vec<_>>(), later.collect()] {
        let tensors: Vec<Tensor<'_>> = run
            .iter()
            .enumerate()
            .map(|(index, (shape, numbers))| Tensor {
                name: named(index),
                shape: shape.clone(),
                numbers: numbers.as_slice().into(),
            })
            .collect();
        let mut candidates = Vec::new();
        if let Ok(0) = recognised.decoder.decode(&tensors, size, &wanted, &mut candidates) {
            assert!(candidates.iter().all(|candidate| candidate.score.is_finite()));
        }
    }
});
