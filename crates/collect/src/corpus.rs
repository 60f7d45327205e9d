//! Replays the fuzzer's corpus as ordinary tests.

use std::path::Path;

/// Feeds every file of `fuzz/corpus/NAME` to `target`; there must be some.
pub(crate) fn replay(name: &str, target: impl Fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let mut files = 0;
    for entry in std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("read {}: {e}", dir.display())) {
        let path = entry.expect("a directory entry").path();
        target(&std::fs::read(&path).expect("a corpus file"));
        files += 1;
    }
    assert!(files > 0, "{} holds no seeds", dir.display());
}
