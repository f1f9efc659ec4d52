//! Whether links of a tree lead out of it when they are followed one through another.
//!
//! `protocol::index::check_link` judges a link by its text. That is not enough: with `a/b/top` leading
//! to `../..`, the text `top/../etc` of a link beside it stays inside while its meaning does not.

use std::collections::BTreeMap;

use protocol::index::{Entry, EntryKind};

/// Links followed while one is resolved; Linux gives up at 40 too.
const HOPS_MAX: u32 = 40;

/// The first link that leads out of the tree, and a word on it. Links to nothing and links in a circle stay.
pub(super) fn escaping_link(entries: &[Entry]) -> Option<(&str, &'static str)> {
    let links: BTreeMap<&str, &str> = entries
        .iter()
        .filter_map(|entry| match &entry.kind {
            EntryKind::Link { target } => Some((entry.path.as_str(), target.as_str())),
            _ => None,
        })
        .collect();
    links
        .keys()
        .find(|path| escapes(&links, path))
        .map(|path| (*path, "it leads out of the tree by way of another link"))
}

fn escapes(links: &BTreeMap<&str, &str>, path: &str) -> bool {
    let mut at: Vec<&str> = Vec::new();
    let mut ahead: Vec<&str> = path.rsplit('/').collect();
    let mut hops = 0;
    while let Some(part) = ahead.pop() {
        match part {
            "" | "." => {}
            ".." => {
                if at.pop().is_none() {
                    return true;
                }
            }
            _ => {
                at.push(part);
                if let Some(target) = links.get(at.join("/").as_str()) {
                    hops += 1;
                    if hops > HOPS_MAX {
                        return false;
                    }
                    at.pop();
                    ahead.extend(target.rsplit('/'));
                }
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(list: &[(&str, &str)]) -> Vec<Entry> {
        list.iter()
            .map(|(path, target)| Entry {
                path: (*path).into(),
                kind: EntryKind::Link {
                    target: (*target).into(),
                },
            })
            .collect()
    }

    #[test]
    fn a_link_through_a_link_is_followed() {
        let check = |list: &[(&str, &str)], expected: Option<&str>| {
            assert_eq!(
                escaping_link(&links(list)).map(|(path, _)| path),
                expected,
                "{list:?}"
            );
        };
        check(
            &[("a/b/top", "../.."), ("a/b/x", "top/../etc")],
            Some("a/b/x"),
        );
        check(&[("a/b/top", "../.."), ("a/b/x", "top/etc")], None);
        check(&[("a/up", ".."), ("a/x", "up/up/..")], None);
        check(&[("a/up", ".."), ("a/x", "up/a/up/..")], Some("a/x"));
        check(&[("x", "y"), ("y", "x")], None);
        check(&[("x", "nowhere/at/all")], None);
        check(&[("x", "..")], Some("x"));
    }
}
