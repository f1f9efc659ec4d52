//! Ctrl-C and SIGTERM end a run at its next look, so that everything that it made is taken down.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Notes signals from now on instead of dying of them.
///
/// # Errors
/// When the system does not let it.
pub fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    drop(entered);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        ASKED.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// Between two looks of a wait.
///
/// # Errors
/// When somebody wants the run to end.
pub fn check() -> Result<()> {
    if ASKED.load(Ordering::Relaxed) {
        bail!("stopped by a signal");
    }
    Ok(())
}

/// Waits so long.
///
/// # Errors
/// When somebody wants the run to end.
pub fn wait(length: Duration) -> Result<()> {
    let since = Instant::now();
    while since.elapsed() < length {
        check()?;
        std::thread::sleep(Duration::from_millis(50).min(length.saturating_sub(since.elapsed())));
    }
    Ok(())
}
