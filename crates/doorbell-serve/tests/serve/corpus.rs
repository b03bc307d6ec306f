//! What the fuzzers began with and what they found: it stays right without them.

#[path = "../../../../fuzz/src/peers.rs"]
#[expect(unreachable_pub, reason = "it is a library where the fuzzers are built")]
mod fuzz;

fn run(target: &str, function: fn(&[u8])) {
    let folder = format!("{}/../../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 5, "there is a corpus");
    for file in files {
        function(&std::fs::read(file).unwrap());
    }
}

#[test]
fn requests() {
    run("requests", fuzz::requests);
}

#[test]
fn servers() {
    run("server", fuzz::server);
}

#[test]
fn clients() {
    run("client", fuzz::client);
}
