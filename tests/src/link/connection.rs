//! One connection over the link: two pumps.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::weather::{dice, timeout};
use super::{DROP_ALL, Mode, SEGMENT, SOCKET_BUFFER, Shared, WINDOW, lock};

/// What a lost SYN costs.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// Serves whoever connects, until the runtime ends.
pub(super) async fn accept(listener: Arc<TcpListener>, shared: Arc<Shared>) {
    loop {
        // A connection that was reset before it was accepted is an error here, and the next one is not.
        let Ok((client, _)) = listener.accept().await else { continue };
        let number = shared.connections.fetch_add(1, Ordering::Relaxed);
        let client = Arc::new(client);
        // Whatever ends this connection without a goodbye ends it for the client with a reset.
        let _ = SockRef::from(&*client).set_linger(Some(Duration::ZERO));
        let _ = client.set_nodelay(true);
        {
            let mut filtered = lock(&shared.filtered);
            if *shared.mode.borrow() == Mode::HalfOpen {
                let _ = SockRef::from(&*client).attach_filter(&DROP_ALL); // reset meanwhile, then
            }
            filtered.1.retain(|client| client.strong_count() > 0);
            filtered.1.push(Arc::downgrade(&client));
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut mode = shared.mode.subscribe();
            tokio::select! {
                _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
                _ = carry(&client, number, &shared) => {}
            }
        });
    }
}

/// An error ends it: the client's socket is reset.
async fn carry(client: &TcpStream, number: u64, shared: &Shared) -> io::Result<()> {
    let weather = *lock(&shared.weather);
    let mut rng = dice(weather.seed, number, 2);
    let lost: Duration = (0..weather.losses(&mut rng)).map(|n| timeout(HANDSHAKE_TIMEOUT, n)).sum();
    tokio::time::sleep(weather.round_trip() + lost).await;
    let mut mode = shared.mode.subscribe();
    open(&mut mode).await;

    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(SOCKET_BUFFER as u32)?;
    socket.set_send_buffer_size(SOCKET_BUFFER as u32)?;
    let broker = socket.connect(shared.broker).await?;
    broker.set_nodelay(true)?;
    SockRef::from(&broker).set_linger(Some(Duration::ZERO))?;
    tokio::try_join!(
        pump(client, &broker, Direction::Up, number, shared),
        pump(&broker, client, Direction::Down, number, shared),
    )?;
    Ok(())
}

/// Carries one direction to its end, then closes it for the receiver.
async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    direction: Direction,
    number: u64,
    shared: &Shared,
) -> io::Result<()> {
    // Full: the sender is no longer read from, and TCP holds it back.
    let (under_way, arriving) = mpsc::channel(WINDOW / SEGMENT);
    let seed = lock(&shared.weather).seed;
    let dice = dice(seed, number, direction as u64);
    tokio::try_join!(
        send(from, under_way, direction, dice, shared),
        deliver(to, arriving, direction, shared)
    )?;
    open(&mut shared.mode.subscribe()).await;
    SockRef::from(to).shutdown(std::net::Shutdown::Write)
}

/// Onto the wire.
async fn send(
    from: &TcpStream,
    under_way: mpsc::Sender<(Instant, Vec<u8>)>,
    direction: Direction,
    mut dice: Rng,
    shared: &Shared,
) -> io::Result<()> {
    let mut mode = shared.mode.subscribe();
    loop {
        let mut segment = vec![0; SEGMENT];
        open(&mut mode).await;
        let length = read(from, &mut segment).await?;
        if length == 0 {
            return Ok(());
        }
        segment.truncate(length);
        open(&mut mode).await;
        let weather = *lock(&shared.weather);
        let (wire, rate) = match direction {
            Direction::Up => (&shared.up, weather.up),
            Direction::Down => (&shared.down, weather.down),
        };
        let once = async || {
            let left = lock(wire).send(Instant::now().into_std(), length, rate);
            tokio::time::sleep_until(left.into()).await;
        };
        for n in 0..weather.losses(&mut dice) {
            once().await;
            tokio::time::sleep(timeout(weather.retransmission_timeout(), n)).await;
        }
        once().await;
        // Closed only when the other half of this pump has failed, and that ends both.
        let _ = under_way.send((Instant::now() + weather.delay, segment)).await;
    }
}

/// Off the wire.
async fn deliver(
    to: &TcpStream,
    mut arriving: mpsc::Receiver<(Instant, Vec<u8>)>,
    direction: Direction,
    shared: &Shared,
) -> io::Result<()> {
    let mut mode = shared.mode.subscribe();
    while let Some((due, segment)) = arriving.recv().await {
        tokio::time::sleep_until(due).await;
        open(&mut mode).await;
        write(to, &segment).await?;
        counter(shared, direction).fetch_add(segment.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

fn counter(shared: &Shared, direction: Direction) -> &AtomicU64 {
    match direction {
        Direction::Up => &shared.carried_up,
        Direction::Down => &shared.carried_down,
    }
}

/// Waits until the link passes things on.
async fn open(mode: &mut watch::Receiver<Mode>) {
    let _ = mode.wait_for(|mode| *mode == Mode::Through).await; // an error: the link is gone, and this task with it
}

async fn read(stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
