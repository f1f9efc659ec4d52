//! The short form in which statements cross a wire or lie on a disk.
//!
//! What is signed is JSON, and most of that is the same in every statement: the names of its fields,
//! and hashes and keys written as text, which take twice their bytes. The short form says a known
//! run of text in one byte, 32 bytes of hex or base32 as 32 bytes, a number as a number, and anything
//! else as it is; unpacking gives back exactly the bytes that were signed. It knows nothing of JSON:
//! whatever is packed comes back.
//!
//! A short form is a byte that says which form follows, then the bytes as they are, or tokens:
//!
//! | token | stands for |
//! |---|---|
//! | 0, n, n bytes | these bytes |
//! | 1, 32 bytes | these bytes as 64 hex digits |
//! | 2, 32 bytes | these bytes as 52 characters of base32 |
//! | 3, a number (LEB128) | the number as decimal digits |
//! | 32 to 126 | itself |
//! | 128 and above | a word of the list below |

use crate::ids::{Hash, NodeId};
use crate::limits::TERSE_GROWTH_MAX;

const AS_IT_IS: u8 = 0;
const TOKENS: u8 = 1;

const RUN: u8 = 0;
const HEX: u8 = 1;
const BASE32: u8 = 2;
const NUMBER: u8 = 3;
const WORD: u8 = 128;

/// Text that one byte stands for. The place of a word is part of the format: new ones go to the end.
const WORDS: [&str; 119] = [
    // heads, orders, receipts
    "{\"spec_version\":1,\"fleet\":\"",
    "\",\"seq\":{\"epoch\":",
    ",\"n\":",
    "},\"issued\":",
    ",\"body\":{\"kind\":\"",
    "go_lease\",\"rollout\":\"",
    "halt\",\"rollout\":\"",
    "resume\",\"rollout\":\"",
    "recall\",\"rollout\":\"",
    "bulletin\",\"expires\":",
    "\",\"plan\":\"",
    "\",\"wave\":",
    ",\"not_after\":",
    "\",\"reason\":\"",
    ",\"root_version\":",
    ",\"topology\":\"",
    ",\"topology\":null",
    "\",\"revocations\":",
    ",\"revocations\":",
    ",\"rollouts\":[",
    "{\"rollout\":\"",
    "\",\"release\":\"",
    "\",\"last_order\":{\"epoch\":",
    "],\"ledger_head\":\"",
    "\",\"origins\":[",
    "{\"node\":\"",
    "\",\"control\":[\"",
    "/ip4/",
    "/ip6/",
    "/udp/",
    "/tcp/",
    "/quic-v1",
    "\"],\"data\":\"",
    "\"],\"data\":null",
    "],\"coordinators\":[",
    "\",\"statement\":{\"payloadType\":\"",
    "application/vnd.tidegate.",
    "+json",
    "\",\"payload\":\"",
    "\",\"signatures\":[{\"keyid\":\"",
    "\",\"sig\":\"",
    "\"},{\"keyid\":\"",
    "\",\"marks\":[",
    "\",\"rollout\":\"",
    "}},{\"node\":\"",
    "}},{\"rollout\":\"",
    // plans
    "\",\"plan_version\":",
    ",\"release\":\"",
    "\",\"product\":\"",
    "\",\"version\":\"",
    "\",\"proposer\":\"",
    "\",\"priority\":\"",
    "medium",
    "emergency",
    "\",\"salt\":\"",
    "\",\"targets\":{\"sites\":[",
    "],\"exclusions\":[",
    "]},\"waves\":[{\"name\":\"",
    "\",\"members\":{\"nodes\":[\"",
    "\",\"members\":{\"position_below\":",
    "\",\"members\":{\"site\":\"",
    "\",\"members\":\"rest\",\"not_before\":",
    "\"]},\"not_before\":",
    "\"},\"not_before\":",
    "},\"not_before\":",
    ",\"gate\":{\"min_success_ppm\":",
    ",\"min_sample\":",
    ",\"soak\":",
    ",\"silence_after\":",
    "}},{\"name\":\"",
    "}}],\"lease_ttl\":",
    ",\"created\":",
    "\",\"created\":",
    // releases
    "\",\"release_counter\":",
    ",\"vendor_severity\":\"",
    "\",\"artifacts\":[{\"os\":\"",
    "\",\"arch\":\"",
    "\",\"index\":{\"root\":\"",
    "\",\"length\":",
    "},\"pack\":{\"root\":\"",
    "},\"carriers\":[{\"kind\":\"",
    "full\",\"blob\":{\"root\":\"",
    "}},{\"kind\":\"",
    "delta\",\"base\":{\"root\":\"",
    "},\"blob\":{\"root\":\"",
    "}}],\"group_log2\":4,\"disk_bytes\":",
    "}],\"install\":{\"type\":\"",
    "tree\"},\"health_check\":",
    "command\",\"steps\":[[\"",
    "\"]],\"detect\":[\"",
    "\"],\"undo\":[",
    "],\"expected_exit_codes\":[",
    "],\"max_run_time\":",
    "},\"health_check\":",
    "{\"argv\":[\"",
    "\"],\"soak\":",
    ",\"attempts\":",
    ",\"timeout\":",
    "},\"created\":",
    ",\"expires\":",
    "null",
    "x86_64",
    "aarch64",
    "linux",
    "moderate",
    "},{\"os\":\"",
    // topologies
    "\",\"version\":",
    ",\"sites\":[{\"id\":\"",
    "\",\"subnets\":[\"",
    "\"],\"parent\":null,\"wan_down_bytes_per_s\":",
    "\"],\"parent\":\"",
    "\",\"wan_down_bytes_per_s\":",
    ",\"wan_up_bytes_per_s\":",
    "},{\"id\":\"",
    // between them all
    "\",\"",
    "\":\"",
    "\"],[\"",
    "}}",
    "\"}",
];

/// The short form of `bytes`; at most one byte longer than they are.
pub fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![TOKENS];
    let mut at = 0;
    while at < bytes.len() {
        at += token(bytes, at, &mut out);
    }
    if out.len() <= bytes.len() && bytes.len() <= grown(out.len()) {
        return out;
    }
    let mut out = vec![AS_IT_IS];
    out.extend_from_slice(bytes);
    out
}

/// The bytes of a short form; `None` if it is none, or stands for more than `max_bytes`.
pub fn unpack(short: &[u8], max_bytes: usize) -> Option<Vec<u8>> {
    let max_bytes = max_bytes.min(grown(short.len()));
    let (form, mut rest) = short.split_first()?;
    if *form == AS_IT_IS {
        return (rest.len() <= max_bytes).then(|| rest.to_vec());
    }
    if *form != TOKENS {
        return None;
    }
    let mut out = Vec::new();
    while let Some((token, after)) = rest.split_first() {
        rest = after;
        match *token {
            RUN => {
                let (length, after) = rest.split_first()?;
                let (run, after) = after.split_at_checked(usize::from(*length))?;
                out.extend_from_slice(run);
                rest = after;
            }
            HEX | BASE32 => {
                let (value, after) = rest.split_first_chunk::<32>()?;
                let text = match *token {
                    HEX => Hash(*value).to_string(),
                    _ => NodeId(*value).to_string(),
                };
                out.extend_from_slice(text.as_bytes());
                rest = after;
            }
            NUMBER => {
                let (number, after) = postcard::take_from_bytes::<u64>(rest).ok()?;
                out.extend_from_slice(number.to_string().as_bytes());
                rest = after;
            }
            32..=126 => out.push(*token),
            WORD.. => {
                let word = WORDS.get(usize::from(*token - WORD))?;
                out.extend_from_slice(word.as_bytes());
            }
            _ => return None,
        }
        if out.len() > max_bytes {
            return None;
        }
    }
    Some(out)
}

/// The most that a short form of so many bytes may stand for.
fn grown(short: usize) -> usize {
    short.saturating_mul(TERSE_GROWTH_MAX)
}

/// Writes one token for what stands at `at`, and returns how much that is.
fn token(bytes: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let rest = &bytes[at..];
    let before = at.checked_sub(1).map(|before| bytes[before]);
    if before == Some(b'"')
        && let Some((kind, value, length)) = key(rest)
    {
        out.push(kind);
        out.extend_from_slice(&value);
        return length;
    }
    if !before.is_some_and(|b| b.is_ascii_digit())
        && let Some((number, length)) = number(rest)
    {
        out.push(NUMBER);
        out.extend_from_slice(&number);
        return length;
    }
    let fits = |(_, word): &(usize, &&str)| rest.starts_with(word.as_bytes());
    let words = WORDS.iter().enumerate().filter(fits);
    if let Some((place, word)) = words.max_by_key(|(_, word)| word.len()) {
        out.push(WORD + place as u8);
        return word.len();
    }
    let plain = |b: &u8| (32..=126).contains(b);
    if plain(&rest[0]) {
        out.push(rest[0]);
        return 1;
    }
    let run = rest.iter().take(usize::from(u8::MAX));
    let length = run.take_while(|b| !plain(b)).count();
    out.extend_from_slice(&[RUN, length as u8]);
    out.extend_from_slice(&rest[..length]);
    length
}

/// A hash or a key at the head of `rest`: its token, its bytes and the length of its text.
fn key(rest: &[u8]) -> Option<(u8, [u8; 32], usize)> {
    let text = |length| core::str::from_utf8(rest.get(..length)?).ok();
    if let Some(hash) = text(64).and_then(|text| text.parse::<Hash>().ok()) {
        return Some((HEX, hash.0, 64));
    }
    let node = text(52)?.parse::<NodeId>().ok()?;
    Some((BASE32, node.0, 52))
}

/// A number at the head of `rest`, if its short form is shorter: that, and the length of its text.
fn number(rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    let length = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let number: u64 = core::str::from_utf8(&rest[..length]).ok()?.parse().ok()?;
    let short = postcard::to_stdvec(&number).ok()?;
    let same = number.to_string().len() == length;
    (same && 1 + short.len() < length).then_some((short, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fleet, node};
    use crate::trust::Statement;
    use proptest::prelude::*;

    fn there_and_back(bytes: &[u8]) -> usize {
        let short = pack(bytes);
        assert_eq!(unpack(&short, bytes.len()).as_deref(), Some(bytes));
        assert!(short.len() <= bytes.len() + 1);
        short.len()
    }

    #[test]
    fn statements_take_the_bytes_of_what_they_name() {
        let fleet = Fleet::new(1);
        let release = fleet.verified(&fleet.release("app", "1.2.3", 1));
        let nodes: Vec<_> = (1..=50).map(node).collect();
        let plan = fleet.verified(&fleet.plan("rollout-1", &release, nodes));
        let order = fleet.order(9, fleet.lease(&plan, 1));
        let bulletin = fleet.bulletin(None, &[(&plan, 1)]).to_owned();
        let bulletin = fleet.order(10, crate::orders::OrderBody::Bulletin(bulletin));
        let topology = fleet.topology(3, 40);
        for (payload, most) in [
            (&order.envelope().payload, 110),
            (&bulletin.envelope().payload, 350),
            (&plan.envelope().payload, 50 * 34 + 350),
            (&release.envelope().payload, 270),
            (&topology.to_envelope().payload, 40 * 30 + 100),
        ] {
            let short = there_and_back(payload);
            let text = String::from_utf8_lossy(payload);
            assert!(short <= most, "{short} bytes for {text}");
        }
    }

    #[test]
    fn no_two_words_are_the_same_and_every_one_comes_back() {
        let mut words = WORDS.to_vec();
        words.sort_unstable();
        assert!(words.windows(2).all(|w| w[0] != w[1]));
        assert!(WORDS.len() <= usize::from(u8::MAX - WORD) + 1);
        for word in WORDS {
            assert!(word.bytes().all(|b| (32..=126).contains(&b)), "{word}");
            there_and_back(word.as_bytes());
        }
    }

    #[test]
    fn what_only_looks_like_a_key_or_a_number_comes_back_as_it_was() {
        for text in [
            "\"0000\",0001,12345678901234567890123,18446744073709551615,18446744073709551616",
            &format!("\"{}\"", "f".repeat(63)),
            &format!("\"{}\"", "F".repeat(64)),
            &format!("\"{}\"", "7".repeat(52)),
            &format!("\"{}\"", "a".repeat(200)),
            "grüße\u{0}\u{7f} ✓",
            "",
        ] {
            there_and_back(text.as_bytes());
        }
    }

    #[test]
    fn a_short_form_stands_for_little_more_than_it_takes() {
        let bomb = [vec![TOKENS], vec![WORD; 10_000]].concat();
        assert_eq!(unpack(&bomb, usize::MAX), None);
        let text = WORDS[0].repeat(10_000);
        there_and_back(text.as_bytes());
        assert_eq!(unpack(&pack(b"{\"spec_version\":1,"), 5), None);
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(parts in prop::collection::vec((0..150usize, any::<Vec<u8>>(), any::<u64>()), 0..12)) {
            let mut bytes = Vec::new();
            for (word, noise, number) in parts {
                bytes.extend_from_slice(WORDS.get(word).map_or(&noise[..], |w| w.as_bytes()));
                bytes.extend_from_slice(number.to_string().as_bytes());
            }
            there_and_back(&bytes);
        }

        #[test]
        fn no_bytes_break_it(noise in any::<Vec<u8>>()) {
            for form in [AS_IT_IS, TOKENS] {
                let short = [&[form], &noise[..]].concat();
                if let Some(bytes) = unpack(&short, 1 << 20) {
                    there_and_back(&bytes);
                }
            }
        }
    }
}
