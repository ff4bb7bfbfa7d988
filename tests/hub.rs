//! The hub's client and cache against a hub on 127.0.0.1.

use std::fs;
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sparsify_exp::load::hub::{CacheOnly, Hub, HubError, HubSettings, NetworkFault, RepoKind, Snapshot};
use tempfile::TempDir;

#[path = "hub/cache.rs"]
mod cache;
#[path = "hub/datasets.rs"]
mod datasets;
#[path = "support/fake_hub.rs"]
mod fake_hub;
#[path = "hub/fetch.rs"]
mod fetch;
use fake_hub::{COMMIT, Content, FakeHub, File, OLD_NAME, REPO};

const SMALL: &[u8] = b"{\"model_type\": \"opt\"}";

/// Large enough to travel in several pieces.
fn weights() -> Vec<u8> {
    (0..1_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

struct Bench {
    folder: TempDir,
    settings: HubSettings,
}

impl Bench {
    fn new(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = HubSettings {
            cache: folder.path().join("hub"),
            endpoint: url.to_owned(),
            token: None,
            offline: false,
            retries: 3,
            retry_wait: Duration::ZERO,
            timeout: Duration::from_secs(20),
        };
        Self { folder, settings }
    }

    fn snapshot(&self) -> Result<Snapshot, HubError> {
        let hub = Hub::new(self.settings.clone())?;
        hub.repo(RepoKind::Model, REPO, None)
    }

    fn offline(&self) -> Self {
        let mut settings = self.settings.clone();
        settings.offline = true;
        // Nothing listens here: a request would be an error.
        settings.endpoint = "http://127.0.0.1:1".to_owned();
        let folder = tempfile::tempdir().unwrap();
        Self { folder, settings }
    }

    fn root(&self) -> PathBuf {
        self.settings.cache.join("models--org--tiny")
    }

    /// Names in `blobs/`, sorted.
    fn blobs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root().join("blobs"));
        let mut names: Vec<String> =
            entries.into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Nothing that a later run could take for a file.
    fn assert_no_file(&self) {
        let good: Vec<String> = self.blobs().into_iter().filter(|n| !n.ends_with(".incomplete")).collect();
        assert!(good.is_empty(), "{good:?}");
        assert!(!self.root().join("snapshots").join(COMMIT).exists());
        assert!(!self.root().join("refs").exists());
    }
}

fn write_as_python(cache: &Path, file: &str, bytes: &[u8], etag: &str) {
    let root = cache.join("models--org--tiny");
    let snapshot = root.join("snapshots").join(COMMIT);
    for folder in [&root.join("refs"), &root.join("blobs"), &snapshot] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(root.join("refs/main"), COMMIT).unwrap();
    fs::write(root.join("blobs").join(etag), bytes).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(format!("../../blobs/{etag}"), snapshot.join(file)).unwrap();
    #[cfg(not(unix))]
    fs::write(snapshot.join(file), bytes).unwrap();
}

fn hint(error: &HubError) -> String {
    error.hint().unwrap_or_default()
}

#[test]
fn a_small_file_lands_where_python_looks() {
    let file = File::small(SMALL);
    let server = FakeHub::with_files([("config.json", file.clone()), ("a b/c.txt", file.clone())]);
    let bench = Bench::new(&server.url);
    let snapshot = bench.snapshot().unwrap();
    assert_eq!(snapshot.commit(), COMMIT);
    assert_eq!(snapshot.files(), ["a b/c.txt", "config.json"]);
    assert!(snapshot.warnings().is_empty());
    let path = snapshot.get("config.json").unwrap();
    assert_eq!(path, bench.root().join("snapshots").join(COMMIT).join("config.json"));
    assert_eq!(fs::read(&path).unwrap(), SMALL);
    assert_eq!(fs::read_to_string(bench.root().join("refs/main")).unwrap(), COMMIT);
    assert_eq!(bench.blobs(), [file.etag()]);
    #[cfg(unix)]
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("../../blobs").join(file.etag()));
    assert_eq!(snapshot.sha256(&path), None);
    // The second file has the same content: its blob is not sent again.
    assert_eq!(fs::read(snapshot.get("a b/c.txt").unwrap()).unwrap(), SMALL);
    assert_eq!(server.count("GET", "/resolve/"), 1);
    snapshot.get("config.json").unwrap();
    assert_eq!(server.count("HEAD", "config.json"), 1);
}

#[test]
fn a_large_file_comes_from_the_other_host_which_sees_no_token() {
    let file = File::large(&weights());
    let server = FakeHub::with_files([("model.safetensors", file.clone())]);
    server.content().token = Some("hf_secret".to_owned());
    let mut bench = Bench::new(&server.url);
    bench.settings.token = Some("hf_secret".to_owned());
    let snapshot = bench.snapshot().unwrap();
    let path = snapshot.get("model.safetensors").unwrap();
    assert_eq!(fs::read(&path).unwrap(), file.bytes);
    assert_eq!(snapshot.sha256(&path), Some(file.etag()));
    assert_eq!(bench.blobs(), [file.etag()]);
    let log = server.log();
    let with_token = |server: &str| {
        let mut requests = log.iter().filter(|r| r.server == server).peekable();
        assert!(requests.peek().is_some());
        requests.map(|r| r.headers.contains_key("authorization")).collect::<Vec<_>>()
    };
    assert!(with_token("hub").iter().all(|seen| *seen), "{log:?}");
    assert!(with_token("other").iter().all(|seen| !seen), "{log:?}");
}

#[test]
fn a_relative_redirect_is_followed_and_its_own_etag_is_not_the_files() {
    let mut file = File::small(SMALL);
    file.moved = true;
    let server = FakeHub::with_files([("config.json", file.clone())]);
    let bench = Bench::new(&server.url);
    let path = bench.snapshot().unwrap().get("config.json").unwrap();
    assert_eq!(fs::read(path).unwrap(), SMALL);
    assert_eq!(bench.blobs(), [file.etag()]);
}

#[test]
fn a_renamed_repository_is_found_under_its_old_name() {
    let server = FakeHub::with_files([("model.bin", File::large(SMALL))]);
    let bench = Bench::new(&server.url);
    let hub = Hub::new(bench.settings.clone()).unwrap();
    let snapshot = hub.repo(RepoKind::Model, OLD_NAME, None).unwrap();
    assert_eq!(fs::read(snapshot.get("model.bin").unwrap()).unwrap(), SMALL);
    let root = bench.settings.cache.join("models--old-tiny");
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
}

#[test]
fn a_redirect_loop_ends() {
    let mut file = File::small(SMALL);
    file.looping = true;
    let server = FakeHub::with_files([("config.json", file)]);
    let bench = Bench::new(&server.url);
    let error = bench.snapshot().unwrap().get("config.json").unwrap_err();
    assert!(matches!(error, HubError::TooManyRedirects { .. }), "{error}");
    assert!(error.to_string().contains("config.json"), "{error}");
    bench.assert_no_file();
}

#[test]
fn datasets_and_other_revisions_have_their_own_places() {
    let server = FakeHub::with_files([("train.parquet", File::small(b"rows"))]);
    let bench = Bench::new(&server.url);
    let hub = Hub::new(bench.settings.clone()).unwrap();
    let snapshot = hub.repo(RepoKind::Dataset, REPO, Some("refs/pr/1")).unwrap();
    snapshot.get("train.parquet").unwrap();
    let root = bench.settings.cache.join("datasets--org--tiny");
    assert_eq!(fs::read_to_string(root.join("refs/refs/pr/1")).unwrap(), COMMIT);
    let pinned = hub.repo(RepoKind::Dataset, REPO, Some(COMMIT)).unwrap();
    pinned.get("train.parquet").unwrap();
    // A commit is not written down as a revision of itself.
    assert!(!root.join("refs").join(COMMIT).exists());
}

#[test]
fn a_missing_repository_is_named() {
    let server = FakeHub::with_files([]);
    let bench = Bench::new(&server.url);
    let hub = Hub::new(bench.settings.clone()).unwrap();
    let error = hub.repo(RepoKind::Model, "org/tinny", None).unwrap_err();
    assert_eq!(error.to_string(), format!("model `org/tinny` is not on the hub `{}`", server.url));
    assert!(hint(&error).contains("spelling of `org/tinny`"));
    assert!(!bench.settings.cache.exists());
}

#[test]
fn a_missing_revision_is_told_from_a_missing_repository() {
    let server = FakeHub::with_files([]);
    let hub = Hub::new(Bench::new(&server.url).settings).unwrap();
    let error = hub.repo(RepoKind::Model, REPO, Some("v9")).unwrap_err();
    assert_eq!(error.to_string(), "model `org/tiny` has no revision `v9`");
}

#[test]
fn a_missing_file_is_none_or_an_error_with_near_names() {
    let server = FakeHub::with_files([("tokenizer.json", File::small(SMALL))]);
    let bench = Bench::new(&server.url);
    let snapshot = bench.snapshot().unwrap();
    assert_eq!(snapshot.find("model.safetensors").unwrap(), None);
    let error = snapshot.get("tokeniser.json").unwrap_err();
    assert_eq!(error.to_string(), "model `org/tiny` has no file `tokeniser.json`");
    assert_eq!(hint(&error), "similar files exist: `tokenizer.json`");
    // The list of files says so: no file is asked for.
    assert_eq!(server.count("HEAD", "/resolve/"), 0);
    // It was listed and is gone when asked for.
    server.content().files.clear();
    let error = snapshot.get("tokenizer.json").unwrap_err();
    assert!(matches!(error, HubError::FileNotFound { .. }), "{error}");
    bench.assert_no_file();
}

#[test]
fn a_private_repository_asks_for_a_token() {
    let server = FakeHub::with_files([("config.json", File::small(SMALL))]);
    server.content().token = Some("hf_right".to_owned());
    let mut bench = Bench::new(&server.url);
    let error = bench.snapshot().unwrap_err();
    assert_eq!(error.to_string(), "no access to model `org/tiny` (status 401): private, gated or missing");
    assert!(hint(&error).contains("set `HF_TOKEN`"), "{}", hint(&error));
    bench.settings.token = Some("hf_wrong".to_owned());
    let error = bench.snapshot().unwrap_err();
    assert!(hint(&error).contains("the token in `HF_TOKEN` is valid"), "{}", hint(&error));
    assert!(!format!("{error:?} {}", hint(&error)).contains("hf_wrong"));
    assert!(!bench.settings.cache.exists());
}

#[test]
fn a_gated_repository_names_the_page_with_the_licence() {
    let server = FakeHub::with_files([("config.json", File::small(SMALL))]);
    server.content().gated = true;
    let bench = Bench::new(&server.url);
    let error = bench.snapshot().unwrap().get("config.json").unwrap_err();
    assert!(matches!(error, HubError::AccessDenied { status: 403, .. }), "{error}");
    let page = format!("accept its licence on {}/org/tiny", server.url);
    assert!(hint(&error).contains(&page), "{}", hint(&error));
    bench.assert_no_file();
}

#[test]
fn a_dropped_connection_is_resumed_where_it_broke() {
    for large in [true, false] {
        let file = File { large, cut_after: Some(300_000), cuts: 2, ..File::small(&weights()) };
        let server = FakeHub::with_files([("model.bin", file.clone())]);
        let bench = Bench::new(&server.url);
        let path = bench.snapshot().unwrap().get("model.bin").unwrap();
        assert_eq!(fs::read(path).unwrap(), file.bytes);
        assert_eq!(bench.blobs(), [file.etag()]);
        let ranges: Vec<_> = server
            .log()
            .iter()
            .filter(|r| r.method == "GET" && r.server == if large { "other" } else { "hub" })
            .filter_map(|r| r.headers.get("range").cloned())
            .collect();
        assert_eq!(ranges, ["bytes=300000-", "bytes=600000-"]);
    }
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let file = File { cut_after: Some(300_000), cuts: 1, no_ranges: true, ..File::large(&weights()) };
    let server = FakeHub::with_files([("model.bin", file.clone())]);
    let bench = Bench::new(&server.url);
    let path = bench.snapshot().unwrap().get("model.bin").unwrap();
    assert_eq!(fs::read(path).unwrap(), file.bytes);
}

#[test]
fn always_dropped_ends_in_an_error_and_the_next_run_goes_on() {
    let file = File { cut_after: Some(100_000), cuts: 4, ..File::large(&weights()) };
    let server = FakeHub::with_files([("model.bin", file.clone())]);
    let bench = Bench::new(&server.url);
    let error = bench.snapshot().unwrap().get("model.bin").unwrap_err();
    let message = error.to_string();
    let start = "the download of `model.bin` stopped at 400000 of 1000000 bytes after 4 tries";
    assert!(message.starts_with(start), "{message}");
    assert!(hint(&error).contains("run again"));
    bench.assert_no_file();
    assert_eq!(bench.blobs(), [format!("{}.resume.incomplete", file.etag())]);

    let path = bench.snapshot().unwrap().get("model.bin").unwrap();
    assert_eq!(fs::read(path).unwrap(), file.bytes);
    assert_eq!(bench.blobs(), [file.etag()]);
    let last = server.log().pop().unwrap();
    assert_eq!(last.headers["range"], "bytes=400000-");
}

#[test]
fn a_wrong_part_of_an_earlier_run_is_thrown_away() {
    let file = File::large(&weights());
    for part in [vec![7; 1000], vec![7; 1_000_000], vec![7; 2_000_000]] {
        let server = FakeHub::with_files([("model.bin", file.clone())]);
        let bench = Bench::new(&server.url);
        let parked = format!("{}.resume.incomplete", file.etag());
        fs::create_dir_all(bench.root().join("blobs")).unwrap();
        fs::write(bench.root().join("blobs").join(parked), part).unwrap();
        let path = bench.snapshot().unwrap().get("model.bin").unwrap();
        assert_eq!(fs::read(path).unwrap(), file.bytes);
        assert_eq!(bench.blobs(), [file.etag()]);
    }
}

#[test]
fn wrong_bytes_are_deleted_and_the_error_says_so() {
    for (large, algorithm) in [(true, "sha256"), (false, "git sha1")] {
        let file = File { large, corrupt: true, ..File::small(SMALL) };
        let server = FakeHub::with_files([("x.bin", file.clone())]);
        let bench = Bench::new(&server.url);
        let error = bench.snapshot().unwrap().get("x.bin").unwrap_err();
        let message = error.to_string();
        let start = format!("`x.bin` arrived damaged and was deleted: its {algorithm} is ");
        assert!(message.starts_with(&start), "{message}");
        assert!(message.ends_with(&format!("not {}", file.etag())), "{message}");
        assert!(hint(&error).contains("run again"));
        bench.assert_no_file();
        assert!(bench.blobs().is_empty());
    }
}

#[test]
fn a_wrong_length_is_an_error_of_its_own() {
    for (extra, found) in [(5, 26), (-5, 16)] {
        let file = File { extra, ..File::large(SMALL) };
        let server = FakeHub::with_files([("x.bin", file)]);
        let bench = Bench::new(&server.url);
        let error = bench.snapshot().unwrap().get("x.bin").unwrap_err();
        let expected = format!("`x.bin` arrived with {found} bytes instead of 21 and was deleted");
        assert_eq!(error.to_string(), expected);
        bench.assert_no_file();
        assert!(bench.blobs().is_empty());
    }
}

#[test]
fn a_hub_that_cannot_serve_is_asked_again_then_replaced_by_the_cache() {
    let server = FakeHub::start(Content { status: Some(503), ..Content::default() });
    let bench = Bench::new(&server.url);
    let error = bench.snapshot().unwrap_err();
    assert_eq!(error.to_string(), format!("`{}` cannot serve now (status 503)", server.url));
    assert_eq!(server.log().len(), 4);
    write_as_python(&bench.settings.cache, "config.json", SMALL, "etag");
    assert_eq!(bench.snapshot().unwrap().warnings().len(), 1);
}

#[test]
fn a_silent_server_and_an_unknown_host_are_told_apart() {
    // Connections are accepted by the system and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bench = Bench::new(&format!("http://{}", silent.local_addr().unwrap()));
    bench.settings.timeout = Duration::from_millis(200);
    let error = bench.snapshot().unwrap_err();
    assert!(error.to_string().ends_with("no answer in time"), "{error}");
    bench.settings.timeout = Duration::from_secs(20);
    // A label of 64 letters is no name: the resolver says so without asking anyone.
    bench.settings.endpoint = format!("http://{}.invalid", "x".repeat(64));
    let error = bench.snapshot().unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("xxx.invalid`: "), "{error}");
    #[cfg(unix)]
    assert!(error.to_string().ends_with("unknown host"), "{error}");
}

#[test]
fn progress_is_told_and_can_stop_the_download() {
    let file = File::large(&weights());
    let server = FakeHub::with_files([("model.bin", file.clone())]);
    let bench = Bench::new(&server.url);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let hub = Hub::with_observer(bench.settings.clone(), move |progress| {
        assert_eq!((progress.file, progress.total), ("model.bin", Some(1_000_000)));
        let mut seen = log.lock().unwrap();
        seen.push(progress.received);
        match seen.len() {
            1 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    })
    .unwrap();
    let snapshot = hub.repo(RepoKind::Model, REPO, None).unwrap();
    let error = snapshot.get("model.bin").unwrap_err();
    assert_eq!(error.to_string(), "the download of `model.bin` was interrupted");
    bench.assert_no_file();
    let path = snapshot.get("model.bin").unwrap();
    assert_eq!(fs::read(path).unwrap(), file.bytes);
    let seen = seen.lock().unwrap();
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
    assert_eq!(seen.last(), Some(&1_000_000));
}

#[test]
fn downloads_at_the_same_time_do_not_disturb_each_other() {
    let file = File::large(&weights());
    let server = FakeHub::with_files([("model.bin", file.clone())]);
    let bench = Bench::new(&server.url);
    let path = || {
        let snapshot = bench.snapshot().unwrap();
        fs::read(snapshot.get("model.bin").unwrap()).unwrap()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(path)).collect();
        for thread in threads {
            assert!(thread.join().unwrap() == file.bytes);
        }
    });
    assert_eq!(bench.blobs(), [file.etag()]);
}

#[test]
fn names_that_leave_the_cache_are_refused() {
    let server = FakeHub::with_files([("config.json", File::small(SMALL))]);
    let bench = Bench::new(&server.url);
    let hub = Hub::new(bench.settings.clone()).unwrap();
    let error = hub.repo(RepoKind::Model, "../etc", None).unwrap_err();
    assert_eq!(error.to_string(), "`../etc` is not a valid repository name");
    let error = hub.repo(RepoKind::Model, REPO, Some("../x")).unwrap_err();
    assert_eq!(error.to_string(), "`../x` is not a valid revision");
    let error = bench.snapshot().unwrap().get("../../x").unwrap_err();
    assert_eq!(error.to_string(), "`../../x` is not a valid file name");
    let settings = HubSettings { token: Some("hf_\n".to_owned()), ..bench.settings };
    assert!(matches!(Hub::new(settings), Err(HubError::InvalidToken)));
}

/// From `hf:` in an experiment file to tables, and again without network: OPT as the hub has it, float16 weights in
/// a pickle that a redirect leads to and no `tokenizer.json`.
#[test]
fn the_program_runs_a_model_of_the_hub() {
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families/opt-hub");
    let read = |name: &str| fs::read(checkpoint.join(name)).unwrap();
    let small = |name: &'static str| (name, File::small(&read(name)));
    let hub = FakeHub::with_files([
        small("config.json"),
        small("vocab.json"),
        small("merges.txt"),
        small("tokenizer_config.json"),
        ("pytorch_model.bin", File::large(&read("pytorch_model.bin"))),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let text = format!("name = 'e'\n[model]\nsource = 'hf:{REPO}'\n[[prune]]\nmethod = 'magnitude'\nsparsity = 0.5\n");
    fs::write(folder.path().join("e.toml"), text).unwrap();
    let run = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sparsify-exp"));
        for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] {
            command.env_remove(name);
        }
        command.args(["run", "e.toml", "-s", "device.backend=flex"]).args(more).current_dir(folder.path());
        command.env("HF_ENDPOINT", &hub.url).env("HF_HOME", folder.path().join("hf")).output().unwrap()
    };
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let without_network = run(&["--offline"]);
    assert_eq!(without_network.status.code(), Some(3), "{}", said(&without_network));
    assert!(said(&without_network).contains(REPO), "{}", said(&without_network));

    let first = run(&[]);
    assert_eq!(first.status.code(), Some(0), "{}", said(&first));
    assert!(said(&first).contains("downloading pytorch_model.bin"), "{}", said(&first));
    let summary = fs::read_to_string(folder.path().join("results/e/tables/summary.csv")).unwrap();
    assert_eq!(summary.lines().count(), 4);
    let manifest = fs::read_to_string(folder.path().join("results/e/manifest.json")).unwrap();
    assert!(manifest.contains(COMMIT), "{manifest}");

    let requests = hub.log().len();
    let again = run(&["--offline", "--rerun", "all"]);
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
    assert_eq!(hub.log().len(), requests, "an offline run asked the hub");
    assert_eq!(fs::read_to_string(folder.path().join("results/e/tables/summary.csv")).unwrap(), summary);
}
