//! Lists of keys in files: as operators write them, or exports of the table (AWS: DynamoDB export to S3, DynamoDB JSON
//! format: one `{"Item":{...}}` on a line, gzip). Only the keys are taken: an old row, where nothing is known of what
//! came since, cannot be proven newer.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use serde_json::value::RawValue;
use warmcast_proto::key::ItemKey;
use warmcast_proto::key_text::{KeyShape, KeyTextError};

/// The longest line: an item of 400 KB whose text is all control characters, which JSON writes with six bytes.
const LINE_BYTES_MAX: usize = 4 << 20;
/// What a file may inflate to, whatever its size,
const INFLATED_BYTES_FREE: u64 = 16 << 20;
/// and beyond that, for each of its bytes. Exports take about a tenth; nothing but zeros a thousandth.
const INFLATED_RATIO_MAX: u64 = 200;
/// The most files of a directory, and how deep they are looked for.
const FILES_MAX: usize = 100_000;
const DEPTH_MAX: usize = 8;
/// The longest partition key and the longest sort key (AWS: DynamoDB quotas).
const PARTITION_BYTES_MAX: usize = 2_048;
const SORT_BYTES_MAX: usize = 1_024;

/// A list of keys that cannot be used, with where.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinesError {
    /// The file or the directory.
    #[error("read {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing to read.
    #[error("{path} has no files of keys: *.json, *.json.gz, *.txt or *.txt.gz (manifests aside)")]
    Nothing {
        /// The directory.
        path: PathBuf,
    },
    /// Too much of it.
    #[error("{path} has more than {FILES_MAX} files")]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
    /// One line.
    #[error("{path}, line {line}: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from one.
        line: u64,
        /// What is wrong.
        problem: LineProblem,
    },
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineProblem {
    /// No line is so long.
    #[error("longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// The file is not what it seems.
    #[error("the file inflates to more than {INFLATED_RATIO_MAX} times its size")]
    Inflation,
    /// No key of the table.
    #[error(transparent)]
    Key(#[from] KeyTextError),
    /// An export's line of a row without the key, or with another type.
    #[error("a row without the table's key: {0}")]
    Row(&'static str),
    /// No key is so long.
    #[error(
        "the key is longer than DynamoDB's: {PARTITION_BYTES_MAX} bytes, and {SORT_BYTES_MAX} of the sort key"
    )]
    KeyTooLong,
}

/// A file with keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    /// Its name within what was asked for.
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// The files of what was asked for, in the order of their names. Blocks.
pub(super) fn files(from: &Path) -> Result<Vec<KeyFile>, LinesError> {
    let failed = |path: &Path, source| LinesError::File { path: path.to_owned(), source };
    let metadata = fs::metadata(from).map_err(|error| failed(from, error))?;
    if !metadata.is_dir() {
        let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(vec![KeyFile { path: from.to_owned(), name, bytes: metadata.len() }]);
    }
    let mut found = Vec::new();
    let mut folders = vec![(from.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| failed(&folder, error))? {
            let path = entry.map_err(|error| failed(&folder, error))?.path();
            let metadata = fs::metadata(&path).map_err(|error| failed(&path, error))?;
            if metadata.is_dir() && depth < DEPTH_MAX {
                folders.push((path, depth + 1));
            } else if metadata.is_file() && is_list(&path) {
                let name = path.strip_prefix(from).unwrap_or(&path).to_string_lossy().into_owned();
                found.push(KeyFile { path, name, bytes: metadata.len() });
            }
            if found.len() > FILES_MAX {
                return Err(LinesError::TooMany { path: from.to_owned() });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    if found.is_empty() { Err(LinesError::Nothing { path: from.to_owned() }) } else { Ok(found) }
}

/// Whether a file of a directory has keys: an export has manifests beside its data.
fn is_list(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    (name.ends_with(".json") || name.ends_with(".txt")) && !name.starts_with("manifest-")
}

/// Reads the keys of one file.
pub(super) struct KeyLines {
    path: PathBuf,
    input: Box<dyn BufRead + Send + Sync>,
    /// Bytes of the file that were read, if it is compressed.
    compressed: Option<Arc<AtomicU64>>,
    inflated: u64,
    shape: KeyShape,
    /// Lines that were read.
    line: u64,
    buffer: Vec<u8>,
}

impl KeyLines {
    /// Behind so many lines. Blocks.
    pub(super) fn open(file: &KeyFile, shape: &KeyShape, after: u64) -> Result<Self, LinesError> {
        let failed = |source| LinesError::File { path: file.path.clone(), source };
        let opened = BufReader::with_capacity(1 << 16, File::open(&file.path).map_err(failed)?);
        let (input, compressed): (Box<dyn BufRead + Send + Sync>, _) =
            if file.path.extension().is_some_and(|extension| extension == "gz") {
                let count = Arc::new(AtomicU64::new(0));
                let counted = BufReader::new(Counted { inner: opened, count: Arc::clone(&count) });
                (Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(counted))), Some(count))
            } else {
                (Box::new(opened), None)
            };
        let mut lines = Self {
            path: file.path.clone(),
            input,
            compressed,
            inflated: 0,
            shape: shape.clone(),
            line: 0,
            buffer: Vec::new(),
        };
        while lines.line < after && lines.read_line()? {}
        Ok(lines)
    }

    /// Lines that were read so far.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The next key; lines without any are passed over. None: there are no more. Blocks.
    pub(super) fn next_key(&mut self) -> Result<Option<ItemKey>, LinesError> {
        while self.read_line()? {
            // A line that is no text is no key either, and shows as what it is.
            let text = String::from_utf8_lossy(&self.buffer);
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            return match key_of_line(&self.shape, text) {
                Ok(key) => Ok(Some(key)),
                Err(problem) => Err(self.wrong(problem)),
            };
        }
        Ok(None)
    }

    fn read_line(&mut self) -> Result<bool, LinesError> {
        self.buffer.clear();
        let bytes_max = LINE_BYTES_MAX as u64 + 1;
        let read = self.input.by_ref().take(bytes_max).read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|source| LinesError::File { path: self.path.clone(), source })?;
        self.line += u64::from(read > 0);
        self.inflated += read as u64;
        if read > LINE_BYTES_MAX {
            return Err(self.wrong(LineProblem::TooLong));
        }
        let compressed = self.compressed.as_ref().map(|count| count.load(Ordering::Relaxed));
        let is_bomb = compressed.is_some_and(|bytes| {
            self.inflated > INFLATED_BYTES_FREE.max(bytes.saturating_mul(INFLATED_RATIO_MAX))
        });
        if is_bomb { Err(self.wrong(LineProblem::Inflation)) } else { Ok(read > 0) }
    }

    fn wrong(&self, problem: LineProblem) -> LinesError {
        LinesError::Line { path: self.path.clone(), line: self.line, problem }
    }
}

/// Counts what is read of a file.
struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// A line of an export: of the whole table (`Item`), or of what changed (`Keys`).
#[derive(Deserialize)]
struct ExportLine<'a> {
    #[serde(borrow, rename = "Item")]
    item: Option<HashMap<String, &'a RawValue>>,
    #[serde(borrow, rename = "Keys")]
    keys: Option<HashMap<String, &'a RawValue>>,
}

fn key_of_line(shape: &KeyShape, line: &str) -> Result<ItemKey, LineProblem> {
    let export = line.starts_with('{').then(|| serde_json::from_str::<ExportLine<'_>>(line).ok()).flatten();
    let attributes = export.and_then(|export| export.keys.or(export.item));
    let key = match attributes {
        None => shape.parse(line)?,
        Some(attributes) => shape.parse(&key_json(shape, &attributes)?).map_err(|_| {
            // The error would show the key of somebody's row.
            LineProblem::Row("its key attributes have other types")
        })?,
    };
    let bytes = key.as_bytes();
    let is_too_long = match (&shape.sort, warmcast_proto::key::split_composite(bytes)) {
        (None, _) => bytes.len() > PARTITION_BYTES_MAX,
        (Some(_), Ok((partition, sort))) => {
            partition.len() > PARTITION_BYTES_MAX || sort.len() > SORT_BYTES_MAX
        }
        // `parse` has made it of two.
        (Some(_), Err(_)) => true,
    };
    if is_too_long { Err(LineProblem::KeyTooLong) } else { Ok(key) }
}

/// The key attributes alone, in DynamoDB's JSON.
fn key_json(shape: &KeyShape, attributes: &HashMap<String, &RawValue>) -> Result<String, LineProblem> {
    let mut members = Vec::new();
    for part in [Some(&shape.partition), shape.sort.as_ref()].into_iter().flatten() {
        let value = attributes.get(&part.name).ok_or(LineProblem::Row("a key attribute is missing"))?;
        let name = serde_json::Value::from(part.name.as_str());
        members.push(format!("{name}:{}", value.get()));
    }
    Ok(format!("{{{}}}", members.join(",")))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tempfile::TempDir;
    use warmcast_proto::key_text::{KeyKind, KeyPart};

    use super::*;

    fn part(name: &str, kind: KeyKind) -> KeyPart {
        KeyPart { name: name.to_owned(), kind }
    }

    fn simple() -> KeyShape {
        KeyShape { partition: part("id", KeyKind::Text), sort: None }
    }

    fn with_sort() -> KeyShape {
        KeyShape { partition: part("id", KeyKind::Text), sort: Some(part("at", KeyKind::Number)) }
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn keys(name: &str, content: &[u8], shape: &KeyShape, after: u64) -> Result<Vec<String>, LinesError> {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let [file] = files(&path)?.try_into().unwrap();
        let mut lines = KeyLines::open(&file, shape, after)?;
        let mut keys = Vec::new();
        while let Some(key) = lines.next_key()? {
            keys.push(format!("{}={}", lines.line(), String::from_utf8_lossy(key.as_bytes())));
        }
        Ok(keys)
    }

    #[test]
    fn keys_are_read_as_they_are_written_and_as_exports_have_them() {
        let text = "user-1\n\n# no\n{\"id\":{\"S\":\"user-2\"}}\r\n\
                    {\"Item\":{\"v\":{\"N\":\"1\"},\"id\":{\"S\":\"user-3\"}}}\n\
                    {\"Metadata\":{},\"Keys\":{\"id\":{\"S\":\"user-4\"}},\"NewImage\":{\"id\":{\"S\":\"x\"}}}";
        let expected = ["1=user-1", "4=user-2", "5=user-3", "6=user-4"];
        assert_eq!(keys("keys.txt", text.as_bytes(), &simple(), 0).unwrap(), expected);
        assert_eq!(keys("keys.json.gz", &gzip(text.as_bytes()), &simple(), 0).unwrap(), expected);
        assert_eq!(keys("keys.txt", text.as_bytes(), &simple(), 4).unwrap(), expected[2..]);
        assert!(keys("keys.txt", text.as_bytes(), &simple(), 99).unwrap().is_empty());
        // What AWS writes may be several members of gzip, one behind the other.
        let members = [gzip(b"a\n"), gzip(b"b\n")].concat();
        assert_eq!(keys("k.gz", &members, &simple(), 0).unwrap(), ["1=a", "2=b"]);
        let both = "{\"Item\":{\"at\":{\"N\":\"5\"},\"id\":{\"S\":\"a:b\"}}}";
        assert_eq!(keys("k", both.as_bytes(), &with_sort(), 0).unwrap(), ["1=a%3Ab:5"]);
    }

    #[test]
    fn what_is_no_key_is_refused_with_where_it_stands_and_without_the_row() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let long_key = "k".repeat(2_049);
        for (text, shape, expected) in [
            (
                "a\n{\"Item\":{\"v\":{\"S\":\"secret\"}}}",
                simple(),
                "line 2: a row without the table's key: a key attribute is missing",
            ),
            (
                "{\"Item\":{\"id\":{\"N\":\"5\"}}}",
                simple(),
                "line 1: a row without the table's key: its key attributes have other types",
            ),
            ("{\"Item\":{\"id\":{\"S\":\"secret\"},\"at\":{\"S\":\"1\"}}}", with_sort(), "have other types"),
            ("user-1", with_sort(), "names no item, because the table has a sort key"),
            (&long, simple(), "line 1: longer than 4194304 bytes"),
            (&long_key, simple(), "line 1: the key is longer than DynamoDB's"),
        ] {
            let error = keys("keys", text.as_bytes(), &shape, 0).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
        assert!(matches!(keys("k.gz", b"no gzip", &simple(), 0), Err(LinesError::File { .. })));
        let cut = gzip(b"a\nb\n");
        assert!(keys("k.gz", &cut[..cut.len() - 6], &simple(), 0).is_err());
    }

    #[test]
    fn a_file_that_inflates_to_more_than_any_export_is_given_up() {
        let line = ["#", &" ".repeat(8_190), "\n"].concat();
        let bomb = gzip(&line.into_bytes().repeat(3_000));
        let error = keys("k.gz", &bomb, &simple(), 0).unwrap_err().to_string();
        assert!(error.contains("inflates to more than 200 times its size"), "{error}");
    }

    #[test]
    fn a_directory_is_an_export_or_any_lists_below_it() {
        let folder = TempDir::new().unwrap();
        let error = files(folder.path()).unwrap_err().to_string();
        assert!(error.contains("has no files of keys"), "{error}");
        let data = folder.path().join("AWSDynamoDB/01/data");
        fs::create_dir_all(&data).unwrap();
        for name in ["../manifest-files.json", "../_started", "b.json.gz", "a.json.gz", "keys.txt", "x.md5"] {
            fs::write(data.join(name), b"1234").unwrap();
        }
        let found = files(folder.path()).unwrap();
        let names: Vec<_> = found.iter().map(|file| file.name.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["a.json.gz", "b.json.gz", "keys.txt"]);
        assert!(found.iter().all(|file| file.bytes == 4));
        assert!(matches!(files(Path::new("/nonexistent")), Err(LinesError::File { .. })));
    }
}
