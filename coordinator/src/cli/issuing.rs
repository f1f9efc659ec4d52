//! `root issuing-ca`, and what `root` says of issuing CAs.

use std::path::Path;

use anyhow::{Context, bail};
use data_encoding::HEXLOWER;
use node::config::write_durably;
use node::net::identity::issue::{IssuingCa, Validity};
use node::net::identity::save_key;
use protocol::Hash;
use protocol::limits::ISSUING_CAS_MAX;
use protocol::trust::Root;

use super::output;
use crate::directory::Directory;
use crate::init::{CA_LIFE, SKEW, wall};
use crate::keys;

/// Digits by which a certificate is told from others.
const SHORT: usize = 16;

/// Makes the next CA's key and certificate at the coordinator.
pub(super) fn make(dir: &Path, out: &Path) -> anyhow::Result<()> {
    let directory = Directory::new(dir);
    let settings = directory.settings()?;
    let place = directory.next_ca_certificate_file();
    if place.exists() {
        bail!(
            "{} is there already; publish the root that names it, or remove it",
            place.display()
        );
    }
    let key = keys::generate();
    let validity = Validity {
        not_before: wall() - SKEW,
        not_after: wall() + CA_LIFE,
    };
    let name = format!("{} {}", settings.fleet_name, keys::public(&key).short());
    let ca = IssuingCa::create(&name, &key, validity)?;
    // The certificate comes last: with it the next CA is whole.
    save_key(&directory.next_ca_key_file(), &key)?;
    write_durably(out, ca.certificate(), 0o644)?;
    write_durably(&place, ca.certificate(), 0o644)?;
    output::line(&format!(
        "next   tidegate root rotate --add ca={}",
        out.display()
    ))
}

/// What people call a certificate: the first digits of its BLAKE3.
fn short(hex: &str) -> String {
    let der = HEXLOWER.decode(hex.as_bytes()).unwrap_or_default();
    let digest = Hash::of(&der).to_string();
    digest[..SHORT.min(digest.len())].to_owned()
}

pub(super) fn add(root: &mut Root, file: &Path) -> anyhow::Result<()> {
    let der = std::fs::read(file).with_context(|| file.display().to_string())?;
    let hex = HEXLOWER.encode(&der);
    node::net::identity::Admission::new(vec![der.into()])
        .with_context(|| format!("{} is no certificate of an issuing CA", file.display()))?;
    if root.issuing_cas.contains(&hex) {
        bail!("the root names issuing CA {} already", short(&hex));
    }
    root.issuing_cas.push(hex);
    Ok(())
}

/// Takes away the CA of a certificate's file, or the one whose digest begins with these digits.
pub(super) fn remove(root: &mut Root, text: &str) -> anyhow::Result<()> {
    let of_file = std::fs::read(text).map(|der| HEXLOWER.encode(&der)).ok();
    let meant = |hex: &String| match &of_file {
        Some(der) => hex == der,
        None => short(hex).starts_with(text),
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

pub(super) fn show(root: &Root) -> anyhow::Result<()> {
    let last = root.issuing_cas.len();
    for (place, hex) in (1..).zip(&root.issuing_cas) {
        let state = if place == last {
            ""
        } else {
            " (nodes move away from it)"
        };
        output::line(&format!("issuing CA   {}{state}", short(hex)))?;
    }
    Ok(())
}

pub(super) fn differences(before: &Root, after: &Root) -> anyhow::Result<()> {
    let (old, new) = (&before.issuing_cas, &after.issuing_cas);
    for hex in new.iter().filter(|hex| !old.contains(hex)) {
        output::line(&format!("+ issuing CA   {}", short(hex)))?;
    }
    for hex in old.iter().filter(|hex| !new.contains(hex)) {
        let short = short(hex);
        output::line(&format!(
            "- issuing CA   {short}: what it issued is refused at once"
        ))?;
    }
    Ok(())
}
