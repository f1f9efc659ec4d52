//! The socket for what the machine's user wishes, `DIR/run/wishes.sock`: one JSON line in, one out.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use node_core::contract::Wish;
use protocol::{RolloutId, Span};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::status::{self, Request, StatusError};

/// The longest wish or answer that is read.
const WISH_MAX_BYTES: u64 = 4096;
/// How long whoever wishes waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A wish as it is written.
#[derive(Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case")]
enum Written {
    Defer {
        rollout: Option<RolloutId>,
        length: Option<Span>,
    },
    InstallNow {
        rollout: Option<RolloutId>,
    },
}

/// The socket of a node directory.
pub(super) fn socket_path(dir: &Path) -> PathBuf {
    dir.join("run").join("wishes.sock")
}

/// Takes one wish to the loop and its answer back.
pub(super) async fn serve(stream: UnixStream, requests: mpsc::Sender<Request>) -> Option<()> {
    let (read, mut write) = stream.into_split();
    let mut json = Vec::new();
    read.take(WISH_MAX_BYTES)
        .read_to_end(&mut json)
        .await
        .ok()?;
    let answer = match serde_json::from_slice(&json) {
        Err(e) => Err(format!("the wish is malformed: {e}")),
        Ok(written) => {
            let (rollout, wish) = match written {
                Written::Defer { rollout, length } => (rollout, Wish::Defer(length)),
                Written::InstallNow { rollout } => (rollout, Wish::InstallNow),
            };
            let (reply, answer) = oneshot::channel();
            let request = Request::Wish(rollout, wish, reply);
            requests.send(request).await.ok()?;
            answer.await.ok()?
        }
    };
    write
        .write_all(&serde_json::to_vec(&answer).ok()?)
        .await
        .ok()?;
    write.shutdown().await.ok()
}

/// Wishes something of the node that runs on `dir`; what came of it, or why it cannot be.
///
/// # Errors
/// When no node runs there, or it does not answer.
pub async fn wish(
    dir: &Path,
    rollout: Option<RolloutId>,
    wish: Wish,
) -> Result<Result<String, String>, StatusError> {
    let written = match wish {
        Wish::Defer(length) => Written::Defer { rollout, length },
        Wish::InstallNow => Written::InstallNow { rollout },
    };
    let written = serde_json::to_vec(&written).expect("a wish is plain data");
    let path = socket_path(dir);
    let exchange = async {
        let mut stream = status::connect(&path).await?;
        stream.write_all(&written).await?;
        stream.shutdown().await?;
        let mut json = Vec::new();
        stream.take(WISH_MAX_BYTES).read_to_end(&mut json).await?;
        io::Result::Ok(json)
    };
    let json = status::patiently(dir, &path, PATIENCE, exchange).await?;
    serde_json::from_slice(&json).map_err(|_| StatusError::Socket {
        path,
        source: io::ErrorKind::UnexpectedEof.into(),
    })
}
