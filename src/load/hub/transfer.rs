//! Requests to the hub: what a revision holds, what a file is, and its bytes.
//!
//! The only file of the program that opens sockets. Must not know where the bytes go, nor what they mean.
//!
//! `hf-hub` supplies addresses, headers, the answer's type and the request for a revision's list of files. The transfer
//! of files is done here with the `ureq` that it builds on, because `hf-hub` 0.5.0, `api/sync.rs`,
//!
//! - sends the access token to whichever host a file's address redirects to (`Api::metadata`),
//! - gives a blob its name without a look at its hash or length (`ApiRepo::download_with_progress`), appends to a part
//!   although the server ignored the range (`Api::download_from`), and takes each answer's status for a bare number,
//!   without the header that tells a missing revision from a missing repository,
//! - follows a redirect that leads to itself forever (`Api::metadata`), waits forever for a silent server, and fails on
//!   a broken link in the cache (`symlink_or_rename`).

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder};
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION};
use ureq::http::{HeaderMap, Response, Uri};
use ureq::{Agent, Body};

use super::address::{encode_path, host, join, origin, parse_endpoint, without_query};
use super::blob::BlobId;
use super::cache::Partial;
use super::names::is_commit;
use super::{HubError, HubSettings, NetworkFault, Observer, Progress, RepoId};

const MAX_REDIRECTS: usize = 10;
const CHUNK: usize = 1 << 18;
/// A dataset of a million files lists them in some 100 MB.
const MAX_LISTING: u64 = 1 << 28;

/// One file at one commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileAt<'a> {
    pub repo: &'a RepoId,
    pub commit: &'a str,
    pub file: &'a str,
}

/// What the hub says about a file before it sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    pub blob: BlobId,
    /// Length in bytes.
    pub size: Option<u64>,
}

/// What the hub says about a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Revision {
    pub commit: String,
    /// All files, sorted.
    pub files: Vec<String>,
}

/// A connection pool and what each request needs.
pub(super) struct Transport {
    agent: Agent,
    api: Api,
    settings: HubSettings,
    endpoint: Uri,
}

#[derive(Clone, Copy)]
enum Method {
    Head,
    /// The bytes from this offset on.
    Get(u64),
}

impl Transport {
    /// Opens no connection.
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        let endpoint = parse_endpoint(&settings.endpoint)?;
        let visible = |token: &String| token.bytes().all(|b| b.is_ascii_graphic());
        if !settings.token.as_ref().is_none_or(visible) {
            return Err(HubError::InvalidToken);
        }
        let cache = hf_hub::Cache::new(settings.cache.clone());
        let api = ApiBuilder::from_cache(cache)
            .with_endpoint(settings.endpoint.clone())
            .with_token(settings.token.clone())
            .with_user_agent(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
            .with_progress(false)
            .build()
            .map_err(|_| HubError::InvalidEndpoint { endpoint: settings.endpoint.clone() })?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // Each hop is looked at: the first ones carry the file's headers, and decide about the token.
            .max_redirects(0)
            // Lengths and offsets are those of the file only if nothing is compressed on the way.
            .accept_encoding("identity")
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(settings.timeout))
            .timeout_connect(Some(settings.timeout))
            .timeout_recv_response(Some(settings.timeout))
            .timeout_per_read(Some(settings.timeout))
            .build()
            .into();
        Ok(Self { agent, api, settings, endpoint })
    }

    /// The commit and the files of `revision`.
    pub fn revision(&self, repo: &RepoId, revision: &str) -> Result<Revision, HubError> {
        // An outage is reported at once, as the cache may do instead.
        let retry = |error: &HubError| matches!(error, HubError::Unavailable { .. });
        self.retrying(retry, |_| self.try_revision(repo, revision))
    }

    /// The file's identity and length. Sends no token but to the hub, and asks nobody else.
    pub fn announced(&self, at: FileAt) -> Result<Announced, HubError> {
        self.retrying(HubError::is_transient, |_| self.try_announced(at))
    }

    /// Appends the bytes that `partial` lacks.
    ///
    /// On error, `partial` holds the bytes that had arrived.
    pub fn download(
        &self,
        at: FileAt,
        size: Option<u64>,
        partial: &mut Partial,
        observer: &Observer,
    ) -> Result<(), HubError> {
        self.retrying(HubError::is_transient, |attempts| {
            let try_ = Try { at, size, attempts };
            self.try_download(try_, partial, observer)
        })
    }

    fn retrying<T>(
        &self,
        may_retry: impl Fn(&HubError) -> bool,
        mut operation: impl FnMut(u32) -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        let mut attempts = 1;
        let mut wait = self.settings.retry_wait;
        loop {
            match operation(attempts) {
                Err(error) if attempts <= self.settings.retries && may_retry(&error) => {
                    thread::sleep(wait);
                    wait = wait.saturating_mul(2).min(Duration::from_secs(30));
                    attempts += 1;
                }
                result => return result,
            }
        }
    }

    fn try_revision(&self, repo: &RepoId, revision: &str) -> Result<Revision, HubError> {
        let request = self.api.repo(repo.at(revision)).info_request();
        let url = request.uri_ref().map(Uri::to_string).unwrap_or_default();
        let response = request
            .config()
            .http_status_as_error(false)
            .timeout_resolve(Some(self.settings.timeout))
            .timeout_connect(Some(self.settings.timeout))
            .timeout_recv_response(Some(self.settings.timeout))
            .timeout_per_read(Some(self.settings.timeout))
            .build()
            .call()
            .map_err(|error| request_error(error, &url))?;
        let status = response.status().as_u16();
        if status != 200 {
            let subject = Subject::Revision(revision);
            return Err(self.refusal(repo, subject, &url, status, response.headers()));
        }
        let body = response.into_body().into_with_config().limit(MAX_LISTING);
        let info: RepoInfo = match body.read_json() {
            Ok(info) => info,
            Err(error @ (ureq::Error::Io(_) | ureq::Error::Timeout(_))) => {
                return Err(request_error(error, &url));
            }
            Err(_) => {
                return Err(bad_answer(&url, "it is not the description of a repository"));
            }
        };
        if !is_commit(&info.sha) {
            return Err(bad_answer(&url, "its `sha` is not a commit"));
        }
        let mut files: Vec<String> = info.siblings.into_iter().map(|s| s.rfilename).collect();
        files.sort();
        let commit = info.sha;
        Ok(Revision { commit, files })
    }

    fn try_announced(&self, at: FileAt) -> Result<Announced, HubError> {
        let first = self.address(at);
        let mut url = first.clone();
        let mut seen = Headers::default();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(Method::Head, &url)?;
            let headers = response.headers();
            seen.note(headers);
            let status = response.status().as_u16();
            if let Some(next) = redirect(status, headers, &url)? {
                if self.is_hub(&next) || !seen.has_etag(headers) {
                    url = next;
                    continue;
                }
            } else if status != 200 {
                return Err(self.refusal(at.repo, Subject::File(at), &url, status, headers));
            }
            return seen.announced(headers, at.commit, &url);
        }
        Err(too_many_redirects(&first))
    }

    fn try_download(&self, try_: Try, partial: &mut Partial, observer: &Observer) -> Result<(), HubError> {
        if partial.len()? > try_.size.unwrap_or(u64::MAX) {
            partial.restart()?;
        }
        let offset = partial.len()?;
        if Some(offset) == try_.size {
            return Ok(());
        }
        let (url, response) = self.open(try_.at, offset)?;
        let status = response.status().as_u16();
        match status {
            206 if range_start(response.headers()) == Some(offset) => {}
            // The server does not do ranges, and sends the whole file.
            200 => partial.restart()?,
            // The part is of no use; the next try begins anew.
            206 | 416 => {
                partial.restart()?;
                return Err(try_.dropped(0, format!("range from {offset} refused")));
            }
            _ => {
                let subject = Subject::File(try_.at);
                return Err(self.refusal(try_.at.repo, subject, &url, status, response.headers()));
            }
        }
        receive(try_, response, partial, observer)
    }

    /// Sends the request for the bytes from `offset` on, and follows it to the host that has them.
    fn open(&self, at: FileAt, offset: u64) -> Result<(String, Response<Body>), HubError> {
        let first = self.address(at);
        let mut url = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(Method::Get(offset), &url)?;
            match redirect(response.status().as_u16(), response.headers(), &url)? {
                Some(next) => url = next,
                None => return Ok((url, response)),
            }
        }
        Err(too_many_redirects(&first))
    }

    /// One request, without redirects. The token goes to the hub only.
    fn send(&self, method: Method, url: &str) -> Result<Response<Body>, HubError> {
        let mut request = match method {
            Method::Head => self.agent.head(url),
            Method::Get(0) => self.agent.get(url),
            Method::Get(offset) => self.agent.get(url).header("range", format!("bytes={offset}-")),
        };
        if let Some(token) = self.settings.token.as_ref().filter(|_| self.is_hub(url)) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.call().map_err(|error| request_error(error, url))
    }

    fn address(&self, at: FileAt) -> String {
        self.api.repo(at.repo.at(at.commit)).url(&encode_path(at.file))
    }

    /// Whether `url` is the hub's: same scheme, host and port.
    fn is_hub(&self, url: &str) -> bool {
        url.parse::<Uri>().is_ok_and(|uri| origin(&uri) == origin(&self.endpoint))
    }

    fn refusal(&self, repo: &RepoId, subject: Subject, url: &str, status: u16, headers: &HeaderMap) -> HubError {
        let code = text(headers, "x-error-code").unwrap_or_default();
        let repo = repo.clone();
        match (status, subject) {
            (429 | 500.., _) => {
                let host = host(url);
                HubError::Unavailable { host, status }
            }
            // A download link that has expired: the next try gets a new one from the hub.
            (401 | 403 | 404, _) if !self.is_hub(url) => {
                let host = host(url);
                HubError::Unavailable { host, status }
            }
            (401 | 403, _) => HubError::AccessDenied {
                page: format!("{}/{}", self.settings.endpoint, repo.at("main").url()),
                with_token: self.settings.token.is_some(),
                repo,
                status,
            },
            (404, Subject::Revision(revision)) if code == "RevisionNotFound" => {
                let revision = revision.to_owned();
                HubError::RevisionNotFound { repo, revision }
            }
            (404, Subject::File(at)) if code != "RepoNotFound" => {
                HubError::FileNotFound { repo, file: at.file.to_owned(), near: Vec::new() }
            }
            (404 | 410, _) => HubError::RepoNotFound { repo, endpoint: self.settings.endpoint.clone() },
            _ => bad_answer(url, &format!("status {status}")),
        }
    }
}

/// What a request was about.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Revision(&'a str),
    File(FileAt<'a>),
}

/// One of several tries to get a file.
#[derive(Clone, Copy)]
struct Try<'a> {
    at: FileAt<'a>,
    size: Option<u64>,
    attempts: u32,
}

impl Try<'_> {
    fn dropped(&self, received: u64, reason: String) -> HubError {
        HubError::Dropped {
            file: self.at.file.to_owned(),
            received,
            expected: self.size,
            attempts: self.attempts,
            reason,
        }
    }

    fn wrong_length(&self, expected: u64, found: u64) -> HubError {
        let file = self.at.file.to_owned();
        HubError::WrongLength { file, expected, found }
    }
}

/// Appends the body to `partial`.
fn receive(
    mut try_: Try,
    response: Response<Body>,
    partial: &mut Partial,
    observer: &Observer,
) -> Result<(), HubError> {
    let mut received = partial.len()?;
    let body_end = number(response.headers(), CONTENT_LENGTH.as_str()).map(|n| received + n);
    try_.size = try_.size.or(body_end);
    let mut body = response.into_body().into_reader();
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = match body.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(try_.dropped(received, error.to_string())),
        };
        received += n as u64;
        match try_.size {
            Some(size) if received > size => return Err(try_.wrong_length(size, received)),
            _ => partial.append(&chunk[..n])?,
        }
        let progress = Progress { file: try_.at.file, received, total: try_.size };
        if observer(progress).is_break() {
            let file = try_.at.file.to_owned();
            return Err(HubError::Interrupted { file });
        }
    }
    match try_.size {
        // The server meant to send this many.
        Some(size) if received < size && body_end == Some(received) => Err(try_.wrong_length(size, received)),
        Some(size) if received < size => Err(try_.dropped(received, "connection closed".to_owned())),
        _ => Ok(()),
    }
}

/// The file's headers, which the hub gives before it redirects to another host.
#[derive(Default)]
struct Headers {
    linked_etag: Option<String>,
    linked_size: Option<u64>,
    commit: Option<String>,
}

impl Headers {
    fn note(&mut self, headers: &HeaderMap) {
        let Self { linked_etag, linked_size, commit } = self;
        *linked_etag = linked_etag.take().or_else(|| text(headers, "x-linked-etag"));
        *linked_size = linked_size.or_else(|| number(headers, "x-linked-size"));
        *commit = commit.take().or_else(|| text(headers, "x-repo-commit"));
    }

    fn has_etag(&self, last: &HeaderMap) -> bool {
        self.linked_etag.is_some() || last.contains_key(ETAG)
    }

    fn announced(self, last: &HeaderMap, commit: &str, url: &str) -> Result<Announced, HubError> {
        if self.commit.is_some_and(|other| other != commit) {
            return Err(bad_answer(url, "it is of another commit than the one asked for"));
        }
        let etag = self.linked_etag.or_else(|| text(last, ETAG.as_str()));
        let Some(blob) = etag.as_deref().and_then(BlobId::from_etag) else {
            return Err(bad_answer(url, "it has no usable `etag`"));
        };
        // The length of a redirect's own body says nothing of the file.
        let own_size = || match last.contains_key(LOCATION) {
            true => None,
            false => number(last, CONTENT_LENGTH.as_str()),
        };
        let size = self.linked_size.or_else(own_size);
        Ok(Announced { blob, size })
    }
}

/// The address that an answer redirects to, if it does.
fn redirect(status: u16, headers: &HeaderMap, from: &str) -> Result<Option<String>, HubError> {
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = text(headers, LOCATION.as_str());
    let next = location.and_then(|location| join(from, &location));
    match next {
        Some(next) => Ok(Some(next)),
        None => Err(bad_answer(from, "it redirects to no address")),
    }
}

/// The first byte of `Content-Range: bytes 5-9/10`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = text(headers, CONTENT_RANGE.as_str())?;
    let (start, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    start.trim().parse().ok()
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.trim().parse().ok()
}

fn request_error(error: ureq::Error, url: &str) -> HubError {
    let fault = match error {
        ureq::Error::TooManyRedirects => return too_many_redirects(url),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::Protocol(_) => {
            return bad_answer(url, &error.to_string());
        }
        ureq::Error::HostNotFound => NetworkFault::UnknownHost,
        ureq::Error::Timeout(_) => NetworkFault::Timeout,
        ureq::Error::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => NetworkFault::Refused,
            io::ErrorKind::TimedOut => NetworkFault::Timeout,
            // The system's resolver has no error kind of its own; these are the standard library's words for it.
            _ if error.to_string().starts_with("failed to lookup address") => NetworkFault::UnknownHost,
            _ => NetworkFault::Other(error.to_string()),
        },
        other => NetworkFault::Other(other.to_string()),
    };
    let host = host(url);
    HubError::Unreachable { host, fault }
}

fn bad_answer(url: &str, problem: &str) -> HubError {
    HubError::BadAnswer { url: without_query(url), problem: problem.to_owned() }
}

fn too_many_redirects(url: &str) -> HubError {
    let url = without_query(url);
    HubError::TooManyRedirects { url }
}
