//! What runs around the change that a release makes, as `release build` takes it.

use clap::Args;
use protocol::Span;
use protocol::manifest::{Hook, Hooks, Restart};

use super::super::units;

/// Hooks and restart of a release.
#[derive(Args, Clone, Debug)]
pub struct ChangeArgs {
    /// Shell command, run in the unpacked files before anything changes; if it fails, nothing does
    #[arg(long, value_name = "COMMAND")]
    pub pre_hook: Option<String>,
    /// Shell command, run in the unpacked files after the change; if it fails, the change is taken back
    #[arg(long, value_name = "COMMAND")]
    pub post_hook: Option<String>,
    /// A hook is killed after so long; an hour at most
    #[arg(long, default_value = "10m", value_parser = units::span)]
    pub hook_time: Span,
    /// The machine must restart before the health check counts
    #[arg(long)]
    pub restart: bool,
}

impl Default for ChangeArgs {
    fn default() -> ChangeArgs {
        ChangeArgs {
            pre_hook: None,
            post_hook: None,
            hook_time: protocol::limits::STEP_TIMEOUT,
            restart: false,
        }
    }
}

impl ChangeArgs {
    /// As the manifest has them.
    pub fn hooks(&self) -> Hooks {
        let hook = |command: &Option<String>| {
            command.as_ref().map(|command| Hook {
                argv: shell(command),
                timeout: self.hook_time,
            })
        };
        Hooks {
            pre: hook(&self.pre_hook),
            post: hook(&self.post_hook),
        }
    }

    /// As the manifest has it.
    pub fn restart(&self) -> Restart {
        match self.restart {
            true => Restart::Required,
            false => Restart::None,
        }
    }
}

/// The argv that runs a shell command.
pub fn shell(command: &str) -> Vec<String> {
    vec!["sh".into(), "-c".into(), command.into()]
}
