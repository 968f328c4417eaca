//! The reader in Python against the file.

use std::process::Command;

use serde_json::{Value as Json, json};

use super::file::{Sees, checked_in, path, testdata};

const READER: &str = "read_entry.py";

/// Runs the reader over the file and prints what it read, in the file's own terms.
const RUN: &str = r#"
import base64, json, sys
sys.path.insert(0, sys.argv[1])
import read_entry

def bytes_as_base64(value):
    return base64.b64encode(value).decode()

def read(vector, now_ms):
    sees, payload = read_entry.read(bytes.fromhex(vector["entry_hex"]), now_ms)
    decoded = read_entry.item(payload) if sees == "item" and vector.get("item") is not None else None
    return {"sees": sees, "payload_hex": payload if payload is None else payload.hex(), "item": decoded}

def key(vector):
    sort = vector["sort_hex"]
    values = [bytes.fromhex(vector["partition_hex"]), sort if sort is None else bytes.fromhex(sort)]
    return read_entry.cache_key(vector["prefix"], vector["table"], *values).hex()

vectors = json.load(open(sys.argv[2], encoding="utf-8"))
result = {
    "keys": [key(vector) for vector in vectors["keys"]],
    "entries": [[read(vector, at["now_ms"]) for at in vector["reads"]] for vector in vectors["entries"]],
    "misses": [read(vector, 0) for vector in vectors["misses"]],
    "nothing": read_entry.read(None, 0),
}
json.dump(result, sys.stdout, default=bytes_as_base64)
"#;

/// What the reader makes of the file.
fn run() -> Json {
    let mut python = Command::new("python3");
    // No compiled copies in the repository.
    python.args(["-B", "-X", "utf8", "-c", RUN]).arg(testdata()).arg(path());
    let output = python.output().unwrap_or_else(|error| {
        panic!(
            "python3 cannot be run ({error}), and the reader in Python is tested with it: install it (`make test` does, \
             on Debian)"
        )
    });
    assert!(output.status.success(), "{READER} failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the reader's results")
}

#[test]
fn the_reader_in_python_reads_every_vector() {
    let (vectors, read) = (checked_in(), run());
    for (vector, key) in vectors.keys.iter().zip(read["keys"].as_array().unwrap()) {
        assert_eq!(*key, vector.key_hex, "{vector:?}");
    }
    for (vector, answers) in vectors.entries.iter().zip(read["entries"].as_array().unwrap()) {
        for (at, answer) in vector.reads.iter().zip(answers.as_array().unwrap()) {
            let is_item = at.sees == Sees::Item;
            let expected = json!({
                "sees": at.sees,
                "payload_hex": is_item.then_some(&vector.payload_hex),
                "item": vector.item.as_ref().filter(|_| is_item),
            });
            assert_eq!(*answer, expected, "{} at {}", vector.name, at.now_ms);
        }
        assert_eq!(answers.as_array().unwrap().len(), vector.reads.len());
    }
    for (vector, answer) in vectors.misses.iter().zip(read["misses"].as_array().unwrap()) {
        assert_eq!(answer["sees"], "miss", "{}", vector.name);
    }
    let count = |of: &str| read[of].as_array().unwrap().len();
    let expected = (vectors.keys.len(), vectors.entries.len(), vectors.misses.len());
    assert_eq!((count("keys"), count("entries"), count("misses")), expected);
    assert_eq!(read["nothing"], json!(["miss", null]), "a key that is not there");
}

#[test]
fn the_reader_in_python_has_at_most_forty_lines_and_no_dependencies() {
    let reader = std::fs::read_to_string(testdata().join(READER)).unwrap();
    assert!(reader.lines().count() <= 40, "{} lines", reader.lines().count());
    let imports: Vec<_> = reader.lines().filter(|line| line.contains("import ")).collect();
    assert_eq!(imports, ["import re"]);
}
