//! The rules of `data.perplexity_drawing`.

use super::Validator;
use crate::config::axis::At;
use crate::config::experiment::{BosAt, Drawing};
use crate::config::raw::RawData;
use crate::config::source::TextSource;
use crate::diagnostic::Diagnostic;

impl Validator<'_> {
    /// How the windows of the text `perplexity` are taken. Windows that are drawn are whole, each of one document.
    pub(super) fn drawing(&mut self, data: &RawData, perplexity: &TextSource) -> Drawing {
        let Some(At { value: drawing, span }) = &data.perplexity_drawing else { return Drawing::InOrder };
        if *drawing == Drawing::InOrder {
            return *drawing;
        }
        let documents = matches!(perplexity, TextSource::Hub { .. });
        if !documents {
            self.report(
                Diagnostic::error(format!("`data.perplexity_drawing` is not available for `{perplexity}`"))
                    .at(span.clone(), "draws documents")
                    .help("only datasets, `hf:ORG/NAME/CONFIG/SPLIT`, have documents"),
            );
        }
        let bos = data.perplexity_bos.as_ref().filter(|at| at.value == BosAt::Windows).map(|at| &at.span);
        let stride = data.perplexity_stride.as_ref().map(|at| &at.span);
        for (key, other) in [("bos", bos), ("stride", stride)].into_iter().filter_map(|(key, at)| Some((key, at?))) {
            self.report(
                Diagnostic::error(format!("`data.perplexity_{key}` is not available with `{drawing}`"))
                    .at(other.clone(), "for windows in order")
                    .context(span.clone(), "each window is cut out of a document of its own")
                    .help(format!("leave `perplexity_{key}` out")),
            );
        }
        if let Some(join) = data.perplexity_join.as_ref().filter(|_| documents) {
            self.report(
                Diagnostic::warning(format!("`data.perplexity_join` has no effect with `{drawing}`"))
                    .at(join.span.clone(), "not used")
                    .context(span.clone(), "documents are not joined")
                    .help("leave `perplexity_join` out"),
            );
        }
        *drawing
    }
}
