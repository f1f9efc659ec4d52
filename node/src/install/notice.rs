//! Showing a line to the machine's user, by a program that whoever set the machine up has named.

use std::path::Path;

use protocol::Span;

use super::process::{Run, run};

/// A program that shows a line is killed after this.
const SHOWN_WITHIN: Span = Span::from_secs(60);

/// Runs `argv` with the line as its last argument; nothing if there is no program. That a line could not be
/// shown holds nothing up, and is logged.
pub async fn show(mut argv: Vec<String>, line: String) {
    if argv.is_empty() {
        return;
    }
    argv.push(line);
    let shown = run(Run {
        argv: &argv,
        cwd: Path::new("/"),
        environment: &[],
        timeout: SHOWN_WITHIN,
    });
    let shown = shown
        .await
        .and_then(|ended| ended.expect("the notice by", &argv, &[0]));
    if let Err(failure) = shown {
        tracing::warn!(event = "notice", "{}", failure.reason);
    }
}
