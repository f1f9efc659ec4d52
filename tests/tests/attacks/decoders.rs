//! Every decoder that meets foreign bytes, fed with ten thousand damages of its committed golden bytes.
//! The bytes are the corpus: a new format has a sample there, or its package's tests fail.

use std::collections::BTreeMap;
use std::path::Path;

use node::net::identity::Admission;
use node::net::identity::issue::{IssuingCa, Validity};
use protocol::Time;
use protocol::envelope::Envelope;
use protocol::fixtures::{Fleet, key, node};
use protocol::trust::Role;
use rustls::pki_types::CertificateDer;
use tidegate_tests::decoders::DECODERS;

use crate::mutations::Mutations;
use crate::samples::{Sample, samples};

/// Cases for each decoder.
const DAMAGES: usize = 10_000;

/// Committed bytes of a type, each with its file's name.
pub fn golden(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/tests/golden");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)
        .expect("the golden bytes")
        .flatten()
    {
        let file = entry.file_name().into_string().expect("a name");
        if file.split('.').next() == Some(name) {
            found.push((file, std::fs::read(entry.path()).expect("readable")));
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{name} has golden bytes");
    found
}

#[test]
fn attack_28_parser_input() {
    let mut by_type: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
    for sample in samples() {
        let name = sample.file.split('.').next().unwrap_or_default().to_owned();
        by_type.entry(name).or_default().push(sample);
    }
    assert!(by_type.len() > 20, "{:?}", by_type.keys());
    for (name, samples) in by_type {
        let mut mutations = Mutations::new(28);
        let (mut refused, mut longest) = (0, 0);
        for case in 0..DAMAGES {
            let sample = &samples[case % samples.len()];
            let bytes = mutations.of(&sample.bytes);
            match (sample.again)(&bytes) {
                Err(_) => refused += 1,
                Ok(again) => {
                    longest = longest.max(again.len());
                    let twice = (sample.again)(&again);
                    assert_eq!(twice.as_ref(), Ok(&again), "{name}: it means one thing");
                }
            }
        }
        assert!(
            refused > DAMAGES / 4,
            "{name}: {refused} of {DAMAGES} were refused"
        );
        let most = samples.iter().map(|s| s.bytes.len()).max().unwrap_or(0);
        assert!(
            longest <= 64 * most + 4096,
            "{name}: {most} bytes became {longest}"
        );
    }
}

/// What the fuzzers call and start from, as a plain test; what they find is kept there.
#[test]
fn attack_28_parser_input_corpus() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, decode) in DECODERS {
        let target = corpora.join(format!("../fuzz_targets/{name}.rs"));
        assert!(target.exists(), "{name} has no target");
        let mut seeds = Vec::new();
        for entry in std::fs::read_dir(corpora.join(name)).expect("a corpus") {
            let path = entry.expect("readable").path();
            seeds.push((path.clone(), std::fs::read(path).expect("readable")));
        }
        seeds.sort();
        for (path, seed) in &seeds {
            let found = path
                .file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("found-"));
            assert!(decode(seed) || found, "{} is not taken", path.display());
        }
        let mut mutations = Mutations::new(328);
        let refused = (0..DAMAGES)
            .filter(|case| !decode(&mutations.of(&seeds[case % seeds.len()].1)))
            .count();
        assert!(refused > DAMAGES / 8, "{name}: {refused} of {DAMAGES}");
    }
}

#[test]
fn attack_28_parser_input_nested_and_doubled() {
    let deep = |open: &str, close: &str| open.repeat(100_000) + &close.repeat(100_000);
    let json = [
        deep("[", "]"),
        deep("{\"a\":", "}"),
        "{\"payloadType\":\"a\",\"payloadType\":\"b\",\"payload\":\"\",\"signatures\":[]}".into(),
        "{\"payloadType\":\"a\",\"payload\":\"\",\"signatures\":[],\"more\":1}".into(),
        "\u{feff}{}".into(),
        "{\"payload\":\"".to_owned() + &"A".repeat(1 << 20),
    ];
    for text in json {
        assert!(
            Envelope::from_json(text.as_bytes()).is_err(),
            "{:.40}",
            text
        );
    }
    for (file, bytes) in golden("Root") {
        let text = String::from_utf8(bytes).expect("JSON");
        let doubled = text.replacen('{', "{\"spec_version\":1,", 1);
        assert!(
            serde_json::from_str::<protocol::trust::Root>(&doubled).is_err(),
            "{file}"
        );
    }
}

/// A root chain is the one decoder whose input is believed before anything else is.
#[test]
fn attack_28_parser_input_root() {
    let mut fleet = Fleet::new(1);
    let before = fleet.trust().clone();
    let next = fleet
        .rotate(&[Role::Coordinator, Role::Root])
        .envelope()
        .clone();
    let json = next.to_json();
    let mut mutations = Mutations::new(128);
    for case in 0..DAMAGES {
        let bytes = match case % 2 {
            0 => mutations.of(&json),
            _ => {
                let payload = mutations.of(&next.payload);
                Envelope {
                    payload,
                    ..next.clone()
                }
                .to_json()
            }
        };
        let Ok(envelope) = Envelope::from_json(&bytes) else {
            continue;
        };
        let mut trust = before.clone();
        if trust.update(envelope).is_ok() {
            assert_eq!(trust.root().digest(), next.digest(), "case {case}");
        } else {
            assert_eq!(trust, before, "case {case}: nothing half-believed");
        }
    }
}

#[test]
fn attack_28_parser_input_certificate() {
    let validity = Validity {
        not_before: Time::from_secs(1_500_000_000),
        not_after: Time::from_secs(4_000_000_000),
    };
    let ca = IssuingCa::create("ca", &key("ca", 1), validity).expect("an authority");
    let admission = Admission::new(vec![ca.certificate().clone()]).expect("sound");
    let leaf = ca.node(node(1), 1, validity).expect("a certificate");
    assert_eq!(admission.admit(std::slice::from_ref(&leaf)), Ok(node(1)));
    let list = ca.revoke(&[7], 1, validity).expect("a list");
    let mut mutations = Mutations::new(228);
    for case in 0..DAMAGES {
        let bad = CertificateDer::from(mutations.of(&leaf));
        assert!(admission.admit(&[bad]).is_err(), "case {case}");
        let _ = Admission::new(vec![CertificateDer::from(mutations.of(ca.certificate()))]);
        assert!(
            admission.set_revocations(&mutations.of(&list)).is_err(),
            "case {case}"
        );
    }
    assert_eq!(
        admission.admit(&[leaf]),
        Ok(node(1)),
        "nobody was revoked by noise"
    );
}
