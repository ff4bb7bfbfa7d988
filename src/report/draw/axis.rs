//! From values to pixels: the range of an axis, its ticks and their labels.
//!
//! Owns the arithmetic of axes. Draws nothing.

use super::number;
use crate::report::figure::{Axis, Format, Scale};

/// The room that labels of neighbouring ticks leave between them, in pixels.
const LABEL_GAP: f64 = 6.0;
/// Decades closer than this have no minor grid lines between them, in pixels.
const MINOR_ROOM: f64 = 30.0;

/// What an axis has to show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Content {
    /// Bars: a linear axis starts at 0, a logarithmic one at a power of ten.
    Bars,
    /// Points: the axis leaves a margin around them.
    Points,
}

/// An axis laid out between two pixels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mapping {
    scale: Scale,
    format: Format,
    fixed_ticks: Vec<f64>,
    /// What `fixed_ticks` are called, if they are names.
    names: Vec<String>,
    /// The range in transformed units: the values or their logarithms.
    lo: f64,
    hi: f64,
    /// The pixels of `lo` and `hi`.
    start: f64,
    end: f64,
}

/// A labelled position on an axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    pub at: f64,
    pub label: String,
}

impl Mapping {
    /// Lays out `axis` for `values` from pixel `start` to `end`, with `headroom` pixels free at the
    /// far end. Nothing if no value can be shown.
    pub(super) fn new(
        axis: &Axis,
        content: Content,
        values: impl Iterator<Item = f64>,
        (start, end): (f64, f64),
        headroom: f64,
    ) -> Option<Self> {
        let shown = values.filter_map(|v| transform(axis.scale, v));
        let (lo, hi) = shown
            .fold(None, |range: Option<(f64, f64)>, v| Some(range.map_or((v, v), |(lo, hi)| (lo.min(v), hi.max(v)))))?;
        let fixed = axis.range.and_then(|(lo, hi)| transform(axis.scale, lo).zip(transform(axis.scale, hi)));
        let (lo, hi) = fixed.unwrap_or_else(|| {
            let (lo, hi) = padded(axis, content, lo, hi);
            // Headroom is taken out of the axis' own length, hence the division.
            let share = (headroom / (end - start).abs()).clamp(0.0, 0.6);
            (lo, lo + (hi - lo) / (1.0 - share))
        });
        let (scale, format, fixed_ticks) = (axis.scale, axis.format, axis.ticks.clone());
        let names = axis.names.clone();
        Some(Mapping { scale, format, fixed_ticks, names, lo, hi, start, end })
    }

    /// The pixel of a value, also outside the range; nothing for what the scale cannot show.
    pub(super) fn position(&self, v: f64) -> Option<f64> {
        transform(self.scale, v).map(|t| self.pixel(t))
    }

    /// The pixel where bars start: 0, or the lower end where 0 is not on the axis.
    pub(super) fn baseline(&self) -> f64 {
        match self.scale {
            Scale::Linear => self.pixel(0f64.clamp(self.lo, self.hi)),
            Scale::Log10 => self.start,
        }
    }

    /// Ticks whose labels, of the given `extent` along the axis, don't touch: the densest choice of
    /// round values that leaves them apart.
    pub(super) fn ticks(&self, extent: impl Fn(&str) -> f64) -> Vec<Tick> {
        let choices = if self.fixed_ticks.is_empty() { self.choices() } else { vec![self.label_fixed()] };
        let apart = |a: &Tick, b: &Tick| {
            let room = (extent(&a.label) + extent(&b.label)) / 2.0 + LABEL_GAP;
            (b.at - a.at).abs() >= room
        };
        let fits = |ticks: &&Vec<Tick>| ticks.windows(2).all(|pair| apart(&pair[0], &pair[1]));
        if let Some(ticks) = choices.iter().find(fits) {
            return ticks.clone();
        }
        // Not even the sparsest fits: leave out what would touch.
        let mut kept: Vec<Tick> = Vec::new();
        for tick in choices.into_iter().last().unwrap_or_default() {
            if kept.last().is_none_or(|last| apart(last, &tick)) {
                kept.push(tick);
            }
        }
        kept
    }

    /// Whether its ticks are names, all of which are to be seen.
    pub(super) fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// Every name and its place.
    pub(super) fn named(&self) -> Vec<Tick> {
        self.label_fixed()
    }

    /// Pixels of the minor grid lines of a logarithmic axis.
    pub(super) fn minor(&self) -> Vec<f64> {
        let per_decade = (self.end - self.start).abs() / (self.hi - self.lo);
        if self.scale == Scale::Linear || per_decade < MINOR_ROOM || !self.fixed_ticks.is_empty() {
            return Vec::new();
        }
        self.log_values(&[2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], 1).into_iter().map(|(_, at)| at).collect()
    }

    fn pixel(&self, t: f64) -> f64 {
        self.start + (t - self.lo) / (self.hi - self.lo) * (self.end - self.start)
    }

    /// Tick sets from dense to sparse.
    fn choices(&self) -> Vec<Vec<Tick>> {
        match self.scale {
            // 1, 2, 5 are up to 0.4 decades apart: below 0.8 decades fewer than two may be in range.
            Scale::Log10 if self.hi - self.lo >= 0.8 => self.log_choices(),
            Scale::Log10 | Scale::Linear => self.linear_choices(),
        }
    }

    fn linear_choices(&self) -> Vec<Vec<Tick>> {
        let (lo, hi) = (self.value(self.lo), self.value(self.hi));
        let largest_step = number::exponent(hi - lo);
        let mut choices = Vec::new();
        for exponent in [largest_step - 1, largest_step] {
            for mantissa in [1, 2, 5] {
                // Multiples are built from integers, so that they are the floats nearest to round numbers.
                let value = |i: f64| decimal(i * f64::from(mantissa), exponent);
                let step = value(1.0);
                let slack = 1e-9 * (hi - lo) / step;
                let multiples: Vec<f64> = std::iter::successors(Some((lo / step - slack).ceil()), |i| Some(i + 1.0))
                    .take_while(|i| *i <= hi / step + slack)
                    .take(101)
                    .map(value)
                    .collect();
                let largest = multiples.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
                let label = |v| number::linear_tick(v, exponent, largest, self.format);
                choices.push(self.labelled(&multiples, label));
            }
        }
        // A grid of more than ten lines is noise, of a single one no scale.
        choices.retain(|ticks| (2..=10).contains(&ticks.len()));
        choices
    }

    fn log_choices(&self) -> Vec<Vec<Tick>> {
        let mut choices = vec![self.log_values(&[1.0, 2.0, 5.0], 1)];
        choices.extend((1..=8).map(|stride| self.log_values(&[1.0], stride)));
        choices.retain(|ticks| (2..=12).contains(&ticks.len()));
        let label = |values: Vec<(f64, f64)>| {
            let range = values.iter().fold((f64::MAX, 0f64), |(lo, hi), (v, _)| (lo.min(*v), hi.max(*v)));
            values.iter().map(|(v, at)| Tick { at: *at, label: number::log_tick(*v, range, self.format) }).collect()
        };
        choices.into_iter().map(label).collect()
    }

    /// Values `mantissa × 10^e` in range with their pixels, for every `stride`-th exponent.
    fn log_values(&self, mantissas: &[f64], stride: usize) -> Vec<(f64, f64)> {
        let (first, last) = (self.lo.floor() as i32, self.hi.ceil() as i32);
        let all = (first..=last).filter(|e| e.rem_euclid(stride as i32) == 0);
        all.flat_map(|e| mantissas.iter().map(move |m| decimal(*m, e)))
            .filter(|v| (self.lo - 1e-9..=self.hi + 1e-9).contains(&v.log10()))
            .map(|v| (v, self.pixel(v.log10())))
            .collect()
    }

    /// The ticks that the axis asks for, as far as they are in range.
    fn label_fixed(&self) -> Vec<Tick> {
        let name = |v: f64| self.fixed_ticks.iter().position(|tick| *tick == v).and_then(|at| self.names.get(at));
        let label = |v| name(v).cloned().unwrap_or_else(|| number::value(v, self.format));
        self.labelled(&self.fixed_ticks, label)
    }

    fn labelled(&self, values: &[f64], label: impl Fn(f64) -> String) -> Vec<Tick> {
        let (near, far) = (self.start.min(self.end) - 0.5, self.start.max(self.end) + 0.5);
        let positions = values.iter().filter_map(|v| self.position(*v).map(|at| (*v, at)));
        positions.filter(|(_, at)| (near..=far).contains(at)).map(|(v, at)| Tick { at, label: label(v) }).collect()
    }

    fn value(&self, t: f64) -> f64 {
        match self.scale {
            Scale::Linear => t,
            Scale::Log10 => 10f64.powf(t),
        }
    }
}

/// The float nearest to `mantissa × 10^exponent`; `0.1 * 3.0` is not.
fn decimal(mantissa: f64, exponent: i32) -> f64 {
    if exponent < 0 { mantissa / 10f64.powi(-exponent) } else { mantissa * 10f64.powi(exponent) }
}

/// A value in the units that are proportional to pixels.
fn transform(scale: Scale, v: f64) -> Option<f64> {
    match scale {
        Scale::Linear => v.is_finite().then_some(v),
        Scale::Log10 => (v.is_finite() && v > 0.0).then(|| v.log10()),
    }
}

/// The data's range with its margins, never empty.
fn padded(axis: &Axis, content: Content, lo: f64, hi: f64) -> (f64, f64) {
    let (mut lo, mut hi) = (lo, hi);
    let linear = axis.scale == Scale::Linear;
    if linear && (axis.from_zero || content == Content::Bars) {
        (lo, hi) = (lo.min(0.0), hi.max(0.0));
    }
    // Floats closer than this don't give distinct pixels.
    if hi - lo <= 1e-12 * lo.abs().max(hi.abs()) {
        let margin = if !linear {
            0.3
        } else if lo == 0.0 {
            1.0
        } else {
            lo.abs() * 0.1
        };
        (lo, hi) = (lo - margin, hi + margin);
        if linear && content == Content::Bars {
            lo = lo.max(0.0);
        }
    }
    let margin = 0.05 * (hi - lo);
    match content {
        Content::Bars if linear => {
            (if lo < 0.0 { lo - margin } else { lo }, if hi > 0.0 { hi + margin / 2.0 } else { hi })
        }
        // The shortest bar keeps a visible length.
        Content::Bars => ((lo - 0.1).floor(), hi + margin / 2.0),
        Content::Points if linear && axis.from_zero => {
            (if lo < 0.0 { lo - margin } else { lo }, if hi > 0.0 { hi + margin } else { hi })
        }
        Content::Points => (lo - margin, hi + margin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mapping(axis: &Axis, content: Content, values: &[f64]) -> Mapping {
        Mapping::new(axis, content, values.iter().copied(), (200.0, 0.0), 0.0).unwrap()
    }

    fn labels(mapping: &Mapping) -> Vec<String> {
        mapping.ticks(|_| 12.0).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_round() {
        let axis = Axis::linear("");
        assert_eq!(labels(&mapping(&axis, Content::Bars, &[0.55])), ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"]);
        assert_eq!(
            labels(&mapping(&axis, Content::Points, &[990.0, 2010.0])),
            ["1,000", "1,200", "1,400", "1,600", "1,800", "2,000"]
        );
        let log = Axis::log10("");
        assert_eq!(labels(&mapping(&log, Content::Points, &[5.0, 90.0])), ["5", "10", "20", "50", "100"]);
        assert_eq!(labels(&mapping(&log, Content::Points, &[7.0, 9.0])), ["7.0", "7.5", "8.0", "8.5", "9.0"]);
    }

    #[test]
    fn a_long_logarithmic_axis_has_decades() {
        let axis = Axis::log10("");
        let ticks = labels(&mapping(&axis, Content::Bars, &[50.0, 1e6]));
        assert_eq!(ticks, ["10¹", "10²", "10³", "10⁴", "10⁵", "10⁶"]);
    }

    #[test]
    fn bars_stand_on_zero() {
        let up = mapping(&Axis::linear(""), Content::Bars, &[3.0, 5.0]);
        assert_eq!(up.baseline(), 200.0);
        let down = mapping(&Axis::linear(""), Content::Bars, &[-3.0, -5.0]);
        assert_eq!(down.baseline(), 0.0);
    }

    #[test]
    fn what_a_scale_cannot_show_has_no_position() {
        let log = mapping(&Axis::log10(""), Content::Points, &[1.0, 10.0, 0.0, -5.0]);
        assert_eq!(log.position(0.0), None);
        assert_eq!(log.position(f64::NAN), None);
        assert!(log.position(1.0).is_some_and(|at| at > 180.0));
        let none = Mapping::new(&Axis::log10(""), Content::Points, [0.0, -1.0].into_iter(), (0.0, 1.0), 0.0);
        assert_eq!(none, None);
    }

    #[test]
    fn headroom_is_free() {
        let axis = Axis::linear("");
        let roomy = Mapping::new(&axis, Content::Bars, [8.0].into_iter(), (200.0, 0.0), 30.0).unwrap();
        assert!(roomy.position(8.0).unwrap() >= 30.0);
    }

    #[test]
    fn fixed_ticks_and_range_are_kept() {
        let axis = Axis { ticks: vec![1.0, 8.0, 64.0, 512.0], range: Some((1.0, 64.0)), ..Axis::log10("") };
        let fixed = mapping(&axis, Content::Points, &[3.0]);
        assert_eq!(labels(&fixed), ["1", "8", "64"]);
        assert_eq!((fixed.position(1.0), fixed.position(64.0)), (Some(200.0), Some(0.0)));
    }

    proptest! {
        #[test]
        fn every_range_has_ticks(lo in -1e9f64..1e9, span in prop_oneof![Just(0.0), 1e-3f64..1e9], log: bool) {
            let axis = if log { Axis::log10("") } else { Axis::linear("") };
            let lo = if log { lo.abs() + 1e-6 } else { lo };
            let mapping = mapping(&axis, Content::Points, &[lo, lo + span]);
            let ticks = mapping.ticks(|_| 12.0);
            prop_assert!((2..=12).contains(&ticks.len()), "{:?}", ticks);
            prop_assert!(ticks.iter().all(|tick| (-1.0..=201.0).contains(&tick.at)));
        }
    }
}
