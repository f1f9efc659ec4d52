//! What the fleet stands on and ends some day: when to warn of it, and what is to be done.

use protocol::{Span, Time};

const DAY: Span = Span::from_secs(86_400);
/// A root is signed by people who sit together soon.
const ROOT_WARNED: u64 = 30;
/// Another CA takes a root, and nodes that are away for long have to come by before the old one ends; an
/// enterprise's CA takes its time to sign.
const CA_WARNED: u64 = 90;

/// What ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The newest root.
    Root,
    /// The issuing CA in use.
    IssuingCa {
        /// What people call it.
        name: String,
        /// Whether an enterprise's CA signed it.
        enterprise: bool,
    },
    /// What stands above the issuing CA in use, up to the enterprise's root.
    AboveCa {
        /// What people call the issuing CA.
        name: String,
    },
}

impl Ending {
    /// A warning with the next step, if `ends` is near or over; one line.
    pub fn warning(&self, ends: Time, now: Time) -> Option<String> {
        let warned = match self {
            Ending::Root => ROOT_WARNED,
            Ending::IssuingCa { .. } | Ending::AboveCa { .. } => CA_WARNED,
        };
        let days = |span: Span| span.as_millis() / DAY.as_millis();
        let left = days(ends.since(now));
        if left >= warned {
            return None;
        }
        let when = match ends <= now {
            true => format!("ended {} days ago", days(now.since(ends))),
            false => format!("ends in {left} days"),
        };
        let step = match self {
            Ending::Root => {
                "sign the next one (`tidegate root rotate`); an expired root stops new installs"
            }
            Ending::IssuingCa {
                enterprise: false, ..
            } => {
                "make the next one (`tidegate root issuing-ca --out FILE`) and name it in the root (`tidegate root rotate --add ca=FILE`)"
            }
            Ending::IssuingCa { .. } | Ending::AboveCa { .. } => {
                "have the next one signed (`tidegate root issuing-ca --csr FILE`, then `--signed CHAIN --out FILE`) and name it in the root (`tidegate root rotate --add ca=FILE`)"
            }
        };
        let what = match self {
            Ending::Root => "the root".to_owned(),
            Ending::IssuingCa { name, .. } => format!("issuing CA {name}"),
            Ending::AboveCa { name } => format!("what the enterprise put above issuing CA {name}"),
        };
        Some(format!("{what} {when}: {step}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(2_000_000_000);

    fn days(n: u64) -> Span {
        Span::from_secs(n * 86_400)
    }

    #[test]
    fn each_is_warned_of_in_time_and_not_before_with_the_next_step() {
        let ca = |enterprise| Ending::IssuingCa {
            name: "00ff".into(),
            enterprise,
        };
        let above = Ending::AboveCa {
            name: "00ff".into(),
        };
        let rows = [
            (Ending::Root, 30, "root rotate"),
            (ca(false), 90, "issuing-ca --out"),
            (ca(true), 90, "issuing-ca --csr"),
            (above, 90, "issuing-ca --csr"),
        ];
        for (ending, warned, step) in rows {
            assert_eq!(ending.warning(NOW + days(warned), NOW), None, "{ending:?}");
            let near = ending.warning(NOW + days(warned) - Span(1), NOW).unwrap();
            let left = format!("ends in {} days", warned - 1);
            assert!(near.contains(&left) && near.contains(step), "{near}");
            let over = ending.warning(NOW - days(3), NOW).unwrap();
            assert!(
                over.contains("ended 3 days ago") && over.contains(step),
                "{over}"
            );
            assert!(!over.contains('\n'));
        }
    }
}
