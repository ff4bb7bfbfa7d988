//! The rules of `[[kernel]]` blocks.

use std::num::NonZeroUsize;

use super::arena::RawArena;
use super::{Validator, value, values};
use crate::config::axis::{At, Axis};
use crate::config::experiment::{BackendChoice, Dtype, same_sparsity};
use crate::config::kernel::{
    KernelBlock, KernelFormat, MatrixShape, THRESHOLD_TOKENS, kernel_dtypes, kernel_formats, kernel_takes,
    only_sparsity,
};
use crate::config::raw::{RawExperiment, RawKernel};
use crate::diagnostic::{Diagnostic, Span};
use crate::keyword::backticked;

/// The most numbers of a weight, an input or an output: what a 32-bit row pointer counts.
const MOST_NUMBERS: u128 = u32::MAX as u128;

impl Validator<'_> {
    pub(super) fn kernel_blocks(
        &mut self,
        blocks: Vec<At<RawKernel>>,
        backends: &[At<BackendChoice>],
    ) -> Vec<KernelBlock> {
        let block = |(index, block): (usize, At<RawKernel>)| self.kernel_block(index, block, backends);
        blocks.into_iter().enumerate().map(block).collect()
    }

    fn kernel_block(&mut self, index: usize, block: At<RawKernel>, backends: &[At<BackendChoice>]) -> KernelBlock {
        let At { value: raw, span: header } = block;
        let mut missing = |key: &str, given: bool, help: &str| {
            if !given {
                let exact = format!("kernel.{index}.{key}");
                self.missing(&format!("kernel.{key}"), &exact, Some(header.clone()), help);
            }
        };
        missing("shape", raw.shape.is_some() || raw.weight.is_some(), "write `shape = [[OUT_FEATURES, IN_FEATURES]]`");
        let tokens = raw.tokens.is_some() || raw.input.is_some();
        missing("tokens", tokens, "write for example `tokens = [1, 16]`: the rows of the input");
        let formats = raw.format.is_some() || raw.source.is_some();
        missing("format", formats, "write for example `format = [\"dense\", \"csr\"]`");
        let listed = raw.format.iter().flat_map(|axis| &axis.values);
        let own = raw.source.is_some();
        let sparse = own || listed.clone().any(|at| at.value != KernelFormat::Dense);
        let threshold = listed.clone().any(|at| at.value == KernelFormat::Threshold);
        if sparse && (threshold || raw.weight.is_none()) {
            missing("sparsity", raw.sparsity.is_some(), "write for example `sparsity = [0.5, 0.9]`");
        }
        let RawKernel { source, entry, layout, grid, block, shared, weight, input, .. } = raw;
        let arena = RawArena { source, entry, layout, grid, block, shared };
        let (source, spans) = self.arena(index, arena, &header).unzip();
        if let Some(weight) = &weight {
            let sparsity = raw.sparsity.as_ref().filter(|_| !threshold).map(|axis| &axis.span);
            self.beside_weight(weight, raw.shape.as_ref().map(|axis| &axis.span), sparsity);
        }
        let mut formats = self.axis("kernel.format", raw.format, &[]);
        self.with_source(&mut formats, spans.as_ref());
        let complete = !self.was_removed(&format!("kernel.{index}.format"));
        if let (false, true, Some(axis), Some(first)) = (sparse, complete, &raw.sparsity, formats.first()) {
            self.report(
                Diagnostic::warning("`kernel.sparsity` has no effect on `dense`")
                    .at(axis.span.clone(), "not used")
                    .context(first.span.clone(), "the only format")
                    .help("add a sparse format, or leave `sparsity` out"),
            );
        }
        let shapes = self.axis("kernel.shape", raw.shape, &[]);
        let tokens = self.tokens(raw.tokens);
        self.sizes(&shapes, &tokens);
        let dtypes = self.axis("kernel.dtype", raw.dtype, &[Dtype::F32]);
        self.kernel_dtypes_on_backends(&dtypes, backends);
        self.kernel_formats_on_backends(&formats, backends);
        self.threshold_tokens(&formats, &tokens);
        self.kernel_formats_take(&formats, &dtypes);
        // The zeros of a file are looked at when it is read.
        if weight.is_none() {
            self.only_sparsities(&formats, raw.sparsity.as_ref());
        }
        let block = KernelBlock {
            shapes: values(shapes),
            sparsities: self.kernel_sparsities(raw.sparsity.as_ref()),
            tokens: values(tokens),
            formats: values(formats),
            dtypes: values(dtypes),
            warmup: value(raw.warmup).unwrap_or(10),
            repeats: value(raw.repeats).unwrap_or(100),
            source,
            weight: weight.and_then(|weight| self.given_file("kernel.weight", weight)),
            input: input.and_then(|input| self.given_file("kernel.input", input)),
        };
        self.launches(&block, spans.as_ref());
        block
    }

    fn tokens(&mut self, axis: Option<Axis<NonZeroUsize>>) -> Vec<At<usize>> {
        let plain = |at: At<NonZeroUsize>| At { value: at.value.get(), span: at.span };
        self.axis("kernel.tokens", axis, &[]).into_iter().map(plain).collect()
    }

    fn kernel_sparsities(&mut self, axis: Option<&Axis<f64>>) -> Vec<f64> {
        let given = axis.map(|axis| axis.values.as_slice()).unwrap_or_default();
        let valid = given.iter().filter_map(|at| self.sparsity("kernel.sparsity", at)).collect();
        values(self.unique("kernel.sparsity", valid))
    }

    /// No weight, input or output may have more numbers than kernels can count.
    fn sizes(&mut self, shapes: &[At<MatrixShape>], tokens: &[At<usize>]) {
        let expected = format!("expected at most {MOST_NUMBERS} numbers");
        let most = tokens.iter().map(|at| at.value as u128).max().unwrap_or(0);
        for At { value: shape @ MatrixShape([out, inp]), span } in shapes {
            if self.found.is_full() {
                return;
            }
            if *out as u128 * *inp as u128 > MOST_NUMBERS {
                let title = format!("a weight of `kernel.shape` `{shape}` is too large");
                self.report(Diagnostic::error(title).at(span.clone(), expected.clone()));
                continue;
            }
            let widest = *out.max(inp) as u128;
            if most * widest <= MOST_NUMBERS {
                continue;
            }
            if let Some(at) = tokens.iter().find(|at| at.value as u128 * widest > MOST_NUMBERS) {
                self.report(
                    Diagnostic::error(format!(
                        "`kernel.tokens` {} is too large for `kernel.shape` `{shape}`",
                        at.value
                    ))
                    .at(at.span.clone(), expected.clone())
                    .context(span.clone(), format!("a side of {widest}")),
                );
            }
        }
    }

    fn kernel_dtypes_on_backends(&mut self, dtypes: &[At<Dtype>], backends: &[At<BackendChoice>]) {
        for dtype in dtypes {
            for backend in backends.iter().filter(|at| !kernel_dtypes(at.value).contains(&dtype.value)) {
                let known: Vec<&str> = kernel_dtypes(backend.value).iter().map(|dtype| dtype.name()).collect();
                let name = backend.value;
                self.report(
                    Diagnostic::error(format!("`kernel.dtype` `{}` is not available on `{name}`", dtype.value))
                        .at(dtype.span.clone(), format!("its kernels take {}", backticked(&known)))
                        .context(backend.span.clone(), "the backend")
                        .help("take another dtype, or another backend"),
                );
            }
        }
    }

    fn kernel_formats_on_backends(&mut self, formats: &[At<KernelFormat>], backends: &[At<BackendChoice>]) {
        for format in formats {
            for backend in backends.iter().filter(|at| !kernel_formats(at.value).contains(&format.value)) {
                let known: Vec<&str> = kernel_formats(backend.value).iter().map(|format| format.name()).collect();
                let name = backend.value;
                self.report(
                    Diagnostic::error(format!("`kernel.format` `{}` is not available on `{name}`", format.value))
                        .at(format.span.clone(), format!("its kernels take {}", backticked(&known)))
                        .context(backend.span.clone(), "the backend")
                        .help("take another format, or another backend"),
                );
            }
        }
    }

    fn threshold_tokens(&mut self, formats: &[At<KernelFormat>], tokens: &[At<usize>]) {
        let Some(format) = formats.iter().find(|at| at.value == KernelFormat::Threshold) else { return };
        for at in tokens.iter().filter(|at| at.value > THRESHOLD_TOKENS) {
            self.report(
                Diagnostic::error(format!("`kernel.format` `threshold` takes at most {THRESHOLD_TOKENS} tokens"))
                    .at(at.span.clone(), format!("`kernel.tokens` is {}", at.value))
                    .context(format.span.clone(), "the format")
                    .help("put `threshold` into a `[[kernel]]` block of its own, with `tokens` of 1 to 4"),
            );
        }
    }

    fn kernel_formats_take(&mut self, formats: &[At<KernelFormat>], dtypes: &[At<Dtype>]) {
        for format in formats {
            let Some(dtype) = dtypes.iter().find(|at| !kernel_takes(format.value, at.value)) else { continue };
            let report = Diagnostic::error(format!("`kernel.format` `{}` takes no `{}`", format.value, dtype.value))
                .at(format.span.clone(), "its kernels are of 16-bit numbers")
                .help("write `dtype = \"f16\"` or `\"bf16\"`: the default is `f32`");
            // A default stands nowhere.
            self.report(match dtype.span.is_empty() {
                true => report,
                false => report.context(dtype.span.clone(), "`kernel.dtype`"),
            });
        }
    }

    fn only_sparsities(&mut self, formats: &[At<KernelFormat>], sparsities: Option<&Axis<f64>>) {
        for format in formats {
            let Some(only) = only_sparsity(format.value) else { continue };
            let others = sparsities.iter().flat_map(|axis| &axis.values).find(|at| !same_sparsity(at.value, only));
            if let Some(at) = others {
                self.report(
                    Diagnostic::error(format!(
                        "`kernel.format` `{}` takes no `kernel.sparsity` {}",
                        format.value, at.value
                    ))
                    .at(at.span.clone(), format!("expected {only}: two of every four weights are kept"))
                    .context(format.span.clone(), "the format")
                    .help(format!(
                        "put `{}` into a `[[kernel]]` block of its own, with `sparsity = {only}`",
                        format.value
                    )),
                );
            }
        }
    }

    /// Takes out what is about a model, where there is none, and says so.
    pub(super) fn without_model(&mut self, raw: &mut RawExperiment) {
        fn first<T>(blocks: Option<Vec<At<T>>>) -> Option<Span> {
            Some(blocks?.first()?.span.clone())
        }
        let given = [
            ("[data]", raw.data.take().map(|at| at.span)),
            ("[[prune]]", first(raw.prune.take())),
            ("[execute]", raw.execute.take().map(|at| at.span)),
            ("[measure]", raw.measure.take().map(|at| at.span)),
            ("[[expect]]", first(raw.expect.take())),
        ];
        for (section, span) in given.into_iter().filter_map(|(section, span)| Some((section, span?))) {
            self.report(
                Diagnostic::error(format!("`{section}` needs a model"))
                    .at(span, "there is no `[model]` section")
                    .help(format!("add a `[model]`, or leave `{section}` out: `[[kernel]]` blocks need neither")),
            );
        }
    }
}
