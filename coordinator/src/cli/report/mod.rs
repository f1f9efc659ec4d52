//! `report review`: what came of a rollout, as JSON, or as one page of HTML that needs nothing else.

mod page;
mod plot;

use anyhow::Context;
use coordinator_core::review::{Part, Review};
use protocol::Time;

use self::page::Page;
use self::plot::{CURVES_MAX, Curve, draw, span_name};
use super::args::report::Report;
use super::{output, rollout, setup, units};

/// Sites and cohorts that the page lists; all are in the JSON.
const ROWS_MAX: usize = 200;
const STYLE: &str = "body{font:14px/1.4 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}\
    table{border-collapse:collapse;margin:.5em 0}th,td{text-align:left;padding:.2em .8em .2em 0;\
    border-bottom:1px solid #ddd;vertical-align:top;overflow-wrap:anywhere}td:nth-child(n+2){min-width:3em}";

/// `tidegate report …`
///
/// # Errors
/// When the coordinator does not answer, or the file cannot be written.
pub async fn run(ask: Report) -> anyhow::Result<()> {
    let Report::Review {
        at,
        rollout,
        out,
        json,
    } = ask;
    let client = setup::client(&at.dir)?;
    let review = client.review(&rollout).await;
    let review = review.context("failed to review")?;
    if json {
        return output::json(&review);
    }
    let page = page(&review);
    match out {
        None => output::line(page.trim_end()),
        Some(path) => std::fs::write(&path, page)
            .with_context(|| path.display().to_string())
            .context("failed to write the report"),
    }
}

/// The review as a page.
pub fn page(review: &Review) -> String {
    let title = ["Rollout ", review.rollout.as_str()].concat();
    let mut page = Page::document(&title, STYLE);
    page.element("h1", &title);
    page.element("p", &sentence(review));
    overview(&mut page, review);
    curves(&mut page, "Completion by wave", review, &review.waves);
    parts(&mut page, "wave", &review.waves);
    curves(
        &mut page,
        "Completion by site",
        review,
        &largest(&review.sites),
    );
    parts(&mut page, "site", &review.sites);
    if review.cohorts.len() > 1 {
        page.element("h2", "Success by cohort");
        parts(&mut page, "cohort", &review.cohorts);
    }
    failures(&mut page, review);
    page.finish()
}

fn sentence(review: &Review) -> String {
    let state = rollout::state_name(review.state);
    [&review.release, ": ", state, ". ", &review.why, "."].concat()
}

fn overview(page: &mut Page, review: &Review) {
    let c = review.counts;
    let t = review.traffic;
    let saved = t.alone_bytes.saturating_sub(t.wan_bytes);
    let met = match review.sla.met {
        Some(true) => "met",
        Some(false) => "missed",
        None => "open",
    };
    let due = review.sla.due.zip(review.started);
    let due = due
        .map(|(due, start)| [" (", &span_name(due.since(start).0), " after its start)"].concat());
    let latest = review.sla.latest.filter(|at| Some(*at) != review.sla.due);
    let latest = latest.zip(review.started).map(|(at, start)| {
        let span = span_name(at.since(start).0);
        [", at the latest ", &span].concat()
    });
    let sla = [
        met,
        due.as_deref().unwrap_or(""),
        latest.as_deref().unwrap_or(""),
        ": ",
        &review.sla.why,
    ]
    .concat();
    let rows = [
        ("targets", review.targets.to_string()),
        ("applied", share(c.applied, review.targets)),
        ("failed", share(c.failed, review.targets)),
        ("open", share(c.open, review.targets)),
        ("not received", share(c.not_received, review.targets)),
        ("in time", sla),
        ("over WANs", units::bytes(t.wan_bytes)),
        (
            "everyone alone would have been",
            units::bytes(t.alone_bytes),
        ),
        ("saved", units::bytes(saved)),
        ("inside the sites", units::bytes(t.lan_bytes)),
    ];
    page.table(
        &["", ""],
        rows.into_iter()
            .map(|(name, value)| vec![name.to_owned(), value]),
    );
}

fn share(n: u32, of: u32) -> String {
    let percent = u64::from(n) * 1000 / u64::from(of.max(1));
    let (whole, tenth) = (percent / 10, percent % 10);
    [
        &n.to_string(),
        " (",
        &whole.to_string(),
        ".",
        &tenth.to_string(),
        " %)",
    ]
    .concat()
}

fn curves(page: &mut Page, title: &str, review: &Review, parts: &[Part]) {
    page.element("h2", title);
    let Some(from) = review.started else {
        return page.element("p", "No wave has opened.");
    };
    let last = |part: &Part| part.completion.last().map(|(at, _)| *at);
    let to = parts.iter().filter_map(last).max().unwrap_or(review.now);
    let to = to.max(Time(from.0 + 1000));
    let shown = parts.iter().take(CURVES_MAX).map(|part| Curve {
        name: &part.name,
        of: part.targets,
        points: &part.completion,
    });
    draw(page, &shown.collect::<Vec<_>>(), from, to, review.sla.due);
}

/// The parts with the most targets, as many as can be drawn.
fn largest(parts: &[Part]) -> Vec<Part> {
    let mut parts = parts.to_vec();
    parts.sort_by(|a, b| b.targets.cmp(&a.targets).then_with(|| a.name.cmp(&b.name)));
    parts.truncate(CURVES_MAX);
    parts
}

fn parts(page: &mut Page, what: &'static str, parts: &[Part]) {
    let row = |part: &Part| {
        let c = part.counts;
        let name = match part.held {
            true => [&part.name, " (held)"].concat(),
            false => part.name.clone(),
        };
        let counts = [c.failed, c.open, c.not_received].map(|n| n.to_string());
        let first = [
            name,
            part.targets.to_string(),
            share(c.applied, part.targets),
        ];
        first.into_iter().chain(counts).collect()
    };
    let head = [what, "targets", "applied", "failed", "open", "not received"];
    page.table(&head, parts.iter().take(ROWS_MAX).map(row));
    if parts.len() > ROWS_MAX {
        page.element("p", "More are in the JSON.");
    }
}

fn failures(page: &mut Page, review: &Review) {
    page.element("h2", "Failures");
    if review.failures.is_empty() {
        return page.element("p", "None.");
    }
    let rows = review.failures.iter().map(|group| {
        let code = group
            .exit_code
            .map_or_else(String::new, |code| code.to_string());
        let nodes: Vec<String> = group.nodes.iter().map(|node| node.short()).collect();
        let nodes = nodes.join(" ");
        vec![
            group.count.to_string(),
            group.phase.clone(),
            code,
            group.line.clone(),
            nodes,
        ]
    });
    page.table(
        &["nodes", "phase", "exit code", "last line", "some of them"],
        rows,
    );
    if review.other_failures > 0 {
        let others = [
            &review.other_failures.to_string(),
            " more, each in its own way.",
        ]
        .concat();
        page.element("p", &others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coordinator_core::contract::{Counts, RolloutState};
    use coordinator_core::review::{FailureGroup, Sla, Traffic};
    use proptest::prelude::*;
    use protocol::NodeId;
    use protocol::plan::Priority;

    /// A review in which everything that nodes and operators say is this.
    fn review(text: &str) -> Review {
        let counts = Counts {
            applied: 3,
            failed: 1,
            ..Counts::default()
        };
        let part = Part {
            name: text.into(),
            targets: 4,
            counts,
            held: true,
            completion: vec![(Time::from_secs(10), 1), (Time::from_secs(900), 3)],
        };
        Review {
            rollout: "r".parse().unwrap(),
            release: "app@1".into(),
            priority: Priority::High,
            state: RolloutState::Held,
            why: text.into(),
            now: Time::from_secs(1000),
            started: Some(Time::from_secs(5)),
            targets: 4,
            counts,
            waves: vec![part.clone()],
            sites: vec![part.clone(), part.clone()],
            cohorts: vec![part.clone(), part],
            failures: vec![FailureGroup {
                phase: "rolled back".into(),
                exit_code: Some(-9),
                line: text.into(),
                count: 1,
                nodes: vec![NodeId([7; 32])],
            }],
            other_failures: 2,
            traffic: Traffic {
                wan_bytes: 1 << 20,
                lan_bytes: 3 << 20,
                alone_bytes: 4 << 20,
            },
            sla: Sla {
                due: Some(Time::from_secs(500)),
                latest: None,
                in_time: 1,
                late: 2,
                met: Some(false),
                why: text.into(),
            },
        }
    }

    fn tags(page: &str) -> Vec<&str> {
        let starts = page.split('<').skip(1);
        starts.filter_map(|s| s.split([' ', '>']).next()).collect()
    }

    #[test]
    fn a_page_says_what_the_review_says() {
        let page = page(&review("as expected"));
        for text in [
            "<title>Rollout r</title>",
            "app@1: held by its gate. as expected.",
            "<td>3 (75.0 %)</td>",
            "missed (8 min after its start): as expected",
            "<td>3.00 MiB</td>",
            "as expected (held)",
            "2 more, each in its own way.",
        ] {
            assert!(page.contains(text), "{text} is not in {page}");
        }
        assert_eq!(page.matches("<svg ").count(), 2);
        assert_eq!(page.matches("<path ").count(), 3);
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }

    #[test]
    fn what_nodes_say_stays_text() {
        let hostile = "</td></svg><script>alert(1)</script>\" onload='x' \u{202e}\0&#60;img src=x>";
        let page = page(&review(hostile));
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("onload='"));
        assert_eq!(tags(&page), tags(&super::page(&review("harmless"))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn no_text_changes_the_page_around_it(text in "\\PC{0,40}|[<>\"'&/=a-z -]{0,40}") {
            let page = page(&review(&text));
            let harmless = super::page(&review("harmless"));
            prop_assert_eq!(tags(&page), tags(&harmless));
        }
    }
}
