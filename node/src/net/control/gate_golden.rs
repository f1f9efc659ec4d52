//! What admission says on the wire, as committed bytes.

use futures::executor::block_on;
use futures::io::Cursor;

use super::*;
use crate::golden;
use crate::net::identity::fixture::node;

golden::variants!(every_error_of of AdmissionError: Missing, Malformed, UnknownIssuer, Expired,
    NotYetValid, Revoked, WrongUse, WrongName, WrongNode, NoIssuers);

#[test]
fn credentials_are_read_and_written_as_ever() {
    let framed = |chain: &[CertificateDer<'_>]| {
        let mut wire = Cursor::new(Vec::new());
        block_on(send(&mut wire, &encode(chain))).unwrap();
        wire.into_inner()
    };
    let (leaf, issuer) = (vec![0x30; 300], vec![0x31; 2]);
    let samples = [
        ("none.bin".to_owned(), framed(&[])),
        (
            "chain.bin".to_owned(),
            framed(&[leaf.into(), issuer.into()]),
        ),
    ];
    golden::check("admission-credentials", &samples, |bytes| {
        let body = block_on(receive(&mut Cursor::new(bytes))).map_err(|e| e.to_string())?;
        let chain = decode(&body).ok_or("not credentials")?;
        Ok(framed(&chain))
    });
}

#[test]
fn a_verdict_is_the_same_byte_for_ever_and_has_its_words() {
    let errors = [
        AdmissionError::Missing,
        AdmissionError::Malformed("odd".into()),
        AdmissionError::UnknownIssuer,
        AdmissionError::Expired,
        AdmissionError::NotYetValid,
        AdmissionError::Revoked,
        AdmissionError::WrongUse("odd".into()),
        AdmissionError::WrongName,
        AdmissionError::WrongNode {
            expected: node(1),
            found: node(2),
        },
        AdmissionError::NoIssuers,
    ];
    every_error_of(&errors);
    let byte = |verdict| {
        let mut wire = Cursor::new(Vec::new());
        block_on(say(&mut wire, verdict)).unwrap();
        wire.into_inner()
    };
    let mut samples = vec![("admitted.bin".to_owned(), byte(Verdict::of(&Ok(()))))];
    samples.extend(errors.map(|error| {
        let name = format!("{error:?}");
        let name = name.split(['(', ' ']).next().unwrap_or_default();
        (
            format!("{name}.bin"),
            byte(Verdict::of(&Err(error.clone()))),
        )
    }));
    golden::check("admission-verdict", &samples, |bytes| match bytes {
        [one] if !Verdict(*one).to_string().contains("does not know") => Ok(byte(Verdict(*one))),
        _ => Err("no verdict".to_owned()),
    });
}
