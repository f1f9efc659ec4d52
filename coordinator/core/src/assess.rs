//! Assessments: who needs a release, asked of the whole fleet before any content moves.
//!
//! The bulletin names the release; nodes pull its manifest, answer by its signed rules, and the answers are
//! attributes of their inventories ([`Need`]). They are counted when somebody asks for them. An answer says
//! what held on the node when it was given; each node tells a new one when it is another.

use std::collections::BTreeMap;

use protocol::inventory::Need;
use protocol::limits::{ASSESSMENT_ANSWERS_PER_S, ASSESSMENT_LIFE, ASSESSMENTS_MAX};
use protocol::orders::Assessment;
use protocol::{Hash, Now, SiteId, Span, Time};

use crate::commands::Outcome;
use crate::conductor::Conductor;
use crate::contract::{Answer, AssessmentView, CommandError, LedgerEvent, NeedCounts};

/// What nodes are asked about.
#[derive(Default)]
pub(crate) struct Assessments {
    open: BTreeMap<Hash, Open>,
}

struct Open {
    since: Time,
    until: Time,
    within: Span,
}

impl Assessments {
    /// Folds a question or its end.
    pub(crate) fn fold(&mut self, release: Hash, until: Option<Time>, within: Span, at: Time) {
        self.open.retain(|_, open| at < open.until);
        match until {
            None => drop(self.open.remove(&release)),
            Some(until) => {
                let since = at;
                let open = Open {
                    since,
                    until,
                    within,
                };
                self.open.insert(release, open);
            }
        }
    }

    /// What is asked at this wall time, by release.
    pub(crate) fn open(&self, wall: Time) -> impl Iterator<Item = Assessment> + '_ {
        let open = self.open.iter().filter(move |(_, open)| wall < open.until);
        open.map(|(release, open)| Assessment {
            release: *release,
            within: open.within,
        })
    }

    /// Boot time at which the next question ends by itself.
    pub(crate) fn ends_at(&self, now: Now) -> Option<Time> {
        let ends = self.open.values().map(|open| open.until);
        let next = ends.filter(|until| now.wall < *until).min()?;
        Some(now.boot + next.since(now.wall))
    }
}

impl Conductor {
    /// Asks the fleet about a release. Asking again begins the question's life anew.
    pub(crate) fn begin_assessment(&mut self, release: Hash) -> Outcome {
        let held = self.releases.get(&release);
        let held = held.ok_or(CommandError::NoRelease(release))?;
        let wall = self.now.wall;
        if held.value.expires <= wall {
            let line = "the release has expired; sign it anew".to_owned();
            return Err(CommandError::Limit(line));
        }
        let others = self.assessments.open(wall);
        if others.filter(|a| a.release != release).count() >= ASSESSMENTS_MAX {
            let line = format!(
                "{ASSESSMENTS_MAX} releases are assessed already; end one with `tidegate release assess --end`"
            );
            return Err(CommandError::Limit(line));
        }
        let until = (wall + ASSESSMENT_LIFE).min(held.value.expires);
        let nodes = self.fleet.all_admitted().count() as u64;
        let within = Span::from_secs(nodes.div_ceil(ASSESSMENT_ANSWERS_PER_S));
        self.record(LedgerEvent::Assessing {
            release,
            until: Some(until),
            within,
            at: wall,
        });
        Ok(Answer::Done)
    }

    /// Asks no more; answers that came stay until their nodes say something else.
    pub(crate) fn end_assessment(&mut self, release: Hash) -> Outcome {
        let wall = self.now.wall;
        if !self.assessments.open(wall).any(|a| a.release == release) {
            let line = format!("release {} is not assessed", release.short());
            return Err(CommandError::Limit(line));
        }
        self.record(LedgerEvent::Assessing {
            release,
            until: None,
            within: Span::ZERO,
            at: wall,
        });
        Ok(Answer::Done)
    }

    /// What the fleet answered about a release so far; none if it is not assessed. Looks through all nodes.
    pub fn assessment(&self, release: &Hash) -> Option<AssessmentView> {
        let open = self.assessments.open.get(release);
        let open = open.filter(|open| self.now.wall < open.until)?;
        let name = Need::attribute(release);
        let mut sites: BTreeMap<Option<SiteId>, NeedCounts> = BTreeMap::new();
        for (_, node) in self.fleet.all_admitted() {
            let site = node.site.as_deref().cloned();
            let said = node.attributes.get(&name);
            let said = said.and_then(|value| Need::of(value));
            sites.entry(site).or_default().add(said);
        }
        let counts = NeedCounts::sum(sites.values());
        Some(AssessmentView {
            release: *release,
            since: open.since,
            until: open.until,
            within: open.within,
            counts,
            sites: sites.into_iter().collect(),
        })
    }
}

impl NeedCounts {
    fn add(&mut self, need: Option<Need>) {
        let count = match need {
            Some(Need::Needs) => &mut self.needs,
            Some(Need::AlreadyInstalled) => &mut self.already_installed,
            Some(Need::NotApplicable) => &mut self.not_applicable,
            None => &mut self.no_answer,
        };
        *count += 1;
    }

    /// All of them together.
    pub fn sum<'a>(parts: impl Iterator<Item = &'a NeedCounts>) -> NeedCounts {
        parts.fold(NeedCounts::default(), |sum, part| NeedCounts {
            needs: sum.needs + part.needs,
            already_installed: sum.already_installed + part.already_installed,
            not_applicable: sum.not_applicable + part.not_applicable,
            no_answer: sum.no_answer + part.no_answer,
        })
    }
}
