//! Addresses: what they join to, whose they are, and how much of them a message may show.

use ureq::http::Uri;

use super::HubError;

/// A hub's address as given in the settings.
pub(super) fn parse_endpoint(endpoint: &str) -> Result<Uri, HubError> {
    let uri = endpoint
        .parse::<Uri>()
        .ok()
        .filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some());
    uri.ok_or_else(|| HubError::InvalidEndpoint { endpoint: endpoint.to_owned() })
}

/// `location` as seen from the page `from`.
pub(super) fn join(from: &str, location: &str) -> Option<String> {
    let base: Uri = from.parse().ok()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let joined = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    joined.parse::<Uri>().ok().map(|_| joined)
}

/// Scheme, host and port: whom an address belongs to.
pub(super) fn origin(uri: &Uri) -> Option<(String, String, u16)> {
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let default_port = if scheme == "https" { 443 } else { 80 };
    let host = uri.host()?.to_ascii_lowercase();
    Some((scheme, host, uri.port_u16().unwrap_or(default_port)))
}

/// Escapes what a path in an address cannot hold as it is (RFC 3986, 2.3).
pub(super) fn encode_path(file: &str) -> String {
    let mut encoded = String::with_capacity(file.len());
    for byte in file.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The query of a download link is a key to the file.
pub(super) fn without_query(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

/// [`origin`] as text.
pub(super) fn host(url: &str) -> String {
    match url.parse::<Uri>().ok().as_ref().and_then(origin) {
        Some((scheme, host, port)) => match (scheme.as_str(), port) {
            ("https", 443) | ("http", 80) => format!("{scheme}://{host}"),
            _ => format!("{scheme}://{host}:{port}"),
        },
        None => without_query(url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined_to_the_page_they_come_from() {
        let from = "http://h:1/a/b?x=1";
        for (location, joined) in [
            ("https://cdn/x?y", "https://cdn/x?y"),
            ("//cdn/x", "http://cdn/x"),
            ("/x", "http://h:1/x"),
            ("x", "http://h:1/a/x"),
        ] {
            assert_eq!(join(from, location).as_deref(), Some(joined));
        }
        assert_eq!(join(from, "https://"), None);
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let of = |url: &str| origin(&url.parse().unwrap());
        assert_eq!(of("https://HF.co/a"), of("https://hf.co:443/b"));
        for other in ["http://hf.co", "https://hf.co:444", "https://hf.co.evil"] {
            assert_ne!(of("https://hf.co"), of(other), "{other}");
        }
    }

    #[test]
    fn paths_are_escaped_and_folders_are_not() {
        assert_eq!(encode_path("a b/é#?.txt"), "a%20b/%C3%A9%23%3F.txt");
    }

    #[test]
    fn what_messages_show_of_an_address_is_no_secret() {
        assert_eq!(without_query("https://cdn/x?key=secret"), "https://cdn/x");
        assert_eq!(host("https://cdn/x?key=secret"), "https://cdn");
        assert_eq!(host("http://127.0.0.1:8/x"), "http://127.0.0.1:8");
    }
}
