//! Completion over time, a curve for each wave.

use anyhow::Result;
use plotters::prelude::*;

use super::style::{self, Clock, Panel, drawn, font};
use super::{Pictures, RolloutCurves, rollout_panels};

pub(super) fn draw(pictures: &Pictures) -> Result<String> {
    rollout_panels(pictures, "Completion of each wave", curves)
}

fn curves(panel: &Panel<'_>, rollout: &RolloutCurves) -> Result<()> {
    let (from, end) = rollout.span();
    let clock = Clock::of(end);
    // with room for the legend
    let (from, right) = (clock.at(from), clock.at(end + 0.3 * (end - from)));
    let mut chart = ChartBuilder::on(panel)
        .caption(&rollout.release, font(15))
        .margin(12)
        .set_label_area_size(LabelAreaPosition::Left, 58)
        .set_label_area_size(LabelAreaPosition::Bottom, 40)
        .build_cartesian_2d(from..right, 0.0..105.0)
        .map_err(drawn)?;
    chart
        .configure_mesh()
        .x_desc(clock.axis())
        .x_label_formatter(&style::number)
        .y_desc("applied, % of the wave")
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style(font(12))
        .axis_desc_style(font(13))
        .axis_style(style::INK)
        .bold_line_style(style::MESH)
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(drawn)?;
    for (number, wave) in rollout.waves.iter().enumerate() {
        let colour = style::colour(number);
        let percent = 100.0 / f64::from(wave.targets.max(1));
        let opened = wave.opened.map(|at| (clock.at(at), 0.0));
        let applied = wave.applied.iter().enumerate();
        let points: Vec<(f64, f64)> = opened
            .into_iter()
            .chain(applied.map(|(n, at)| (clock.at(*at), (n + 1) as f64 * percent)))
            .collect();
        let last = points.last().map(|(_, level)| (clock.at(end), *level));
        let mut points = style::thinned(&points);
        points.extend(last);
        chart
            .draw_series(LineSeries::new(
                style::stairs(&points),
                colour.stroke_width(2),
            ))
            .map_err(drawn)?
            .label(format!("{} ({} nodes)", wave.name, wave.targets))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
    }
    style::legend(&mut chart)
}
