//! A hub on 127.0.0.1, with the faults that a real one and its network have.
//!
//! One server plays the hub and a second one, at another port and thus another origin, the host that large files are
//! redirected to. Every request is logged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use sha1::{Digest, Sha1};
use sha2::Sha256;

/// The commit that `main` is at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The only repository.
pub const REPO: &str = "org/tiny";
/// What it was called before; requests are redirected.
pub const OLD_NAME: &str = "old-tiny";

/// How a file is stored, and what goes wrong with it.
#[derive(Clone, Default)]
pub struct File {
    pub bytes: Vec<u8>,
    /// Redirected to the other host, and named by its sha256.
    pub large: bool,
    /// Redirected to another address of the hub first.
    pub moved: bool,
    /// Redirected to itself.
    pub looping: bool,
    /// The connection breaks after this many bytes of a body...
    pub cut_after: Option<usize>,
    /// ...this many times.
    pub cuts: usize,
    /// The body is not the announced one, at the same length.
    pub corrupt: bool,
    /// The body is complete and this many bytes longer (or shorter) than announced.
    pub extra: i64,
    /// The range of a request is not looked at.
    pub no_ranges: bool,
}

/// What the hub has and whom it lets in.
#[derive(Clone, Default)]
pub struct Content {
    pub files: BTreeMap<String, File>,
    /// Only requests with this token are served.
    pub token: Option<String>,
    /// The list of files is open and the files are not, as with gated models.
    pub gated: bool,
    /// Every answer has this status.
    pub status: Option<u16>,
}

/// One request as it came in.
#[derive(Clone, Debug)]
pub struct Request {
    /// `hub` or `other`.
    pub server: &'static str,
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
}

struct State {
    content: Mutex<Content>,
    log: Mutex<Vec<Request>>,
    other: Mutex<String>,
    stop: AtomicBool,
}

/// The running servers. Dropped, they stop.
pub struct FakeHub {
    /// Address of the hub.
    pub url: String,
    state: Arc<State>,
}

impl FakeHub {
    pub fn start(content: Content) -> Self {
        let state = Arc::new(State {
            content: Mutex::new(content),
            log: Mutex::default(),
            other: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        *state.other.lock().unwrap() = serve("other", &state);
        let url = serve("hub", &state);
        Self { url, state }
    }

    /// With these files and no faults but theirs.
    pub fn with_files<const N: usize>(files: [(&str, File); N]) -> Self {
        let files = files.map(|(name, file)| (name.to_owned(), file)).into();
        Self::start(Content { files, ..Content::default() })
    }

    pub fn content(&self) -> MutexGuard<'_, Content> {
        self.state.content.lock().unwrap()
    }

    pub fn log(&self) -> Vec<Request> {
        self.state.log.lock().unwrap().clone()
    }

    /// How many requests there were with `method` and `part` in the path.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let wanted = |request: &&Request| request.method == method && request.path.contains(part);
        self.log().iter().filter(wanted).count()
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        let other = self.state.other.lock().unwrap().clone();
        for url in [&self.url, &other] {
            // Wakes the server up, so that it sees the flag.
            let _ = TcpStream::connect(url.trim_start_matches("http://"));
        }
    }
}

impl File {
    pub fn small(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), ..Self::default() }
    }

    pub fn large(bytes: &[u8]) -> Self {
        Self { large: true, ..Self::small(bytes) }
    }

    /// The name of its blob.
    pub fn etag(&self) -> String {
        if self.large {
            return hex(&Sha256::digest(&self.bytes));
        }
        let mut sha1 = Sha1::new();
        sha1.update(format!("blob {}\0", self.bytes.len()));
        sha1.update(&self.bytes);
        hex(&sha1.finalize())
    }

    fn body(&self) -> Vec<u8> {
        let mut body = self.bytes.clone();
        if self.corrupt {
            body[0] ^= 1;
        }
        body.resize((body.len() as i64 + self.extra) as usize, b'+');
        body
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts a server and returns its address.
fn serve(server: &'static str, state: &Arc<State>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let state = Arc::clone(state);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if state.stop.load(Ordering::SeqCst) {
                return;
            }
            let state = Arc::clone(&state);
            thread::spawn(move || answer(server, &state, stream));
        }
    });
    url
}

struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Send no more than this of the body.
    cut: Option<usize>,
}

impl Reply {
    fn new(status: u16) -> Self {
        let (headers, body, cut) = (Vec::new(), Vec::new(), None);
        Self { status, headers, body, cut }
    }

    fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    fn refused(status: u16, code: &str) -> Self {
        Self::new(status).header("X-Error-Code", code)
    }
}

/// Answers one request and closes the connection.
fn answer(server: &'static str, state: &State, mut stream: TcpStream) {
    let Some(request) = read_request(server, &stream) else {
        return;
    };
    state.log.lock().unwrap().push(request.clone());
    let mut content = state.content.lock().unwrap();
    let other = state.other.lock().unwrap().clone();
    let reply = match server {
        "hub" => hub_reply(&mut content, &request, &other),
        _ => body_reply(&mut content, request.path.trim_start_matches("/cdn/"), &request),
    };
    drop(content);
    let mut head = format!("HTTP/1.1 {} Fake\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\nConnection: close\r\n\r\n", reply.body.len());
    let _ = stream.write_all(head.as_bytes());
    if request.method != "HEAD" {
        let sent = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
        let _ = stream.write_all(&reply.body[..sent]);
    }
}

fn read_request(server: &'static str, stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_lowercase(), value.trim().to_owned()))
        })
        .collect();
    Some(Request { server, method, path, headers })
}

fn hub_reply(content: &mut Content, request: &Request, other: &str) -> Reply {
    if let Some(status) = content.status {
        return Reply::new(status);
    }
    let authorization = content.token.as_ref().map(|token| format!("Bearer {token}"));
    let known = authorization.as_ref() == request.headers.get("authorization");
    let path = request.path.split('?').next().unwrap();
    if content.token.is_some() && !known {
        return Reply::refused(401, "RepoNotFound");
    }
    if path.contains(OLD_NAME) {
        return Reply::new(307).header("Location", path.replace(OLD_NAME, REPO));
    }
    for (api, pages) in [("/api/models/", "/"), ("/api/datasets/", "/datasets/")] {
        if let Some(revision) = path.strip_prefix(&format!("{api}{REPO}/revision/")) {
            return revision_reply(content, revision);
        }
        // Python asks for a branch's file, this program for a commit's.
        for revision in [COMMIT, "main"] {
            let folder = format!("{pages}{REPO}/resolve/{revision}/");
            if let Some(file) = path.strip_prefix(&folder) {
                return file_reply(content, file, request, other);
            }
        }
    }
    match path.strip_prefix("/moved/") {
        Some(file) => file_reply(content, file, request, other),
        None => Reply::refused(404, "RepoNotFound"),
    }
}

fn revision_reply(content: &Content, revision: &str) -> Reply {
    if !["main", "refs%2Fpr%2F1", COMMIT].contains(&revision) {
        return Reply::refused(404, "RevisionNotFound");
    }
    let name = |file: &String| serde_json::json!({ "rfilename": file });
    let siblings: Vec<_> = content.files.keys().map(name).collect();
    let info = serde_json::json!({ "sha": COMMIT, "siblings": siblings });
    Reply { body: info.to_string().into_bytes(), ..Reply::new(200) }
}

fn file_reply(content: &mut Content, name: &str, request: &Request, other: &str) -> Reply {
    if content.gated {
        return Reply::refused(403, "GatedRepo");
    }
    let name = name.replace("%20", " ");
    let Some(file) = content.files.get(&name).cloned() else {
        return Reply::refused(404, "EntryNotFound");
    };
    let quoted = format!("\"{}\"", file.etag());
    if file.looping {
        return Reply::new(307).header("Location", &request.path);
    }
    if file.moved && !request.path.starts_with("/moved/") {
        return Reply::new(307).header("Location", format!("/moved/{name}")).header("ETag", "\"of-the-redirect\"");
    }
    if file.large {
        return Reply::new(302)
            .header("Location", format!("{other}/cdn/{name}?key=secret"))
            .header("X-Repo-Commit", COMMIT)
            .header("X-Linked-Etag", quoted)
            .header("X-Linked-Size", file.bytes.len());
    }
    let mut reply = body_reply(content, &name, request).header("X-Repo-Commit", COMMIT).header("ETag", quoted);
    if request.method == "HEAD" {
        reply.body = file.bytes;
    }
    reply
}

fn body_reply(content: &mut Content, path: &str, request: &Request) -> Reply {
    let name = path.split('?').next().unwrap();
    let Some(file) = content.files.get_mut(name) else {
        return Reply::new(404);
    };
    let body = file.body();
    let offset = request
        .headers
        .get("range")
        .filter(|_| !file.no_ranges)
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let mut reply = match offset {
        None => Reply { body, ..Reply::new(200) },
        Some(offset) if offset >= body.len() => return Reply::new(416),
        Some(offset) => {
            let range = format!("bytes {offset}-{}/{}", body.len() - 1, body.len());
            let body = body[offset..].to_vec();
            Reply { body, ..Reply::new(206) }.header("Content-Range", range)
        }
    };
    if file.cuts > 0 && request.method == "GET" {
        file.cuts -= 1;
        reply.cut = file.cut_after;
    }
    reply
}
