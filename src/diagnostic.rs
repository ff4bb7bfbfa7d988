//! Messages about a text that the user wrote: snippets with a caret under the cause, nearest
//! names, and what to do next. Knows nothing of experiments and prints nothing.
//!
//! ```text
//! buffer   name = "s1"␤sparsty = 0.5␤ ␤ prune.sparsity=50
//!          └──────── part: the file ──┘  └── part: -s ───┘
//! ```
//! All texts that a message can point into lie in one buffer, so that a byte range alone says
//! where something was written.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};

/// Byte range in the buffer of a [`Sources`].
pub type Span = Range<usize>;

/// The texts that messages point into.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sources {
    buffer: String,
    parts: Vec<Part>,
}

/// One text of the buffer.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    span: Span,
    /// What stands after `-->`.
    name: String,
    /// Shown before the text, not part of it.
    prefix: &'static str,
}

impl Sources {
    /// Starts a buffer with a file's text.
    pub fn file(name: impl Into<String>, text: &str) -> Self {
        let mut sources = Self::default();
        sources.add(name.into(), "", text);
        sources
    }

    /// Adds another file's text; gives its range.
    pub fn add_file(&mut self, name: impl Into<String>, text: &str) -> Span {
        self.add(name.into(), "", text)
    }

    /// What the text is called that a range lies in.
    pub fn name(&self, span: &Span) -> Option<&str> {
        self.part(span).map(|part| part.name.as_str())
    }

    /// Adds an argument of the command line, shown after `flag`; gives its range.
    pub fn add_argument(&mut self, flag: &'static str, text: &str) -> Span {
        self.add("command line".to_owned(), flag, text)
    }

    /// The text of a range.
    pub fn text(&self, span: Span) -> &str {
        self.buffer.get(span).unwrap_or_default()
    }

    fn add(&mut self, name: String, prefix: &'static str, text: &str) -> Span {
        if !self.parts.is_empty() {
            // A position just after one text must not be the start of the next.
            self.buffer.push('\n');
        }
        let start = self.buffer.len();
        self.buffer.push_str(text);
        let span = start..self.buffer.len();
        self.parts.push(Part { span: span.clone(), name, prefix });
        span
    }

    /// The whole lines of a part that hold some ranges.
    fn lines<'a>(&self, part: &Part, spans: impl Iterator<Item = &'a Span> + Clone) -> Span {
        let within = |at: usize| at.clamp(part.span.start, part.span.end);
        let first = within(spans.clone().map(|span| span.start).min().unwrap_or(part.span.start));
        let last = within(spans.map(|span| span.start.max(span.end)).max().unwrap_or(first));
        let before =
            self.text(part.span.start..first).rfind('\n').map_or(part.span.start, |at| part.span.start + at + 1);
        let behind = self.text(last..part.span.end).find('\n').map_or(part.span.end, |at| last + at);
        before..behind
    }

    /// How many lines end in a range.
    fn breaks(&self, span: Span) -> usize {
        self.text(span).bytes().filter(|byte| *byte == b'\n').count()
    }

    fn part(&self, span: &Span) -> Option<&Part> {
        let holds = |part: &&Part| part.span.start <= span.start && span.start <= part.span.end;
        self.parts.iter().find(holds)
    }
}

/// Whether a message stops the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing can run.
    Error,
    /// It can run, but may not do what is wanted.
    Warning,
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    severity: Severity,
    title: String,
    labels: Vec<Label>,
    helps: Vec<String>,
    /// Where in the source it is made, so that a test can tell which messages nothing shows.
    #[cfg(test)]
    made_at: &'static std::panic::Location<'static>,
}

#[derive(Clone, Debug, PartialEq)]
struct Label {
    span: Span,
    text: String,
    kind: LabelKind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum LabelKind {
    Cause,
    Context,
}

impl Diagnostic {
    /// An error; the title is a lower-case fragment that names the key.
    #[cfg_attr(test, track_caller)]
    pub fn error(title: impl Into<String>) -> Self {
        Self::new(Severity::Error, title.into())
    }

    /// A warning.
    #[cfg_attr(test, track_caller)]
    pub fn warning(title: impl Into<String>) -> Self {
        Self::new(Severity::Warning, title.into())
    }

    #[cfg_attr(test, track_caller)]
    fn new(severity: Severity, title: String) -> Self {
        Self {
            severity,
            title,
            labels: Vec::new(),
            helps: Vec::new(),
            #[cfg(test)]
            made_at: std::panic::Location::caller(),
        }
    }

    /// The file and line that make it.
    #[cfg(test)]
    pub fn made_at(&self) -> (&'static str, u32) {
        (self.made_at.file(), self.made_at.line())
    }

    /// Where the cause stands, and what was expected there.
    pub fn at(self, span: Span, text: impl Into<String>) -> Self {
        self.label(span, text.into(), LabelKind::Cause)
    }

    /// Another place that has to do with it.
    pub fn context(self, span: Span, text: impl Into<String>) -> Self {
        self.label(span, text.into(), LabelKind::Context)
    }

    fn label(mut self, span: Span, text: String, kind: LabelKind) -> Self {
        self.labels.push(Label { span, text, kind });
        self
    }

    /// What to do next.
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.helps.push(text.into());
        self
    }

    /// What to do next, if that is known.
    pub fn maybe_help(self, text: Option<String>) -> Self {
        match text {
            Some(text) => self.help(text),
            None => self,
        }
    }

    /// Whether it stops the program.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The first line.
    pub fn title(&self) -> &str {
        &self.title
    }

    fn position(&self) -> usize {
        let cause = self.labels.iter().find(|label| label.kind == LabelKind::Cause);
        cause.map_or(0, |label| label.span.start)
    }

    fn render(&self, sources: &Sources, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(self.title.as_str()));
        for element in self.snippets(sources) {
            group = group.element(element);
        }
        for help in &self.helps {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }

    /// One snippet for each text that the labels point into, in the order of the labels. A snippet gets the lines
    /// from its first label to its last, so that a message costs what it shows and not what the file is long.
    fn snippets<'a>(&'a self, sources: &'a Sources) -> Vec<Element<'a>> {
        let mut parts: Vec<&Part> = Vec::new();
        for part in self.labels.iter().filter_map(|label| sources.part(&label.span)) {
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        let snippet = |part: &&'a Part| -> Element<'a> {
            let here = || self.labels.iter().filter(|label| sources.part(&label.span) == Some(*part));
            let lines = sources.lines(part, here().map(|label| &label.span));
            let prefix = if lines.start == part.span.start { part.prefix } else { "" };
            let first = 1 + sources.breaks(part.span.start..lines.start);
            let source = format!("{prefix}{}", sources.text(lines.clone()));
            let annotations: Vec<_> = here().map(|label| label.annotation(&lines, prefix)).collect();
            Snippet::source(source).path(part.name.as_str()).line_start(first).annotations(annotations).into()
        };
        if parts.is_empty() {
            let file = sources.parts.first();
            return file.map(|part| Origin::path(part.name.as_str()).into()).into_iter().collect();
        }
        parts.iter().map(snippet).collect()
    }
}

impl Label {
    /// The label with its range relative to the lines that are shown after `prefix`, kept inside them.
    fn annotation<'a>(&'a self, lines: &Span, prefix: &str) -> annotate_snippets::Annotation<'a> {
        let kind = match self.kind {
            LabelKind::Cause => AnnotationKind::Primary,
            LabelKind::Context => AnnotationKind::Context,
        };
        let shift = |at: usize| at.clamp(lines.start, lines.end) - lines.start + prefix.len();
        let text = (!self.text.is_empty()).then_some(self.text.as_str());
        kind.span(shift(self.span.start)..shift(self.span.end.max(self.span.start))).label(text)
    }
}

/// Messages while they are found: at most a thousand of each severity, so that a file of a million mistakes does not
/// take all memory, and how many more there were.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    items: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl Found {
    /// The most messages of a severity that are kept: far more than are shown.
    const KEPT: usize = 1000;

    /// Adds a message.
    pub fn push(&mut self, item: Diagnostic) {
        let count = match item.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= Self::KEPT {
            self.items.push(item);
        }
    }

    /// Adds messages.
    pub fn extend(&mut self, items: impl IntoIterator<Item = Diagnostic>) {
        items.into_iter().for_each(|item| self.push(item));
    }

    /// Adds what was found elsewhere.
    pub fn append(&mut self, other: Self) {
        let Self { items, errors, warnings } = other;
        let counts = (self.errors + errors, self.warnings + warnings);
        self.extend(items);
        (self.errors, self.warnings) = counts;
    }

    /// How many errors there are, kept or not.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Whether there are so many errors that looking for more tells nobody anything.
    pub fn is_full(&self) -> bool {
        self.errors >= Self::KEPT
    }
}

/// Messages and the texts that they are about, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diagnostics {
    sources: Arc<Sources>,
    items: Vec<Diagnostic>,
    /// Messages that were found and not kept.
    more: usize,
}

impl Diagnostics {
    /// The most messages that are shown: the others are counted, since whoever has mended these runs it again.
    pub const SHOWN: usize = 20;

    /// Sorts the messages by where their causes stand; each is said once.
    pub fn new(sources: Arc<Sources>, found: Found) -> Self {
        let Found { mut items, errors, warnings } = found;
        let more = errors + warnings - items.len();
        items.sort_by_key(Diagnostic::position);
        // A value that an override puts into several blocks is wrong once.
        items.dedup();
        Self { sources, items, more }
    }

    /// The messages.
    pub fn items(&self) -> &[Diagnostic] {
        &self.items
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many of the messages are errors.
    pub fn errors(&self) -> usize {
        let is_error = |item: &&Diagnostic| item.severity == Severity::Error;
        self.items.iter().filter(is_error).count()
    }

    /// The first [`Diagnostics::SHOWN`] messages as text, errors before warnings where there are more, and how many
    /// more there are; an empty line between two, no line break at the end.
    pub fn render(&self, style: RenderStyle) -> String {
        let renderer = match style {
            RenderStyle::Plain => Renderer::plain(),
            RenderStyle::Coloured => Renderer::styled().hyperlink(false),
        };
        let (errors, warnings): (Vec<_>, Vec<_>) =
            self.items.iter().enumerate().partition(|(_, item)| item.severity == Severity::Error);
        let mut shown: Vec<(usize, &Diagnostic)> = errors.into_iter().chain(warnings).take(Self::SHOWN).collect();
        shown.sort_by_key(|(place, _)| *place);
        let mut texts: Vec<String> = shown.iter().map(|(_, item)| item.render(&self.sources, &renderer)).collect();
        let more = self.items.len() - shown.len() + self.more;
        if more > 0 {
            let problems = if more == 1 { "problem" } else { "problems" };
            texts.push(format!("and {} more {problems}", grouped(more as u64)));
        }
        texts.join("\n\n")
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(RenderStyle::Plain))
    }
}

/// A count as people read it: `3,000,000`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How messages are rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenderStyle {
    /// Text only.
    Plain,
    /// With the escape codes of an ANSI terminal.
    Coloured,
}

/// The candidate that a misspelled name probably means.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// No name that anybody means is longer, and the comparison takes the product of both lengths.
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let name = name.to_lowercase();
    // One typing mistake in three letters; at least one, so that short names are helped too.
    let allowed = (name.chars().count() / 3).max(1);
    let length = name.chars().count();
    candidates
        .into_iter()
        // A name that is that much longer or shorter is further away; counting is cheaper than comparing.
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= allowed)
        .map(|candidate| (strsim::osa_distance(&name, &candidate.to_lowercase()), candidate))
        .filter(|&(distance, candidate)| distance <= allowed && distance < candidate.len())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(items: impl IntoIterator<Item = Diagnostic>) -> Found {
        let mut found = Found::default();
        found.extend(items);
        found
    }

    fn rendered(sources: Sources, item: Diagnostic) -> String {
        Diagnostics::new(Arc::new(sources), found([item])).to_string()
    }

    #[test]
    fn a_snippet_names_line_and_column() {
        let sources = Sources::file("e.toml", "name = \"ä\"\nseed = x\n");
        let start = "name = \"ä\"\nseed = ".len();
        let item = Diagnostic::error("bad `seed`").at(start..start + 1, "expected y").help("do z");
        let text = rendered(sources, item);
        assert_eq!(
            text,
            "error: bad `seed`\n --> e.toml:2:8\n  |\n2 | seed = x\n  |        ^ expected y\n  |\n  = help: do z"
        );
    }

    #[test]
    fn columns_count_characters() {
        let text = "title = \"äöü\" x";
        let sources = Sources::file("e.toml", text);
        let item = Diagnostic::error("t").at(text.len() - 1..text.len(), "");
        assert!(rendered(sources, item).contains("e.toml:1:15"));
    }

    #[test]
    fn an_argument_is_shown_with_its_flag() {
        let mut sources = Sources::file("e.toml", "a = 1");
        let span = sources.add_argument("-s ", "seed=x");
        let item = Diagnostic::error("t").at(span.end - 1..span.end, "here").context(0..1, "and");
        let text = rendered(sources, item);
        assert!(text.contains("--> command line:1:9"), "{text}");
        assert!(text.contains("-s seed=x"), "{text}");
        assert!(text.contains("::: e.toml:1:1"), "{text}");
    }

    #[test]
    fn without_a_place_the_file_is_named() {
        let text = rendered(Sources::file("e.toml", "a = 1"), Diagnostic::error("missing `name`"));
        assert!(text.contains("--> e.toml"), "{text}");
    }

    #[test]
    fn colour_is_the_callers_choice() {
        let sources = Arc::new(Sources::file("e.toml", "a = 1"));
        let all = Diagnostics::new(sources, found([Diagnostic::error("t").at(0..1, "l")]));
        assert!(!all.render(RenderStyle::Plain).contains('\u{1b}'));
        assert!(all.render(RenderStyle::Coloured).contains('\u{1b}'));
    }

    #[test]
    fn nearest_names() {
        let keys = ["method", "sparsity", "pattern", "scope"];
        assert_eq!(nearest("sparsty", keys), Some("sparsity"));
        assert_eq!(nearest("Scope", keys), Some("scope"));
        assert_eq!(nearest("banana", keys), None);
        assert_eq!(nearest("x", ["y"]), None);
    }
    #[test]
    fn many_messages_are_counted_and_errors_come_first() {
        let text = "x\n".repeat(3000);
        let at = |line: usize| 2 * line..2 * line + 1;
        let warnings = (0..1500).map(|line| Diagnostic::warning(format!("w{line}")).at(at(line), ""));
        let errors = (1500..1503).map(|line| Diagnostic::error(format!("e{line}")).at(at(line), ""));
        let all = Diagnostics::new(Arc::new(Sources::file("e.toml", &text)), found(warnings.chain(errors)));
        let text = all.to_string();
        assert_eq!(text.matches("warning: ").count(), Diagnostics::SHOWN - 3);
        assert!(
            text.contains("error: e1502\n    --> e.toml:1503:1") && text.ends_with("\n\nand 1,483 more problems"),
            "{text}"
        );
        assert_eq!(all.errors(), 3);
        let few = Diagnostics::new(
            Arc::new(Sources::file("e.toml", "x")),
            found((0..20).map(|i| Diagnostic::error(format!("e{i}")))),
        );
        assert!(!few.to_string().contains("more"));
        let one_more = found((0..21).map(|i| Diagnostic::error(format!("e{i}"))));
        let text = Diagnostics::new(Arc::new(Sources::file("e.toml", "x")), one_more).to_string();
        assert!(text.ends_with("and 1 more problem"), "{text}");
    }

    #[test]
    fn a_snippet_of_distant_lines_shows_both_and_their_numbers() {
        let text = format!("a = 1\n{}b = 2\nc = 3\n", "\n".repeat(97));
        let (a, b) = (0, text.find('b').unwrap());
        let item = Diagnostic::error("t").at(b..b + 1, "here").context(a..a + 1, "and there");
        let text = rendered(Sources::file("e.toml", &text), item);
        assert!(text.contains("e.toml:99:1") && text.contains("99 | b = 2") && text.contains(" 1 | a = 1"), "{text}");
        assert!(!text.contains("c = 3"), "{text}");
    }

    #[test]
    fn counts_have_groups_of_digits() {
        assert_eq!([0, 999, 1000, 3_000_001].map(grouped), ["0", "999", "1,000", "3,000,001"]);
    }
}
