//! The folder that files are downloaded into, shared with Python: offline, damaged, full.

use super::*;

/// The layout as Python's `huggingface_hub` leaves it, by hand.
#[test]
fn offline_with_an_empty_cache_says_how_to_fill_it() {
    let bench = Bench::new("http://127.0.0.1:1").offline();
    let error = bench.snapshot().unwrap_err();
    let cache = bench.settings.cache.display();
    assert_eq!(error.to_string(), format!("model `org/tiny` at revision `main` is not in the cache `{cache}`"));
    let hint = hint(&error);
    for part in ["run once with network", "`--offline`", "`HF_HUB_OFFLINE`"] {
        assert!(hint.contains(part), "{hint}");
    }
    assert!(!bench.settings.cache.exists());
}

#[test]
fn offline_uses_what_was_downloaded_and_asks_nobody() {
    let server = FakeHub::with_files([("config.json", File::small(SMALL)), ("model.bin", File::small(b"weights"))]);
    let bench = Bench::new(&server.url);
    bench.snapshot().unwrap().get("config.json").unwrap();
    let requests = server.log().len();

    let mut offline = bench.offline();
    offline.settings.endpoint = server.url.clone();
    let snapshot = offline.snapshot().unwrap();
    assert_eq!(snapshot.commit(), COMMIT);
    assert_eq!(snapshot.files(), ["config.json"]);
    assert!(snapshot.warnings().is_empty());
    assert_eq!(fs::read(snapshot.get("config.json").unwrap()).unwrap(), SMALL);
    assert_eq!(snapshot.find("model.bin").unwrap(), None);
    let error = snapshot.get("model.bin").unwrap_err();
    assert!(matches!(&error, HubError::FileNotCached { why: CacheOnly::Offline, .. }), "{error}");
    assert!(hint(&error).contains("run once with network"));
    assert_eq!(server.log().len(), requests);
}

#[test]
fn a_cache_written_by_python_is_used() {
    let file = File::large(&weights());
    let server = FakeHub::with_files([("model.bin", file.clone())]);
    let bench = Bench::new(&server.url);
    write_as_python(&bench.settings.cache, "model.bin", &file.bytes, &file.etag());
    for bench in [&bench, &bench.offline()] {
        let snapshot = bench.snapshot().unwrap();
        let path = snapshot.get("model.bin").unwrap();
        assert_eq!(fs::read(&path).unwrap(), file.bytes);
        #[cfg(unix)]
        assert_eq!(snapshot.sha256(&path), Some(file.etag()));
    }
    assert_eq!(server.count("HEAD", "/resolve/"), 0);
}

#[test]
fn an_unreachable_hub_falls_back_to_the_cache_with_a_warning() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bench = Bench::new(&format!("http://{gone}"));
    let error = bench.snapshot().unwrap_err();
    assert!(matches!(&error, HubError::Unreachable { fault: NetworkFault::Refused, .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("cannot reach `http://{gone}`: connection refused"));

    write_as_python(&bench.settings.cache, "config.json", SMALL, "etag");
    let snapshot = bench.snapshot().unwrap();
    assert_eq!(fs::read(snapshot.get("config.json").unwrap()).unwrap(), SMALL);
    let [warning] = snapshot.warnings() else {
        panic!("{:?}", snapshot.warnings());
    };
    let warning = warning.to_string();
    assert!(warning.contains(COMMIT) && warning.contains("connection refused"), "{warning}");
    let error = snapshot.get("model.bin").unwrap_err();
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert!(hint(&error).contains("check the network"));
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let server = FakeHub::with_files([("config.json", File::small(SMALL))]);
    let mut bench = Bench::new(&server.url);
    // A file where the cache folder should be: true of all users, the superuser included.
    let in_the_way = bench.folder.path().join("in-the-way");
    fs::write(&in_the_way, "").unwrap();
    bench.settings.cache = in_the_way.join("hub");
    let error = bench.snapshot().unwrap().get("config.json").unwrap_err();
    assert!(matches!(error, HubError::CacheNotWritable { .. }), "{error}");
    assert!(error.to_string().contains("in-the-way"), "{error}");
    assert!(hint(&error).contains("`HF_HUB_CACHE`"));
    assert_eq!(fs::read(in_the_way).unwrap(), b"");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    let file = File::large(SMALL);
    let server = FakeHub::with_files([("model.bin", file.clone())]);
    let bench = Bench::new(&server.url);
    let blobs = bench.root().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    // The part of an earlier run lies on a device that is always full.
    let parked = blobs.join(format!("{}.resume.incomplete", file.etag()));
    std::os::unix::fs::symlink("/dev/full", parked).unwrap();
    let error = bench.snapshot().unwrap().get("model.bin").unwrap_err();
    assert!(matches!(error, HubError::DiskFull { .. }), "{error:?}");
    assert!(error.to_string().starts_with("no space left for `"), "{error}");
    assert!(hint(&error).contains("free some space"));
    bench.assert_no_file();
    assert!(bench.blobs().is_empty());
}

#[test]
fn a_blob_cut_short_by_another_program_is_replaced() {
    let file = File::large(&weights());
    let server = FakeHub::with_files([("model.bin", file.clone())]);
    let bench = Bench::new(&server.url);
    fs::create_dir_all(bench.root().join("blobs")).unwrap();
    fs::write(bench.root().join("blobs").join(file.etag()), b"half").unwrap();
    let path = bench.snapshot().unwrap().get("model.bin").unwrap();
    assert_eq!(fs::read(path).unwrap(), file.bytes);
}
