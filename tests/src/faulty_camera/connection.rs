//! One connection through the man in the middle.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Direction, Fate, Item, Passing, Shared};

/// Serves whoever connects, until the runtime ends.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((agent, _)) = listener.accept().await else { continue };
        let (connection, camera) = {
            let mut state = shared.state();
            state.seen.connections += 1;
            (state.seen.connections, state.camera)
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // Any end but one in good order is a reset. So is a camera that is not there.
            let _ = SockRef::from(&agent).set_linger(Some(Duration::ZERO));
            let camera = TcpStream::connect(camera).await?;
            SockRef::from(&camera).set_linger(Some(Duration::ZERO))?;
            let mut connection = Connection { number: connection, agent, camera, media: 0, shared };
            if connection.carry().await? {
                connection.end().await?;
            }
            io::Result::Ok(())
        });
    }
}

struct Connection {
    number: u64,
    agent: TcpStream,
    camera: TcpStream,
    media: u64,
    shared: Arc<Shared>,
}

impl Connection {
    /// Carries until one side closes it or a rule ends it; whether in good order.
    async fn carry(&mut self) -> io::Result<bool> {
        for side in [&self.agent, &self.camera] {
            side.set_nodelay(true)?;
        }
        let (mut to_camera, mut to_agent) = (Vec::new(), Vec::new());
        loop {
            let (read, direction, stream) = tokio::select! {
                read = self.agent.read_buf(&mut to_camera) => (read?, Direction::ToCamera, &mut to_camera),
                read = self.camera.read_buf(&mut to_agent) => (read?, Direction::ToAgent, &mut to_agent),
            };
            if read == 0 {
                return Ok(true);
            }
            while let Some(item) = Item::take(stream)? {
                if let Some(in_order) = self.apply(direction, item).await? {
                    return Ok(in_order);
                }
            }
        }
    }

    /// Whether that was the end, and if so, in good order.
    async fn apply(&mut self, direction: Direction, item: Item) -> io::Result<Option<bool>> {
        let is_media = matches!(&item, Item::Packet(packet) if packet.is_rtp());
        self.media += u64::from(is_media && direction == Direction::ToAgent);
        let passing = Passing { item: &item, direction, connection: self.number, media: self.media };
        let on = match self.shared.judge(&passing) {
            Fate::Pass => item.to_bytes(),
            Fate::Lose => return Ok(None),
            Fate::Become(items) => all(&items),
            Fate::Answer(items) => {
                self.agent.write_all(&all(&items)).await?;
                return Ok(None);
            }
            Fate::AnswerAndEnd(items, later) => {
                self.agent.write_all(&all(&items)).await?;
                tokio::time::sleep(later).await;
                return Ok(Some(true));
            }
            Fate::End => return Ok(Some(true)),
            Fate::Cut => return Ok(Some(false)),
        };
        let to = match direction {
            Direction::ToCamera => &mut self.camera,
            Direction::ToAgent => &mut self.agent,
        };
        to.write_all(&on).await?;
        Ok(None)
    }

    async fn end(&mut self) -> io::Result<()> {
        for side in [&mut self.agent, &mut self.camera] {
            // All that was written arrives before the end: without this the reset of the close would overtake it.
            SockRef::from(&*side).set_linger(None)?;
            side.shutdown().await?;
        }
        Ok(())
    }
}

fn all(items: &[Item]) -> Vec<u8> {
    items.iter().flat_map(Item::to_bytes).collect()
}
