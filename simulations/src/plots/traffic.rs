//! Bytes a second over the coordinator's control plane.

use anyhow::Result;
use plotters::prelude::*;

use super::Pictures;
use super::style::{self, Clock, drawn, font};

pub(super) fn draw(pictures: &Pictures) -> Result<String> {
    let curves = [
        ("received", &pictures.bytes_in),
        ("sent", &pictures.bytes_out),
    ];
    let both = curves.iter().flat_map(|(_, curve)| curve.iter());
    let (end, most) = both.fold((1.0, 1.0), |(end, most): (f64, f64), (at, rate)| {
        (end.max(*at), most.max(*rate))
    });
    let clock = Clock::of(end);
    style::picture(
        "Coordinator: control traffic",
        &pictures.title,
        1,
        |panels| {
            let mut chart = ChartBuilder::on(&panels[0])
                .margin(12)
                .set_label_area_size(LabelAreaPosition::Left, 74)
                .set_label_area_size(LabelAreaPosition::Bottom, 40)
                .build_cartesian_2d(0.0..clock.at(end) * 1.02, 0.0..most * 1.1)
                .map_err(drawn)?;
            chart
                .configure_mesh()
                .x_desc(clock.axis())
                .x_label_formatter(&style::number)
                .y_desc("bytes a second")
                .y_label_formatter(&|y| format!("{}B/s", style::bytes(*y)))
                .label_style(font(12))
                .axis_desc_style(font(13))
                .axis_style(style::INK)
                .bold_line_style(style::MESH)
                .light_line_style(TRANSPARENT)
                .draw()
                .map_err(drawn)?;
            for (number, (label, curve)) in curves.into_iter().enumerate() {
                let colour = style::colour(number);
                let points = style::peaks(curve);
                let points: Vec<_> = points
                    .into_iter()
                    .map(|(at, rate)| (clock.at(at), rate))
                    .collect();
                chart
                    .draw_series(LineSeries::new(
                        style::stairs(&points),
                        colour.stroke_width(2),
                    ))
                    .map_err(drawn)?
                    .label(label)
                    .legend(move |(x, y)| {
                        PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3))
                    });
            }
            style::legend_at(&mut chart, SeriesLabelPosition::UpperRight)
        },
    )
}
