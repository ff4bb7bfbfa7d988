//! The rules of the calibration axes under `[data]`.

use std::num::NonZeroUsize;

use super::{Validator, values};
use crate::config::analysis::AnalysisBlock;
use crate::config::axis::{At, Axis};
use crate::config::experiment::{Calibration, Data};
use crate::config::raw::RawData;
use crate::config::source::TextSource;
use crate::diagnostic::{Diagnostic, Span};

/// Windows that are drawn unless the file says otherwise, as the papers have it.
const DEFAULT_SAMPLES: NonZeroUsize = NonZeroUsize::new(128).expect("128 is not 0");
/// The most calibrations, whose windows are all held.
const MOST: usize = 256;

impl Validator<'_> {
    /// The product of texts, samples and lengths; takes their keys.
    pub(super) fn calibrations(&mut self, data: &mut RawData) -> Option<Vec<Calibration>> {
        let texts = self.calibration_texts(data.calibration.take())?;
        let samples = data.calibration_samples.take();
        let too_many = samples.iter().flat_map(|axis| &axis.values).filter(|at| at.value.get() > Data::MAX_SAMPLES);
        for At { span, .. } in too_many {
            let expected = format!("expected an integer from 1 to {}", Data::MAX_SAMPLES);
            self.found.push(Diagnostic::error("`data.calibration_samples` is out of range").at(span.clone(), expected));
        }
        let samples = match samples {
            Some(samples) => values(self.axis("data.calibration_samples", Some(samples), &[])),
            None => vec![DEFAULT_SAMPLES],
        };
        let lengths = data.calibration_length.take().map(|axis| self.axis("data.calibration_length", Some(axis), &[]));
        let lengths = lengths
            .map_or_else(|| vec![None], |axis| values(axis).into_iter().map(|length| Some(length.get())).collect());
        let sources: Vec<&TextSource> = texts.iter().map(|at| &at.value).collect();
        let given = (data.calibration_join.as_ref(), data.calibration_documents.as_ref());
        let joinings = self.joining("calibration", &sources, given);
        let count = texts.len().saturating_mul(samples.len()).saturating_mul(lengths.len());
        if count > MOST {
            let span = texts.first().map_or(0..0, |at| at.span.clone());
            self.report(
                Diagnostic::error(format!("`[data]` has {count} calibrations"))
                    .at(span, format!("expected at most {MOST}: the product of texts, samples and lengths"))
                    .help("shorten an axis"),
            );
            return None;
        }
        let mut all = Vec::with_capacity(count);
        for (text, joining) in texts.iter().zip(&joinings) {
            for &samples in &samples {
                let of = |&length: &Option<usize>| Calibration {
                    text: text.value.clone(),
                    samples: samples.get(),
                    length,
                    joining: joining.clone(),
                };
                all.extend(lengths.iter().map(of));
            }
        }
        (!all.is_empty()).then_some(all)
    }

    fn calibration_texts(&mut self, texts: Option<Axis<String>>) -> Option<Vec<At<TextSource>>> {
        let path = "data.calibration";
        let texts = match texts {
            Some(texts) => texts.values.into_iter().map(|at| (at.span.clone(), Some(at))).collect(),
            None => vec![(0..0, None)],
        };
        let given = texts.len();
        let source = |(span, text)| Some(At { value: self.text(path, text, "calibration")?, span });
        let sources: Vec<At<TextSource>> = texts.into_iter().filter_map(source).collect();
        let complete = sources.len() == given;
        let sources = self.unique(path, sources);
        complete.then_some(sources)
    }

    /// An analysis shows a point's masks under one name.
    pub(super) fn one_calibration_for_analyses(
        &mut self,
        data: &Data,
        analyses: &[AnalysisBlock],
        header: Option<Span>,
    ) {
        if data.calibrations.len() < 2 || analyses.is_empty() {
            return;
        }
        let error = Diagnostic::error("`[[analysis]]` can't have several calibrations").help(
            "leave one text, one number of samples and one length under `[data]`, or make a file of the analyses",
        );
        self.report(match header {
            Some(span) => error.at(span, "it would show masks of different calibrations under one name"),
            None => error,
        });
    }
}
