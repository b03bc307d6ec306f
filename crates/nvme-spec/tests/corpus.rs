//! What the fuzzer of structures found interesting.

#[path = "../../../fuzz/src/spec.rs"]
#[expect(unreachable_pub, reason = "it is a library where the fuzzers are built")]
mod fuzz;

#[test]
fn structures_that_a_fuzzer_made() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/spec");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files {
        fuzz::spec(&std::fs::read(file).unwrap());
    }
}
