//! Whether this node needs a release that nobody has approved for it yet.
//!
//! A bulletin names releases; their manifests are pulled like any document, their content is not. The node
//! answers by the signed rules alone, and its answers are attributes of its inventory
//! ([`protocol::inventory::Need`]), so that filters can ask for them too. In this order:
//! 1. nothing in it for this platform, or the applicability rule is false: `not_applicable`;
//! 2. this node installed it, or a newer one of its product: `already_installed`;
//! 3. a recipe's detect rule, run on the machine: `already_installed` or `needs`. A rule that is a program of
//!    the release itself (`./…`) cannot be run without its content, and counts as false;
//! 4. else `needs`.
//!
//! A detect rule that cannot be run to its end leaves the node without an answer, and is tried again.

use std::collections::BTreeMap;

use protocol::inventory::Need;
use protocol::manifest::{Install, ReleaseManifest};
use protocol::orders::Bulletin;
use protocol::status::assess_id;
use protocol::{Hash, Now, Span, Time, Verified};

use crate::contract::{Action, Config, Step, StepOutcome, Ticket};
use crate::counters::Counters;
use crate::installed::Installed;
use crate::inventory::{Attributes, Inventory};
use crate::library::Library;
use crate::outbox::Outbox;

/// A detect rule that could not be run to its end is run again after so long.
const AGAIN: Span = Span::from_secs(600);

/// The detect rules that were run for assessments.
#[derive(Default)]
pub(crate) struct Assessments {
    /// By release.
    rules: BTreeMap<Hash, Ruling>,
}

/// What is known of a detect rule.
struct Ruling {
    /// What was installed of the product when it was run.
    beside: Option<Hash>,
    stage: Stage,
}

enum Stage {
    /// It runs.
    Running(Ticket),
    /// It said whether the release is installed.
    Said(bool),
    /// It could not be run; it is run again at this boot time.
    Again(Time),
}

/// What an answer depends on.
pub(crate) struct Around<'a> {
    pub(crate) now: Now,
    pub(crate) config: &'a Config,
    pub(crate) bulletin: Option<&'a Bulletin>,
    pub(crate) library: &'a Library,
    pub(crate) installed: &'a Installed,
    pub(crate) counters: &'a Counters,
    pub(crate) out: &'a mut Outbox,
}

impl Assessments {
    /// Answers what can be answered now, and has detect rules run.
    pub(crate) fn look(&mut self, mut around: Around<'_>, inventory: &mut Inventory) {
        let now = around.now;
        let fresh = around.bulletin.filter(|b| now.wall < b.expires);
        let asked = fresh.map_or(&[][..], |b| &b.assess[..]);
        self.rules
            .retain(|release, _| asked.iter().any(|a| a.release == *release));
        if !inventory.is_known() {
            return;
        }
        let mut answers = Attributes::new();
        let mut within = Span(u64::MAX);
        for assessment in asked {
            let Some(release) = around.library.release(&assessment.release) else {
                continue;
            };
            if now.wall >= release.expires {
                continue;
            }
            if let Some(need) = self.need(release, inventory, &mut around) {
                within = within.min(assessment.within);
                let name = Need::attribute(&assessment.release);
                answers.insert(name, need.as_str().to_owned());
            }
        }
        inventory.set_answers(answers, within, now);
    }

    /// When a detect rule is to be run again.
    pub(crate) fn timeout(&self) -> Option<Time> {
        let again = |ruling: &Ruling| match ruling.stage {
            Stage::Again(at) => Some(at),
            _ => None,
        };
        self.rules.values().filter_map(again).min()
    }

    /// A step ended; true if it was a detect rule of this room.
    pub(crate) fn step_ended(&mut self, ticket: Ticket, outcome: &StepOutcome, now: Now) -> bool {
        let mine = |ruling: &&mut Ruling| matches!(ruling.stage, Stage::Running(t) if t == ticket);
        let Some(ruling) = self.rules.values_mut().find(mine) else {
            return false;
        };
        ruling.stage = match outcome {
            StepOutcome::Done => Stage::Said(true),
            StepOutcome::Absent => Stage::Said(false),
            StepOutcome::Failed(_) => Stage::Again(now.boot + AGAIN),
        };
        true
    }

    /// The answer about one release; none as long as there is none.
    fn need(
        &mut self,
        release: &Verified<ReleaseManifest>,
        inventory: &Inventory,
        around: &mut Around<'_>,
    ) -> Option<Need> {
        let config = around.config;
        let says = inventory.subject(None);
        let meant = release.applicability.as_ref();
        let meant = meant.is_none_or(|rule| rule.matches(&says));
        if !meant || release.artifact_for(&config.os, &config.arch).is_none() {
            return Some(Need::NotApplicable);
        }
        let beside = around.installed.release(&release.product);
        let newest = around.counters.release(&release.product);
        if beside == Some(release.digest()) || release.release_counter < newest {
            return Some(Need::AlreadyInstalled);
        }
        let Install::Command { detect, .. } = &release.install else {
            return Some(Need::Needs);
        };
        if detect.first().is_none_or(|word| word.starts_with("./")) {
            return Some(Need::Needs);
        }
        match self.detected(release, beside, around)? {
            true => Some(Need::AlreadyInstalled),
            false => Some(Need::Needs),
        }
    }

    /// What the detect rule says; has it run if nobody did, or if something was installed since.
    fn detected(
        &mut self,
        release: &Verified<ReleaseManifest>,
        beside: Option<Hash>,
        around: &mut Around<'_>,
    ) -> Option<bool> {
        let digest = release.digest();
        let held = self.rules.get(&digest);
        match held.filter(|held| held.beside == beside).map(|h| &h.stage) {
            Some(Stage::Said(there)) => return Some(*there),
            Some(Stage::Running(_)) => return None,
            Some(Stage::Again(at)) if *at > around.now.boot => return None,
            Some(Stage::Again(_)) | None => {}
        }
        let ticket = around.out.ticket();
        around.out.push(Action::Step {
            ticket,
            install_id: assess_id(&around.config.node, &digest),
            release: Box::new(release.clone()),
            before: None,
            warrant: None,
            step: Step::Detect,
        });
        let stage = Stage::Running(ticket);
        self.rules.insert(digest, Ruling { beside, stage });
        None
    }
}
