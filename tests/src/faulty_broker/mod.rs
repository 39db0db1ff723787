//! A broker with faults: a real one behind a man in the middle, who reads every packet and asks a rule what becomes of it.
//!
//! A rule is a closure from a packet to its [`Fate`]; [`rule`] has the usual ones. It is asked about one packet at a time
//! and may do anything else meanwhile, such as kill the broker behind. An in-flight publish dies
//!
//! - before the broker has it: `at(ToBroker, Publish, n, Fate::Cut)`;
//! - after the broker has it, before the box knows: `at(ToClient, PubAck, n, Fate::Cut)`;
//! - after the box knows: `at(ToClient, PubAck, n, Fate::CutAfter)`.
//!
//! MQTT 5 without TLS only. For a weak line too, put a [`crate::link::Link`] before it.

mod connection;
pub mod packet;
pub mod rule;

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::wait;
pub use packet::{Kind, Packet};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names say it
pub enum Direction {
    ToBroker,
    ToClient,
}

/// What a rule is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Passing<'a> {
    /// The packet.
    pub packet: &'a Packet,
    /// Where it goes.
    pub direction: Direction,
    /// Counts packets of this kind in this direction, over all connections since the rule was set, from 1.
    pub nth: u64,
    /// Counts all packets of its connection, both ways, from 1.
    pub nth_of_connection: u64,
}

impl Passing<'_> {
    /// Whether it is one of these.
    pub fn is(&self, direction: Direction, kind: Kind) -> bool {
        self.direction == direction && self.packet.kind == kind
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Pass,
    /// It never arrives, and the connection lives on.
    Lose,
    /// It arrives twice, a PUBLISH marked as a repetition the second time.
    Twice,
    /// Of a PUBLISH to the broker: it does not arrive, and is acknowledged with this reason. Of a PUBACK: it gets this
    /// reason in place of its own.
    Refuse(u8),
    /// It waits until it is released.
    Hold,
    /// It goes on, and behind it, newest first, what its connection holds in this direction.
    Release,
    /// It is lost, and both sides get a reset.
    Cut,
    /// It goes on, then the connection ends without a DISCONNECT.
    CutAfter,
    /// It is lost; the client gets a DISCONNECT with this reason, and the connection ends.
    Disconnect(u8),
}

/// A packet that came by.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When, by the clock of this machine.
    pub at: SystemTime,
    /// Where it went.
    pub direction: Direction,
    /// Its connection, from 0.
    pub connection: u64,
    /// Its type.
    pub kind: Kind,
    /// Its identifier.
    pub id: Option<u16>,
    /// Of a PUBLISH.
    pub topic: Option<String>,
    /// Of an acknowledgement or DISCONNECT.
    pub reason: u8,
    /// Of the whole packet.
    pub bytes: usize,
    /// Whether it says to be a repetition.
    pub again: bool,
    /// What became of it.
    pub fate: Fate,
}

/// Both sides of the man in the middle. Everything of it is gone when it is dropped; the broker behind stays.
#[derive(Debug)]
pub struct FaultyBroker {
    port: u16,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

type Rule = Box<dyn FnMut(&Passing<'_>) -> Fate + Send>;

/// Between the connections and their owner.
#[derive(Debug)]
struct Shared {
    broker: SocketAddr,
    state: Mutex<State>,
}

struct State {
    rule: Rule,
    counts: HashMap<(Direction, Kind), u64>,
    seen: Vec<Seen>,
    held: Vec<Held>,
    problem: Option<String>,
}

/// A packet that waits to be released, to where it was going.
#[derive(Debug)]
pub struct Held {
    /// The packet.
    pub packet: Packet,
    connection: u64,
    direction: Direction,
    out: mpsc::Sender<connection::Out>,
}

impl FaultyBroker {
    /// Before the real broker on this port of this machine. It has no faults yet.
    pub fn start(broker_port: u16) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("faulty-broker")
            .enable_all()
            .build()
            .context("starting the faulty broker's runtime")?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.context("opening the faulty broker's port")?;
        let port = listener.local_addr()?.port();
        let state = State {
            rule: Box::new(|_| Fate::Pass),
            counts: HashMap::new(),
            seen: Vec::new(),
            held: Vec::new(),
            problem: None,
        };
        let shared =
            Arc::new(Shared { broker: (Ipv4Addr::LOCALHOST, broker_port).into(), state: Mutex::new(state) });
        runtime.spawn(connection::accept(listener, Arc::clone(&shared)));
        Ok(Self { port, shared, runtime: Some(runtime) })
    }

    /// Where the client finds it, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on, with all counts at 0.
    pub fn set_rule(&self, rule: impl FnMut(&Passing<'_>) -> Fate + Send + 'static) {
        let mut state = self.shared.state();
        state.rule = Box::new(rule);
        state.counts.clear();
    }

    /// No faults any more. What is held is released in its order.
    pub fn heal(&self) {
        self.set_rule(|_| Fate::Pass);
        self.release(|_| {});
    }

    /// How many packets are held.
    pub fn held(&self) -> usize {
        self.shared.state().held.len()
    }

    /// Sends what is held, oldest first unless `order` orders it otherwise; what it takes out is lost.
    pub fn release(&self, order: impl FnOnce(&mut Vec<Held>)) {
        let mut held = std::mem::take(&mut self.shared.state().held);
        order(&mut held);
        let Some(runtime) = &self.runtime else { return };
        runtime.spawn(async move {
            for held in held {
                let _ = held.out.send(connection::Out::Packet(held.packet)).await; // its connection has ended, then
            }
        });
    }

    /// Everything that came by so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// Waits until what came by has something. The error names `what`.
    pub fn until<T>(&self, what: &str, mut ask: impl FnMut(&[Seen]) -> Option<T>) -> Result<T> {
        wait::until(what, wait::PATIENCE, || {
            let state = self.shared.state();
            match &state.problem {
                Some(problem) => Some(Err(anyhow!("waiting for {what}: {problem}"))),
                None => ask(&state.seen).map(Ok),
            }
        })?
    }
}

impl Drop for FaultyBroker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // unlike a plain drop, allowed in a test that is asynchronous itself
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the rule, and notes the answer.
    fn judge(&self, connection: u64, nth_of_connection: u64, direction: Direction, packet: &Packet) -> Fate {
        let mut state = self.state();
        let nth = state.counts.entry((direction, packet.kind)).or_default();
        *nth += 1;
        let passing = Passing { packet, direction, nth: *nth, nth_of_connection };
        let fate = (state.rule)(&passing);
        let Packet { kind, id, ref topic, reason, .. } = *packet;
        state.seen.push(Seen {
            at: SystemTime::now(),
            direction,
            connection,
            kind,
            id,
            topic: topic.clone(),
            reason,
            bytes: packet.bytes().len(),
            again: packet.is_again(),
            fate,
        });
        fate
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("seen", &self.seen.len())
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}
