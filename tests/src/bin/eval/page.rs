//! The figures as one HTML page that needs nothing else, with plots as SVG.

use std::fmt::Write as _;

use crate::alerts::{Clip, Outcome, Raised};
use crate::detection::Score;
use crate::figures::Figures;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#1d242b}\
h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2em}pre{background:#f4f6f8;padding:1em;overflow-x:auto;font-size:12px}\
svg text{font:11px system-ui,sans-serif;fill:#55606b}figure{margin:1em 0}figcaption{color:#55606b}";

/// Lines of one plot, apart for the colour-blind, too (Okabe and Ito 2008).
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999"];

/// Side of a plot of precision over recall, in pixels, and what is around it.
const SIDE: f64 = 300.0;
const AROUND: f64 = 36.0;

pub(crate) fn html(figures: &Figures) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sharp Eyes: make eval</title>\
         <style>{STYLE}</style><h1>Sharp Eyes: make eval</h1>"
    );
    let mut models: Vec<&str> = figures.detection.iter().map(|score| score.model.as_str()).collect();
    models.dedup();
    if !models.is_empty() {
        page += "<h2>Detection</h2>";
    }
    for model in models {
        let all = figures.detection.iter().filter(|score| score.model == model && score.set == "all");
        let all: Vec<_> = all.filter(|score| !score.curve.is_empty()).collect();
        let _ = write!(
            page,
            "<figure>{}<figcaption>{}: precision over recall, all sets together, from an overlap of 0.5 on; with AP50\
             </figcaption></figure>",
            curves(&all),
            escaped(model)
        );
    }
    for judged in &figures.alerts {
        let sums = judged.sums();
        let _ = write!(
            page,
            "<h2>Alerts of {}</h2><p>Recall {:.3}, precision {:.3}: {} right, {} missed, {} wrong.</p><figure>",
            escaped(&judged.model),
            sums.recall(),
            sums.precision(),
            sums.right,
            sums.missed,
            sums.wrong
        );
        for Clip { clip, outcome } in &judged.clips {
            if let Some(outcome) = outcome {
                page += &timeline(clip, outcome);
            }
        }
        page += "<figcaption>Each clip over its time: right (green dots), wrong (red crosses), missed (open orange spans).\
                 </figcaption></figure>";
    }
    let _ = writeln!(page, "<h2>All figures</h2><pre>{}</pre></html>", escaped(&figures.to_string()));
    page
}

/// Precision over recall, a line for each class.
fn curves(scores: &[&Score]) -> String {
    let (width, height) = (SIDE + 2.0 * AROUND + 170.0, SIDE + 2.0 * AROUND);
    let mut svg = format!("<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">");
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let (x, y) = (AROUND + share * SIDE, AROUND + (1.0 - share) * SIDE);
        let (right, bottom) = (AROUND + SIDE, AROUND + SIDE);
        let _ = write!(
            svg,
            "<path d=\"M{AROUND} {y}H{right}M{x} {AROUND}V{bottom}\" stroke=\"#dde2e6\" fill=\"none\"/>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{share}</text>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{share}</text>",
            bottom + 16.0,
            AROUND - 6.0,
            y + 4.0
        );
    }
    for (index, score) in scores.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points: Vec<String> = score
            .curve
            .iter()
            .enumerate()
            .map(|(percent, precision)| {
                let x = AROUND + percent as f64 / 100.0 * SIDE;
                format!("{x:.1},{:.1}", AROUND + (1.0 - precision) * SIDE)
            })
            .collect();
        let _ = write!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
             <text x=\"{}\" y=\"{}\" style=\"fill:{colour}\">{} {:.3} ({})</text>",
            points.join(" "),
            AROUND + SIDE + 12.0,
            AROUND + 12.0 + 18.0 * index as f64,
            score.class,
            score.precision.ap50.unwrap_or_default(),
            score.objects
        );
    }
    svg + "</svg>"
}

/// What was raised in a clip when, and what was missed.
fn timeline(clip: &str, outcome: &Outcome) -> String {
    const NAME: f64 = 270.0;
    const LENGTH: f64 = 560.0;
    let at = |seconds: f64| NAME + seconds / outcome.duration_s.max(0.1) * LENGTH;
    let mut svg = format!(
        "<svg viewBox=\"0 0 900 24\" width=\"900\" height=\"24\" style=\"display:block\">\
         <text x=\"0\" y=\"16\">{}</text><path d=\"M{NAME} 12H{}\" stroke=\"#c5ccd2\"/>\
         <text x=\"{}\" y=\"16\">{:.0} s</text>",
        escaped(clip),
        NAME + LENGTH,
        NAME + LENGTH + 8.0,
        outcome.duration_s
    );
    for missed in &outcome.missed {
        let (from, to) = (at(missed.from), at(missed.to.min(outcome.duration_s)));
        let width = (to - from).max(2.0);
        let _ = write!(
            svg,
            "<rect x=\"{from:.1}\" y=\"7\" width=\"{width:.1}\" height=\"10\" fill=\"none\" stroke=\"#e69f00\" \
             stroke-width=\"2\"><title>missed: {}</title></rect>",
            escaped(&missed.rule)
        );
    }
    for Raised { rule, at_s: seconds, .. } in &outcome.right {
        let (x, rule) = (at(*seconds), escaped(rule));
        let _ = write!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"12\" r=\"4\" fill=\"#009e73\"><title>{rule} at {seconds:.1} s</title></circle>"
        );
    }
    for Raised { rule, at_s: seconds, .. } in &outcome.wrong {
        let (x, rule) = (at(*seconds), escaped(rule));
        let _ = write!(
            svg,
            "<path d=\"M{:.1} 8l8 8m0-8l-8 8\" stroke=\"#d00\" stroke-width=\"2\"><title>{rule} at {seconds:.1} s\
             </title></path>",
            x - 4.0
        );
    }
    svg + "</svg>"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
