//! Command lines that a user can copy: words as a shell reads them. Knows nothing of what they do.

use std::path::Path;

/// A word as the shell has it.
///
/// ```
/// assert_eq!(sparsify_exp::shell::word("prune.sparsity=0.5"), "prune.sparsity=0.5");
/// assert_eq!(sparsify_exp::shell::word("it's"), r"'it'\''s'");
/// ```
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,:/@%+".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// What a command reads: the experiment file, and what is set over its keys.
///
/// ```
/// let set = ["model.source=hf:o/n".to_owned(), "name=\"a b\"".to_owned()];
/// let typed = sparsify_exp::shell::experiment("my file.toml".as_ref(), &set);
/// assert_eq!(typed, "'my file.toml' -s model.source=hf:o/n -s 'name=\"a b\"'");
/// ```
pub fn experiment(file: &Path, set: &[String]) -> String {
    let set = set.iter().map(|set| format!(" -s {}", word(set)));
    word(&file.display().to_string()) + &set.collect::<String>()
}
