//! Files over HTTP, with and without TLS, and from folders.
//!
//! The agent's own hyper and rustls: what `tough` would bring is a second stack of both. A connection that breaks in the
//! middle of a file is taken up again where it broke (`Range`, RFC 9110), also after a restart, from what is on the disk; what
//! comes out of that is hashed as a whole.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HOST, RANGE, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tough::{FilesystemTransport, Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

/// A server that says nothing for this long is taken for dead.
const PATIENCE: Duration = Duration::from_secs(30);

/// Times in a row that a file is taken up again without a byte in between.
const ATTEMPTS: u32 = 5;

/// Before it is taken up again; doubled each time.
const REST: Duration = Duration::from_secs(1);

/// Bytes of a file that are read at once.
const PART: usize = 64 << 10;

/// A server that sends less than so many bytes in so much time on average is taken for one that wants to hold the box up: it
/// would otherwise never hear of anything newer.
const SLOWEST: (u64, Duration) = (16 << 10, Duration::from_secs(60));

/// Fetches files from web servers and folders.
#[derive(Clone, Debug, Default)]
pub struct Web {
    /// By what servers of `https://` are judged; without it there is none that can be.
    pub tls: Option<Arc<ClientConfig>>,
    /// The beginning of the next file.
    pub(super) beginning: Arc<Beginning>,
}

/// The beginning of a file that is there already, from before a restart say. What is read of it goes through the same hands
/// as what comes from a server, so that the whole is judged.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    /// The file, for the next fetch alone.
    pub(super) file: Mutex<Option<PathBuf>>,
    /// Bytes of it that the last fetch needed no server for.
    pub(super) bytes: AtomicU64,
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

#[tough::async_trait]
impl Transport for Web {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        if url.scheme() == "file" {
            return FilesystemTransport.fetch(url).await;
        }
        let failed = |kind, cause: Cause| TransportError::new_with_cause(kind, url.clone(), cause);
        let file = self.beginning.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        let here = file.as_ref().and_then(|file| Some(std::fs::metadata(file).ok()?.len())).unwrap_or(0);
        let response =
            self.get(&url, here).await.map_err(|cause| failed(TransportErrorKind::Other, cause))?;
        let mut beginning = None;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::PARTIAL_CONTENT => beginning = file,
            // All of it is there.
            StatusCode::RANGE_NOT_SATISFIABLE if here > 0 => beginning = file,
            // Object stores answer 403 for what is not there.
            status @ (StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE) => {
                return Err(failed(TransportErrorKind::FileNotFound, status.to_string().into()));
            }
            status => return Err(failed(TransportErrorKind::Other, status.to_string().into())),
        }
        let beginning = beginning.map(|file| (file, here));
        self.beginning.bytes.store(beginning.as_ref().map_or(0, |(_, bytes)| *bytes), Ordering::Relaxed);
        // Few: a reader that is slower than the network shall slow the network. A full one waits.
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(pump(self.clone(), url.clone(), beginning, response, sender));
        Ok(Box::pin(futures_util::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|part| (part, receiver))
        })))
    }
}

/// Hands on a body, and takes it up again where the connection breaks.
async fn pump(
    web: Web,
    url: Url,
    beginning: Option<(PathBuf, u64)>,
    response: Response<Incoming>,
    sender: mpsc::Sender<Result<Bytes, TransportError>>,
) {
    let (mut done, mut attempts) = (0, 0);
    if let Some((file, bytes)) = beginning {
        if let Err(error) = hand_on(&file, bytes, &sender).await {
            let error = TransportError::new_with_cause(TransportErrorKind::Other, url, error);
            let _ = sender.send(Err(error)).await; // nobody waits any more: fine
            return;
        }
        done = bytes;
    }
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        return;
    }
    let mut body = response.into_body();
    let mut pace = Pace { since: Instant::now(), bytes: 0 };
    loop {
        let cause: Cause = match timeout(PATIENCE, body.frame()).await {
            Ok(None) => return,
            Ok(Some(Ok(frame))) => {
                let Ok(bytes) = frame.into_data() else { continue };
                done += bytes.len() as u64;
                attempts = 0;
                if pace.is_too_slow(bytes.len() as u64, Instant::now()) {
                    let (bytes, time) = SLOWEST;
                    let why =
                        format!("less than {bytes} bytes in {} s: somebody holds it up", time.as_secs());
                    let error = TransportError::new_with_cause(TransportErrorKind::Other, url, why);
                    let _ = sender.send(Err(error)).await; // nobody waits any more: fine
                    return;
                }
                if sender.send(Ok(bytes)).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(Some(Err(error))) => error.into(),
            Err(_) => format!("nothing for {} s", PATIENCE.as_secs()).into(),
        };
        let mut last = cause;
        body = loop {
            if attempts == ATTEMPTS {
                let error = TransportError::new_with_cause(TransportErrorKind::Other, url.clone(), last);
                let _ = sender.send(Err(error)).await; // nobody waits any more: fine
                return;
            }
            tokio::time::sleep(REST * (1 << attempts)).await;
            attempts += 1;
            match web.get(&url, done).await {
                Ok(response) if response.status() == StatusCode::PARTIAL_CONTENT => {
                    break response.into_body();
                }
                Ok(response) => last = format!("the server does not resume: {}", response.status()).into(),
                Err(cause) => last = cause,
            }
        };
    }
}

/// Hands on the first bytes of a file.
async fn hand_on(
    file: &Path,
    bytes: u64,
    sender: &mpsc::Sender<Result<Bytes, TransportError>>,
) -> std::io::Result<()> {
    let mut reader = tokio::fs::File::open(file).await?.take(bytes);
    loop {
        let mut part = vec![0; PART];
        let read = reader.read(&mut part).await?;
        part.truncate(read);
        if read == 0 || sender.send(Ok(part.into())).await.is_err() {
            return Ok(());
        }
    }
}

/// How fast a file comes.
pub(super) struct Pace {
    pub(super) since: Instant,
    pub(super) bytes: u64,
}

impl Pace {
    /// Some bytes more have come; whether those of the last minute are too few.
    pub(super) fn is_too_slow(&mut self, bytes: u64, now: Instant) -> bool {
        self.bytes += bytes;
        let (least, time) = SLOWEST;
        if now.saturating_duration_since(self.since) < time {
            return false;
        }
        let slow = self.bytes < least;
        (self.since, self.bytes) = (now, 0);
        slow
    }
}

impl Web {
    /// One that judges servers of `https://`.
    pub fn with_tls(tls: Arc<ClientConfig>) -> Self {
        Self { tls: Some(tls), beginning: Arc::default() }
    }

    /// Asks for a file, from an offset on.
    async fn get(&self, url: &Url, offset: u64) -> Result<Response<Incoming>, Cause> {
        let host = url.host_str().ok_or("the address has no host")?;
        let port = url.port_or_known_default().ok_or("the address has no port")?;
        let tcp = timeout(PATIENCE, TcpStream::connect((host.trim_matches(['[', ']']), port))).await??;
        let authority = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        let mut request = Request::get(url.path())
            .header(HOST, authority)
            .header(USER_AGENT, concat!("sharp-eyes-agent/", env!("CARGO_PKG_VERSION")));
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        let request = request.body(Empty::new())?;
        if url.scheme() == "http" {
            return ask(tcp, request).await;
        }
        let tls = self.tls.clone().ok_or("there are no authorities to judge it by")?;
        let name = ServerName::try_from(host.to_owned())?;
        let stream = timeout(PATIENCE, TlsConnector::from(tls).connect(name, tcp)).await??;
        ask(stream, request).await
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, Cause> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection); // ends with the body, whose error says why
    Ok(timeout(PATIENCE, sender.send_request(request)).await??)
}
