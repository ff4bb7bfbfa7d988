//! Notes the commit that the program is built from, so that results can name it.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SPARSIFY_EXP_COMMIT");
    for watched in ["HEAD", "logs/HEAD"].into_iter().filter_map(|name| git(&["rev-parse", "--git-path", name])) {
        // Cargo would rebuild for ever if a watched path did not exist.
        if Path::new(&watched).exists() {
            println!("cargo::rerun-if-changed={watched}");
        }
    }
    if let Some(commit) = std::env::var("SPARSIFY_EXP_COMMIT").ok().or_else(commit) {
        println!("cargo::rustc-env=SPARSIFY_EXP_COMMIT={commit}");
    }
}

/// The commit of this repository; none for a source archive, also when it lies within another repository.
fn commit() -> Option<String> {
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// What git says; in a working tree beside others its files lie elsewhere than in `.git`.
fn git(arguments: &[&str]) -> Option<String> {
    if !Path::new(".git").exists() {
        return None;
    }
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
