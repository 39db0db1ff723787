//! The agent without its cameras: everything from the outbox on, and alerts that are decided when somebody says so.
//!
//! ```text
//! alert-source agent.toml
//! ```
//!
//! It reads the agent's own configuration, starts in milliseconds, and takes one order a line on its standard input:
//!
//! | order | does |
//! | --- | --- |
//! | `decide COUNT SEVERITY BYTES` | decides so many alerts, each with a picture of so many bytes unless that is 0; SEVERITY may be `mixed` |
//! | `health` | prints the health report |
//!
//! The end of its input ends it as SIGTERM ends the agent. One line a fact on its standard output:
//!
//! | line | says |
//! | --- | --- |
//! | `stored SEQUENCE ID SEVERITY NANOSECONDS` | the alert is durable since that time (of 1970): the promise that is tested |
//! | `lost ID` | the alert was not taken, or never came to the disk |
//! | `health JSON` | the answer to an order |

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use sharp_eyes_agent::board::Board;
use sharp_eyes_agent::clock::Clock;
use sharp_eyes_agent::config::Config;
use sharp_eyes_agent::dispatch::Dispatch;
use sharp_eyes_agent::log;
use sharp_eyes_agent::outbox::{NewEvidence, Outbox, Receipt};
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::topic::Name;
use sharp_eyes_tests::alert_source::new_alert;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Alerts that may wait for the disk at a time: fewer than the outbox holds before it gives some up.
const PENDING: usize = 512;

/// Orders that wait. Full: whoever gives them waits.
const ORDERS: usize = 16;

fn main() -> ExitCode {
    log::start();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("alert-source: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let file = PathBuf::from(std::env::args_os().nth(1).context("usage: alert-source agent.toml")?);
    let config = Config { metrics: None, ..Config::load(&file)? };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<()> {
    let clock = Arc::new(Clock::start(&config.state.folder));
    let cards =
        config.cameras.iter().map(|camera| (camera.stream.name.clone(), camera.gate, camera.tamper()));
    let board = Arc::new(Board::new(cards));
    let dispatch = Dispatch::start(&config, &clock, &board).await?;
    let shutdown = CancellationToken::new();
    let timekeeper = tokio::spawn(clock.clone().keep(shutdown.clone()));
    let pending = Arc::new(Semaphore::new(PENDING));
    let mut orders = orders();
    while let Some(order) = orders.recv().await {
        match order.split(' ').collect::<Vec<_>>()[..] {
            ["health"] => say(&format!("health {}", serde_json::to_string(&dispatch.examiner.health())?)),
            ["decide", count, severity, bytes] => {
                let severities = match severity {
                    "mixed" => Severity::ALL.to_vec(),
                    one => vec![one.parse::<Severity>()?],
                };
                let (count, bytes) = (count.parse()?, bytes.parse()?);
                let decider = Decider {
                    camera: board.cameras[0].name.clone(),
                    clock: clock.clone(),
                    outbox: dispatch.outbox.clone(),
                    pending: pending.clone(),
                };
                tokio::spawn(async move {
                    for severity in severities.into_iter().cycle().take(count) {
                        decider.decide(severity, bytes).await;
                    }
                });
            }
            _ => bail!("no order: {order:?}"),
        }
    }
    shutdown.cancel();
    timekeeper.await?;
    dispatch.stop().await;
    Ok(())
}

/// The lines of the standard input.
fn orders() -> mpsc::Receiver<String> {
    let (sender, orders) = mpsc::channel(ORDERS);
    std::thread::spawn(move || {
        for order in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(order).is_err() {
                return;
            }
        }
    });
    orders
}

/// One line, in one piece: whoever kills this process gets it whole or not at all.
fn say(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()); // nobody listens any more: fine
}

/// In the place of analysis.
struct Decider {
    camera: Name,
    clock: Arc<Clock>,
    outbox: Outbox,
    pending: Arc<Semaphore>,
}

impl Decider {
    async fn decide(&self, severity: Severity, bytes: usize) {
        let alert = new_alert(&self.camera, severity, &self.clock, bytes > 0);
        let id = alert.id;
        let permit = self.pending.clone().acquire_owned().await.expect("never closed");
        let receipt = self.outbox.append(alert);
        if bytes > 0 {
            let (thumbnail, picture) = (vec![0xee; bytes / 10 + 1], vec![0xff; bytes]);
            self.outbox.attach(NewEvidence { alert: id, severity, thumbnail, picture });
        }
        tokio::spawn(async move {
            tell(id, severity, receipt.ok()).await;
            drop(permit);
        });
    }
}

async fn tell(id: Uuid, severity: Severity, receipt: Option<Receipt>) {
    let stored = match receipt {
        Some(receipt) => receipt.stored().await,
        None => None,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    match stored {
        Some(sequence) => say(&format!("stored {sequence} {id} {severity} {now}")),
        None => say(&format!("lost {id}")),
    }
}
