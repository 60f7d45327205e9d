//! No bytes panic.

use nightshift_api::fuzz_api_request;

#[test]
fn the_corpus_is_read_without_panic() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/api_request");
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        fuzz_api_request(&std::fs::read(entry.unwrap().path()).unwrap());
        seen += 1;
    }
    assert!(seen >= 5, "the corpus is not there");
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        fuzz_api_request(&bytes);
    }

    #[test]
    fn no_query_panics(query in "((status|since|limit|flag|x)=[a-z0-9%,.&äé-]{0,12}&?){0,5}") {
        fuzz_api_request(query.as_bytes());
    }
}
