//! What people write for rates, times and waves, and how bytes are shown to them.

use coordinator_core::presets::wave_name;
use protocol::plan::{Gate, Selector, WaveDraft};
use protocol::{Span, Time};

/// The lowest rate that is kept.
pub const RATE_MIN_BYTES_PER_S: u64 = 1_000;

/// A rate such as `20mbit`, `500kbit`, `2MB` (a second) or `none`; in bytes a second.
///
/// # Errors
/// A sentence with the forms that are understood.
pub fn rate(text: &str) -> Result<Rate, String> {
    if text == "none" {
        return Ok(Rate(None));
    }
    let refuse = || format!("{text:?} is not a rate; write 64kbit, 20mbit, 1gbit or none");
    let at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(refuse)?;
    let number: f64 = text[..at].parse().map_err(|_| refuse())?;
    let bits = match &text[at..] {
        "kbit" => 1e3,
        "mbit" => 1e6,
        "gbit" => 1e9,
        "kB" => 8e3,
        "MB" => 8e6,
        _ => return Err(refuse()),
    };
    let bytes = (number * bits / 8.0) as u64;
    if bytes < RATE_MIN_BYTES_PER_S {
        return Err(format!(
            "{text} is below 8kbit, the lowest rate that is kept"
        ));
    }
    Ok(Rate(Some(bytes)))
}

/// A rate in bytes a second; none: no cap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate(pub Option<u64>);

/// A time such as `500ms`, `30s`, `15m`, `24h`, `7d`.
///
/// # Errors
/// A sentence with the forms that are understood.
pub fn span(text: &str) -> Result<Span, String> {
    let refuse = || format!("{text:?} is not a length of time; write 500ms, 30s, 15m, 24h or 7d");
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(refuse)?;
    let number: u64 = text[..at].parse().map_err(|_| refuse())?;
    let unit = match &text[at..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(refuse()),
    };
    number.checked_mul(unit).map(Span).ok_or_else(refuse)
}

/// A wave as `count:5`, `percent:25`, `site:berlin`, `label:ring=canary` or `rest`.
///
/// # Errors
/// A sentence with the forms that are understood.
pub fn selector(text: &str) -> Result<Selector, String> {
    let refuse = || {
        format!(
            "{text:?} is not a wave; write count:5, percent:25, site:NAME, label:KEY=VALUE or rest"
        )
    };
    if text == "rest" {
        return Ok(Selector::Rest);
    }
    match text.split_once(':').ok_or_else(refuse)? {
        ("count", n) => n.parse().map(Selector::Count).map_err(|_| refuse()),
        ("percent", n) => match n.parse() {
            Ok(p @ 1..=100) => Ok(Selector::Percent(p)),
            _ => Err(format!("{text:?}: a percentage lies between 1 and 100")),
        },
        ("site", name) => name.parse().map(Selector::Site).map_err(|e| format!("{e}")),
        ("label", pair) => {
            let (key, value) = pair.split_once('=').ok_or_else(refuse)?;
            Ok(Selector::Label {
                key: key.into(),
                value: value.into(),
            })
        }
        _ => Err(refuse()),
    }
}

/// A draft for each selector, all behind the same gate.
pub fn drafts(selectors: &[Selector], not_before: Time, gate: &Gate) -> Vec<WaveDraft> {
    selectors
        .iter()
        .map(|select| WaveDraft {
            name: wave_name(select),
            select: select.clone(),
            not_before,
            gate: gate.clone(),
        })
        .collect()
}

/// A share such as `95` or `99.5` percent, in parts per million.
///
/// # Errors
/// A sentence with the range.
pub fn percent_ppm(text: &str) -> Result<u32, String> {
    match text.parse::<f64>() {
        Ok(p) if (0.0..=100.0).contains(&p) => Ok((p * 10_000.0).round() as u32),
        _ => Err(format!("{text:?} is not a percentage between 0 and 100")),
    }
}

/// A label as `key=value`.
///
/// # Errors
/// A sentence with the form.
pub fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(format!("{text:?} is not a label; write KEY=VALUE")),
    }
}

/// Bytes for people, in powers of 1024.
pub fn bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}

/// Now, in milliseconds since the Unix epoch.
pub fn wall_now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Time(since.map_or(0, |d| d.as_millis() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let check = |text, expected: Option<Option<u64>>| {
            assert_eq!(rate(text).ok().map(|r| r.0), expected, "{text}")
        };
        check("20mbit", Some(Some(2_500_000)));
        check("64kbit", Some(Some(8_000)));
        check("1gbit", Some(Some(125_000_000)));
        check("2MB", Some(Some(2_000_000)));
        check("none", Some(None));
        check("20", None);
        check("mbit", None);
        check("1kbit", None);
        check("20 mbit", None);
    }

    #[test]
    fn spans() {
        let check = |text, expected: Option<u64>| {
            assert_eq!(span(text).ok().map(|s| s.0), expected, "{text}")
        };
        check("500ms", Some(500));
        check("30s", Some(30_000));
        check("15m", Some(900_000));
        check("24h", Some(86_400_000));
        check("7d", Some(604_800_000));
        check("5", None);
        check("s", None);
        check("99999999999999999d", None);
    }

    #[test]
    fn waves() {
        assert_eq!(selector("count:5").unwrap(), Selector::Count(5));
        assert_eq!(selector("percent:25").unwrap(), Selector::Percent(25));
        assert_eq!(selector("rest").unwrap(), Selector::Rest);
        assert!(
            selector("percent:0")
                .unwrap_err()
                .contains("between 1 and 100")
        );
        assert!(selector("site:No Such").unwrap_err().contains("site name"));
        assert!(selector("everyone").unwrap_err().contains("count:5"));
    }
}
