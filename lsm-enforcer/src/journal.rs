//! The event log in the state folder: JSON lines, bounded, rotated, never flooded.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};

use crate::record::{Attempt, Record};

/// The log.
#[derive(Debug)]
pub struct Journal {
    current: PathBuf,
    older: PathBuf,
    file: File,
    length: u64,
    limit: u64,
    seen: HashMap<u64, Seen>,
}

#[derive(Debug)]
struct Seen {
    since: Timestamp,
    written: u32,
    suppressed: u64,
}

impl Journal {
    /// Opens the log below the state folder, with room for about 60,000 attempts.
    pub fn open(state: &Path) -> io::Result<Self> {
        Self::open_with_limit(state, LIMIT)
    }

    fn open_with_limit(state: &Path, limit: u64) -> io::Result<Self> {
        let current = state.join("events/events.jsonl");
        let file = open(&current)?;
        let length = file.metadata()?.len();
        let older = state.join("events/events.1.jsonl");
        Ok(Self {
            current,
            older,
            file,
            length,
            limit,
            seen: HashMap::new(),
        })
    }

    /// Writes a record, unless it is one attempt of many alike within a second. Returns
    /// the line that was written.
    pub fn write(&mut self, mut record: Record) -> io::Result<Option<String>> {
        if let Record::Attempt(attempt) = &mut record
            && !self.admits(attempt)
        {
            return Ok(None);
        }
        let mut line = serde_json::to_string(&record)?;
        line.push('\n');
        if self.length + line.len() as u64 > self.limit {
            self.rotate()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.length += line.len() as u64;
        line.pop();
        Ok(Some(line))
    }

    /// Every record from `since` on, oldest first. Lines that are no records (root may
    /// write what it likes) are passed over.
    pub fn read(&self, since: Option<Timestamp>) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for path in [&self.older, &self.current] {
            let file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for line in BufReader::new(file).lines() {
                let Ok(record) = serde_json::from_str::<Record>(&line?) else {
                    continue;
                };
                if since.is_none_or(|since| record.time() >= since) {
                    records.push(record);
                }
            }
        }
        Ok(records)
    }

    /// A container that restarts every second must not fill the log: of equal attempts
    /// [`PER_SECOND`] a second are written, the rest is counted on the next one.
    fn admits(&mut self, attempt: &mut Attempt) -> bool {
        let mut hasher = DefaultHasher::new();
        attempt.likeness().hash(&mut hasher);
        if self.seen.len() > MAX_SEEN {
            self.seen.clear();
        }
        let now = attempt.time;
        let seen = self.seen.entry(hasher.finish()).or_insert(Seen {
            since: now,
            written: 0,
            suppressed: 0,
        });
        if now.duration_since(seen.since).abs() >= SignedDuration::from_secs(1) {
            seen.since = now;
            seen.written = 0;
        }
        if seen.written >= PER_SECOND {
            seen.suppressed += 1;
            return false;
        }
        seen.written += 1;
        attempt.suppressed = std::mem::take(&mut seen.suppressed);
        true
    }

    fn rotate(&mut self) -> io::Result<()> {
        fs::rename(&self.current, &self.older)?;
        self.file = open(&self.current)?;
        self.length = 0;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Two files of this size at most.
const LIMIT: u64 = 32 << 20;
/// Equal attempts written per second.
const PER_SECOND: u32 = 5;
/// Different attempts remembered.
const MAX_SEEN: usize = 4096;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        fake,
        observe::Observed,
        record::{Level, Notice, Origin},
    };

    fn notice(second: u32, message: &str) -> Record {
        Record::Notice(Notice {
            time: format!("2026-11-22T00:00:{second:02}Z").parse().unwrap(),
            level: Level::Info,
            about: "test".to_owned(),
            message: message.to_owned(),
        })
    }

    fn journal(limit: u64) -> (tempfile::TempDir, Journal) {
        let state = tempfile::tempdir().unwrap();
        fs::create_dir(state.path().join("events")).unwrap();
        let journal = Journal::open_with_limit(state.path(), limit).unwrap();
        (state, journal)
    }

    #[test]
    fn what_was_written_is_read_back_from_a_time_on() {
        let (_state, mut journal) = journal(LIMIT);
        for second in 0..3 {
            journal.write(notice(second, "x")).unwrap();
        }
        let since = "2026-11-22T00:00:01Z".parse().unwrap();
        assert_eq!(
            journal.read(Some(since)).unwrap(),
            [notice(1, "x"), notice(2, "x")]
        );
    }

    #[test]
    fn the_log_is_bounded_and_keeps_the_newest() {
        let (state, mut journal) = journal(1000);
        for second in 0..60 {
            journal.write(notice(second, &"x".repeat(100))).unwrap();
        }
        let total: u64 = fs::read_dir(state.path().join("events"))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(total <= 2000, "{total}");
        assert_eq!(
            journal.read(None).unwrap().last(),
            Some(&notice(59, &"x".repeat(100)))
        );
    }

    #[test]
    fn a_flood_of_equal_attempts_is_counted_not_written() {
        let (_state, mut journal) = journal(LIMIT);
        let write = |journal: &mut Journal, now: &str| {
            let attempt = Attempt::new(
                &fake::event(),
                Observed::default(),
                Origin::default(),
                now.parse().unwrap(),
                Duration::ZERO,
            );
            journal
                .write(Record::Attempt(Box::new(attempt)))
                .unwrap()
                .is_some()
        };
        let written = (0..100)
            .filter(|_| write(&mut journal, "2026-11-22T00:00:00Z"))
            .count();
        assert_eq!(written, 5);
        assert!(write(&mut journal, "2026-11-22T00:00:02Z"));
        let Record::Attempt(last) = journal.read(None).unwrap().pop().unwrap() else {
            panic!("not an attempt")
        };
        assert_eq!(last.suppressed, 95);
    }

    #[test]
    fn foreign_lines_are_passed_over() {
        let (state, mut journal) = journal(LIMIT);
        journal.write(notice(1, "x")).unwrap();
        let mut file = open(&state.path().join("events/events.jsonl")).unwrap();
        file.write_all(b"{\"kind\":\"attempt\"}\nnonsense\n")
            .unwrap();
        assert_eq!(journal.read(None).unwrap(), [notice(1, "x")]);
    }
}
