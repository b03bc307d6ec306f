//! What the fuzzer of hosts found interesting: with each of these, the controllers do as they should.

#[path = "../../../../fuzz/src/emulator.rs"]
#[expect(unreachable_pub, reason = "it is a library where the fuzzers are built")]
mod fuzz;

#[test]
fn hosts_that_a_fuzzer_made() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/emulator");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files {
        fuzz::emulator(&std::fs::read(file).unwrap());
    }
}
