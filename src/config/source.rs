//! Where models and texts come from, as the experiment file spells it. Only the spelling: whether
//! a file or a model exists is for the loader to find out.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::diagnostic::nearest;
use crate::keyword::{one_of, serde_as_text};

/// The models inside the program.
pub const BUILTIN_MODELS: &[&str] = &["tiny-opt"];

/// The published shapes that random weights can be drawn for.
pub const SYNTHETIC_MODELS: &[&str] = &[
    "opt-125m",
    "opt-350m",
    "opt-1.3b",
    "pythia-160m",
    "pythia-410m",
    "pythia-1.4b",
    "llama-2-7b",
    "smollm2-135m",
    "gpt2",
    "qwen2.5-0.5b",
    "mistral-7b",
    "llama-3.2-1b",
    "llama-3.1-8b",
    "qwen3-0.6b",
    "qwen3-8b",
    "gemma-2-2b",
    "phi-3-mini",
    "olmo-2-1b",
    "olmoe-1b-7b",
];

/// The texts inside the program.
pub const BUILTIN_TEXTS: &[&str] = &["sample-texts", "heldout", "calibration"];

/// The forms of a model source, each with a line of help.
pub const MODEL_FORMS: &[(&str, &str)] = &[
    ("builtin:NAME", "a small trained model inside the program, for offline use"),
    ("hf:ORG/NAME", "a model on the Hugging Face hub; `hf:ORG/NAME@REVISION` pins it"),
    ("path:DIR", "a local Hugging Face checkpoint folder"),
    ("synthetic:NAME", "the shape of a published model with seeded random weights"),
];

/// The forms of a text source, each with a line of help.
pub const TEXT_FORMS: &[(&str, &str)] = &[
    ("builtin:NAME", "a text inside the program"),
    ("file:PATH", "a UTF-8 file; for agreement, one text a line"),
    ("hf:ORG/NAME/CONFIG/SPLIT", "a dataset on the Hugging Face hub; CONFIG is `default` where it has only one"),
];

/// A path with its spelling in the experiment file. `~` in front of it is the user's folder, as in a shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WrittenPath {
    written: String,
    path: PathBuf,
}

impl WrittenPath {
    /// A path as written, not yet relative to anything.
    pub fn new(written: &str) -> Self {
        Self { written: written.to_owned(), path: PathBuf::from(written) }
    }

    /// The spelling in the file.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// As seen from a folder.
    pub fn joined(self, folder: &Path) -> Self {
        let path = match at_home(&self.written, std::env::var_os("HOME").filter(|home| !home.is_empty())) {
            Some(path) => path,
            None => folder.join(&self.written),
        };
        Self { path, ..self }
    }
}

/// Whether `~` of a path is the user's folder: not that of another user, `~name`.
fn is_at_home(written: &str) -> bool {
    written == "~" || written.starts_with("~/")
}

/// A path below the user's folder, if it is spelled so and there is such a folder.
fn at_home(written: &str, home: Option<std::ffi::OsString>) -> Option<PathBuf> {
    let home = PathBuf::from(home.filter(|_| is_at_home(written))?);
    Some(home.join(written[1..].trim_start_matches('/')))
}

impl Deref for WrittenPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for WrittenPath {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// Where a model comes from. `Display` gives the text of the file back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ModelSource {
    /// `builtin:NAME`: one of [`BUILTIN_MODELS`].
    Builtin(String),
    /// `hf:ORG/NAME` or `hf:ORG/NAME@REVISION`.
    Hub {
        /// `ORG/NAME`, or `NAME` for the hub's oldest models.
        repo: String,
        /// Branch, tag or commit.
        revision: Option<String>,
    },
    /// `path:DIR`, relative to the experiment file's folder.
    Path(WrittenPath),
    /// `synthetic:NAME`: one of [`SYNTHETIC_MODELS`].
    Synthetic(String),
}

/// Where a text comes from. `Display` gives the text of the file back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TextSource {
    /// `builtin:NAME`: one of [`BUILTIN_TEXTS`].
    Builtin(String),
    /// `file:PATH`, relative to the experiment file's folder.
    File(WrittenPath),
    /// `hf:ORG/NAME/CONFIG/SPLIT` or `hf:ORG/NAME@REVISION/CONFIG/SPLIT`.
    Hub {
        /// `ORG/NAME`.
        repo: String,
        /// Branch, tag or commit.
        revision: Option<String>,
        /// The configuration.
        config: String,
        /// The split.
        split: String,
    },
}

serde_as_text!(ModelSource, TextSource);

/// What a source is a source of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A model.
    Model,
    /// A text.
    Text,
}

impl SourceKind {
    /// The forms of such a source, each with a line of help.
    pub fn forms(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Model => MODEL_FORMS,
            Self::Text => TEXT_FORMS,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Model => "model source",
            Self::Text => "text source",
        }
    }
}

/// A text that is no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Nothing like `builtin:` in front.
    #[error("{} `{text}` does not say where it comes from", kind.name())]
    NoScheme {
        /// Source of what.
        kind: SourceKind,
        /// The whole text.
        text: String,
    },
    /// Something in front that is not known.
    #[error("unknown scheme `{scheme}:` of {} `{text}`", kind.name())]
    UnknownScheme {
        /// Source of what.
        kind: SourceKind,
        /// What stands before the colon.
        scheme: String,
        /// The whole text.
        text: String,
    },
    /// No such model or text inside the program.
    #[error("unknown {} `{scheme}:{name}`", kind.name())]
    UnknownName {
        /// Source of what.
        kind: SourceKind,
        /// `builtin` or `synthetic`.
        scheme: &'static str,
        /// The unknown name.
        name: String,
        /// The names that exist.
        known: &'static [&'static str],
    },
    /// Not `ORG/NAME` or `ORG/NAME@REVISION`.
    #[error("`{repo}` is not a repository of the hub")]
    BadRepository {
        /// What stands after `hf:`.
        repo: String,
    },
    /// Not `ORG/NAME/CONFIG/SPLIT`.
    #[error("`{dataset}` is not a split of a dataset of the hub")]
    BadDataset {
        /// What stands after `hf:`.
        dataset: String,
    },
    /// `path:` or `file:` with nothing after it.
    #[error("`{scheme}:` names no path")]
    EmptyPath {
        /// `path` or `file`.
        scheme: &'static str,
    },
}

impl SourceError {
    /// What would have been accepted.
    pub fn expected(&self) -> String {
        match self {
            Self::NoScheme { kind, .. } | Self::UnknownScheme { kind, .. } => {
                let forms: Vec<&str> = kind.forms().iter().map(|(form, _)| *form).collect();
                one_of(&forms)
            }
            Self::UnknownName { scheme, known, .. } => {
                let full: Vec<String> = known.iter().map(|name| format!("{scheme}:{name}")).collect();
                one_of(&full)
            }
            Self::BadRepository { .. } => "expected `hf:ORG/NAME` or `hf:ORG/NAME@REVISION`".to_owned(),
            Self::BadDataset { .. } => {
                "expected `hf:ORG/NAME/CONFIG/SPLIT`, as in `hf:Salesforce/wikitext/wikitext-2-raw-v1/test`".to_owned()
            }
            Self::EmptyPath { scheme } => format!("expected a path after `{scheme}:`"),
        }
    }

    /// What was probably meant.
    pub fn hint(&self) -> Option<String> {
        let meant = match self {
            Self::NoScheme { kind, text } => without_scheme(*kind, text)?,
            Self::UnknownScheme { kind, scheme, text } => with_wrong_scheme(*kind, scheme, text)?,
            Self::UnknownName { scheme, name, known, .. } => {
                format!("{scheme}:{}", nearest(name, known.iter().copied())?)
            }
            Self::BadDataset { dataset } if dataset.split('/').count() == 2 => {
                return Some(format!("name the split too: `hf:{dataset}/default/train`, say"));
            }
            Self::BadRepository { .. } | Self::BadDataset { .. } | Self::EmptyPath { .. } => return None,
        };
        Some(format!("did you mean `{meant}`?"))
    }
}

/// A guess at the source that was meant by a text without a scheme.
fn without_scheme(kind: SourceKind, text: &str) -> Option<String> {
    let local = match kind {
        SourceKind::Model => "path",
        SourceKind::Text => "file",
    };
    if text.starts_with(['.', '/']) || is_at_home(text) {
        return Some(format!("{local}:{text}"));
    }
    match kind {
        SourceKind::Model if BUILTIN_MODELS.contains(&text) => Some(format!("builtin:{text}")),
        SourceKind::Model if SYNTHETIC_MODELS.contains(&text) => Some(format!("synthetic:{text}")),
        SourceKind::Model if text.contains('/') && is_repository(text) => Some(format!("hf:{text}")),
        SourceKind::Text if BUILTIN_TEXTS.contains(&text) => Some(format!("builtin:{text}")),
        SourceKind::Text if text.contains(['.', '/']) && !text.starts_with('~') => Some(format!("file:{text}")),
        SourceKind::Model | SourceKind::Text => None,
    }
}

/// A guess at the source that was meant by a text with an unknown scheme.
fn with_wrong_scheme(kind: SourceKind, scheme: &str, text: &str) -> Option<String> {
    let page = text.strip_prefix("https://huggingface.co/");
    if let Some(repo) = page.filter(|repo| kind == SourceKind::Model && is_repository(repo)) {
        return Some(format!("hf:{repo}"));
    }
    let schemes = kind.forms().iter().filter_map(|(form, _)| Some(form.split_once(':')?.0));
    let (_, rest) = text.split_once(':')?;
    Some(format!("{}:{rest}", nearest(scheme, schemes)?))
}

/// `NAME` or `ORG/NAME` in the hub's alphabet.
fn is_repository(repo: &str) -> bool {
    match repo.split_once('/') {
        Some((org, name)) => is_name(org) && is_name(name),
        None => is_name(repo),
    }
}

/// A name in the hub's alphabet.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.chars().all(plain) && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// `name`, if it is known.
fn known(
    kind: SourceKind,
    scheme: &'static str,
    name: &str,
    known: &'static [&'static str],
) -> Result<String, SourceError> {
    if known.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(SourceError::UnknownName { kind, scheme, name: name.to_owned(), known })
}

/// A path after `scheme:`.
fn written_path(scheme: &'static str, path: &str) -> Result<WrittenPath, SourceError> {
    if path.is_empty() {
        return Err(SourceError::EmptyPath { scheme });
    }
    Ok(WrittenPath::new(path))
}

/// Scheme and rest.
fn split(kind: SourceKind, text: &str) -> Result<(&str, &str), SourceError> {
    let missing = || SourceError::NoScheme { kind, text: text.to_owned() };
    text.split_once(':').ok_or_else(missing)
}

impl ModelSource {
    /// The source as seen from the folder of the experiment file.
    pub fn relative_to(self, folder: &Path) -> Self {
        match self {
            Self::Path(path) => Self::Path(path.joined(folder)),
            other => other,
        }
    }
}

impl FromStr for ModelSource {
    type Err = SourceError;

    /// Parses a source; a path stays as it is written.
    fn from_str(text: &str) -> Result<Self, SourceError> {
        const KIND: SourceKind = SourceKind::Model;
        let (scheme, rest) = split(KIND, text)?;
        match scheme {
            "builtin" => known(KIND, "builtin", rest, BUILTIN_MODELS).map(Self::Builtin),
            "synthetic" => known(KIND, "synthetic", rest, SYNTHETIC_MODELS).map(Self::Synthetic),
            "path" => written_path("path", rest).map(Self::Path),
            "hf" => {
                let (repo, revision) = match rest.split_once('@') {
                    Some((repo, revision)) => (repo, Some(revision)),
                    None => (rest, None),
                };
                if !is_repository(repo) || revision.is_some_and(str::is_empty) {
                    return Err(SourceError::BadRepository { repo: rest.to_owned() });
                }
                Ok(Self::Hub { repo: repo.to_owned(), revision: revision.map(str::to_owned) })
            }
            _ => Err(SourceError::UnknownScheme { kind: KIND, scheme: scheme.to_owned(), text: text.to_owned() }),
        }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(name) => write!(f, "builtin:{name}"),
            Self::Hub { repo, revision: None } => write!(f, "hf:{repo}"),
            Self::Hub { repo, revision: Some(revision) } => write!(f, "hf:{repo}@{revision}"),
            Self::Path(path) => write!(f, "path:{}", path.written()),
            Self::Synthetic(name) => write!(f, "synthetic:{name}"),
        }
    }
}

impl TextSource {
    /// The source as seen from the folder of the experiment file.
    pub fn relative_to(self, folder: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(path.joined(folder)),
            other => other,
        }
    }
}

impl FromStr for TextSource {
    type Err = SourceError;

    /// Parses a source; a path stays as it is written.
    fn from_str(text: &str) -> Result<Self, SourceError> {
        const KIND: SourceKind = SourceKind::Text;
        let (scheme, rest) = split(KIND, text)?;
        match scheme {
            "builtin" => known(KIND, "builtin", rest, BUILTIN_TEXTS).map(Self::Builtin),
            "file" => written_path("file", rest).map(Self::File),
            "hf" => dataset(rest).ok_or_else(|| SourceError::BadDataset { dataset: rest.to_owned() }),
            _ => Err(SourceError::UnknownScheme { kind: KIND, scheme: scheme.to_owned(), text: text.to_owned() }),
        }
    }
}

/// `ORG/NAME/CONFIG/SPLIT`, the name with a revision or without. A revision may have slashes (`refs/pr/1`), so that
/// configuration and split are what stands at the end.
fn dataset(text: &str) -> Option<TextSource> {
    let (rest, split) = text.rsplit_once('/')?;
    let (rest, config) = rest.rsplit_once('/')?;
    let (repo, revision) = match rest.split_once('@') {
        Some((repo, revision)) => (repo, Some(revision)),
        None => (rest, None),
    };
    let (org, name) = repo.split_once('/')?;
    let names = [org, name, config, split].into_iter().chain(revision.into_iter().flat_map(|it| it.split('/')));
    names.clone().all(is_name).then(|| TextSource::Hub {
        repo: repo.to_owned(),
        revision: revision.map(str::to_owned),
        config: config.to_owned(),
        split: split.to_owned(),
    })
}

impl fmt::Display for TextSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(name) => write!(f, "builtin:{name}"),
            Self::File(path) => write!(f, "file:{}", path.written()),
            Self::Hub { repo, revision: None, config, split } => write!(f, "hf:{repo}/{config}/{split}"),
            Self::Hub { repo, revision: Some(revision), config, split } => {
                write!(f, "hf:{repo}@{revision}/{config}/{split}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(text: &str) -> Option<String> {
        text.parse::<ModelSource>().unwrap_err().hint()
    }

    #[test]
    fn display_gives_the_written_text_back() {
        for text in [
            "builtin:tiny-opt",
            "hf:gpt2",
            "hf:facebook/opt-125m",
            "hf:facebook/opt-125m@v1.0",
            "path:../some dir",
            "synthetic:llama-2-7b",
        ] {
            let source: ModelSource = text.parse().unwrap();
            assert_eq!(source.relative_to(Path::new("/e")).to_string(), text);
        }
        for text in [
            "builtin:heldout",
            "file:texts.txt",
            "hf:Salesforce/wikitext/wikitext-2-raw-v1/test",
            "hf:allenai/c4@v1.0/en.noblocklist/train",
            "hf:allenai/c4@refs/convert/parquet/en/train",
            "hf:a/b@refs/pr/1/c/d",
            "file:~/texts.txt",
        ] {
            assert_eq!(text.parse::<TextSource>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let source: ModelSource = "path:../model".parse().unwrap();
        let ModelSource::Path(path) = source.relative_to(Path::new("exp")) else { panic!() };
        assert_eq!(&*path, Path::new("exp/../model"));
        let absolute: TextSource = "file:/a/b".parse().unwrap();
        let TextSource::File(path) = absolute.relative_to(Path::new("exp")) else { panic!() };
        assert_eq!(&*path, Path::new("/a/b"));
    }

    #[test]
    fn slashes_of_a_revision_are_no_configuration() {
        for (text, expected) in [
            ("hf:a/b@refs/convert/parquet/c/d", Some("refs/convert/parquet")),
            ("hf:a/b@feature/x/c/d", Some("feature/x")),
            ("hf:a/b@v1/c/d", Some("v1")),
            ("hf:a/b/c/d", None),
        ] {
            let TextSource::Hub { repo, revision, config, split } = text.parse().unwrap() else { panic!("{text}") };
            assert_eq!((repo.as_str(), config.as_str(), split.as_str()), ("a/b", "c", "d"), "{text}");
            assert_eq!(revision.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_tilde_is_the_users_folder() {
        let home = |written| at_home(written, Some("/home/u".into()));
        assert_eq!(home("~/models/a").as_deref(), Some(Path::new("/home/u/models/a")));
        assert_eq!(home("~//a").as_deref(), Some(Path::new("/home/u/a")));
        assert_eq!(home("~").as_deref(), Some(Path::new("/home/u/")));
        for written in ["~other/a", "a/~/b", "./~", "/a"] {
            assert_eq!(home(written), None, "{written}");
        }
        assert_eq!(at_home("~/a", None), None);
        assert_eq!(hint("~/m"), Some("did you mean `path:~/m`?".to_owned()));
        assert_eq!(hint("~user/m"), None);
        let text = |text: &str| text.parse::<TextSource>().unwrap_err().hint();
        assert_eq!(text("~/t.txt"), Some("did you mean `file:~/t.txt`?".to_owned()));
        assert_eq!(text("~user/t.txt"), None);
    }

    #[test]
    fn mistakes_are_recognised() {
        let meant = |text: &str| Some(format!("did you mean `{text}`?"));
        assert_eq!(hint("facebook/opt-125m"), meant("hf:facebook/opt-125m"));
        assert_eq!(hint("https://huggingface.co/a/b"), meant("hf:a/b"));
        assert_eq!(hint("../model"), meant("path:../model"));
        assert_eq!(hint("tiny-opt"), meant("builtin:tiny-opt"));
        assert_eq!(hint("opt-125m"), meant("synthetic:opt-125m"));
        assert_eq!(hint("builtn:tiny-opt"), meant("builtin:tiny-opt"));
        assert_eq!(hint("builtin:tiny-op"), meant("builtin:tiny-opt"));
        assert_eq!(hint("banana"), None);
        assert_eq!(hint("s3:bucket"), None);
    }

    #[test]
    fn datasets_are_checked() {
        for text in [
            "hf:",
            "hf:a/b",
            "hf:a/b/c",
            "hf:a/b/c/d/e",
            "hf:a/b@/c/d",
            "hf:a/../c/d",
            "hf:a@v/b/c/d",
            "hf:a/b//d",
            "hf:a/b@v",
            "hf:a/b@refs/pr",
            "hf:a/b@../x/c/d",
            "hf:a/b@v//c/d",
            "hf:a/b@v@w/c/d",
        ] {
            let error = text.parse::<TextSource>().unwrap_err();
            assert!(matches!(error, SourceError::BadDataset { .. }), "{text}");
            assert_eq!(error.hint().is_some(), ["hf:a/b", "hf:a/b@v"].contains(&text), "{text}");
        }
    }

    #[test]
    fn repositories_are_checked() {
        for text in ["hf:", "hf:a/b/c", "hf:a/b@", "hf:../b", "hf:a/", "hf:a b"] {
            let error = text.parse::<ModelSource>().unwrap_err();
            assert!(matches!(error, SourceError::BadRepository { .. }), "{text}");
        }
    }
}
