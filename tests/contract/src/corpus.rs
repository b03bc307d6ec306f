//! What the fuzzer of the driver found interesting: with each of these devices, the driver does as it should.

#[path = "../../../fuzz/src/driver/mod.rs"]
#[expect(unreachable_pub, reason = "it is a library where the fuzzers are built")]
mod driver;

#[test]
fn distrust_the_devices_that_a_fuzzer_made() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/driver");
    let files: Vec<_> = std::fs::read_dir(folder).expect("a corpus").map(|file| file.expect("a file").path()).collect();
    assert!(!files.is_empty());
    for file in files {
        driver::driver(&std::fs::read(file).expect("an input"));
    }
}
