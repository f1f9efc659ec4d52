//! Bytes of every format that crosses a wire or a disk, committed under `golden/`: this program still
//! reads them, and still writes them the same. And no decoder falls over what is made of them by chance.
//!
//! A change here is a change of a format: raise its version and keep reading the old one. For a new format,
//! add a sample in `samples.rs` and run the test once with `TIDEGATE_BLESS=1`, which writes files that are
//! missing and never touches one that is there.

#[path = "support/samples.rs"]
mod samples;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use samples::{Sample, samples};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[test]
fn committed_bytes_are_read_and_written_as_ever() {
    for Sample {
        file, bytes, again, ..
    } in samples()
    {
        let path = directory().join(&file);
        if !path.exists() && std::env::var_os("TIDEGATE_BLESS").is_some() {
            fs::write(&path, &bytes).unwrap();
        }
        let golden =
            fs::read(&path).unwrap_or_else(|e| panic!("{file}: {e}; see the head of this file"));
        assert!(bytes == golden, "{file}: what is written has changed");
        let again = again(&golden).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(
            again == golden,
            "{file}: it reads as something else than it was"
        );
    }
}

#[test]
fn no_golden_file_is_left_without_its_sample() {
    let known: BTreeSet<String> = samples().into_iter().map(|sample| sample.file).collect();
    for entry in fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            known.contains(&name),
            "{name}: an old format must still be read"
        );
    }
}

/// The rule that makes the others worth something: a new format cannot be forgotten here.
#[test]
fn every_format_has_a_sample() {
    let known: BTreeSet<String> = samples()
        .into_iter()
        .map(|sample| sample.file.split('.').next().unwrap().to_owned())
        .collect();
    let mut formats = BTreeSet::new();
    let mut paths = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        for start in ["impl Versioned for ", "impl Statement for "] {
            let names = text
                .split(start)
                .skip(1)
                .map(|rest| rest.split([' ', '{']).next().unwrap());
            formats.extend(names.map(str::to_owned));
        }
    }
    assert!(formats.len() > 12, "{formats:?}");
    let missing: Vec<_> = formats.difference(&known).collect();
    assert!(missing.is_empty(), "{missing:?} have no golden bytes");
}

#[test]
fn mutated_bytes_are_refused_or_read_and_never_break_a_decoder() {
    let random = |seed: u64| {
        let mut out = [0u8; 64];
        blake3::Hasher::new()
            .update(&seed.to_le_bytes())
            .finalize_xof()
            .fill(&mut out);
        out
    };
    for Sample {
        file, bytes, again, ..
    } in samples()
    {
        let mut refused = 0;
        for seed in 0..1_500u64 {
            let noise = random(seed);
            let number =
                |i: usize| u64::from_le_bytes(noise[i * 8..i * 8 + 8].try_into().unwrap()) as usize;
            let mut input = bytes.clone();
            for step in 0..1 + number(0) % 3 {
                let at = number(1 + step) % input.len().max(1);
                match number(4 + step) % 7 {
                    0 => input.truncate(at),
                    1 => input.insert(at.min(input.len()), noise[60]),
                    2 if at < input.len() => input[at] = noise[61],
                    3 if at < input.len() => input[at] = 0xff,
                    4 => input.extend_from_slice(&noise[..9]),
                    5 if at < input.len() => drop(input.drain(at..(at + 7).min(input.len()))),
                    _ if at < input.len() => input[at] ^= 1 << (noise[62] % 8),
                    _ => {}
                }
            }
            match again(&input) {
                Err(_) => refused += 1,
                // What was accepted means one thing: its own writing reads as the same.
                Ok(once) => assert!(again(&once).as_ref() == Ok(&once), "{file}, seed {seed}"),
            }
        }
        assert!(refused > 300, "{file}: only {refused} of 1500 were refused");
    }
}

#[test]
fn every_prefix_and_every_longer_form_of_a_binary_format_is_refused() {
    for Sample {
        file, bytes, again, ..
    } in samples().into_iter().filter(|s| s.file.ends_with(".bin"))
    {
        for end in (0..bytes.len()).step_by(1 + bytes.len() / 500) {
            assert!(again(&bytes[..end]).is_err(), "{file} cut at {end}");
        }
        assert!(
            again(&[&bytes[..], &[0]].concat()).is_err(),
            "{file} with one byte more"
        );
        let mut other = bytes.clone();
        other[4] += 1;
        assert!(
            again(&other).unwrap_err().contains("version"),
            "{file} of another version"
        );
        other[0] ^= 1;
        assert!(
            again(&other).unwrap_err().contains("not a"),
            "{file} with another magic"
        );
    }
}

#[test]
fn texts_over_their_limit_are_refused_unread() {
    for Sample {
        file,
        limit,
        again,
        bytes,
    } in samples()
    {
        let Some(limit) = limit else { continue };
        let mut long = bytes.clone();
        long.resize(limit + 1, b' ');
        let error = again(&long).unwrap_err();
        assert!(error.contains("limit"), "{file}: {error}");
    }
}

#[test]
fn json_with_a_key_twice_is_refused() {
    for Sample {
        file, bytes, again, ..
    } in samples().into_iter().filter(|s| s.file.ends_with(".json"))
    {
        let text = String::from_utf8(bytes).unwrap();
        let first = text
            .trim_start_matches('{')
            .split(':')
            .next()
            .unwrap()
            .to_owned();
        let twice = text.replacen('{', &format!("{{{first}:null,"), 1);
        assert!(again(twice.as_bytes()).is_err(), "{file}: {twice}");
    }
}

#[test]
fn json_nested_without_end_is_refused() {
    for Sample { file, again, .. } in samples().into_iter().filter(|s| s.file.ends_with(".json")) {
        let deep = "[".repeat(100_000);
        assert!(again(deep.as_bytes()).is_err(), "{file}");
        let deep = "{\"signatures\":".repeat(30_000);
        assert!(again(deep.as_bytes()).is_err(), "{file}");
    }
}
