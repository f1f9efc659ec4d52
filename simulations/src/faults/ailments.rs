//! What a release does to a machine.

use protocol::Span;

use super::Traits;
use crate::scenario::{FailureSpec, How, Scenario, below, stream};

/// What is wrong with a release on one machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ailment {
    /// What is seen of it.
    pub how: How,
    /// [`How::Latent`]: so long after the switch; else none.
    pub after: Span,
}

/// The first failure of a release that fits the machine and is drawn for it.
pub(super) fn ailment(
    scenario: &Scenario,
    release: usize,
    traits: &Traits,
    site: usize,
    slot: usize,
) -> Option<Ailment> {
    let spec = &scenario.releases[release];
    let name = spec.full_name();
    let mut rng = stream(
        scenario.seed,
        &format!("ailment of {name} on {site}/{slot}"),
    );
    let mut hits = |percent: u32| below(&mut rng, 100) < u64::from(percent);
    if hits(spec.sick_percent) {
        let (how, after) = (How::Health, Span::ZERO);
        return Some(Ailment { how, after });
    }
    let fits = |failure: &&FailureSpec| {
        let mut wanted = failure.cohort.iter();
        wanted.all(|(key, value)| traits.labels.get(key) == Some(value))
    };
    // one draw for each entry, fitting or not, so that the entries do not hang on one another
    let drawn: Vec<bool> = spec.failures.iter().map(|f| hits(f.percent)).collect();
    let hit = spec.failures.iter().zip(drawn);
    let (failure, _) = hit.into_iter().find(|(f, hit)| *hit && fits(f))?;
    let after = failure
        .after_s
        .map_or(Span::ZERO, |after| after.draw(&mut rng));
    let how = failure.how;
    Some(Ailment { how, after })
}
