//! Who may do what over the API: roles, and what each endpoint asks for.
//!
//! A token shows who asks; it signs nothing. Whatever installs something stands under the signatures of
//! people, so an admin's token alone cannot approve a plan either. An endpoint that is not named here
//! is an admin's.

use std::collections::BTreeSet;
use std::fmt;

use axum::http::Method;
use clap::ValueEnum;
use protocol::{NodeId, RolloutId, SiteId};
use serde::{Deserialize, Serialize};

/// What somebody is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "kebab-case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Looks, and reports what people say of a release.
    HelpDesk,
    /// Also asks what a proposal would come to.
    Tester,
    /// Also publishes releases and proposes rollouts.
    Author,
    /// Looks, asks, and hands in approvals and recalls that were signed elsewhere.
    Approver,
    /// Looks, reports, asks, starts, pauses and halts rollouts, enrols and revokes nodes.
    Operator,
    /// All of it, and topology, roots and the tokens of others.
    Admin,
}

/// What an endpoint does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    /// Changes nothing.
    Look,
    /// Forecasts.
    Rehearse,
    /// Counts a problem against a release.
    Report,
    /// Uploads and publishes.
    Publish,
    /// Proposes a rollout.
    Propose,
    /// Hands in signatures.
    Approve,
    /// Moves a rollout that was approved, or stops it.
    Steer,
    /// Makes enrolment tokens, revokes nodes.
    Enrol,
    /// Everything else.
    Administer,
}

/// What an endpoint is about, as far as sites are concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum About {
    /// Nothing that belongs to a site.
    Nothing,
    /// Only its handler can tell.
    Its,
    /// A rollout: the sites that it is for.
    Rollout(RolloutId),
    /// A node: its site.
    Node(NodeId),
    /// The fleet as a whole.
    Fleet,
}

/// Somebody who showed a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Who, for people.
    pub name: String,
    /// What for.
    pub role: Role,
    /// For these sites only; for the fleet if none are named.
    pub sites: BTreeSet<SiteId>,
}

impl Role {
    /// Whether it may.
    pub fn may(self, power: Power) -> bool {
        use Power::{Approve, Enrol, Look, Propose, Publish, Rehearse, Report, Steer};
        let powers: &[Power] = match self {
            Role::Viewer => &[Look],
            Role::HelpDesk => &[Look, Report],
            Role::Tester => &[Look, Rehearse, Report],
            Role::Author => &[Look, Rehearse, Report, Publish, Propose],
            Role::Approver => &[Look, Rehearse, Approve],
            Role::Operator => &[Look, Rehearse, Report, Steer, Enrol],
            Role::Admin => return true,
        };
        powers.contains(&power)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.write_str(name.as_ref().map_or("?", |value| value.get_name()))
    }
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Power::Look => "look at this",
            Power::Rehearse => "ask for forecasts",
            Power::Report => "report problems and installations",
            Power::Publish => "publish releases",
            Power::Propose => "propose rollouts",
            Power::Approve => "hand in approvals",
            Power::Steer => "steer rollouts",
            Power::Enrol => "enrol or revoke nodes",
            Power::Administer => "administer the fleet",
        })
    }
}

impl Grant {
    /// Whoever has the directory's own token.
    pub fn of_directory() -> Grant {
        Grant {
            name: "api-token".into(),
            role: Role::Admin,
            sites: BTreeSet::new(),
        }
    }

    /// Whether it reaches a site; `None` is a place outside all sites.
    pub fn reaches(&self, site: Option<&SiteId>) -> bool {
        self.sites.is_empty() || site.is_some_and(|site| self.sites.contains(site))
    }

    /// Whether it reaches everything that is for `sites`; none named means the fleet.
    pub fn reaches_all(&self, sites: &[SiteId]) -> bool {
        self.sites.is_empty()
            || !sites.is_empty() && sites.iter().all(|site| self.sites.contains(site))
    }
}

/// What a request to `path` asks for.
pub fn needed(method: &Method, path: &str) -> (Power, About) {
    let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
    let get = method == Method::GET;
    let of_rollout = |id: &str| id.parse().map_or(About::Fleet, About::Rollout);
    match (get, &parts[..]) {
        (true, ["status" | "root" | "topology" | "releases" | "halt"])
        | (true, ["releases", _] | ["blobs", _, _]) => (Power::Look, About::Nothing),
        // Plans name nodes, and counts tell of every site that they are of.
        (true, ["rollouts", id] | ["rollouts", id, "review" | "recall" | "halt"]) => {
            (Power::Look, of_rollout(id))
        }
        (
            true,
            ["nodes" | "sites" | "unmanaged" | "foreign" | "waiting" | "rollouts"]
            | ["releases", _, "assess"],
        ) => (Power::Look, About::Its),
        // The ledger and the live view tell of all sites.
        (true, ["events"] | ["audit", _]) => (Power::Look, About::Fleet),
        // A forecast tells of every site that it is about.
        (false, ["forecasts"]) => (Power::Rehearse, About::Fleet),
        (false, ["rollouts", id, "forecast"]) => (Power::Rehearse, of_rollout(id)),
        (false, ["rollouts", id, "problems"]) => (Power::Report, of_rollout(id)),
        (false, ["nodes", id, "installs"]) => {
            (Power::Report, id.parse().map_or(About::Fleet, About::Node))
        }
        (false, ["blobs", _, _] | ["releases"]) => (Power::Publish, About::Fleet),
        (false, ["releases", _, "assess"]) => (Power::Propose, About::Fleet),
        (false, ["rollouts"]) => (Power::Propose, About::Its),
        (false, ["rollouts", id, "approve" | "recall"]) => (Power::Approve, of_rollout(id)),
        (
            false,
            [
                "rollouts",
                id,
                "start" | "pause" | "resume" | "halt" | "release-cohort",
            ],
        ) => (Power::Steer, of_rollout(id)),
        (false, ["halt"]) => (Power::Steer, About::Fleet),
        (false, ["lift"]) => (Power::Approve, About::Fleet),
        (false, ["tokens"]) => (Power::Enrol, About::Its),
        // The machine is no node yet; what it waits with tells of which site it is.
        (false, ["nodes", _, "admit"]) => (Power::Enrol, About::Its),
        (false, ["revocations"]) => (Power::Enrol, About::Fleet),
        (false, ["nodes", id, "revoke"]) => {
            (Power::Enrol, id.parse().map_or(About::Fleet, About::Node))
        }
        _ => (Power::Administer, About::Fleet),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::node;

    #[test]
    fn each_role_may_do_its_own_and_nothing_else() {
        let revoke = format!("/v1/nodes/{}/revoke", node(1));
        // Who may, one letter a role: viewer, help desk, tester, author, approver, operator.
        let rows = [
            ("GET", "/v1/status", "vhtaxo"),
            ("GET", "/v1/nodes", "vhtaxo"),
            ("GET", "/v1/unmanaged", "vhtaxo"),
            ("GET", "/v1/foreign", "vhtaxo"),
            ("GET", "/v1/waiting", "vhtaxo"),
            ("POST", "/v1/nodes/n/admit", "o"),
            ("GET", "/v1/rollouts/r", "vhtaxo"),
            ("GET", "/v1/rollouts/r/recall", "vhtaxo"),
            ("GET", "/v1/blobs/ab/12", "vhtaxo"),
            ("GET", "/v1/audit/signed-head", "vhtaxo"),
            ("GET", "/v1/events", "vhtaxo"),
            ("POST", "/v1/rollouts/r/problems", "htao"),
            ("POST", "/v1/forecasts", "taxo"),
            ("POST", "/v1/rollouts/r/forecast", "taxo"),
            ("PUT", "/v1/blobs/ab/12", "a"),
            ("POST", "/v1/releases", "a"),
            ("GET", "/v1/releases/ab/assess", "vhtaxo"),
            ("POST", "/v1/releases/ab/assess", "a"),
            ("DELETE", "/v1/releases/ab/assess", "a"),
            ("POST", "/v1/rollouts", "a"),
            ("POST", "/v1/rollouts/r/approve", "x"),
            ("POST", "/v1/rollouts/r/recall", "x"),
            ("GET", "/v1/halt", "vhtaxo"),
            ("GET", "/v1/rollouts/r/halt", "vhtaxo"),
            ("GET", "/v1/rollouts/r/review", "vhtaxo"),
            ("POST", "/v1/rollouts/r/release-cohort", "o"),
            ("POST", "/v1/lift", "x"),
            ("POST", "/v1/halt", "o"),
            ("POST", "/v1/rollouts/r/start", "o"),
            ("POST", "/v1/rollouts/r/pause", "o"),
            ("POST", "/v1/rollouts/r/resume", "o"),
            ("POST", "/v1/rollouts/r/halt", "o"),
            ("POST", "/v1/tokens", "o"),
            ("POST", &revoke, "o"),
            ("POST", "/v1/revocations", "o"),
            ("PUT", "/v1/revocations", "o"),
            ("POST", "/v1/nodes/nobody/installs", "htao"),
            ("PUT", "/v1/topology", ""),
            ("POST", "/v1/root", ""),
            ("GET", "/v1/access", ""),
            ("POST", "/v1/access", ""),
            ("POST", "/v1/access/ab/revoke", ""),
            ("GET", "/v1/something-new", ""),
            ("POST", "/v1/rollouts/r/something-new", ""),
        ];
        let letters = [
            (Role::Viewer, 'v'),
            (Role::HelpDesk, 'h'),
            (Role::Tester, 't'),
            (Role::Author, 'a'),
            (Role::Approver, 'x'),
            (Role::Operator, 'o'),
        ];
        for (method, path, allowed) in rows {
            let method: Method = method.parse().expect("a method");
            let (power, _) = needed(&method, path);
            for (role, letter) in letters {
                assert_eq!(
                    role.may(power),
                    allowed.contains(letter),
                    "{role}: {method} {path}"
                );
            }
            assert!(Role::Admin.may(power), "{method} {path}");
        }
    }

    #[test]
    fn a_token_for_some_sites_reaches_no_other_and_not_the_fleet() {
        let site = |name: &str| name.parse::<SiteId>().expect("a site");
        let (a, b) = (site("a"), site("b"));
        let one = Grant {
            name: "ann".into(),
            role: Role::Operator,
            sites: [a.clone()].into(),
        };
        assert!(one.reaches(Some(&a)) && one.reaches_all(std::slice::from_ref(&a)));
        assert!(!one.reaches(Some(&b)) && !one.reaches(None));
        assert!(!one.reaches_all(&[]), "the fleet is not one of its sites");
        assert!(!one.reaches_all(&[a, b.clone()]));
        let all = Grant::of_directory();
        assert!(all.reaches(None) && all.reaches(Some(&b)) && all.reaches_all(&[]));
        let id = |text: &str| needed(&Method::POST, text).1;
        let rollout = "r".parse().expect("an id");
        assert_eq!(id("/v1/rollouts/r/halt"), About::Rollout(rollout));
        let read = |text: &str| needed(&Method::GET, text).1;
        for path in ["", "/review", "/recall", "/halt"] {
            let rollout = "r".parse().expect("an id");
            let path = format!("/v1/rollouts/r{path}");
            assert_eq!(read(&path), About::Rollout(rollout), "{path}");
        }
        assert_eq!(id("/v1/rollouts/%20/halt"), About::Fleet);
        assert_eq!(id("/v1/nodes/nobody/revoke"), About::Fleet);
    }
}
