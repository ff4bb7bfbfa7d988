//! The README and the pages of `docs/`: links lead somewhere, and the README stays short.

use crate::support::{ROOT, list};
use std::path::{Path, PathBuf};

fn pages() -> Vec<PathBuf> {
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let root = Path::new(ROOT);
    let pages: Vec<PathBuf> = list(root).into_iter().chain(list(&root.join("docs"))).filter(is_page).collect();
    assert!(pages.len() > 5, "{pages:?}");
    pages
}

/// A page without its blocks of code.
fn prose(text: &str) -> String {
    let mut code = false;
    let kept = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        code ^= fence;
        !code && !fence
    });
    kept.collect::<Vec<_>>().join("\n")
}

/// What links and images name, but for other sites.
fn relative_links(text: &str) -> Vec<String> {
    let text = prose(text);
    let targets = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// The names that a page's headings have in links to them.
fn anchors(text: &str) -> Vec<String> {
    let text = prose(text);
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    headings.map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

/// The links of a page that lead nowhere.
fn broken(page: &Path, text: &str) -> Vec<String> {
    let leads = |link: &String| {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if file.is_empty() { page.to_owned() } else { page.parent().unwrap().join(file) };
        let has_anchor =
            || std::fs::read_to_string(&target).is_ok_and(|text| anchors(&text).iter().any(|a| a == anchor));
        target.exists() && (anchor.is_empty() || has_anchor())
    };
    relative_links(text).into_iter().filter(|link| !leads(link)).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut found = Vec::new();
    let mut links = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        links += relative_links(&text).len();
        found.extend(broken(&page, &text).into_iter().map(|link| format!("{}: {link}", page.display())));
    }
    assert!(links > 40, "only {links} links were found");
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_broken_link_is_seen() {
    let page = Path::new(ROOT).join("README.md");
    let text = "[a](docs/nothing.md) [b](docs/outputs.md#nothing) ![c](docs/outputs.md#latency) [d](https://x.y/z)\n\
                ```\n[e](in/code)\n```\n[f](#nowhere)";
    assert_eq!(broken(&page, text), ["docs/nothing.md", "docs/outputs.md#nothing", "#nowhere"]);
    assert_eq!(anchors("# `[[prune]]`\n## Your own *model*, now"), ["prune", "your-own-model-now"]);
}

#[test]
fn the_readme_can_be_read_to_its_end() {
    let lines = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap().lines().count();
    assert!(lines <= 180, "the README has {lines} lines: its details belong in docs/");
}
