//! A weak link between agent and broker: a TCP proxy that delays, throttles, stalls, falls silent and breaks.
//!
//! # The model
//!
//! A connection waits for its handshake (one round trip). Then what is read from one side is cut into segments of
//! [`SEGMENT`] bytes, and each
//!
//! 1. waits until it has the wire, which all connections of a direction share and which passes `rate` bytes a second;
//! 2. is lost with probability `loss`. TCP does not lose bytes, it stalls: the segment is sent again, on the shared wire,
//!    after a retransmission timeout (a round trip and 200 ms, as Linux sets it on a steady link), doubled each time up
//!    to 60 s, and everything behind it on its connection waits. A lost SYN costs 1 s, doubled each time.
//! 3. arrives `delay` after its last bit was sent.
//!
//! Every stall is a full timeout: there is no fast retransmit, which at some per cent of loss is pessimistic and at 20 %,
//! where the window seldom holds the three segments that it takes, about right (1460-byte segments at 20 % loss and a
//! round trip of 1.6 s get 2.3 kB/s here, and 2.5 kB/s by the formula of Mathis et al., 1997). Headers, slow start and
//! lost acknowledgements are not counted. The losses are seeded, but which bytes they hit depends on how the sender's
//! writes fall.
//!
//! At most [`WINDOW`] bytes are under way on a connection in each direction, and the sockets' buffers are small, so that
//! a sender is held back as it is by a real slow link, beyond what its own kernel buffers.
//!
//! Half-open is real: a socket filter (`SO_ATTACH_FILTER`, which needs no rights) drops every segment of the client
//! before the kernel sees it. Nothing is acknowledged, not even a SYN, so that `TCP_USER_TIMEOUT` and the timeout of
//! `connect` behave as on a cable that was pulled out.

mod connection;
mod weather;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, SockFilter, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub use weather::Weather;
use weather::Wire;

/// Bytes that TCP puts into a packet on an Ethernet.
pub const SEGMENT: usize = 1448;

/// Bytes under way on a connection in one direction at most: a sender is made to wait above.
pub const WINDOW: usize = 64 * 1024;

/// Buffers of the sockets, each way. The kernel doubles it.
const SOCKET_BUFFER: usize = 8 * 1024;

/// `BPF_RET | BPF_K` with 0: keep nothing of the packet.
const DROP_ALL: [SockFilter; 1] = [SockFilter::new(0x06, 0, 0, 0)];

/// The proxy. Everything of it is gone when it is dropped.
#[derive(Debug)]
pub struct Link {
    port: u16,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

/// Bytes that reached the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// From the client (the agent) to the broker.
    pub up: u64,
    /// From the broker to the client.
    pub down: u64,
    /// Connections that were accepted.
    pub connections: u64,
}

/// What the link does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// It passes on what comes.
    Through,
    /// It resets every connection.
    Cut,
    /// Nothing is heard of either side by the other, and nobody is told.
    HalfOpen,
    /// Connections are accepted and acknowledged, and that is all.
    Mute,
}

/// Between the proxy's tasks and its owner.
#[derive(Debug)]
struct Shared {
    broker: SocketAddr,
    mode: watch::Sender<Mode>,
    weather: Mutex<Weather>,
    up: Mutex<Wire>,
    down: Mutex<Wire>,
    carried_up: AtomicU64,
    carried_down: AtomicU64,
    connections: AtomicU64,
    /// The listener and the sockets of clients, for the filter. Held while the filter is set, so that none slips through.
    filtered: Mutex<(Arc<TcpListener>, Vec<Weak<TcpStream>>)>,
}

impl Link {
    /// To a port of this machine, over a link that is [`Weather::CLEAR`].
    pub fn start(broker_port: u16) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("link")
            .enable_all()
            .build()
            .context("starting the link's runtime")?;
        let listener = Arc::new(listen(&runtime).context("opening the link's port")?);
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            broker: (Ipv4Addr::LOCALHOST, broker_port).into(),
            mode: watch::Sender::new(Mode::Through),
            weather: Mutex::new(Weather::CLEAR),
            up: Mutex::default(),
            down: Mutex::default(),
            carried_up: AtomicU64::new(0),
            carried_down: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            filtered: Mutex::new((Arc::clone(&listener), Vec::new())),
        });
        runtime.spawn(connection::accept(listener, Arc::clone(&shared)));
        Ok(Self { port, shared, runtime: Some(runtime) })
    }

    /// Where the client finds it, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on. Segments that are under way arrive as they would have.
    pub fn set_weather(&self, weather: Weather) {
        *lock(&self.shared.weather) = weather;
    }

    /// Resets every connection at once, and each new one as soon as it is made.
    pub fn cut(&self) -> Result<()> {
        self.enter(Mode::Cut)
    }

    /// Resets every connection once; new ones are served.
    pub fn reset(&self) -> Result<()> {
        self.cut()?;
        self.heal()
    }

    /// From now on neither side hears anything of the other, connections stay open, and new ones are not answered:
    /// a cable that was pulled out, a router that forgot its table.
    pub fn half_open(&self) -> Result<()> {
        self.enter(Mode::HalfOpen)
    }

    /// Resets every connection; new ones are accepted, what they send is acknowledged by the kernel as far as its
    /// buffers go, and no answer ever comes: a broker that hangs.
    pub fn accept_and_never_answer(&self) -> Result<()> {
        self.cut()?;
        self.enter(Mode::Mute)
    }

    /// Ends whatever the link does. What waited is passed on now.
    pub fn heal(&self) -> Result<()> {
        self.enter(Mode::Through)
    }

    /// What has passed so far.
    pub fn carried(&self) -> Carried {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Carried {
            up: read(&self.shared.carried_up),
            down: read(&self.shared.carried_down),
            connections: read(&self.shared.connections),
        }
    }

    /// Filters are set, or no longer, when this returns; after a cut no old connection is left.
    fn enter(&self, mode: Mode) -> Result<()> {
        let mut filtered = lock(&self.shared.filtered);
        self.shared.mode.send_replace(mode);
        let (listener, clients) = &mut *filtered;
        let clients: Vec<_> = clients.iter().filter_map(Weak::upgrade).collect();
        let sockets =
            clients.iter().map(|client| SockRef::from(&**client)).chain([SockRef::from(&**listener)]);
        for socket in sockets {
            if mode == Mode::HalfOpen {
                socket.attach_filter(&DROP_ALL).context("dropping a connection's segments")?;
            } else {
                let _ = socket.detach_filter(); // it has none, then
            }
        }
        let before: Vec<_> = clients.iter().map(Arc::downgrade).collect();
        drop((clients, filtered));
        if mode == Mode::Cut {
            let gone = || before.iter().all(|client| client.strong_count() == 0).then_some(());
            crate::wait::until("connections to be reset", Duration::from_secs(10), gone)?;
        }
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // unlike a plain drop, allowed in a test that is asynchronous itself
        }
    }
}

fn listen(runtime: &Runtime) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Loopback's segments of 64 kB would not fit into the small buffers, and would crawl.
    socket.set_tcp_mss(SEGMENT as u32)?;
    shrink(&socket)?; // accepted sockets inherit it
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(64)?;
    socket.set_nonblocking(true)?;
    let _inside = runtime.enter();
    TcpListener::from_std(socket.into())
}

fn shrink(socket: &Socket) -> std::io::Result<()> {
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
