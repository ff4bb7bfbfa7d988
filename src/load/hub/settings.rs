//! What the environment says about the hub.
//!
//! Owns the names and the precedence of the environment variables, which are those of Python's `huggingface_hub`.
//! Must not know how the cache is laid out or how files travel.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{self, Path, PathBuf};
use std::time::Duration;

use super::HubError;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Where the hub and its local cache are, and how patient to be with them.
#[derive(Clone)]
pub struct HubSettings {
    /// The cache folder, which holds `models--ORG--NAME` and `datasets--ORG--NAME`.
    pub cache: PathBuf,
    /// Base address of the hub, without a slash at the end.
    pub endpoint: String,
    /// Access token for private and gated repositories.
    pub token: Option<String>,
    /// Use the cache only, and open no connection.
    pub offline: bool,
    /// How many times a failed transfer is tried again.
    pub retries: u32,
    /// Wait before the first new try; it doubles at each further one.
    pub retry_wait: Duration,
    /// Longest wait for a connection, for the head of an answer, and for each piece of its body.
    pub timeout: Duration,
}

impl HubSettings {
    /// Reads the environment of this process. `offline_flag` is the command line's `--offline`.
    ///
    /// | what | taken from the first that is set |
    /// |---|---|
    /// | cache | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME/hub`, `XDG_CACHE_HOME/huggingface/hub`, `~/.cache/huggingface/hub` |
    /// | endpoint | `HF_ENDPOINT`, `https://huggingface.co` |
    /// | token | `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, the file `HF_TOKEN_PATH`, the file `HF_HOME/token` |
    /// | offline | `offline_flag`, `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` (`1`, `true`, `yes` or `on`) |
    ///
    /// # Errors
    /// [`HubError::NoCacheFolder`] if there is no home folder and no variable says where the cache is.
    pub fn from_env(offline_flag: bool) -> Result<Self, HubError> {
        Self::from_lookup(offline_flag, std::env::home_dir(), |name| std::env::var_os(name))
    }

    /// [`HubSettings::from_env`] with the home folder and the variables given, so that it can be tested.
    ///
    /// # Errors
    /// As [`HubSettings::from_env`].
    pub fn from_lookup(
        offline_flag: bool,
        home: Option<PathBuf>,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, HubError> {
        let env = Environment { home, lookup };
        let hf_home = env
            .path("HF_HOME")
            .or_else(|| Some(env.path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(env.home.as_ref()?.join(".cache").join("huggingface")));
        let cache = env
            .path("HF_HUB_CACHE")
            .or_else(|| env.path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(hf_home.as_ref()?.join("hub")))
            .ok_or(HubError::NoCacheFolder)?;
        let token_file = env.path("HF_TOKEN_PATH").or_else(|| Some(hf_home.as_ref()?.join("token")));
        let token =
            env.text("HF_TOKEN").or_else(|| env.text("HUGGING_FACE_HUB_TOKEN")).or_else(|| read_token(&token_file?));
        let endpoint = env.text("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        Ok(Self {
            // Files are named by absolute paths, whatever the working folder becomes.
            cache: path::absolute(&cache).unwrap_or(cache),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            offline: offline_flag || env.is_true("HF_HUB_OFFLINE") || env.is_true("TRANSFORMERS_OFFLINE"),
            retries: 3,
            retry_wait: Duration::from_secs(1),
            timeout: Duration::from_secs(20),
        })
    }
}

/// Written by hand so that no log ever shows the token.
impl fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSettings")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .field("offline", &self.offline)
            .field("retries", &self.retries)
            .field("retry_wait", &self.retry_wait)
            .field("timeout", &self.timeout)
            .finish()
    }
}

struct Environment<L> {
    home: Option<PathBuf>,
    lookup: L,
}

impl<L: Fn(&str) -> Option<OsString>> Environment<L> {
    /// A variable that is set to nothing counts as not set.
    fn raw(&self, name: &str) -> Option<OsString> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<String> {
        let value = self.raw(name)?.into_string().ok()?;
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// A `~` at the start is the home folder: `docker run -e HF_HOME=~/x` passes it on as it is.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let value = PathBuf::from(self.raw(name)?);
        match (value.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) => Some(home.join(rest)),
            _ => Some(value),
        }
    }

    fn is_true(&self, name: &str) -> bool {
        self.text(name)
            .is_some_and(|value| ["1", "true", "yes", "on"].iter().any(|yes| value.eq_ignore_ascii_case(yes)))
    }
}

fn read_token(file: &Path) -> Option<String> {
    let token: String = fs::read_to_string(file).ok()?.trim().to_owned();
    Some(token).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vars: &[(&str, &str)]) -> HubSettings {
        from(Some("/home/u"), vars).unwrap()
    }

    fn from(home: Option<&str>, vars: &[(&str, &str)]) -> Result<HubSettings, HubError> {
        HubSettings::from_lookup(false, home.map(PathBuf::from), |name| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[cfg(unix)]
    #[test]
    fn the_cache_folder_follows_the_precedence_of_python() {
        let mut vars = vec![];
        let expected = ["/home/u/.cache/huggingface/hub", "/xdg/huggingface/hub", "/hf/hub", "/legacy", "/cache"];
        let sources = [
            ("XDG_CACHE_HOME", "/xdg"),
            ("HF_HOME", "/hf"),
            ("HUGGINGFACE_HUB_CACHE", "/legacy"),
            ("HF_HUB_CACHE", "/cache"),
        ];
        assert_eq!(settings(&vars).cache, Path::new(expected[0]));
        for (source, cache) in sources.into_iter().zip(&expected[1..]) {
            vars.push(source);
            assert_eq!(settings(&vars).cache, Path::new(cache));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_tilde_is_the_home_folder_and_an_empty_variable_is_not_set() {
        let vars = [("HF_HUB_CACHE", ""), ("HF_HOME", "~/models")];
        assert_eq!(settings(&vars).cache, Path::new("/home/u/models/hub"));
    }

    #[test]
    fn no_home_and_no_variable_is_an_error_not_a_panic() {
        assert!(matches!(from(None, &[]), Err(HubError::NoCacheFolder)));
        assert!(from(None, &[("HF_HUB_CACHE", "/cache")]).is_ok());
    }

    #[test]
    fn offline_takes_the_spellings_of_python() {
        for yes in ["1", "true", "TRUE", "yes", "On"] {
            assert!(settings(&[("HF_HUB_OFFLINE", yes)]).offline, "{yes}");
        }
        for no in ["0", "false", "no", "off", "", "2"] {
            assert!(!settings(&[("HF_HUB_OFFLINE", no)]).offline, "{no}");
        }
        let flag = HubSettings::from_lookup(true, Some("/h".into()), |_| None).unwrap();
        assert!(flag.offline);
    }

    #[test]
    fn the_token_comes_from_the_variable_then_from_the_file_and_is_never_shown() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let hf_home = home.path().to_str().unwrap();
        let file = settings(&[("HF_HOME", hf_home)]);
        assert_eq!(file.token.as_deref(), Some("hf_file"));
        let both = settings(&[("HF_HOME", hf_home), ("HF_TOKEN", " hf_var ")]);
        assert_eq!(both.token.as_deref(), Some("hf_var"));
        assert!(!format!("{both:?}").contains("hf_var"));
    }

    #[test]
    fn the_endpoint_has_no_slash_at_the_end() {
        assert_eq!(settings(&[]).endpoint, "https://huggingface.co");
        let mirror = settings(&[("HF_ENDPOINT", "https://mirror.example/")]);
        assert_eq!(mirror.endpoint, "https://mirror.example");
    }
}
