//! `build.json` as committed bytes.

use std::fs;

use protocol::BlobRef;

use crate::content::build::Built;

#[test]
fn a_description_is_read_and_written_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let built = Built {
        version: Built::VERSION,
        index: BlobRef::of(b"index"),
        pack: BlobRef::of(b"pack"),
        carrier: Some(BlobRef::of(b"carrier")),
        disk_bytes: 3 << 30,
        entries: 17,
        plain_bytes: 1 << 33,
    };
    let write = |built: &Built| serde_json::to_vec_pretty(built).unwrap();
    let bare = Built {
        carrier: None,
        ..built.clone()
    };
    let samples = [
        ("1.json".to_owned(), write(&built)),
        ("1-no-carrier.json".to_owned(), write(&bare)),
    ];
    crate::golden::check("build", &samples, |bytes| {
        fs::write(dir.path().join(Built::DESCRIPTION), bytes).unwrap();
        let built = Built::load(dir.path()).map_err(|e| e.to_string())?;
        Ok(write(&built))
    });
}
