//! A camera with faults: a real one behind a man in the middle, who reads every RTSP message and every RTP packet, and asks
//! a rule what becomes of it.
//!
//! A rule is a closure from an [`Item`] to its [`Fate`]; [`rule`] has the usual ones. RTP has to be interleaved in the RTSP
//! connection (RFC 2326, 10.12), as it is where `transport` is "tcp".
//!
//! For a cable that is pulled out, put a [`crate::link::Link`] before it.

mod connection;
pub mod item;
pub mod record;
pub mod rule;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::wait;
pub use item::{Item, Message, Packet};

/// Which way an item goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Direction {
    ToCamera,
    ToAgent,
}

/// What a rule is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Passing<'a> {
    /// The item.
    pub item: &'a Item,
    /// Where it goes.
    pub direction: Direction,
    /// Its connection, from 1.
    pub connection: u64,
    /// Counts the RTP packets from the camera on this connection, from 1; 0 before the first.
    pub media: u64,
}

impl<'a> Passing<'a> {
    /// The request, if it is one.
    pub fn request(&self) -> Option<&'a Message> {
        match self.item {
            Item::Message(message) if self.direction == Direction::ToCamera => Some(message),
            _ => None,
        }
    }

    /// The camera's answer, if it is one.
    pub fn answer(&self) -> Option<&'a Message> {
        match self.item {
            Item::Message(message) if self.direction == Direction::ToAgent => Some(message),
            _ => None,
        }
    }

    /// The camera's RTP packet, if it is one.
    pub fn rtp(&self) -> Option<&'a Packet> {
        match self.item {
            Item::Packet(packet) if self.direction == Direction::ToAgent && packet.is_rtp() => Some(packet),
            _ => None,
        }
    }

    /// The camera's RTCP packet, if it is one.
    pub fn rtcp(&self) -> Option<&'a Packet> {
        match self.item {
            Item::Packet(packet) if self.direction == Direction::ToAgent && !packet.is_rtp() => Some(packet),
            _ => None,
        }
    }
}

/// What becomes of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Pass,
    /// It never arrives, and the connection lives on.
    Lose,
    /// These go on in its place.
    Become(Vec<Item>),
    /// Of a request: the camera never sees it, and these go back.
    Answer(Vec<Item>),
    /// The same, and a while later the connection ends in good order.
    AnswerAndEnd(Vec<Item>, Duration),
    /// It is lost, and the connection ends in good order.
    End,
    /// It is lost, and both sides get a reset.
    Cut,
}

/// What came by so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connections that the agent made.
    pub connections: u64,
    /// Its requests, in order: the method and whether it showed a password.
    pub requests: Vec<(String, bool)>,
    /// Its RTCP packets.
    pub reports: u64,
    /// The camera's RTP packets.
    pub media: u64,
    /// Items whose fate was another than to pass.
    pub broken: u64,
}

impl Seen {
    /// Requests of a method.
    pub fn requests(&self, method: &str) -> u64 {
        self.requests.iter().filter(|(of, _)| of == method).count() as u64
    }

    /// Requests that showed a password: what a camera counts before it locks an account.
    pub fn logins(&self) -> u64 {
        self.requests.iter().filter(|(_, login)| *login).count() as u64
    }
}

/// Both sides of the man in the middle. Everything of it is gone when it is dropped; the camera behind stays.
#[derive(Debug)]
pub struct FaultyCamera {
    port: u16,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

/// Asked about one item at a time.
pub type Rule = Box<dyn FnMut(&Passing<'_>) -> Fate + Send>;

/// Between the connections and their owner.
#[derive(Debug)]
struct Shared(Mutex<State>);

struct State {
    camera: SocketAddr,
    rule: Rule,
    seen: Seen,
}

impl FaultyCamera {
    /// Before the real camera on this port of this machine. It has no faults yet.
    pub fn start(camera_port: u16) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("faulty-camera")
            .enable_all()
            .build()
            .context("starting the faulty camera's runtime")?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.context("opening the faulty camera's port")?;
        let port = listener.local_addr()?.port();
        let state = State { camera: address(camera_port), rule: Box::new(rule::pass), seen: Seen::default() };
        let shared = Arc::new(Shared(Mutex::new(state)));
        runtime.spawn(connection::accept(listener, Arc::clone(&shared)));
        Ok(Self { port, shared, runtime: Some(runtime) })
    }

    /// Where the agent finds it, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the agent finds a mount of the camera behind.
    pub fn url(&self, mount: &str) -> String {
        format!("rtsp://127.0.0.1:{}/{mount}", self.port)
    }

    /// From now on.
    pub fn set_rule(&self, rule: impl FnMut(&Passing<'_>) -> Fate + Send + 'static) {
        self.shared.state().rule = Box::new(rule);
    }

    /// No faults any more.
    pub fn heal(&self) {
        self.set_rule(rule::pass);
    }

    /// Resets what runs at its next packet, and is without faults then. Returns when that has happened.
    pub fn cut(&self) -> Result<()> {
        let before = self.seen().broken;
        let mut left = true;
        self.set_rule(move |_| if std::mem::take(&mut left) { Fate::Cut } else { Fate::Pass });
        self.until("a packet to cut the connection at", |seen| seen.broken > before)
    }

    /// New connections are to another camera.
    pub fn turn_to(&self, camera_port: u16) {
        self.shared.state().camera = address(camera_port);
    }

    /// What came by so far.
    pub fn seen(&self) -> Seen {
        self.shared.state().seen.clone()
    }

    /// Waits until what came by has something. The error names `what`, and what came by.
    pub fn until(&self, what: &str, mut ask: impl FnMut(&Seen) -> bool) -> Result<()> {
        wait::until(what, wait::PATIENCE, || ask(&self.shared.state().seen).then_some(()))
            .with_context(|| format!("{:?}", self.seen()))
    }
}

impl Drop for FaultyCamera {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // unlike a plain drop, allowed in a test that is asynchronous itself
        }
    }
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the rule, and notes what came by.
    fn judge(&self, passing: &Passing<'_>) -> Fate {
        let mut state = self.state();
        if let Some(request) = passing.request() {
            let login = request.header("Authorization").is_some();
            state.seen.requests.push((request.method().to_owned(), login));
        }
        state.seen.media += u64::from(passing.rtp().is_some());
        let report = passing.direction == Direction::ToCamera && passing.request().is_none();
        state.seen.reports += u64::from(report);
        let fate = (state.rule)(passing);
        state.seen.broken += u64::from(fate != Fate::Pass);
        fate
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("camera", &self.camera)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}
