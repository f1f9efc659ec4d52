use super::*;

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::SiteId;
use crate::limits::{FILTER_DEPTH_MAX, FILTER_MAX_BYTES};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    pairs.iter().map(owned).collect()
}

fn check(text: &str, expected: bool) {
    let attributes = map(&[
        ("os.name", "debian"),
        ("os.version", "12.10"),
        ("criticality", "standard"),
        ("disk.free_gib", "9"),
        ("driver.e1000e", "6.1"),
        ("model", "Böse \"Kiste\" (2)"),
    ]);
    let labels = map(&[("ring", "early"), ("floor", "3")]);
    let site: SiteId = "berlin".parse().unwrap();
    let node = Subject {
        site: Some(&site),
        labels: &labels,
        attributes: &attributes,
    };
    let filter: Filter = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(filter.matches(&node), expected, "{text}");
}

#[test]
fn filters_mean_what_people_read() {
    let rows = [
        (
            "site=berlin and os.name=debian and not label.kiosk and criticality!=mission_critical",
            true,
        ),
        ("site = lisbon", false),
        ("site == berlin", true),
        ("label.floor=3", true),
        ("label.floor", true),
        ("label.kiosk", false),
        ("not label.kiosk", true),
        ("os.version<12.9", false),
        ("os.version>=12.9", true),
        ("os.version>12.10", false),
        ("os.version<=12.10", true),
        ("os.version<12.10.1", true),
        ("os.version>12.10rc1", false),
        ("disk.free_gib<10", true),
        ("disk.free_gib>=10", false),
        ("driver.e1000e<6.2 and not driver.nvidia", true),
        ("os.name in (ubuntu, debian)", true),
        ("os.name in (ubuntu)", false),
        ("model=\"Böse \\\"Kiste\\\" (2)\"", true),
        ("site=lisbon or site=berlin and os.name=debian", true),
        ("site=berlin or site=lisbon and os.name=arch", true),
        ("(site=berlin or site=lisbon) and os.name=arch", false),
        ("not (site=berlin or site=lisbon)", false),
        ("not not site=berlin", true),
        // what is not there equals nothing
        ("ring=early", false),
        ("ring!=early", true),
        ("ring<5", false),
        ("ring>5", false),
        ("ring in (early)", false),
    ];
    for (text, expected) in rows {
        check(text, expected);
    }
}

#[test]
fn a_text_that_is_no_filter_is_pointed_at() {
    let rows = [
        ("", 1, "a name such as os.name is expected here"),
        ("site=", 6, "a value is expected here"),
        ("site= and", 9, ""),
        (
            "site=berlin os.name=debian",
            13,
            "'and' or 'or' is expected before \"os.name\"",
        ),
        (
            "site=berlin and",
            16,
            "a name such as os.name is expected here",
        ),
        (
            "os.nam=debian",
            1,
            "there is no attribute \"os.nam\"; there are ",
        ),
        (
            "site=berlin and and",
            17,
            "a name such as os.name is expected instead of \"and\"",
        ),
        ("(site=berlin", 1, "this parenthesis is not closed"),
        ("site=berlin)", 12, "this parenthesis was not opened"),
        (
            "(site=berlin site)",
            14,
            "'and', 'or' or ')' is expected before \"site\"",
        ),
        ("model=\"x", 7, "this quote is not closed"),
        ("ärger=1", 1, "there is no attribute \"ärger\""),
        ("model=ä and !", 13, "'!' means nothing here"),
        ("site in berlin", 9, "'(' is expected after 'in'"),
        ("site in (a b)", 12, "',' or ')' is expected in this list"),
        ("site in ()", 10, "a value is expected instead of ')'"),
        ("label.=3", 1, "there is no attribute \"label.\""),
        ("site=<", 6, "a value is expected instead of '<'"),
    ];
    for (text, column, why) in rows {
        let found = text.parse::<Filter>();
        match why {
            // `and` is a value behind a sign of equality, and then the filter goes on without an end
            "" => assert!(found.is_ok(), "{text}"),
            _ => {
                let found = found.unwrap_err();
                assert_eq!(found.column, column, "{text}: {found}");
                assert!(found.why.starts_with(why), "{text}: {found}");
                assert!(found.to_string().starts_with(&format!("column {column}: ")));
            }
        }
    }
}

#[test]
fn length_and_depth_are_bounded() {
    let long = |bytes: usize| format!("site={}", "x".repeat(bytes - 5)).parse::<Filter>();
    assert!(long(FILTER_MAX_BYTES).is_ok());
    let error = long(FILTER_MAX_BYTES + 1).unwrap_err();
    assert_eq!(error.column, FILTER_MAX_BYTES + 1);
    for (open, close) in [("(", ")"), ("not ", "")] {
        let deep =
            |n: usize| format!("{}site{}", open.repeat(n), close.repeat(n)).parse::<Filter>();
        assert!(deep(FILTER_DEPTH_MAX - 1).is_ok());
        let error = deep(FILTER_DEPTH_MAX).unwrap_err();
        assert!(error.why.contains("inside each other"), "{error}");
        assert_eq!(error.column, FILTER_DEPTH_MAX * open.len() + 1);
    }
}

#[test]
fn whoever_cannot_read_a_filter_refuses_what_it_stands_in() {
    let read = |json: &str| serde_json::from_str::<Filter>(json);
    assert_eq!(
        read("\"site = berlin\"").unwrap().to_string(),
        "site=berlin"
    );
    assert!(
        read("\"os.nam=1\"")
            .unwrap_err()
            .to_string()
            .contains("column 1")
    );
    assert!(read("7").is_err());
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("site".to_owned()),
        Just("os.version".to_owned()),
        "label\\.[a-z0-9_.:/-]{1,8}",
        "driver\\.[a-z0-9_]{1,8}",
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9.]{1,6}",
        "\\PC{0,6}",
        "[ \\\\\"(),=!<>\\n]{0,4}",
        Just("and".to_owned())
    ]
}

fn op() -> impl Strategy<Value = Op> {
    use Op::*;
    proptest::sample::select(vec![Equal, Unequal, Below, AtMost, Above, AtLeast])
}

fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        name().prop_map(Expr::Has),
        (name(), op(), value()).prop_map(|(n, o, v)| Expr::Is(n, o, v)),
        (name(), proptest::collection::vec(value(), 1..4)).prop_map(|(n, v)| Expr::In(n, v)),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Expr::Any),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Expr::All),
            inner.prop_map(|e| Expr::Not(Box::new(e))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_printed_reads_as_the_same(expr in expr()) {
        let filter = Filter(expr);
        let text = filter.to_string();
        prop_assume!(text.len() <= FILTER_MAX_BYTES);
        prop_assert_eq!(text.parse::<Filter>(), Ok(filter), "{}", text);
    }

    #[test]
    fn foreign_text_is_a_filter_or_pointed_at(text in "\\PC{0,60}") {
        if let Err(e) = text.parse::<Filter>() {
            prop_assert!((1..=text.chars().count() + 1).contains(&e.column));
        }
    }

    #[test]
    fn pieces_of_filters_in_any_order_break_nothing(
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "site", "os.name", "label.x", "=", "!=", "<", "in", "(", ")", ",", "and", "or", "not", "\"", "\\", "x", " ",
        ]), 0..40),
    ) {
        let text = pieces.join(" ");
        match text.parse::<Filter>() {
            Ok(filter) => {
                let again = filter.to_string();
                prop_assert_eq!(again.parse::<Filter>(), Ok(filter), "{}", again);
            }
            Err(e) => prop_assert!((1..=text.chars().count() + 1).contains(&e.column)),
        }
    }

    #[test]
    fn orderings_are_orders(one in "[a-c0-2.]{0,5}", two in "[a-c0-2.]{0,5}", three in "[a-c0-2.]{0,5}") {
        prop_assert_eq!(version_order(&one, &two), version_order(&two, &one).reverse());
        if version_order(&one, &two).is_le() && version_order(&two, &three).is_le() {
            prop_assert!(version_order(&one, &three).is_le());
        }
    }
}
