//! One connection through the man in the middle: a reader and a writer for each side.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{Direction, Fate, Held, Kind, Packet, Shared};

/// Packets that wait to be written to one side. Full: the other side is not read from.
const WAITING: usize = 16;

/// For a writer.
#[derive(Debug)]
pub(super) enum Out {
    Packet(Packet),
    /// Ends the connection in good order, as far as TCP is concerned.
    End,
}

/// How a connection ends.
enum Ended {
    /// One side closed it, or the man in the middle did, after what he had to send.
    InOrder,
    /// With a reset.
    Cut,
}

/// Serves whoever connects, until the runtime ends.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    for connection in 0.. {
        let client = loop {
            if let Ok((client, _)) = listener.accept().await {
                break client;
            }
        };
        tokio::spawn(serve(client, connection, Arc::clone(&shared)));
    }
}

async fn serve(mut client: TcpStream, connection: u64, shared: Arc<Shared>) -> io::Result<()> {
    // Any end but one in good order is a reset. So is a broker that is not there.
    SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
    let mut broker = TcpStream::connect(shared.broker).await?;
    SockRef::from(&broker).set_linger(Some(Duration::ZERO))?;
    for side in [&client, &broker] {
        side.set_nodelay(true)?;
    }
    // Borrowed halves: owned ones say goodbye when they are dropped.
    let (from_client, to_client) = client.split();
    let (from_broker, to_broker) = broker.split();
    let (client_out, client_queue) = mpsc::channel(WAITING);
    let (broker_out, broker_queue) = mpsc::channel(WAITING);
    let count = Arc::new(AtomicU64::new(0));
    let side = |direction, out: &mpsc::Sender<Out>, back: &mpsc::Sender<Out>| Side {
        direction,
        connection,
        count: Arc::clone(&count),
        out: out.clone(),
        back: back.clone(),
        shared: Arc::clone(&shared),
    };
    let up = side(Direction::ToBroker, &broker_out, &client_out);
    let down = side(Direction::ToClient, &client_out, &broker_out);
    let readers = async {
        tokio::select! {
            ended = up.read(from_client) => ended,
            ended = down.read(from_broker) => ended,
        }
    };
    let writers = async { tokio::join!(write(to_client, client_queue), write(to_broker, broker_queue)) };
    tokio::pin!(writers);
    let ended = tokio::select! {
        ended = readers => ended,
        _ = &mut writers => Ended::Cut, // both failed
    };
    if matches!(ended, Ended::InOrder) {
        for out in [&client_out, &broker_out] {
            let _ = out.send(Out::End).await; // that side has failed
        }
        let _ = writers.await;
    }
    shared.state().held.retain(|held| held.connection != connection);
    Ok(())
}

/// One direction.
struct Side {
    direction: Direction,
    connection: u64,
    /// Packets of the connection so far.
    count: Arc<AtomicU64>,
    /// Where the packets of this direction go.
    out: mpsc::Sender<Out>,
    /// Back to where they came from.
    back: mpsc::Sender<Out>,
    shared: Arc<Shared>,
}

impl Side {
    /// Reads packets and does with each what its fate is, until the connection ends.
    async fn read(self, mut from: ReadHalf<'_>) -> Ended {
        match self.pass_on(&mut from).await {
            Ok(ended) => ended,
            Err(error) => {
                if error.downcast_ref::<io::Error>().is_none() {
                    self.shared.state().problem = Some(format!("{:?}: {error:#}", self.direction));
                }
                Ended::Cut
            }
        }
    }

    async fn pass_on(&self, from: &mut ReadHalf<'_>) -> Result<Ended> {
        let mut stream = Vec::new();
        loop {
            while let Some(packet) = Packet::take(&mut stream)? {
                if let Some(ended) = self.apply(packet).await {
                    return Ok(ended);
                }
            }
            if from.read_buf(&mut stream).await? == 0 {
                return Ok(Ended::InOrder);
            }
        }
    }

    /// The sends fail only when that side has failed, which ends the connection elsewhere.
    async fn apply(&self, packet: Packet) -> Option<Ended> {
        let nth = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let client = match self.direction {
            Direction::ToBroker => &self.back,
            Direction::ToClient => &self.out,
        };
        let fate = self.shared.judge(self.connection, nth, self.direction, &packet);
        match fate {
            Fate::Pass => send(&self.out, packet).await,
            Fate::Lose => {}
            Fate::Twice => {
                let again = if packet.kind == Kind::Publish { packet.again() } else { packet.clone() };
                send(&self.out, packet).await;
                send(&self.out, again).await;
            }
            Fate::Refuse(reason) => {
                if let Some(id) = packet.id {
                    send(client, Packet::puback(id, reason)).await;
                }
            }
            Fate::Hold => {
                let (connection, direction, out) = (self.connection, self.direction, self.out.clone());
                self.shared.state().held.push(Held { connection, direction, packet, out });
            }
            Fate::Release => {
                send(&self.out, packet).await;
                for held in self.take_held() {
                    send(&self.out, held).await;
                }
            }
            Fate::Cut => return Some(Ended::Cut),
            Fate::CutAfter => {
                send(&self.out, packet).await;
                return Some(Ended::InOrder);
            }
            Fate::Disconnect(reason) => {
                send(client, Packet::disconnect(reason)).await;
                return Some(Ended::InOrder);
            }
        }
        None
    }

    /// Of this side, newest first.
    fn take_held(&self) -> Vec<Packet> {
        let mut state = self.shared.state();
        let (own, others) = std::mem::take(&mut state.held)
            .into_iter()
            .partition(|held| held.connection == self.connection && held.direction == self.direction);
        state.held = others;
        let own: Vec<Held> = own;
        own.into_iter().rev().map(|held| held.packet).collect()
    }
}

async fn send(out: &mpsc::Sender<Out>, packet: Packet) {
    let _ = out.send(Out::Packet(packet)).await;
}

/// Writes what comes until the end or an error.
async fn write(mut to: WriteHalf<'_>, mut queue: mpsc::Receiver<Out>) -> io::Result<()> {
    while let Some(Out::Packet(packet)) = queue.recv().await {
        to.write_all(packet.bytes()).await?;
    }
    // All that was written arrives before the end: without this the reset of the close would overtake it.
    SockRef::from(to.as_ref()).set_linger(None)?;
    to.shutdown().await
}
