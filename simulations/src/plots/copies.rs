//! WAN copies per site: the sites in order of what crossed their WAN.

use anyhow::Result;
use plotters::prelude::*;

use super::Pictures;
use super::style::{self, drawn, font};

/// What the mean may be.
const AIM_MEAN: f64 = 1.02;
/// What the worst may be.
const AIM_WORST: f64 = 1.05;

pub(super) fn draw(pictures: &Pictures) -> Result<String> {
    let mut copies: Vec<f64> = pictures.copies.iter().map(|(_, copies)| *copies).collect();
    copies.sort_by(f64::total_cmp);
    style::picture("WAN copies per site", &pictures.title, 1, |panels| {
        let panel = &panels[0];
        if copies.is_empty() {
            return style::nothing(panel, "there are no sites");
        }
        let count = copies.len();
        let mean = copies.iter().sum::<f64>() / count as f64;
        let (least, most) = (copies[0], copies[count - 1]);
        let low = (least.min(1.0) - 0.01).max(0.0);
        let high = most.max(AIM_WORST);
        // with room for the legend
        let high = high + 0.4 * (high - low);
        let mut chart = ChartBuilder::on(panel)
            .margin(12)
            .set_label_area_size(LabelAreaPosition::Left, 64)
            .set_label_area_size(LabelAreaPosition::Bottom, 40)
            .build_cartesian_2d(0.0..count as f64, low..high)
            .map_err(drawn)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_desc(format!("sites, in order of their copies ({count} in all)"))
            .y_desc("copies of the release")
            .x_labels(count.min(10) + 1)
            .x_label_formatter(&|x| match x.fract() == 0.0 {
                true => format!("{x:.0}"),
                false => String::new(),
            })
            .y_label_formatter(&|y| format!("{y:.3}"))
            .label_style(font(12))
            .axis_desc_style(font(13))
            .axis_style(style::INK)
            .bold_line_style(style::MESH)
            .light_line_style(TRANSPARENT)
            .draw()
            .map_err(drawn)?;
        // one bar for each site; where there are more than an eye can tell, one for each few
        let group = count.div_ceil(400);
        let bars = copies.chunks(group).enumerate().map(|(n, some)| {
            let from = (n * group) as f64;
            let to = from + some.len() as f64;
            let inset = if group == 1 { 0.1 } else { 0.0 };
            let highest = some.iter().copied().fold(0.0, f64::max);
            let corners = [(from + inset, low), (to - inset, highest)];
            Rectangle::new(corners, style::colour(0).mix(0.7).filled())
        });
        chart
            .draw_series(bars)
            .map_err(drawn)?
            .label(format!("a site (mean {mean:.4}, worst {most:.4})"))
            .legend(|(x, y)| {
                let corners = [(x, y - 5), (x + 18, y + 5)];
                Rectangle::new(corners, style::colour(0).mix(0.7).filled())
            });
        let lines = [
            (AIM_MEAN, style::colour(2), "aim 1.02 for the mean"),
            (AIM_WORST, style::LIMIT, "aim 1.05 for the worst"),
        ];
        for (level, colour, label) in lines {
            let line = [(0.0, level), (count as f64, level)];
            chart
                .draw_series(DashedLineSeries::new(line, 6, 4, colour.stroke_width(2)))
                .map_err(drawn)?
                .label(label)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
        }
        style::legend_at(&mut chart, SeriesLabelPosition::UpperLeft)
    })
}
