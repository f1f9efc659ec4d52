//! What all pictures have in common: size, colours that colour-blind people can tell apart (Okabe and
//! Ito), time in the unit that reads best, curves thinned to what an eye can see.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Width of a picture.
pub(super) const WIDTH: u32 = 900;
/// Height of a panel.
pub(super) const PANEL: u32 = 320;
/// Height of the title.
const TITLE: u32 = 46;
/// Points of a curve.
const POINTS_MAX: usize = 300;

/// Dark grey for text and axes.
pub(super) const INK: RGBColor = RGBColor(60, 60, 60);
/// Light grey for the mesh.
pub(super) const MESH: RGBColor = RGBColor(230, 230, 230);
/// For what must not be crossed.
pub(super) const LIMIT: RGBColor = RGBColor(213, 94, 0);

const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(120, 94, 60),
];

/// One of the panels of a picture.
pub(super) type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The colour of a curve by its number.
pub(super) fn colour(number: usize) -> RGBColor {
    COLOURS[number % COLOURS.len()]
}

/// The font of a size.
pub(super) fn font(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Draws a picture of so many panels under a title; `subtitle` names the run.
pub(super) fn picture(
    title: &str,
    subtitle: &str,
    panels: usize,
    paint: impl FnOnce(&[Panel<'_>]) -> Result<()>,
) -> Result<String> {
    let panels = panels.max(1);
    let mut svg = String::new();
    {
        let size = (WIDTH, TITLE + PANEL * panels as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE).map_err(drawn)?;
        let (head, body) = root.split_vertically(TITLE);
        head.draw(&Text::new(title.to_owned(), (20, 8), font(20)))
            .map_err(drawn)?;
        let right = font(13).pos(Pos::new(HPos::Right, VPos::Top));
        let run = Text::new(subtitle.to_owned(), (WIDTH as i32 - 20, 14), right);
        head.draw(&run).map_err(drawn)?;
        paint(&body.split_evenly((panels, 1)))?;
        root.present().map_err(drawn)?;
    }
    Ok(svg)
}

/// A line of text in the middle of a panel that has nothing to show.
pub(super) fn nothing(panel: &Panel<'_>, why: &str) -> Result<()> {
    let middle = font(15).pos(Pos::new(HPos::Center, VPos::Center));
    let at = (WIDTH as i32 / 2, PANEL as i32 / 2);
    panel
        .draw(&Text::new(why.to_owned(), at, middle))
        .map_err(drawn)
}

/// Plotters' errors borrow from the picture; ours does not.
pub(super) fn drawn<E: std::fmt::Display>(error: E) -> anyhow::Error {
    anyhow!("draw the picture: {error}")
}

/// How time is told.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    /// Seconds in a unit.
    pub seconds: f64,
    /// The unit.
    pub unit: &'static str,
}

impl Clock {
    /// The unit that reads best for a run of so many seconds.
    pub(super) fn of(end: f64) -> Clock {
        let (seconds, unit) = match end {
            end if end <= 600.0 => (1.0, "s"),
            end if end <= 4.0 * 3600.0 => (60.0, "min"),
            end if end <= 4.0 * 86_400.0 => (3600.0, "h"),
            _ => (86_400.0, "days"),
        };
        Clock { seconds, unit }
    }

    /// Seconds in the unit.
    pub(super) fn at(self, seconds: f64) -> f64 {
        seconds / self.seconds
    }

    /// What stands under the axis.
    pub(super) fn axis(self) -> String {
        format!("time since the world began, {}", self.unit)
    }
}

/// A number on an axis.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "plotters asks for a reference"
)]
pub(super) fn number(number: &f64) -> String {
    let rounded = (number * 100.0).round() / 100.0;
    format!("{rounded}")
}

/// Bytes in the unit that reads best.
pub(super) fn bytes(bytes: f64) -> String {
    match bytes {
        b if b >= 1e9 => format!("{:.1} G", b / 1e9),
        b if b >= 1e6 => format!("{:.1} M", b / 1e6),
        b if b >= 1e3 => format!("{:.1} k", b / 1e3),
        b => format!("{b:.0} "),
    }
}

/// At most [`POINTS_MAX`] of a curve's points, the first and the last among them.
pub(super) fn thinned<T: Copy>(points: &[T]) -> Vec<T> {
    if points.len() <= POINTS_MAX {
        return points.to_vec();
    }
    let last = points.len() - 1;
    (0..POINTS_MAX)
        .map(|n| points[n * last / (POINTS_MAX - 1)])
        .collect()
}

/// Points as stairs: a level holds until the next.
pub(super) fn stairs(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut stairs = Vec::with_capacity(points.len() * 2);
    for (n, (x, y)) in points.iter().enumerate() {
        if n > 0 {
            stairs.push((*x, points[n - 1].1));
        }
        stairs.push((*x, *y));
    }
    stairs
}

/// Fewer points of a curve of rates: the highest of each few, so that no peak is hidden.
pub(super) fn peaks(curve: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = curve.len().div_ceil(POINTS_MAX).max(1);
    let peak = |some: &[(f64, f64)]| {
        let highest = some.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        (some[0].0, highest)
    };
    curve.chunks(group).map(peak).collect()
}

/// The legend of a chart, below right, where rising curves leave room.
pub(super) fn legend<'a, 'b: 'a, X, Y>(chart: &mut Chart<'a, 'b, X, Y>) -> Result<()>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    legend_at(chart, SeriesLabelPosition::LowerRight)
}

/// A chart of numbers.
type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;

/// The legend of a chart.
pub(super) fn legend_at<'a, 'b: 'a, X, Y>(
    chart: &mut Chart<'a, 'b, X, Y>,
    position: SeriesLabelPosition,
) -> Result<()>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.85))
        .border_style(MESH)
        .label_font(font(12))
        .margin(8)
        .draw()
        .map_err(drawn)
}
