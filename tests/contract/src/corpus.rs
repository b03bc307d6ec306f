//! What the fuzzers of the driver and of what it saves found interesting: with each of these, it does as it should.

#[path = "../../../fuzz/src/driver/mod.rs"]
#[expect(unreachable_pub, reason = "it is a library where the fuzzers are built")]
mod driver;
#[path = "../../../fuzz/src/state.rs"]
#[expect(unreachable_pub, reason = "it is a library where the fuzzers are built")]
mod state;

fn each(corpus: &str, run: fn(&[u8])) {
    let folder = format!("{}/../../fuzz/corpus/{corpus}", env!("CARGO_MANIFEST_DIR"));
    let files: Vec<_> = std::fs::read_dir(folder).expect("a corpus").map(|file| file.expect("a file").path()).collect();
    assert!(!files.is_empty());
    for file in files {
        run(&std::fs::read(file).expect("an input"));
    }
}

#[test]
fn distrust_the_devices_that_a_fuzzer_made() {
    each("driver", driver::driver);
}

#[test]
fn h8_states_that_a_fuzzer_made_are_refused_or_gone_on_with() {
    each("state", state::state);
}
