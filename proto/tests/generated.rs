//! The generated types are checked in, so that building needs no protobuf compiler and a change of the schema
//! shows up in review. This test keeps them current: it compiles the schema again (in pure Rust) and compares.

use std::{fs, path::Path};

#[test]
fn generated_types_are_current() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema_dir = crate_dir.join("schema");
    let checked_in = crate_dir.join("src/generated/warmcast.v1.rs");

    let descriptors =
        protox::compile(["warmcast/v1/item.proto", "warmcast/v1/frame.proto"], [&schema_dir]).unwrap();
    let out_dir = tempfile::tempdir().unwrap();
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        .out_dir(out_dir.path())
        .compile_fds(descriptors)
        .unwrap();
    let current = fs::read_to_string(out_dir.path().join("warmcast.v1.rs")).unwrap();

    if std::env::var_os("WARMCAST_REGENERATE").is_some_and(|value| value == "1") {
        fs::write(&checked_in, &current).unwrap();
    }
    assert!(
        fs::read_to_string(&checked_in).unwrap() == current,
        "{} is not what proto/schema generates; run `WARMCAST_REGENERATE=1 cargo test -p warmcast-proto \
         --test generated` and commit the result",
        checked_in.display()
    );
}
