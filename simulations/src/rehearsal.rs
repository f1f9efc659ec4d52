//! Rehearsals: what the coordinator forecast before a rollout began, beside what came of it. The
//! forecast is the coordinator's own what-if; here it is told what the scenario knows of its world, and
//! the full run says how far it was off.

use coordinator_core::forecast::{Assumptions, Forecast, Question};
use protocol::{Span, Time};
use serde::Serialize;

use crate::fleet::BEGINNING;
use crate::island::mbit;
use crate::scenario::Length;
use crate::shared::Shared;
use crate::world::World;

/// A node decodes and writes so many plain bytes a second before it can switch.
const UNPACK_BYTES_PER_S: u64 = 200_000_000;

/// A forecast beside the run.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Rehearsal {
    /// The release.
    pub release: String,
    /// From the start until the last gate passed.
    pub finishes: Pair,
    /// From the start until each wave opened.
    pub waves_open: Vec<Pair>,
    /// From the start until all nodes of a site that stayed online had the bytes, of the site that was
    /// the last.
    pub last_site_has_bytes: Pair,
}

/// Seconds as they were forecast and as they came; null where it was never.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Pair {
    /// As it was forecast.
    pub forecast_s: Option<f64>,
    /// As it came.
    pub run_s: Option<f64>,
    /// How far the forecast was off, as a share of the run; above zero it was too late.
    pub error: Option<f64>,
}

impl Pair {
    fn of(forecast_s: Option<f64>, run_s: Option<f64>) -> Pair {
        let error = forecast_s.zip(run_s).filter(|(_, run)| *run > 0.0);
        Pair {
            forecast_s,
            run_s,
            error: error.map(|(forecast, run)| crate::figures::round(forecast / run - 1.0)),
        }
    }
}

/// What is asked of a forecast in a scenario: the links and installs that it tells of.
pub(crate) fn question(shared: &Shared, release: usize) -> Question {
    let scenario = &shared.scenario;
    let spec = &scenario.releases[release];
    let switch = |length: Option<Length>| match length {
        None => 0.0,
        Some(Length::Fixed(s)) => s,
        Some(Length::Between { to_s, .. }) => to_s,
        Some(Length::Usual { p99_s, .. }) => p99_s,
    };
    let unpack = Span(shared.contents[release].pack.length * 1000 / UNPACK_BYTES_PER_S);
    let slowest = shared.sites.iter().map(|s| s.lan_mbit).min();
    Question {
        assumptions: Assumptions {
            origin_bytes_per_s: scenario.origin.uplink_mbit.map(|m| mbit(m) as u64),
            lan_bytes_per_s: mbit(slowest.unwrap_or(1)) as u64,
            // what is pretended to cross a link is payload alone
            payload_ppm: 1_000_000,
            begins_after: Span::from_secs(2),
            install: Span(
                unpack.0 + ((switch(spec.install_s) + switch(spec.restart_s)) * 1000.0) as u64,
            ),
            word: Span::from_secs(1),
            ..Assumptions::default()
        },
        ..Question::default()
    }
}

impl World {
    /// Has a forecast made before each rollout; see [`Rehearsal`].
    pub fn rehearse(&mut self) {
        self.hub.story.forecasts = Some(Vec::new());
    }

    /// The forecasts that were made, beside what came.
    pub fn rehearsals(&self) -> Vec<Rehearsal> {
        let forecasts = self.hub.story.forecasts.iter().flatten();
        let numbered = forecasts.enumerate();
        numbered
            .map(|(n, forecast)| self.rehearsal(n, forecast))
            .collect()
    }

    fn rehearsal(&self, release: usize, forecast: &Forecast) -> Rehearsal {
        let after = |at: Time| at.since(forecast.starts).0 as f64 / 1000.0;
        let view = self.hub.desk.conductor.rollout(&forecast.rollout);
        let came = view.map(|view| view.waves).unwrap_or_default();
        let last = came.last().and_then(|w| w.ended_at);
        let waves = forecast.waves.iter().zip(&came);
        let waves = waves.map(|(f, w)| Pair::of(f.opens.map(after), w.opened_at.map(after)));
        let sites = self.islands.iter().filter(|i| i.site().is_some());
        let staged = sites.flat_map(|i| i.tally.staged[release].iter().flatten().max());
        let staged = staged.max().map(|at| after(BEGINNING + Span(at.0)));
        let supplied = forecast.sites.iter().filter_map(|s| s.has_bytes).max();
        Rehearsal {
            release: forecast.release.clone(),
            finishes: Pair::of(forecast.finishes.map(after), last.map(after)),
            waves_open: waves.collect(),
            last_site_has_bytes: Pair::of(supplied.map(after), staged),
        }
    }
}
