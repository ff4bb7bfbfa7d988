//! Where the program keeps what can be made again: digests of large files, compiled kernels.

use std::ffi::OsString;
use std::path::PathBuf;

/// The program's folder among the user's caches; none where there is no home folder.
pub fn folder() -> Option<PathBuf> {
    of(|name| std::env::var_os(name))
}

/// `$XDG_CACHE_HOME`, `%LOCALAPPDATA%` or `~/.cache`, and the program's name.
fn of(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || folder("HOME").map(|home| home.join(".cache"));
    let caches = folder("XDG_CACHE_HOME").or_else(|| folder("LOCALAPPDATA")).or_else(home)?;
    Some(caches.join(env!("CARGO_PKG_NAME")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_the_users() {
        let folder =
            |set: &[(&str, &str)]| of(|name| set.iter().find(|(of, _)| *of == name).map(|(_, value)| value.into()));
        let home = ("HOME", "/home/me");
        assert_eq!(folder(&[home]), Some("/home/me/.cache/sparsify-exp".into()));
        assert_eq!(folder(&[home, ("XDG_CACHE_HOME", "/scratch")]), Some("/scratch/sparsify-exp".into()));
        assert_eq!(folder(&[home, ("XDG_CACHE_HOME", "relative")]), Some("/home/me/.cache/sparsify-exp".into()));
        assert_eq!(folder(&[]), None);
    }
}
