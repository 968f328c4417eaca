//! Dead letters in a directory of this machine: one file each, JSON, named by the letter's id.
//!
//! The directory is bounded: when its files take more than they may, the letters that were not met for longest go, each
//! with a line in the log that says which it was. A file is complete and on the disk before its letter counts as stored.

mod file;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use parking_lot::Mutex;

use super::encoding::kept;
use super::filter::Filter;
use super::letter::{Kept, Letter, LetterId};
use super::store::{LetterError, Page};

/// What a file takes of a disk at least, so that many small ones are bounded, too.
const BLOCK_BYTES: u64 = 4_096;
/// Letters that are read for a page of a listing.
const PAGE_LETTERS: usize = 100;
/// A letter's file ends like this; one that is being written, like that.
const SUFFIX: &str = ".json";
const SUFFIX_UNFINISHED: &str = ".json.new";

/// Dead letters in a directory. One process has it to itself. Its calls block.
#[derive(Debug)]
pub(super) struct DirectoryStore {
    directory: PathBuf,
    bytes_max: u64,
    files: Mutex<Files>,
}

/// The files that are there.
#[derive(Debug, Default)]
struct Files {
    /// When each letter was last met, and what its file takes.
    by_id: HashMap<LetterId, (u64, u64)>,
    by_age: BTreeMap<(u64, LetterId), u64>,
    bytes: u64,
}

impl DirectoryStore {
    /// Opens the directory, or creates it.
    pub(super) fn open(directory: &Path, bytes_max: u64) -> Result<Self, LetterError> {
        let store = Self { directory: directory.to_owned(), bytes_max, files: Mutex::default() };
        let failed = |source| LetterError::Directory { path: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
        // Writing is what it is for: that it cannot be is said now.
        let probe = directory.join(format!("probe{SUFFIX_UNFINISHED}"));
        File::create(&probe).map_err(failed)?;
        let mut files = store.files.lock();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(SUFFIX_UNFINISHED) {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            } else if let Some(Ok(id)) = name.strip_suffix(SUFFIX).map(str::parse) {
                let metadata = entry.metadata().map_err(failed)?;
                let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                let at_ms = modified.and_then(|at| u64::try_from(at.as_millis()).ok()).unwrap_or(0);
                files.insert(id, at_ms, metadata.len());
            }
        }
        drop(files);
        Ok(store)
    }

    pub(super) fn set_aside(&self, letter: &Letter, at_ms: u64) -> Result<Kept, LetterError> {
        let id = letter.id();
        let mut files = self.files.lock();
        let before = self.read(id)?;
        let kept = Kept {
            id,
            envelope: letter.envelope.clone(),
            bytes_len: letter.bytes.len() as u64,
            first_attempt_ms: before.as_ref().map_or(at_ms, |(kept, _)| kept.first_attempt_ms),
            last_attempt_ms: at_ms,
            attempts: before.map_or(0, |(kept, _)| kept.attempts) + 1,
        };
        self.write(&mut files, &kept, self::kept(&letter.bytes))?;
        Ok(kept)
    }

    pub(super) fn failed_again(
        &self,
        id: LetterId,
        reason: &str,
        at_ms: u64,
    ) -> Result<Option<Kept>, LetterError> {
        let mut files = self.files.lock();
        let Some((mut kept, letter)) = self.read(id)? else { return Ok(None) };
        reason.clone_into(&mut kept.envelope.reason);
        kept.last_attempt_ms = at_ms;
        kept.attempts += 1;
        self.write(&mut files, &kept, &letter.bytes)?;
        Ok(Some(kept))
    }

    pub(super) fn get(&self, id: LetterId) -> Result<Option<(Kept, Letter)>, LetterError> {
        self.read(id)
    }

    pub(super) fn list(&self, filter: &Filter, from: Option<&str>) -> Result<Page, LetterError> {
        let from: Option<LetterId> = from.map(str::parse).transpose()?;
        let mut ids: Vec<LetterId> = self.files.lock().by_id.keys().copied().collect();
        ids.retain(|id| from.is_none_or(|from| *id > from));
        ids.sort_unstable();
        let more = ids.len() > PAGE_LETTERS;
        ids.truncate(PAGE_LETTERS);
        let next = ids.last().filter(|_| more).map(ToString::to_string);
        let mut letters = Vec::new();
        for id in ids {
            // It may have gone meanwhile.
            letters.extend(self.read(id)?.map(|(kept, _)| kept));
        }
        letters.retain(|letter| filter.matches(letter));
        Ok(Page { letters, next })
    }

    pub(super) fn delete(&self, id: LetterId) -> Result<(), LetterError> {
        let mut files = self.files.lock();
        self.remove(&mut files, id)
    }

    pub(super) fn place(&self) -> String {
        self.directory.display().to_string()
    }

    /// Writes a letter's file in the place of the one before it, and makes room.
    fn write(&self, files: &mut Files, kept: &Kept, bytes: &[u8]) -> Result<(), LetterError> {
        let (path, text) = (self.path(kept.id), file::encode(kept, bytes));
        let unfinished = path.with_extension(SUFFIX_UNFINISHED.trim_start_matches('.'));
        let write = || -> io::Result<()> {
            let mut file = File::create(&unfinished)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&unfinished, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(|source| LetterError::Directory { path, source })?;
        files.insert(kept.id, kept.last_attempt_ms, text.len() as u64);
        while files.bytes > self.bytes_max
            && let Some(oldest) = files.oldest()
            && oldest != kept.id
        {
            self.let_go(files, oldest)?;
        }
        Ok(())
    }

    /// Removes a letter for want of room, and says which it was.
    fn let_go(&self, files: &mut Files, id: LetterId) -> Result<(), LetterError> {
        // One that cannot be read goes as well.
        let letter = self.read(id).ok().flatten().map(|(kept, _)| kept);
        self.remove(files, id)?;
        let envelope = letter.as_ref().map(|letter| &letter.envelope);
        tracing::warn!(
            letter = %id,
            stream = envelope.map(|envelope| &*envelope.origin.stream),
            shard = envelope.and_then(|envelope| envelope.origin.shard.as_deref()),
            position = envelope.and_then(|envelope| envelope.origin.position.as_deref()),
            reason = envelope.map(|envelope| envelope.reason.as_str()),
            directory = %self.directory.display(),
            bytes_max = self.bytes_max,
            "the oldest dead letter is gone: the directory was full"
        );
        Ok(())
    }

    fn remove(&self, files: &mut Files, id: LetterId) -> Result<(), LetterError> {
        let path = self.path(id);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(LetterError::Directory { path, source: error })
            }
            _ => {
                files.remove(id);
                Ok(())
            }
        }
    }

    fn read(&self, id: LetterId) -> Result<Option<(Kept, Letter)>, LetterError> {
        let path = self.path(id);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LetterError::Directory { path, source }),
        };
        let wrong = |reason| LetterError::Letter { place: self.place(), id: id.to_string(), reason };
        file::decode(id, &text).map(Some).map_err(wrong)
    }

    fn path(&self, id: LetterId) -> PathBuf {
        self.directory.join(format!("{id}{SUFFIX}"))
    }
}

impl Files {
    fn insert(&mut self, id: LetterId, at_ms: u64, bytes: u64) {
        self.remove(id);
        let bytes = bytes.max(BLOCK_BYTES);
        self.by_id.insert(id, (at_ms, bytes));
        self.by_age.insert((at_ms, id), bytes);
        self.bytes += bytes;
    }

    fn remove(&mut self, id: LetterId) {
        if let Some((at_ms, bytes)) = self.by_id.remove(&id) {
            self.by_age.remove(&(at_ms, id));
            self.bytes -= bytes;
        }
    }

    fn oldest(&self) -> Option<LetterId> {
        self.by_age.first_key_value().map(|((_, id), _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::letter;
    use super::*;

    fn used(directory: &Path) -> u64 {
        let files = std::fs::read_dir(directory).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len().max(BLOCK_BYTES)).sum()
    }

    #[test]
    fn the_directory_never_outgrows_its_bound_and_the_oldest_letters_go_first() {
        let directory = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(directory.path(), 65_536).unwrap();
        let met_again = letter("0", &[7; 100]);
        for at_ms in 1..=40 {
            let large = if at_ms % 3 == 0 { 10_000 } else { 10 };
            store.set_aside(&letter(&at_ms.to_string(), &vec![7; large]), at_ms).unwrap();
            store.set_aside(&met_again, at_ms).unwrap();
            assert!(used(directory.path()) <= 65_536, "{}", used(directory.path()));
        }
        let there = |store: &DirectoryStore| -> Vec<u64> {
            (1..=40)
                .filter(|n| {
                    store
                        .get(letter(&n.to_string(), &vec![7; if n % 3 == 0 { 10_000 } else { 10 }]).id())
                        .unwrap()
                        .is_some()
                })
                .collect()
        };
        let left = there(&store);
        assert!(left.len() > 5 && left[0] > 1 && left.last() == Some(&40), "{left:?}");
        assert!(left.windows(2).all(|two| two[1] == two[0] + 1), "a newer one went first: {left:?}");
        assert_eq!(store.get(met_again.id()).unwrap().unwrap().0.attempts, 40);
        // Another process goes on with what is there.
        let store = DirectoryStore::open(directory.path(), 65_536).unwrap();
        assert_eq!(there(&store), left);
        for at_ms in 0..30 {
            let at_ms = crate::clock::now_ms() + 10_000 + at_ms;
            store.set_aside(&letter(&at_ms.to_string(), b""), at_ms).unwrap();
            assert!(used(directory.path()) <= 65_536, "{}", used(directory.path()));
        }
        assert_eq!(there(&store), [0u64; 0]);
    }

    #[test]
    fn a_letter_larger_than_the_bound_is_kept_alone() {
        let directory = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(directory.path(), 65_536).unwrap();
        store.set_aside(&letter("1", b"small"), 1).unwrap();
        let large = letter("2", &[7; 100_000]);
        store.set_aside(&large, 2).unwrap();
        assert_eq!(store.get(large.id()).unwrap().unwrap().1, large);
        assert!(store.get(letter("1", b"small").id()).unwrap().is_none());
    }

    #[test]
    fn what_a_crash_left_unfinished_is_removed_and_what_is_not_ours_stays() {
        let directory = tempfile::tempdir().unwrap();
        let unfinished = directory.path().join(format!("{}{SUFFIX_UNFINISHED}", letter("1", b"").id()));
        let foreign = directory.path().join("dead-letters.jsonl");
        std::fs::write(&unfinished, "{").unwrap();
        std::fs::write(&foreign, "theirs").unwrap();
        let store = DirectoryStore::open(directory.path(), 65_536).unwrap();
        assert!(!unfinished.exists() && foreign.exists());
        assert_eq!(store.list(&Filter::default(), None).unwrap(), Page::default());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DirectoryStore::open(&file.path().join("below"), 65_536).unwrap_err().to_string();
        assert!(error.contains("dead_letters.directory"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_letter_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let id = letter("1", b"").id();
        std::fs::write(directory.path().join(format!("{id}{SUFFIX}")), "{}").unwrap();
        let store = DirectoryStore::open(directory.path(), 65_536).unwrap();
        let error = store.get(id).unwrap_err().to_string();
        assert!(error.contains(&id.to_string()) && error.contains("is missing"), "{error}");
    }
}
