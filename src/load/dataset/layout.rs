//! Which files of a dataset repository hold a configuration's split, by the names that the hub's datasets use.
//!
//! ```text
//!   wikitext-2-raw-v1/test-00000-of-00001.parquet     CONFIG/SPLIT-SHARD-of-SHARDS: how datasets are uploaded today
//!   data/train_sft-00000-of-00003.parquet             the same of the configuration `default`
//!   en/c4-train.00000-of-01024.json.gz                the split is a word of the file's name,
//!   CONFIG/validation/0000.parquet, dev.jsonl         or of a folder's; `validation` is also called valid, val, dev
//! ```
//!
//! Knows names only: no network, no files. What a repository's card says of its configurations is not read.

use super::DatasetError;
use std::collections::BTreeSet;

/// Endings of files that can be read.
const ENDINGS: [&str; 6] = [".parquet", ".jsonl", ".json", ".jsonl.gz", ".json.gz", ".ndjson"];
/// Endings of files of data that can't be read, of which others are packed forms: `.jsonl.zst`.
const UNREAD: [&str; 14] =
    [".csv", ".tsv", ".txt", ".arrow", ".xml", ".zip", ".tar", ".gz", ".tgz", ".zst", ".xz", ".bz2", ".lz4", ".7z"];
/// Files that describe a dataset.
const DESCRIPTIONS: [&str; 4] = ["config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"];
/// The configuration of a dataset that has only one, without a folder of its own.
const DEFAULT: &str = "default";
/// The words that mark a split.
const SPLITS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "val", "dev"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// A name that the repository does not have, and those that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No file of a format that is read, but files with these endings.
    Format(Vec<String>),
    /// No such configuration.
    Config(Vec<String>),
    /// The configuration has no such split.
    Split(Vec<String>),
}

impl Missing {
    /// As an error of a dataset of which a split was looked for; `cached` where only the cache was.
    pub fn error(self, dataset: &str, config: &str, split: &str, cached: bool) -> DatasetError {
        let (dataset, config) = (dataset.to_owned(), config.to_owned());
        match self {
            Self::Format(formats) => DatasetError::NoFormat { dataset, formats },
            Self::Config(known) => DatasetError::NoConfig { dataset, config, known, cached },
            Self::Split(known) => DatasetError::NoSplit { dataset, config, split: split.into(), known, cached },
        }
    }
}

/// The files of a split, sorted: the first one is first.
pub fn files_of<'a>(files: &'a [String], config: &str, split: &str) -> Result<Vec<&'a str>, Missing> {
    let data: Vec<DataFile<'a>> = files.iter().filter_map(|path| DataFile::new(path)).collect();
    let unread: Vec<&str> = files.iter().filter_map(|path| unread_ending(path)).collect();
    if data.is_empty() && !unread.is_empty() {
        return Err(Missing::Format(names(unread.into_iter())));
    }
    let of_config: Vec<&DataFile> = data.iter().filter(|file| file.config == config).collect();
    if of_config.is_empty() {
        return Err(Missing::Config(names(data.iter().map(|file| file.config))));
    }
    let mut paths: Vec<&str> =
        of_config.iter().filter(|file| file.splits.contains(&split)).map(|file| file.path).collect();
    if paths.is_empty() {
        return Err(Missing::Split(names(of_config.iter().flat_map(|file| file.splits.iter().copied()))));
    }
    paths.sort_unstable();
    Ok(paths)
}

/// The name of the first file of several, if this is one of the others: where only some files are in the cache,
/// the first of them need not be the first.
pub fn first_of(path: &str) -> Option<String> {
    let (folder, name) = split_name(path);
    let (before, number, behind) = shard(name)?;
    let first = "0".repeat(number.len());
    (number != first).then(|| format!("{folder}{before}{first}{behind}"))
}

/// Whether a file is one of several that are a split together.
pub fn is_shard(path: &str) -> bool {
    shard(split_name(path).1).is_some()
}

/// The ending of a file of data that can't be read, with what it is a packed form of: `.jsonl.zst`.
fn unread_ending(path: &str) -> Option<&str> {
    let (_, name) = split_name(path);
    let ending = UNREAD.iter().find(|ending| name.ends_with(**ending))?;
    let stem = &name[..name.len() - ending.len()];
    let inner = stem.rfind('.').filter(|dot| stem[dot + 1..].chars().all(|c| c.is_ascii_alphabetic()));
    Some(&name[inner.unwrap_or(stem.len())..])
}

struct DataFile<'a> {
    path: &'a str,
    config: &'a str,
    splits: Vec<&'a str>,
}

impl<'a> DataFile<'a> {
    /// None for a file that holds no data, or is of no known format.
    fn new(path: &'a str) -> Option<Self> {
        let (folder, name) = split_name(path);
        let folders: Vec<&str> = folder.split_terminator('/').collect();
        let hidden = |part: &&str| part.starts_with('.') || part.starts_with("__");
        let data = ENDINGS.iter().any(|ending| name.ends_with(ending)) && !DESCRIPTIONS.contains(&name);
        if !data || name.starts_with('.') || folders.iter().any(hidden) {
            return None;
        }
        let mut folders = folders.into_iter().filter(|part| *part != "data");
        let own = folders.clone().find(|part| words(part).next().is_none());
        let (config, splits) = match own {
            Some(config) => (config, splits_of(folders.filter(|part| *part != config), name)),
            None => (DEFAULT, splits_of(&mut folders, name)),
        };
        Some(Self { path, config, splits })
    }
}

/// The splits that a file is part of: `train`, unless a name says something else.
fn splits_of<'a>(folders: impl Iterator<Item = &'a str>, name: &'a str) -> Vec<&'a str> {
    if let Some((before, ..)) = shard(name)
        && let Some(split) = before.strip_suffix('-')
        && !split.is_empty()
        && split.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'))
    {
        return vec![split];
    }
    let of_folders: Vec<&str> = folders.flat_map(words).collect();
    let mut splits = if of_folders.is_empty() { words(name).collect() } else { of_folders };
    splits.dedup();
    if splits.is_empty() { vec![SPLITS[0].0] } else { splits }
}

/// The splits whose words stand in a name.
fn words(name: &str) -> impl Iterator<Item = &'static str> {
    let between = |c: char| matches!(c, '-' | '.' | '_' | ' ') || c.is_ascii_digit();
    let stands = move |known: &&[&str]| name.split(between).any(|word| known.contains(&word));
    SPLITS.iter().filter(move |(_, known)| stands(known)).map(|(split, _)| *split)
}

/// What stands before, in and after the number of `NAME-00000-of-00001.parquet` and `NAME.00000-of-00001.json.gz`.
fn shard(name: &str) -> Option<(&str, &str, &str)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    for (at, separator) in name.match_indices("-of-") {
        let shards = digits(&name[at + separator.len()..]);
        let number = name[..at].bytes().rev().take_while(u8::is_ascii_digit).count();
        if shards == number && number >= 4 {
            return Some((&name[..at - number], &name[at - number..at], &name[at..]));
        }
    }
    None
}

/// Folder, with the last `/`, and name.
fn split_name(path: &str) -> (&str, &str) {
    path.split_at(path.rfind('/').map_or(0, |slash| slash + 1))
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.collect::<BTreeSet<&str>>().into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owned(files: &[&str]) -> Vec<String> {
        files.iter().map(|file| (*file).to_owned()).collect()
    }

    /// As `Salesforce/wikitext` has them.
    fn wikitext() -> Vec<String> {
        let mut files = owned(&[".gitattributes", "README.md"]);
        for (config, shards) in
            [("wikitext-103-raw-v1", 2), ("wikitext-103-v1", 2), ("wikitext-2-raw-v1", 1), ("wikitext-2-v1", 1)]
        {
            files.push(format!("{config}/test-00000-of-00001.parquet"));
            files.extend((0..shards).map(|shard| format!("{config}/train-0000{shard}-of-0000{shards}.parquet")));
            files.push(format!("{config}/validation-00000-of-00001.parquet"));
        }
        files
    }

    /// As `allenai/c4` has them, with fewer of each kind.
    fn c4() -> Vec<String> {
        let mut files = owned(&[".gitattributes", "README.md", "c4.py"]);
        for config in ["en", "en.noblocklist", "realnewslike"] {
            files.extend((0..4).rev().map(|shard| format!("{config}/c4-train.0000{shard}-of-00004.json.gz")));
            files.push(format!("{config}/c4-validation.00000-of-00001.json.gz"));
        }
        files.push("multilingual/c4-af.tfrecord-00000-of-00064.json.gz".into());
        files.push("multilingual/c4-af-validation.tfrecord-00000-of-00001.json.gz".into());
        files
    }

    #[test]
    fn wikitext_is_found() {
        let files = wikitext();
        let found = |config, split| files_of(&files, config, split);
        assert_eq!(found("wikitext-2-raw-v1", "test").unwrap(), ["wikitext-2-raw-v1/test-00000-of-00001.parquet"]);
        let train = found("wikitext-103-v1", "train").unwrap();
        let expected = ["wikitext-103-v1/train-00000-of-00002.parquet", "wikitext-103-v1/train-00001-of-00002.parquet"];
        assert_eq!(train, expected);
        let configs = ["wikitext-103-raw-v1", "wikitext-103-v1", "wikitext-2-raw-v1", "wikitext-2-v1"];
        assert_eq!(found("default", "test"), Err(Missing::Config(owned(&configs))));
        let splits = owned(&["test", "train", "validation"]);
        assert_eq!(found("wikitext-2-v1", "valid"), Err(Missing::Split(splits)));
    }

    #[test]
    fn c4_is_found() {
        let files = c4();
        let found = |config, split| files_of(&files, config, split).unwrap();
        assert_eq!(found("en", "train").len(), 4);
        assert_eq!(found("en", "train")[0], "en/c4-train.00000-of-00004.json.gz");
        assert_eq!(found("en.noblocklist", "validation"), ["en.noblocklist/c4-validation.00000-of-00001.json.gz"]);
        assert_eq!(found("multilingual", "train"), ["multilingual/c4-af.tfrecord-00000-of-00064.json.gz"]);
        let of_validation = ["multilingual/c4-af-validation.tfrecord-00000-of-00001.json.gz"];
        assert_eq!(found("multilingual", "validation"), of_validation);
    }

    #[test]
    fn other_layouts_are_found() {
        let found = |files: &[&str], config: &str, split: &str| {
            files_of(&owned(files), config, split).map(|files| files.iter().map(|file| (*file).to_owned()).collect())
        };
        let cases: [(&[&str], &str, &str, &str); 9] = [
            (&["data/train-00000-of-00001-abc.parquet"], "default", "train", "data/train-00000-of-00001-abc.parquet"),
            (
                &["data/train_sft-00000-of-00001.parquet"],
                "default",
                "train_sft",
                "data/train_sft-00000-of-00001.parquet",
            ),
            (&["train.jsonl", "dev.jsonl"], "default", "validation", "dev.jsonl"),
            (&["my_test_file.json", "other.json"], "default", "test", "my_test_file.json"),
            (&["my_test_file.json", "other.json"], "default", "train", "other.json"),
            (&["c/train/0000.parquet", "c/test/0000.parquet"], "c", "test", "c/test/0000.parquet"),
            (&["test/0.jsonl.gz", "train/0.jsonl.gz"], "default", "train", "train/0.jsonl.gz"),
            (&["data/2013-20/000_00000.parquet"], "2013-20", "train", "data/2013-20/000_00000.parquet"),
            (&["a.jsonl", "dataset_infos.json", ".x/b.jsonl", "__c/d.jsonl"], "default", "train", "a.jsonl"),
        ];
        for (files, config, split, expected) in cases {
            assert_eq!(found(files, config, split), Ok(vec![expected.to_owned()]), "{files:?} {config} {split}");
        }
        assert_eq!(found(&["README.md", "text.py"], "default", "train"), Err(Missing::Config(vec![])));
        // A word is a whole one.
        assert_eq!(found(&["latest.jsonl"], "default", "test"), Err(Missing::Split(vec!["train".into()])));
    }

    #[test]
    fn formats_that_are_not_read_are_named() {
        let formats = |files: &[&str]| match files_of(&owned(files), "default", "train") {
            Err(Missing::Format(formats)) => formats.join(" "),
            other => format!("{other:?}"),
        };
        assert_eq!(formats(&["README.md", "data/a.jsonl.zst", "data/b.jsonl.zst"]), ".jsonl.zst");
        assert_eq!(formats(&["train.csv", "test.csv.gz", "x/y-00000.arrow"]), ".arrow .csv .csv.gz");
        assert_eq!(formats(&["v1.0-2.tar", ".zst"]), ".tar .zst");
        // One that is read is enough to look for names.
        assert_eq!(formats(&["train.csv", "test.jsonl"]), "Err(Split([\"test\"]))");
    }

    #[test]
    fn the_first_of_several_files_is_known_from_any() {
        let first = first_of("en/c4-train.00017-of-01024.json.gz");
        assert_eq!(first.as_deref(), Some("en/c4-train.00000-of-01024.json.gz"));
        assert_eq!(first_of("a/train-00001-of-00002.parquet").as_deref(), Some("a/train-00000-of-00002.parquet"));
        for path in ["a/train-00000-of-00002.parquet", "train.jsonl", "one-of-many.json", "-of-", "é0001-of-00é"] {
            assert_eq!(first_of(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_names_are_taken(files in proptest::collection::vec("[a-z0-9é/_.-]{0,20}(-of-[0-9]{0,5})?(\\.jsonl)?", 0..8),
                               config in "[a-z]{0,3}", split in "[a-z]{0,3}") {
            let files: Vec<String> = files;
            for file in &files {
                first_of(file);
            }
            match files_of(&files, &config, &split) {
                Ok(found) => prop_assert!(!found.is_empty() && found.is_sorted()),
                // What a message lists can be asked for.
                Err(Missing::Config(known)) => prop_assert!(!known.contains(&config)),
                Err(Missing::Format(formats)) => prop_assert!(!formats.is_empty()),
                Err(Missing::Split(known)) => {
                    for split in known {
                        prop_assert!(files_of(&files, &config, &split).is_ok());
                    }
                }
            }
        }
    }
}
