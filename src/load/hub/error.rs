//! What can go wrong between this program, the hub and its cache.
//!
//! Owns the wording. No message holds a token, nor the query of an address (a download link's query is a key).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::RepoId;

/// Why a file of the hub could not be had. [`HubError::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// There is no home folder and no variable names the cache.
    #[error("no folder for the hub's cache: there is no home folder")]
    NoCacheFolder,
    /// The endpoint is not an `http` or `https` address.
    #[error("`{endpoint}` is not an address of a hub")]
    InvalidEndpoint {
        /// What `HF_ENDPOINT` says.
        endpoint: String,
    },
    /// The token has characters that a header cannot hold; it is not shown.
    #[error("the hub's token has characters that no token has")]
    InvalidToken,
    /// A repository, revision or file name that no hub can have.
    #[error("`{value}` is not a valid {what}")]
    InvalidName {
        /// `repository name`, `revision` or `file name`.
        what: &'static str,
        /// The name given.
        value: String,
    },
    /// Offline, and the cache does not know this revision of the repository.
    #[error("{repo} at revision `{revision}` is not in the cache `{}`", folder.display())]
    NotCached {
        /// The repository asked for.
        repo: RepoId,
        /// The revision asked for.
        revision: String,
        /// The cache folder searched.
        folder: PathBuf,
    },
    /// Only the cache can be used, and it does not have this file.
    #[error("`{file}` of {repo} is not in the cache `{}` ({why})", folder.display())]
    FileNotCached {
        /// The repository asked for.
        repo: RepoId,
        /// The file asked for.
        file: String,
        /// The folder searched.
        folder: PathBuf,
        /// Why the hub was not asked.
        why: CacheOnly,
    },
    /// The hub has no such repository.
    #[error("{repo} is not on the hub `{endpoint}`")]
    RepoNotFound {
        /// The repository asked for.
        repo: RepoId,
        /// The hub asked.
        endpoint: String,
    },
    /// The repository is private or gated, or does not exist: to a stranger, the hub does not say which.
    #[error("no access to {repo} (status {status}): private, gated or missing")]
    AccessDenied {
        /// The repository asked for.
        repo: RepoId,
        /// 401 or 403.
        status: u16,
        /// The repository's page.
        page: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{repo} has no revision `{revision}`")]
    RevisionNotFound {
        /// The repository asked for.
        repo: RepoId,
        /// The revision asked for.
        revision: String,
    },
    /// The repository has no such file.
    #[error("{repo} has no file `{file}`")]
    FileNotFound {
        /// The repository asked for.
        repo: RepoId,
        /// The file asked for.
        file: String,
        /// Names of files that it has and that are alike, best first.
        near: Vec<String>,
    },
    /// No connection: refused, unknown host, too slow.
    #[error("cannot reach `{host}`: {fault}")]
    Unreachable {
        /// Scheme, host and port.
        host: String,
        /// What happened.
        fault: NetworkFault,
    },
    /// The server answered that it cannot serve now (429 or 5xx).
    #[error("`{host}` cannot serve now (status {status})")]
    Unavailable {
        /// Scheme, host and port.
        host: String,
        /// Status of its answer.
        status: u16,
    },
    /// The connection was dropped midway, again and again.
    #[error("the download of `{file}` stopped at {received}{} after {attempts} tries: {reason}", of_bytes(*expected))]
    Dropped {
        /// The file.
        file: String,
        /// Bytes that had arrived.
        received: u64,
        /// Bytes that the hub announced.
        expected: Option<u64>,
        /// How many times it was tried.
        attempts: u32,
        /// What the connection said last.
        reason: String,
    },
    /// All bytes arrived, and they are not the right ones. They were deleted.
    #[error("`{file}` arrived damaged and was deleted: its {algorithm} is {found}, not {expected}")]
    WrongHash {
        /// The file.
        file: String,
        /// `sha256` or `git sha1`.
        algorithm: &'static str,
        /// What the hub announced, in hexadecimal digits.
        expected: String,
        /// What arrived, in hexadecimal digits.
        found: String,
    },
    /// More or fewer bytes than announced. They were deleted.
    #[error("`{file}` arrived with {found} bytes instead of {expected} and was deleted")]
    WrongLength {
        /// The file.
        file: String,
        /// What the hub announced, in bytes.
        expected: u64,
        /// What arrived, in bytes; when more came than announced, counted up to where reading stopped.
        found: u64,
    },
    /// The addresses send each other around.
    #[error("too many redirects from `{url}`")]
    TooManyRedirects {
        /// The first address.
        url: String,
    },
    /// An answer that is not in the hub's language.
    #[error("unexpected answer from `{url}`: {problem}")]
    BadAnswer {
        /// The address asked.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No space left, or the quota is used up. The part that had arrived was deleted.
    #[error("no space left for `{}`", path.display())]
    DiskFull {
        /// The file being written.
        path: PathBuf,
    },
    /// The cache folder cannot be written.
    #[error("cannot write `{}` in the hub's cache: {source}", path.display())]
    CacheNotWritable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file just downloaded cannot be read back.
    #[error("cannot read `{}` in the hub's cache: {source}", path.display())]
    CacheNotReadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that has lain in the cache is not what it was when it came.
    #[error("`{}` in the hub's cache is damaged: its {algorithm} is {found}, not {expected}", path.display())]
    Damaged {
        /// The file with the bytes.
        path: PathBuf,
        /// `sha256` or `git sha1`.
        algorithm: &'static str,
        /// What its name says, in hexadecimal digits.
        expected: String,
        /// What is in it, in hexadecimal digits.
        found: String,
    },
    /// The caller asked to stop. What had arrived is kept and used the next time.
    #[error("the download of `{file}` was interrupted")]
    Interrupted {
        /// The file.
        file: String,
    },
}

/// What stopped a connection from being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkFault {
    /// Nothing listens there.
    Refused,
    /// The name has no address.
    UnknownHost,
    /// No answer in time.
    Timeout,
    /// Anything else, in the words of the system or of the TLS library.
    Other(String),
}

impl fmt::Display for NetworkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::UnknownHost => f.write_str("unknown host"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Other(words) => f.write_str(words),
        }
    }
}

/// Why only the cache is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheOnly {
    /// The settings say so.
    Offline,
    /// The hub could not be asked, for this reason.
    HubFailed(String),
}

impl fmt::Display for CacheOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline => f.write_str("offline"),
            Self::HubFailed(reason) => f.write_str(reason),
        }
    }
}

/// Something that the user should know although the files were found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HubWarning {
    /// The hub could not be asked where the revision is now.
    #[error(
        "using the cached commit `{commit}` of {repo}, revision `{revision}`, which may have moved since: {reason}"
    )]
    HubFailed {
        /// The repository.
        repo: RepoId,
        /// The revision asked for.
        revision: String,
        /// The commit that the cache has for it.
        commit: String,
        /// Why the hub could not be asked.
        reason: String,
    },
}

impl HubError {
    /// The next action, where there is one.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoCacheFolder => "set `HF_HOME` to a folder".to_owned(),
            Self::InvalidEndpoint { .. } => {
                "set `HF_ENDPOINT` to an address such as `https://huggingface.co`, or unset it".to_owned()
            }
            Self::InvalidToken => "set `HF_TOKEN` to a token from https://huggingface.co/settings/tokens".to_owned(),
            Self::InvalidName { what, .. } => return name_hint(what),
            Self::NotCached { .. } => online_hint("the repository"),
            Self::FileNotCached { why: CacheOnly::Offline, file, .. } => {
                online_hint(&format!("`{file}`, if the repository has it,"))
            }
            Self::FileNotCached { .. } => "check the network, then run again to download it".to_owned(),
            Self::RepoNotFound { repo, .. } => {
                format!("check the spelling of `{}`, and that it is a {}", repo.name(), repo.kind())
            }
            Self::AccessDenied { page, with_token, .. } => access_hint(page, *with_token),
            Self::RevisionNotFound { repo, .. } => {
                format!("use a branch, tag or commit of `{}`; the default is `main`", repo.name())
            }
            Self::FileNotFound { near, .. } => return near_hint(near),
            Self::Unreachable { .. } => {
                "check the network and `HF_ENDPOINT`; files already in the cache can be used with `--offline`"
                    .to_owned()
            }
            Self::Unavailable { .. } => "wait a little, then run again".to_owned(),
            Self::Dropped { .. } => "run again: the download goes on from where it stopped".to_owned(),
            Self::WrongHash { .. } | Self::WrongLength { .. } => {
                "run again; if it comes back, a proxy or mirror on the way changes the file".to_owned()
            }
            Self::TooManyRedirects { .. } | Self::BadAnswer { .. } => {
                "check `HF_ENDPOINT` and the proxy settings".to_owned()
            }
            Self::Damaged { .. } => online_hint("it anew"),
            Self::DiskFull { .. } => "free some space, or set `HF_HUB_CACHE` to a folder on a larger disk".to_owned(),
            Self::CacheNotWritable { .. } | Self::CacheNotReadable { .. } => {
                "check the folder's permissions, or set `HF_HUB_CACHE` to a folder of your own".to_owned()
            }
            Self::Interrupted { .. } => "run again to go on from where it stopped".to_owned(),
        };
        Some(hint)
    }

    /// A failure to write `path`.
    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::CacheNotWritable { path, source },
        }
    }

    /// Whether the next try may well succeed.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Unavailable { .. } | Self::Dropped { .. })
    }

    /// Whether the hub itself could not be asked, so that the cache may stand in for it.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Unavailable { .. })
    }

    /// Whether the bytes that had arrived are good, as far as they go.
    pub(super) fn keeps_part(&self) -> bool {
        self.is_transient() || matches!(self, Self::Interrupted { .. })
    }
}

fn of_bytes(expected: Option<u64>) -> String {
    match expected {
        Some(bytes) => format!(" of {bytes} bytes"),
        None => " bytes".to_owned(),
    }
}

fn online_hint(what: &str) -> String {
    format!(
        "run once with network: `sparsify-exp fetch FILE` downloads {what}; so does `run` without `--offline` and with \
         `HF_HUB_OFFLINE` unset; or set `HF_HUB_CACHE` to the cache that has it"
    )
}

fn access_hint(page: &str, with_token: bool) -> String {
    let token = if with_token {
        "check that the token in `HF_TOKEN` is valid and may read it"
    } else {
        "set `HF_TOKEN` to a token that may read it"
    };
    format!("check the name; if it is gated, accept its licence on {page}; {token}")
}

fn name_hint(what: &str) -> Option<String> {
    match what {
        "repository name" => Some("write it as `ORG/NAME`, as on the hub".to_owned()),
        "revision" => Some("use a branch, a tag or a commit".to_owned()),
        "file name" => Some("use a path inside the repository, with `/` between folders".to_owned()),
        _ => None,
    }
}

fn near_hint(near: &[String]) -> Option<String> {
    let names: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| format!("similar files exist: {}", names.join(", ")))
}
