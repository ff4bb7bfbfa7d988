//! The rules of a user's kernel, and of files in place of random numbers, in a `[[kernel]]` block.

use super::Validator;
use crate::config::arena::{ArenaLayout, Extent, KernelSource, LaunchProblem};
use crate::config::axis::{At, Axis};
use crate::config::expression::{Expression, Sizes};
use crate::config::kernel::{KernelBlock, KernelFormat};
use crate::config::source::WrittenPath;
use crate::diagnostic::{Diagnostic, Span};

/// A block's keys that are about its own kernel, as written.
#[derive(Default)]
pub(super) struct RawArena {
    pub source: Option<At<String>>,
    pub entry: Option<At<String>>,
    pub layout: Option<At<ArenaLayout>>,
    pub grid: Option<Axis<Extent>>,
    pub block: Option<Axis<Extent>>,
    pub shared: Option<At<Extent>>,
}

/// Where the sizes of a kernel's launch stand.
pub(super) struct ArenaSpans {
    source: Span,
    grid: Span,
    block: Span,
    shared: Span,
    layout: Span,
}

/// So many shapes, tokens and sparsities are tried before anything runs.
const MOST_TRIED: usize = 4096;

impl Validator<'_> {
    /// The kernel, and where its parts stand; none where there is no source, or a part is wrong.
    pub(super) fn arena(&mut self, index: usize, raw: RawArena, header: &Span) -> Option<(KernelSource, ArenaSpans)> {
        let RawArena { source, entry, layout, grid, block, shared } = raw;
        let Some(source) = source else {
            let given = [
                ("entry", entry.map(|at| at.span)),
                ("layout", layout.map(|at| at.span)),
                ("grid", grid.map(|axis| axis.span)),
                ("block", block.map(|axis| axis.span)),
                ("shared", shared.map(|at| at.span)),
            ];
            self.without_source(index, given);
            return None;
        };
        let mut missing = |key: &str, given: bool, help: &str| {
            if !given {
                let exact = format!("kernel.{index}.{key}");
                self.missing(&format!("kernel.{key}"), &exact, Some(header.clone()), help);
            }
        };
        missing("entry", entry.is_some(), "write `entry = \"NAME\"`: the function, `extern \"C\" __global__`");
        missing("layout", layout.is_some(), "write for example `layout = \"csr\"`: the arrays that it takes");
        missing("grid", grid.is_some(), "write for example `grid = \"ceil_div(rows, 4)\"`");
        missing("block", block.is_some(), "write for example `block = 128`");
        let span = |axis: &Option<Axis<Extent>>| axis.as_ref().map_or(0..0, |axis| axis.span.clone());
        let spans = ArenaSpans {
            source: source.span.clone(),
            grid: span(&grid),
            block: span(&block),
            shared: shared.as_ref().map_or(0..0, |at| at.span.clone()),
            layout: layout.as_ref().map_or(0..0, |at| at.span.clone()),
        };
        let path = self.given_file("kernel.source", source);
        let entry = entry.and_then(|entry| self.identifier(entry));
        let grid = grid.and_then(|axis| self.three("kernel.grid", axis));
        let block = block.and_then(|axis| self.three("kernel.block", axis));
        let shared = match shared {
            Some(at) => self.expression("kernel.shared", at),
            None => Some(Expression::number(0)),
        };
        let layout = layout?.value;
        Some((KernelSource { path: path?, entry: entry?, layout, grid: grid?, block: block?, shared: shared? }, spans))
    }

    fn without_source(&mut self, index: usize, given: [(&str, Option<Span>); 5]) {
        if self.was_removed(&format!("kernel.{index}.source")) {
            return;
        }
        for (key, span) in given.into_iter().filter_map(|(key, span)| Some((key, span?))) {
            self.report(
                Diagnostic::error(format!("`kernel.{key}` needs `kernel.source`"))
                    .at(span, "a kernel's, but there is none")
                    .help("write `source = \"FILE.cu\"`, or leave the key out"),
            );
        }
    }

    /// A path, as seen from the experiment file.
    pub(super) fn given_file(&mut self, key: &str, written: At<String>) -> Option<WrittenPath> {
        if written.value.trim().is_empty() {
            self.report(Diagnostic::error(format!("`{key}` names no file")).at(written.span, "expected a path"));
            return None;
        }
        Some(WrittenPath::new(&written.value).joined(self.folder))
    }

    fn identifier(&mut self, entry: At<String>) -> Option<String> {
        let name = &entry.value;
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let first = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        if plain && first && name.len() <= 128 {
            return Some(entry.value);
        }
        let title = format!("`kernel.entry` `{}` is no name of a C function", name.escape_debug());
        self.report(Diagnostic::error(title).at(entry.span, "expected letters, digits and `_`"));
        None
    }

    fn three(&mut self, key: &str, axis: Axis<Extent>) -> Option<[Expression; 3]> {
        if axis.values.is_empty() || axis.values.len() > 3 {
            let title = format!("`{key}` has {} values", axis.values.len());
            self.report(Diagnostic::error(title).at(axis.span, "expected one to three: x, y and z"));
            return None;
        }
        let mut all = axis.values.into_iter().map(|at| self.expression(key, at)).collect::<Vec<_>>().into_iter();
        let mut next = || all.next().unwrap_or_else(|| Some(Expression::number(1)));
        Some([next()?, next()?, next()?])
    }

    fn expression(&mut self, key: &str, at: At<Extent>) -> Option<Expression> {
        let text = match at.value {
            Extent::Number(number) => return Some(Expression::number(number)),
            Extent::Text(text) => text,
        };
        match Expression::parse(&text) {
            Ok(expression) => Some(expression),
            Err(error) => {
                let title = format!("`{key}` `{}` is no size", text.escape_debug());
                self.report(Diagnostic::error(title).at(at.span, error.to_string()).help(
                    "write an integer, or an expression of `rows`, `cols`, `tokens`, `nnz` with `+ - * /`, parentheses \
                     and `ceil_div(a, b)`",
                ));
                None
            }
        }
    }

    /// The formats of a block, to which its own kernel belongs in any case.
    pub(super) fn with_source(&mut self, formats: &mut Vec<At<KernelFormat>>, spans: Option<&ArenaSpans>) {
        let listed = formats.iter().find(|at| at.value == KernelFormat::Source);
        match (listed, spans) {
            (None, Some(spans)) => {
                formats.push(At { value: KernelFormat::Source, span: spans.source.clone() });
            }
            (Some(_), Some(_)) | (None, None) => {}
            // What is wrong with the source was told.
            (Some(_), None) if self.found.errors() > 0 => {}
            (Some(at), None) => {
                let span = at.span.clone();
                self.report(
                    Diagnostic::error("`kernel.format` `source` needs `kernel.source`")
                        .at(span, "a kernel of your own, but there is none")
                        .help("write `source = \"FILE.cu\"`"),
                );
            }
        }
    }

    /// Tries the launches of what is known before anything is read.
    pub(super) fn launches(&mut self, block: &KernelBlock, spans: Option<&ArenaSpans>) {
        let (Some(source), Some(spans)) = (&block.source, spans) else { return };
        let sizes = block.shapes.iter().flat_map(|shape| {
            let [rows, cols] = shape.0.map(|side| side as u64);
            let of_tokens = move |&tokens: &usize| {
                let nnz =
                    move |sparsity: &f64| rows * cols - ((sparsity * (rows * cols) as f64) as u64).min(rows * cols);
                block.sparsities.iter().map(move |sparsity| Sizes {
                    rows,
                    cols,
                    tokens: tokens as u64,
                    nnz: nnz(sparsity),
                })
            };
            block.tokens.iter().flat_map(of_tokens)
        });
        let failed = sizes.take(MOST_TRIED).find_map(|sizes| Some((source.launch(sizes).err()?, sizes)));
        if let Some((problem, Sizes { rows, cols, tokens, nnz })) = failed {
            let at = format!("for {rows} rows, {cols} columns, {tokens} tokens and {nnz} weights");
            let span = spans.of(&problem);
            self.report(Diagnostic::error(problem.to_string()).at(span, at));
        }
    }

    /// Rules between a file with the weight and keys that say what the file says.
    pub(super) fn beside_weight(&mut self, weight: &At<String>, shape: Option<&Span>, sparsity: Option<&Span>) {
        let of = [("shape", shape), ("sparsity", sparsity)];
        for (key, span) in of.into_iter().filter_map(|(key, span)| Some((key, span?))) {
            self.report(
                Diagnostic::error(format!("`kernel.{key}` and `kernel.weight` exclude each other"))
                    .at(span.clone(), "the file says it")
                    .context(weight.span.clone(), "the file")
                    .help(format!("leave `{key}` out: the weight's zeros are what sparse formats leave out")),
            );
        }
    }
}

impl ArenaSpans {
    fn of(&self, problem: &LaunchProblem) -> Span {
        match problem.key() {
            "grid" => self.grid.clone(),
            "block" => self.block.clone(),
            "layout" => self.layout.clone(),
            _ => self.shared.clone(),
        }
    }
}
