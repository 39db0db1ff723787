//! A web server over a repository's plain files, which counts who asks for what.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::RANGE;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// A running server. It ends when it is dropped.
#[derive(Debug)]
pub struct Mirror {
    port: u16,
    asked: Arc<Asked>,
    _runtime: Runtime,
}

#[derive(Debug)]
struct Asked {
    folder: PathBuf,
    requests: Mutex<Vec<Asking>>,
}

/// Somebody asked for a file.
#[derive(Clone, Debug)]
pub struct Asking {
    /// When.
    pub at: Instant,
    /// Which, below the repository's folder.
    pub path: String,
    /// From which byte on.
    pub from: u64,
    /// Bytes of the answer, none where there is no such file.
    pub bytes: u64,
}

impl Mirror {
    /// Serves a folder on a free port of 127.0.0.1.
    pub fn start(folder: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let asked = Arc::new(Asked { folder: folder.to_owned(), requests: Mutex::default() });
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).context("opening a port")?;
        let port = listener.local_addr()?.port();
        let routes = Router::new().fallback(answer).with_state(asked.clone());
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Ok(Self { port, asked, _runtime: runtime })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Everything that was asked since it was last asked this.
    pub fn take(&self) -> Vec<Asking> {
        std::mem::take(&mut *self.asked.lock())
    }
}

impl Asked {
    fn lock(&self) -> MutexGuard<'_, Vec<Asking>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(State(asked): State<Arc<Asked>>, request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let range = request.headers().get(RANGE).and_then(|range| range.to_str().ok());
    let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let file = match path.split('/').any(|step| step == "..") {
        true => None,
        false => tokio::fs::read(asked.folder.join(&path)).await.ok(),
    };
    let (status, body) = match (file, from) {
        (None, _) => (StatusCode::NOT_FOUND, Vec::new()),
        (Some(file), None) => (StatusCode::OK, file),
        (Some(file), Some(from)) => match usize::try_from(from).ok().and_then(|from| file.get(from..)) {
            Some(rest) if !rest.is_empty() => (StatusCode::PARTIAL_CONTENT, rest.to_vec()),
            _ => (StatusCode::RANGE_NOT_SATISFIABLE, Vec::new()),
        },
    };
    let asking = Asking { at: Instant::now(), path, from: from.unwrap_or(0), bytes: body.len() as u64 };
    asked.lock().push(asking);
    (status, body).into_response()
}
