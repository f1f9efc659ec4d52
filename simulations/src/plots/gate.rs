//! What the gates judge: the share of good outcomes that the coordinator had counted in each wave,
//! against the share that its gate asks for. A thin line while the minimum sample is not in.

use anyhow::Result;
use plotters::prelude::*;

use super::style::{self, Clock, Panel, drawn, font};
use super::{Pictures, RolloutCurves, rollout_panels};

pub(super) fn draw(pictures: &Pictures) -> Result<String> {
    rollout_panels(pictures, "Gate statistic of each wave", curves)
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
        .build_cartesian_2d(from..right, lowest(rollout)..105.0)
        .map_err(drawn)?;
    chart
        .configure_mesh()
        .x_desc(clock.axis())
        .x_label_formatter(&style::number)
        .y_desc("outcomes so far, % good")
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
        let needed = wave.threshold.1.min(wave.targets).max(1);
        let mut points: Vec<(f64, f64, bool)> = Vec::new();
        for (at, good, bad) in wave.outcomes.iter().filter(|o| o.1 + o.2 > 0) {
            let ratio = 100.0 * f64::from(*good) / f64::from(good + bad);
            points.push((clock.at(*at), ratio, good + bad >= needed));
        }
        let mut points = style::thinned(&points);
        points.extend(points.last().map(|last| (clock.at(end), last.1, last.2)));
        let thin: Vec<(f64, f64)> = points.iter().map(|p| (p.0, p.1)).collect();
        let thick: Vec<(f64, f64)> = points.iter().filter(|p| p.2).map(|p| (p.0, p.1)).collect();
        let dots: Vec<(f64, f64)> = thick.first().copied().into_iter().collect();
        let thin = LineSeries::new(style::stairs(&thin), colour.mix(0.5).stroke_width(1));
        chart.draw_series(thin).map_err(drawn)?;
        chart
            .draw_series(LineSeries::new(
                style::stairs(&thick),
                colour.stroke_width(3),
            ))
            .map_err(drawn)?
            .label(format!("{} (judged from {needed} outcomes)", wave.name))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
        let dots = dots
            .into_iter()
            .map(|at| Circle::new(at, 4, colour.filled()));
        chart.draw_series(dots).map_err(drawn)?;
    }
    let mut thresholds: Vec<f64> = rollout.waves.iter().map(|w| w.threshold.0).collect();
    thresholds.sort_by(f64::total_cmp);
    thresholds.dedup();
    for threshold in thresholds {
        let line = [(from, threshold), (right, threshold)];
        chart
            .draw_series(DashedLineSeries::new(
                line,
                6,
                4,
                style::LIMIT.stroke_width(2),
            ))
            .map_err(drawn)?
            .label(format!("threshold {threshold:.1} %"))
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], style::LIMIT.stroke_width(2)));
    }
    style::legend(&mut chart)
}

/// Where the axis begins: gates that are narrowly met are looked at closely.
fn lowest(rollout: &RolloutCurves) -> f64 {
    let judged = |w: &super::WaveCurves| {
        let ratios = w.outcomes.iter().filter(|o| o.1 + o.2 > 0);
        let ratios = ratios.map(|o| 100.0 * f64::from(o.1) / f64::from(o.1 + o.2));
        ratios.fold(w.threshold.0, f64::min)
    };
    match rollout.waves.iter().map(judged).fold(100.0, f64::min) {
        least if least > 80.0 => 70.0,
        _ => 0.0,
    }
}
