//! Seeds of the fuzz corpus, kept current and replayed by ordinary tests.

use std::path::Path;

/// Checks that `fuzz/corpus/TARGET` holds `seeds` as this version writes them, and gives every file there to `target`.
/// With NIGHTSHIFT_WRITE_CORPUS set it writes the seeds first.
pub(crate) fn replay(name: &str, seeds: &[(&str, Vec<u8>)], target: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    for (seed, bytes) in seeds {
        let path = dir.join(seed);
        if std::env::var_os("NIGHTSHIFT_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(&path, bytes).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), *bytes, "{seed}: the format changed; old files must still be read");
    }
    for entry in std::fs::read_dir(&dir).unwrap() {
        target(&std::fs::read(entry.unwrap().path()).unwrap());
    }
}
