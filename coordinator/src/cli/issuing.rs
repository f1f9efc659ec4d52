//! `root issuing-ca`, and what `root` says of issuing CAs.

use std::path::Path;

use anyhow::{Context, bail};
use coordinator_core::endings::Ending;
use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use node::config::write_durably;
use node::net::identity::issue::{
    IssuingCa as Issuer, Validity, is_signed_by_another, last_moment,
};
use node::net::identity::{chain, load_key, save_key};
use protocol::Time;
use protocol::limits::ISSUING_CAS_MAX;
use protocol::trust::Root;
use rustls::pki_types::CertificateDer;

use super::args::trust::IssuingCa;
use super::output;
use crate::directory::{Directory, Settings};
use crate::init::{CA_LIFE, SKEW, wall};
use crate::keys;
use crate::serve::issuing::short;

/// Makes the next CA's key at the coordinator, and its certificate: by itself, or by an enterprise's CA in
/// two steps.
pub(super) fn make(ask: &IssuingCa) -> anyhow::Result<()> {
    let directory = Directory::new(&ask.dir);
    let settings = directory.settings()?;
    let place = directory.next_ca_certificate_file();
    if place.exists() {
        bail!(
            "{} is there already; publish the root that names it, or remove it",
            place.display()
        );
    }
    let key_file = directory.next_ca_key_file();
    let asked_for = key_file.exists().then(|| load_key(&key_file)).transpose()?;
    if let Some(csr) = &ask.csr {
        // Asked once more, it is the same.
        let key = asked_for.unwrap_or_else(keys::generate);
        let request = Issuer::request(&ca_name(&settings, &key), &key)?;
        save_key(&key_file, &key)?;
        write_durably(csr, request.as_bytes(), 0o644)?;
        return output::line(&format!(
            "next   have {} signed by the enterprise's CA, as a CA with path length 0, and bring the chain with --signed",
            csr.display()
        ));
    }
    let now = wall();
    let (key, ca) = match (&ask.signed, asked_for) {
        (None, None) => {
            let key = keys::generate();
            let validity = Validity {
                not_before: now - SKEW,
                not_after: now + CA_LIFE,
            };
            let ca = Issuer::create(&ca_name(&settings, &key), &key, validity)?;
            (key, ca)
        }
        (None, Some(_)) => bail!(
            "a certificate was asked for by a request: bring it with --signed, or remove {}",
            key_file.display()
        ),
        (Some(_), None) => bail!("nothing was asked for; write a request with --csr first"),
        (Some(signed), Some(key)) => {
            let pem = std::fs::read(signed).with_context(|| signed.display().to_string())?;
            let ca = chain::accept(&pem, &key, now, settings.certificate_life());
            let ca = ca.with_context(|| signed.display().to_string())?;
            write_durably(&directory.next_ca_chain_file(), &pem, 0o644)?;
            (key, ca)
        }
    };
    let out = ask.out.as_deref().context("--out is missing")?;
    // The certificate comes last: with it the next CA is whole.
    save_key(&key_file, &key)?;
    write_durably(out, ca.certificate(), 0o644)?;
    write_durably(&place, ca.certificate(), 0o644)?;
    output::line(&format!(
        "next   tidegate root rotate --add ca={}",
        out.display()
    ))
}

/// Told from those before and after it.
fn ca_name(settings: &Settings, key: &SigningKey) -> String {
    format!("{} {}", settings.fleet_name, keys::public(key).short())
}

fn short_hex(hex: &str) -> String {
    short(&HEXLOWER.decode(hex.as_bytes()).unwrap_or_default())
}

pub(super) fn add(root: &mut Root, file: &Path) -> anyhow::Result<()> {
    let der = std::fs::read(file).with_context(|| file.display().to_string())?;
    let hex = HEXLOWER.encode(&der);
    node::net::identity::Admission::new(vec![der.into()])
        .with_context(|| format!("{} is no certificate of an issuing CA", file.display()))?;
    if root.issuing_cas.contains(&hex) {
        bail!("the root names issuing CA {} already", short_hex(&hex));
    }
    root.issuing_cas.push(hex);
    Ok(())
}

/// Takes away the CA of a certificate's file, or the one whose digest begins with these digits.
pub(super) fn remove(root: &mut Root, text: &str) -> anyhow::Result<()> {
    let of_file = std::fs::read(text).map(|der| HEXLOWER.encode(&der)).ok();
    let meant = |hex: &String| match &of_file {
        Some(der) => hex == der,
        None => short_hex(hex).starts_with(text),
    };
    let found = root.issuing_cas.iter().filter(|hex| meant(hex)).count();
    if found != 1 {
        bail!("{found} issuing CAs begin with {text:?}; name one");
    }
    root.issuing_cas.retain(|hex| !meant(hex));
    Ok(())
}

/// What nodes would not take, or could not live by.
pub(super) fn check(root: &Root) -> anyhow::Result<()> {
    match root.issuing_cas.len() {
        0 => bail!("the root would name no issuing CA, and nobody would admit anybody; add one"),
        1..=ISSUING_CAS_MAX => Ok(()),
        many => bail!("the root would name {many} issuing CAs; remove some first"),
    }
}

/// What `root show` says of the issuing CAs of a root, and of its end and that of the CA in use: lines, and
/// warnings with the next step.
pub(super) fn described(root: &Root, now: Time) -> (Vec<String>, Vec<String>) {
    let last = root.issuing_cas.len();
    let mut warnings: Vec<String> = Ending::Root
        .warning(root.expires, now)
        .into_iter()
        .collect();
    let mut lines = Vec::new();
    for (place, hex) in (1..).zip(&root.issuing_cas) {
        let der = CertificateDer::from(HEXLOWER.decode(hex.as_bytes()).unwrap_or_default());
        let (name, ends) = (short(&der), last_moment(&der));
        let left = ends.map_or(0, |ends| ends.since(now).as_millis() / 86_400_000);
        let state = match place == last {
            true => "",
            false => " (nodes move away from it)",
        };
        lines.push(format!("issuing CA   {name}, ends in {left} days{state}"));
        let ending = Ending::IssuingCa {
            name,
            enterprise: is_signed_by_another(&der),
        };
        let ends = ends.filter(|_| place == last);
        warnings.extend(ends.and_then(|ends| ending.warning(ends, now)));
    }
    (lines, warnings)
}

pub(super) fn differences(before: &Root, after: &Root) -> anyhow::Result<()> {
    let (old, new) = (&before.issuing_cas, &after.issuing_cas);
    for hex in new.iter().filter(|hex| !old.contains(hex)) {
        output::line(&format!("+ issuing CA   {}", short_hex(hex)))?;
    }
    for hex in old.iter().filter(|hex| !new.contains(hex)) {
        let short = short_hex(hex);
        output::line(&format!(
            "- issuing CA   {short}: what it issued is refused at once"
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Span;
    use protocol::fixtures::{CREATED, Fleet};

    #[test]
    fn the_end_of_each_ca_is_shown_and_that_of_the_one_in_use_is_warned_of() {
        let ca = |days: u64| {
            let validity = Validity {
                not_before: CREATED,
                not_after: CREATED + Span::from_secs(days * 86_400),
            };
            let key = SigningKey::from_bytes(&[7; 32]);
            let ca = Issuer::create("a fleet", &key, validity).unwrap();
            HEXLOWER.encode(ca.certificate())
        };
        let mut root = (**Fleet::new(1).trust().root()).clone();
        root.expires = CREATED + Span::from_secs(400 * 86_400);
        root.issuing_cas = vec![ca(20), ca(50)];
        let (lines, warnings) = described(&root, CREATED);
        assert!(
            lines[0].contains("ends in 20 days (nodes move away"),
            "{lines:?}"
        );
        assert!(lines[1].ends_with("ends in 50 days"), "{lines:?}");
        let [one] = &warnings[..] else {
            panic!("{warnings:?}")
        };
        assert!(one.contains(&short_hex(&ca(50))), "{one}");
        root.issuing_cas.push(ca(3_000));
        assert_eq!(described(&root, CREATED).1, Vec::<String>::new());
    }
}
