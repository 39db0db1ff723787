//! The day of visits as a picture: how busy each agent was in each second, when somebody was there, when it alarmed.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::watch::{Mark, Used, Watch};
use super::workloads::Workload;

/// One agent's day, sampled.
pub(super) struct Day {
    pub(super) name: &'static str,
    pub(super) watch: Watch,
    /// From the end of the prelude to the end of the day.
    pub(super) used: Option<Used>,
    begin: Option<Mark>,
    /// Time after the first access unit, and processor time until then.
    samples: Vec<(Duration, Duration)>,
}

impl Day {
    pub(super) fn start(name: &'static str, gate: &str, folder: &Path, urls: &[String]) -> Result<Self> {
        let watch = Watch::start(folder, urls, gate)?;
        Ok(Self { name, watch, used: None, begin: None, samples: Vec::new() })
    }

    /// Whether everything was shown once.
    pub(super) fn is_over(&self, workload: &Workload) -> bool {
        self.used.is_some()
            && self.watch.age() > Duration::from_secs(workload.period_s + u64::from(workload.prelude_s))
    }

    /// To be called several times a second.
    pub(super) fn look(&mut self, workload: &Workload) -> Result<()> {
        let age = self.watch.age();
        let prelude = Duration::from_secs(workload.prelude_s.into());
        if self.begin.is_none() && age >= prelude {
            self.begin = Some(self.watch.mark()?);
        }
        if let (Some(begin), None) = (&self.begin, self.used)
            && age >= prelude + Duration::from_secs(workload.period_s)
        {
            self.used = Some(self.watch.since(begin)?);
        }
        if self.used.is_none() {
            self.samples.push((age, self.watch.cpu()?));
        }
        Ok(())
    }
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 110.0;
const LEFT: f64 = 120.0;

/// A band for each agent, one above the other.
pub(super) fn svg(days: &[Day], workload: &Workload) -> String {
    let prelude = f64::from(workload.prelude_s);
    let end = prelude + workload.period_s as f64;
    let x = |seconds: f64| LEFT + seconds / end * (WIDTH - LEFT - 10.0);
    let total = HEIGHT * days.len() as f64 + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {total}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (index, day) in days.iter().enumerate() {
        let bottom = HEIGHT * (index + 1) as f64;
        let y = |cores: f64| bottom - cores.min(1.0) * (HEIGHT - 25.0);
        for (from, to) in workload.visits {
            let (from, to) = (x(prelude + f64::from(*from)), x(prelude + f64::from(*to)));
            let (top, width) = (y(1.0), to - from);
            line(
                &mut svg,
                &format!(
                    "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"#f3e3c3\"/>",
                    bottom - top
                ),
            );
        }
        let points: Vec<String> = day
            .samples
            .windows(3)
            .map(|samples| {
                let [(before, used_before), _, (after, used_after)] = samples else {
                    unreachable!("windows of 3")
                };
                let cores = (*used_after - *used_before).as_secs_f64() / (*after - *before).as_secs_f64();
                format!("{:.1},{:.1}", x(after.as_secs_f64()), y(cores))
            })
            .collect();
        line(&mut svg, &format!("<polyline fill=\"none\" stroke=\"#245\" points=\"{}\"/>", points.join(" ")));
        for at in day.watch.alerts().into_iter().filter(|at| *at < end) {
            line(
                &mut svg,
                &format!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"#c22\"/>", x(at), y(1.0)),
            );
        }
        line(&mut svg, &format!("<text x=\"5\" y=\"{:.1}\">{}</text>", y(0.5), day.name));
        line(
            &mut svg,
            &format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">1 core</text>",
                LEFT - 4.0,
                y(1.0) + 4.0
            ),
        );
        line(
            &mut svg,
            &format!(
                "<path d=\"M{LEFT} {:.1}V{bottom}H{:.1}\" fill=\"none\" stroke=\"#888\"/>",
                y(1.0),
                WIDTH - 10.0
            ),
        );
    }
    let caption = "processor time in each second; shaded: somebody is there; red: an alert";
    line(
        &mut svg,
        &format!("<text x=\"{LEFT}\" y=\"{:.1}\">{caption}, {end} s</text>\n</svg>", total - 10.0),
    );
    svg
}

fn line(svg: &mut String, text: &str) {
    let _ = writeln!(svg, "{text}"); // a String takes everything
}
