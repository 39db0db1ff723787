//! A broker that does not behave: just enough of MQTT 5 to be believed for a while.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What it does wrong.
#[derive(Clone, Debug)]
pub(crate) enum Manners {
    /// Lets a box in and answers its subscription, then sends this.
    Says(Vec<u8>),
    /// Lets a box in and answers its subscription, then hangs up.
    HangsUp,
    /// Hangs up instead of answering a subscription.
    HangsUpOnSubscriptions,
    /// Takes messages, but disconnects whoever publishes `status`: not authorized.
    RefusesStatus,
}

/// It runs until the test ends.
pub(crate) struct Rogue {
    pub(crate) port: u16,
}

impl Rogue {
    pub(crate) async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let manners = manners.clone();
                // Whoever leaves first ends it.
                tokio::spawn(async move { serve(stream, &manners).await.ok() });
            }
        });
        Self { port }
    }
}

async fn serve(mut stream: TcpStream, manners: &Manners) -> std::io::Result<()> {
    loop {
        let (kind, body) = packet(&mut stream).await?;
        match kind {
            0x10 => stream.write_all(&[0x20, 3, 0, 0, 0]).await?, // CONNACK
            0x82 => {
                if matches!(manners, Manners::HangsUpOnSubscriptions) {
                    return Ok(());
                }
                stream.write_all(&[0x90, 4, body[0], body[1], 0, 1]).await?; // SUBACK, QoS 1
                match manners {
                    Manners::Says(bytes) => stream.write_all(bytes).await?,
                    Manners::HangsUp => return Ok(()),
                    Manners::HangsUpOnSubscriptions | Manners::RefusesStatus => {}
                }
            }
            0xc0 => stream.write_all(&[0xd0, 0]).await?, // PINGRESP
            publish if publish & 0xf6 == 0x32 => {
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                if matches!(manners, Manners::RefusesStatus) && body[2..2 + topic].ends_with(b"/status") {
                    return stream.write_all(&[0xe0, 2, 0x87, 0]).await; // DISCONNECT, not authorized
                }
                stream.write_all(&[0x40, 2, body[2 + topic], body[3 + topic]]).await?; // PUBACK
            }
            _ => {}
        }
    }
}

/// First byte and body.
async fn packet(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}
