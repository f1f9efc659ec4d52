//! Curves of completion over time, as SVG.

use protocol::Time;

use super::page::Page;

/// One curve: how many were through by when, rising, of how many.
pub struct Curve<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// What is a hundred percent.
    pub of: u32,
    /// The points.
    pub points: &'a [(Time, u32)],
}

/// Curves that are drawn; each has a colour of its own.
pub const CURVES_MAX: usize = 8;
const COLOURS: [&str; CURVES_MAX] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f", "#000000",
];
/// The drawing's size, and the room around it for what is written at the axes.
const SIZE: (f64, f64) = (720.0, 260.0);
const LEFT: f64 = 48.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 30.0;

/// Draws curves from `from` to `to`; a deadline is a line of its own.
pub fn draw(page: &mut Page, curves: &[Curve<'_>], from: Time, to: Time, deadline: Option<Time>) {
    let width = (to.since(from).0.max(1)) as f64;
    let (w, h) = (SIZE.0 - LEFT - RIGHT, SIZE.1 - TOP - BOTTOM);
    let x = |at: Time| number(LEFT + at.since(from).0 as f64 / width * w);
    let y = |share: f64| number(TOP + (1.0 - share) * h);
    let (whole, tall) = (number(SIZE.0), number(SIZE.1));
    let view = ["0 0", &whole, &tall].join(" ");
    page.begin(
        "svg",
        &[
            ("xmlns", "http://www.w3.org/2000/svg"),
            ("viewBox", &view),
            ("width", &whole),
            ("role", "img"),
        ],
    );
    for percent in [0u32, 25, 50, 75, 100] {
        let at = y(f64::from(percent) / 100.0);
        line(
            page,
            (&number(LEFT), &at),
            (&number(LEFT + w), &at),
            "#dddddd",
        );
        let label = [percent.to_string(), " %".into()].concat();
        label_at(page, &number(LEFT - 6.0), &at, "end", &label);
    }
    let under = number(SIZE.1 - 8.0);
    label_at(page, &number(LEFT), &under, "start", "start");
    label_at(
        page,
        &number(LEFT + w),
        &under,
        "end",
        &span_name(to.since(from).0),
    );
    if let Some(at) = deadline.filter(|at| (from..=to).contains(at)) {
        line(
            page,
            (&x(at), &number(TOP)),
            (&x(at), &number(TOP + h)),
            "#d55e00",
        );
        label_at(page, &x(at), &under, "middle", "due");
    }
    for (number_of, (curve, colour)) in curves.iter().zip(COLOURS).enumerate() {
        let mut path = ["M", &x(from), " ", &y(0.0)].concat();
        for (at, count) in curve.points {
            let share = f64::from(*count) / f64::from(curve.of.max(1));
            path.push_str(&[" H", &x(*at), " V", &y(share)].concat());
        }
        path.push_str(&[" H", &x(to)].concat());
        page.empty(
            "path",
            &[
                ("d", &path),
                ("fill", "none"),
                ("stroke", colour),
                ("stroke-width", "2"),
            ],
        );
        let at = TOP + 14.0 * (number_of as f64 + 1.0);
        let (left, right) = (number(LEFT + w + 10.0), number(LEFT + w + 26.0));
        let middle = number(at - 4.0);
        line(page, (&left, &middle), (&right, &middle), colour);
        let name: String = curve.name.chars().take(24).collect();
        label_at(page, &number(LEFT + w + 32.0), &number(at), "start", &name);
    }
    page.end();
}

fn line(page: &mut Page, from: (&str, &str), to: (&str, &str), colour: &str) {
    let attributes = [
        ("x1", from.0),
        ("y1", from.1),
        ("x2", to.0),
        ("y2", to.1),
        ("stroke", colour),
    ];
    page.empty("line", &attributes);
}

fn label_at(page: &mut Page, x: &str, y: &str, anchor: &str, text: &str) {
    let attributes = [
        ("x", x),
        ("y", y),
        ("text-anchor", anchor),
        ("font-size", "11"),
    ];
    page.begin("text", &attributes);
    page.text(text);
    page.end();
}

fn number(n: f64) -> String {
    let tenths = (n * 10.0).round();
    (if tenths.is_finite() {
        tenths / 10.0
    } else {
        0.0
    })
    .to_string()
}

/// A length of time for people.
pub fn span_name(ms: u64) -> String {
    let s = ms / 1000;
    let (n, unit) = match s {
        0..=179 => (s, " s"),
        180..=10_799 => (s / 60, " min"),
        10_800..=259_199 => (s / 3600, " h"),
        _ => (s / 86_400, " days"),
    };
    [&n.to_string(), unit].concat()
}
