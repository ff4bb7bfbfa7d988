//! Names that the hub and its cache use: repositories, revisions, commits, files.
//!
//! Owns what a valid name is. Names become parts of paths and addresses, so nothing that has not passed here may be
//! joined to either.

use std::fmt;
use std::path::{Component, Path};

use super::HubError;

/// What kind of repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RepoKind {
    /// Weights, configuration, tokenizer.
    Model,
    /// Texts.
    Dataset,
}

impl fmt::Display for RepoKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
        })
    }
}

/// A repository of the hub. Displays as ``model `facebook/opt-125m` ``.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RepoId {
    kind: RepoKind,
    name: String,
}

impl RepoId {
    /// Checks `name`, which is `ORG/NAME`, or `NAME` for the few repositories without an owner.
    ///
    /// # Errors
    /// [`HubError::InvalidName`].
    pub fn new(kind: RepoKind, name: &str) -> Result<Self, HubError> {
        let good = name.len() <= 96 && name.split('/').count() <= 2 && name.split('/').all(is_slug);
        // The cache writes `ORG/NAME` as `ORG--NAME`.
        if good && !name.contains("--") {
            let name = name.to_owned();
            return Ok(Self { kind, name });
        }
        Err(invalid("repository name", name))
    }

    /// Model or dataset.
    pub fn kind(&self) -> RepoKind {
        self.kind
    }

    /// `ORG/NAME`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The repository at `revision` in the terms of `hf-hub`, which knows the names of folders and addresses.
    pub(super) fn at(&self, revision: &str) -> hf_hub::Repo {
        let kind = match self.kind {
            RepoKind::Model => hf_hub::RepoType::Model,
            RepoKind::Dataset => hf_hub::RepoType::Dataset,
        };
        hf_hub::Repo::with_revision(self.name.clone(), kind, revision.to_owned())
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind, self.name)
    }
}

/// A branch, tag or commit, such as `main`, `v1.0`, `refs/pr/3`.
pub(super) fn check_revision(revision: &str) -> Result<(), HubError> {
    let in_order = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains("..");
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+@=,/".contains(c);
    if revision.split('/').all(in_order) && revision.chars().all(plain) {
        return Ok(());
    }
    Err(invalid("revision", revision))
}

/// A path inside a repository, with `/` between folders.
pub(super) fn check_file(file: &str) -> Result<(), HubError> {
    let plain = !file.chars().any(|c| c.is_control() || c == '\\');
    let tidy = file.split('/').all(|part| !part.is_empty() && part != ".");
    let inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    if plain && tidy && inside {
        return Ok(());
    }
    Err(invalid("file name", file))
}

/// Whether `text` is a full commit: 40 hexadecimal digits.
pub(super) fn is_commit(text: &str) -> bool {
    is_hex(text, 40)
}

/// Whether `text` is `digits` lower-case hexadecimal digits.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_slug(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let edge = |c: char| c == '.' || c == '-';
    !part.is_empty()
        && part.chars().all(plain)
        && !part.contains("..")
        && !part.starts_with(edge)
        && !part.ends_with(edge)
}

fn invalid(what: &'static str, value: &str) -> HubError {
    let value = value.to_owned();
    HubError::InvalidName { what, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn repository_names() {
        for good in ["gpt2", "facebook/opt-125m", "EleutherAI/pythia-410m", "a/b.c_d"] {
            assert!(RepoId::new(RepoKind::Model, good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a/", "a/b/c", "../x", "a/..", "a--b/c", "a b", "a/b@main", "-a", "C:\\x"] {
            assert!(RepoId::new(RepoKind::Model, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn revisions() {
        for good in ["main", "v1.0", "refs/pr/3", "0123456789abcdef", "step-1000"] {
            assert!(check_revision(good).is_ok(), "{good}");
        }
        for bad in ["", "/main", "a//b", "../main", "a/../b", "a b", "a?b", "a#b", "a%2Fb", "a\\b", "a:b"] {
            assert!(check_revision(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files() {
        for good in ["config.json", "onnx/model.onnx", "a b.txt", "é.txt"] {
            assert!(check_file(good).is_ok(), "{good}");
        }
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a/./b", "a//b", "a/", "a\\b", "a\0b", "a\nb"] {
            assert!(check_file(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_name_that_passes_stays_below_its_folder(text in "[a./\\\\:~-]{0,8}") {
            let accepted = [
                check_file(&text).is_ok(),
                check_revision(&text).is_ok(),
                RepoId::new(RepoKind::Model, &text).is_ok(),
            ];
            let inside = Path::new("/top").join(&text).components().skip(2)
                .all(|part| matches!(part, Component::Normal(_)));
            let below = Path::new("/top").join(&text).starts_with("/top");
            prop_assert!(!accepted.contains(&true) || (inside && below && !text.is_empty()));
        }
    }
}
