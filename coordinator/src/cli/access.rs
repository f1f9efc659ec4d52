//! `access make|list|revoke`: tokens for the API.

use anyhow::Context;

use super::args::trust::Access;
use super::{output, setup, units};
use crate::api::messages::NewAccess;

/// `tidegate access …`
///
/// # Errors
/// When the coordinator does not answer or refuses.
pub async fn run(command: Access) -> anyhow::Result<()> {
    match command {
        Access::Make {
            at,
            name,
            role,
            sites,
            valid,
            out,
        } => {
            let ask = NewAccess {
                name,
                role,
                sites: sites.into_iter().collect(),
                life: valid,
            };
            let made = setup::client(&at.dir)?.new_access(&ask).await;
            let made = made.context("failed to make a token")?;
            output::line(&format!("id     {}", made.id))?;
            let Some(path) = out else {
                return output::line(&format!("token  {}", made.token));
            };
            node::config::write_durably(&path, format!("{}\n", made.token).as_bytes(), 0o600)
                .context("failed to write the token")?;
            output::line(&format!("token  in {}", path.display()))
        }
        Access::List { at, json } => {
            let tokens = setup::client(&at.dir)?.accesses().await;
            let tokens = tokens.context("failed to list the tokens")?;
            if json {
                return output::json(&tokens);
            }
            let mut table = output::table(&["id", "for", "role", "sites", "expires in"]);
            let now = units::wall_now();
            for token in tokens {
                let sites: Vec<&str> = token.sites.iter().map(|site| site.as_str()).collect();
                let days = token.expires.since(now).as_millis() / 86_400_000;
                table.add_row([
                    token.id,
                    token.name,
                    token.role.to_string(),
                    if sites.is_empty() {
                        "all".into()
                    } else {
                        sites.join(" ")
                    },
                    format!("{days} days"),
                ]);
            }
            output::line(&table.to_string())
        }
        Access::Revoke { at, id } => {
            let done = setup::client(&at.dir)?.revoke_access(&id).await;
            done.context("failed to revoke the token")?;
            output::line(&format!("token {id} opens nothing any more"))
        }
    }
}
