//! Harmed nodes by design: how many a wave puts at stake, how many began, how many were harmed.

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::style::{self, Panel, drawn, font};
use super::{Pictures, RolloutCurves, WaveCurves, rollout_panels};

/// Waves that are shown.
const WAVES_MAX: usize = 8;

/// How many nodes of a wave are meant.
type Count = fn(&WaveCurves) -> u32;

pub(super) fn draw(pictures: &Pictures) -> Result<String> {
    rollout_panels(pictures, "Harmed nodes against the waves' size", bars)
}

fn bars(panel: &Panel<'_>, rollout: &RolloutCurves) -> Result<()> {
    let waves = &rollout.waves[..rollout.waves.len().min(WAVES_MAX)];
    let most = waves.iter().map(|w| w.targets).max().unwrap_or(1).max(1);
    // sizes of waves differ by orders of magnitude: the axis counts them
    let scale = |nodes: u32| f64::from(nodes + 1).log10();
    let harmed: u32 = rollout.waves.iter().map(|w| w.harmed).sum();
    let targets: u32 = rollout.waves.iter().map(|w| w.targets).sum();
    let caption = format!("{}: {harmed} of {targets} nodes harmed", rollout.release);
    let mut chart = ChartBuilder::on(panel)
        .caption(caption, font(15))
        .margin(12)
        .set_label_area_size(LabelAreaPosition::Left, 36)
        .set_label_area_size(LabelAreaPosition::Bottom, 34)
        .build_cartesian_2d(0.0..waves.len().max(1) as f64, 0.0..scale(most) * 1.6)
        .map_err(drawn)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_y_mesh()
        .y_desc("nodes, logarithmic")
        .x_labels(0)
        .y_labels(0)
        .label_style(font(12))
        .axis_desc_style(font(13))
        .axis_style(style::INK)
        .draw()
        .map_err(drawn)?;
    let kinds: [(&str, RGBColor, Count); 3] = [
        ("in the wave", RGBColor(200, 200, 200), |w| w.targets),
        ("began to switch", style::colour(0), |w| w.started),
        ("harmed", style::LIMIT, |w| w.harmed),
    ];
    for (kind, (label, colour, of)) in kinds.into_iter().enumerate() {
        let place = |n: usize| n as f64 + 0.14 + 0.24 * kind as f64;
        let bars = waves.iter().enumerate().map(|(n, wave)| {
            let corners = [(place(n), 0.0), (place(n) + 0.22, scale(of(wave)))];
            Rectangle::new(corners, colour.filled())
        });
        chart
            .draw_series(bars)
            .map_err(drawn)?
            .label(label)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], colour.filled()));
        let above = font(12).pos(Pos::new(HPos::Center, VPos::Bottom));
        let numbers = waves.iter().enumerate().map(|(n, wave)| {
            let at = (place(n) + 0.11, scale(of(wave)) + 0.02 * scale(most));
            Text::new(of(wave).to_string(), at, above.clone())
        });
        chart.draw_series(numbers).map_err(drawn)?;
    }
    let (left, bottom) = chart.plotting_area().get_base_pixel();
    let (width, height) = chart.plotting_area().dim_in_pixel();
    let origin = panel.get_base_pixel();
    for (n, wave) in waves.iter().enumerate() {
        let middle = (n as f64 + 0.5) / waves.len() as f64;
        let x = left - origin.0 + (f64::from(width) * middle) as i32;
        let y = bottom - origin.1 + height as i32 + 8;
        let below = font(13).pos(Pos::new(HPos::Center, VPos::Top));
        panel
            .draw(&Text::new(wave.name.clone(), (x, y), below))
            .map_err(drawn)?;
    }
    style::legend_at(&mut chart, SeriesLabelPosition::UpperLeft)
}
